// Package sama5 recovers boards with Microchip's SAMA5D2, SAMA5D3 and SAMA5D4.
//
// The boot ROM has the SAM-BA monitor, which reads and writes memory, and calls what it was loaded. It is a CDC ACM
// device: snag speaks to its bulk endpoints, not to the tty that Linux makes of it. The monitor is called by hosts so:
//
//	an applet that sets the clocks                lowlevel    to the internal SRAM, called, and comes back
//	an applet that sets up the DRAM               extram      the same
//	U-Boot                                        u-boot      to DRAM, called, and stays
//
// Applets are Microchip's (they come with SAM-BA 3). Their arguments and results are in a mailbox in front of them.
//
// chip.go has the addresses and the tables, check.go what the files must be, monitor.go the monitor. Sources: the data
// sheets, chapter "Standard Boot Strategies", "SAM-BA Monitor" (SAMA5D2, DS60001476; SAMA5D3, DS60001609; SAMA5D4,
// DS60001525); SAM-BA 3.3.1 (src/plugins/connection/serial, src/plugins/device); atmel-software-package
// (samba_applets); Snagboot (recoveries/sama5.py, firmware/samba_applet.py).
package sama5

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"snag/event"
	"snag/socs"
	"snag/socs/stages"
	"snag/usb"
)

// The names of the stages in events and errors: the ROM, then what it is sent, as the files are named.
const (
	stageROM     = "rom"
	slotLowlevel = "lowlevel"
	slotExtram   = "extram"
	slotUBoot    = "u-boot"
)

const (
	openTime    = 5 * time.Second
	reenumerate = 20 * time.Second       // after a board that was reset
	appletTime  = 10 * time.Second       // for an applet to come back
	startTime   = 500 * time.Millisecond // in which the monitor answers no more, since U-Boot runs
	pollTime    = 5 * time.Millisecond
)

// Backend recovers SAMA5 boards.
type Backend struct{}

var _ socs.Backend = Backend{}

// Family describes the SAMA5.
func (Backend) Family() socs.Family {
	return socs.Family{
		Name:        "sama5",
		Title:       "Microchip SAMA5",
		Carriers:    []socs.Carrier{socs.USB},
		ROM:         []socs.Identity{{ID: usb.ID{Vendor: 0x03eb, Product: 0x6124}}},
		Reenumerate: reenumerate,
		BootMode:    "nothing to boot from: close the board's boot-disable jumper (BOOT_DIS) or hold its button, connect it, and open the jumper again",
		Slots: []socs.Slot{
			{Name: slotLowlevel, Required: true, Doc: "Microchip's applet that sets the clocks, applet-lowlevel_..._sram.bin", Keys: []string{"console_instance", "console_ioset"}},
			{Name: slotExtram, Required: true, Doc: "Microchip's applet that sets up the DRAM, applet-extram_..._sram.bin", Keys: []string{"preset", "console_instance", "console_ioset"}},
			{Name: slotUBoot, Required: true, Doc: "U-Boot as a bare program for DRAM, u-boot.bin", Keys: []string{"address"}},
		},
	}
}

// Check implements socs.Backend. The images are sent as they are.
func (Backend) Check(model socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	p := makePlan(model, fw)
	return p.Sent, p.Findings, errors.Join(p.Errs...)
}

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	p := makePlan(job.Model, job.Firmware)
	if err := errors.Join(p.Errs...); err != nil {
		return err
	}
	r := &recovery{plan: p, board: job.Board, at: stageROM}
	return stages.Drive(ctx, job.Board, r.serve, func() string { return r.at }, r.hint)
}

// recovery is one board on its way up.
type recovery struct {
	*plan
	board socs.Board
	runs  stages.Runs
	m     *monitor
	stage *socs.Stage
	at    string // the stage
}

// serve does everything that there is to do with one enumeration.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (done bool, err error) {
	r.stage, r.at = stage, stageROM
	if !stage.ROM {
		return false, &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("expected the boot ROM on port %s, got %s", stage.Port, stage.ID), Hint: "put the board into USB recovery mode again"}
	}
	if err := r.runs.Begin(r.board); err != nil {
		return false, err
	}
	if err := r.connect(ctx); err != nil {
		return false, err
	}
	if r.chip.cache {
		if err := r.m.setWord(ctx, cacheControl, 0); err != nil {
			return false, err
		}
	}
	for _, a := range []struct {
		slot string
		call call
	}{{slotLowlevel, r.lowlevel}, {slotExtram, r.extram}} {
		t, err := r.file(ctx, a.slot, r.chip.sram)
		if err != nil {
			return false, err
		}
		if err := r.call(ctx, a.call); err != nil {
			return false, err
		}
		t.Done()
	}
	r.at = slotUBoot
	if err := r.m.setWord(ctx, r.chip.remap, 1); err != nil {
		return false, err
	}
	t, err := r.file(ctx, slotUBoot, r.address)
	if err != nil {
		return false, err
	}
	// A board that leaves at once has started it.
	if err := r.m.command(ctx, "G%x#", r.address); err != nil && !errors.Is(err, usb.ErrGone) && !errors.Is(err, usb.ErrProtocol) {
		return false, err
	}
	if _, err := r.m.wordWithin(ctx, r.address, startTime); err == nil || errors.Is(err, errOdd) {
		return false, fmt.Errorf("U-Boot was called at %#x, and %w", r.address, errStillThere)
	} else if ctx.Err() != nil {
		return false, ctx.Err()
	}
	// U-Boot may leave the USB controller as it is. Then nothing answers the kernel.
	if a, ok := stage.USB.(usb.Abandoner); ok {
		a.Abandon()
	}
	t.Done()
	return true, nil
}

// connect finds the monitor, and the right chip behind it.
func (r *recovery) connect(ctx context.Context) error {
	err := within(ctx, openTime, func(ctx context.Context) (err error) {
		r.m, err = open(ctx, r.stage.USB)
		return err
	})
	if err != nil {
		return err
	}
	reset, err := r.m.binary(ctx)
	if err != nil {
		return err
	}
	if reset {
		r.board.Emit(stageROM, event.Warning{Text: "the monitor answered only after a reset of the port: another program left it in the middle of something"})
	}
	version, err := r.m.line(ctx, "V#", answerTime, false)
	if err != nil {
		return err
	}
	r.board.Emit(stageROM, event.Note{Text: fmt.Sprintf("SAM-BA monitor %q", version)})
	return r.identify(ctx)
}

// errStillThere says that what was started does not run.
var errStillThere = errors.New("the monitor still answers")

// errChip says that the chip is another one.
var errChip = errors.New("another chip")

// identify reads the chip ID. Only the model's own address is read: a chip without it would crash.
func (r *recovery) identify(ctx context.Context) error {
	c := r.chip
	cidr, err := r.m.word(ctx, c.cidrAt)
	if err != nil {
		return fmt.Errorf("chip ID: %w", err)
	}
	if cidr&c.cidrMask != c.cidr {
		return fmt.Errorf("%w: %s has %#08x at %#08x (of the bits %#08x), this one %#08x", errChip, c.model, c.cidr, c.cidrAt, c.cidrMask, cidr)
	}
	if len(c.exids) == 0 {
		return nil
	}
	exid, err := r.m.word(ctx, c.cidrAt+4)
	if err != nil {
		return fmt.Errorf("chip ID: %w", err)
	}
	if !slices.Contains(c.exids, exid) {
		return fmt.Errorf("%w: %s has one of %#08x at %#08x, this one %#08x", errChip, c.model, c.exids, c.cidrAt+4, exid)
	}
	return nil
}

// file loads a file to memory. It is done when it has done its work.
func (r *recovery) file(ctx context.Context, slot string, address uint32) (t *stages.Transfer, err error) {
	r.at = slot
	img := r.Sent[slot]
	t = stages.Begin(r.board, slot, img.Path, len(img.Data))
	t.Since = r.stage.Since
	return t, r.m.load(ctx, address, img.Data, t.At)
}

// The mailbox, from an applet's address on (atmel-software-package, samba_applets/common/applet.h). The words behind
// the status are the command's arguments, and its results in their place.
//
//	0x04  command: 0 initializes; its complement when that is done
//	0x08  status
//	0x0c  what the host is connected by: 0 is USB
//	0x10  how much is written to the console: 5 is everything
//	0x14  console, 0xffffffff: none
//	0x18  I/O set of the console
//	0x1c  parameters
const (
	mailbox       = 0x04
	mailboxStatus = 0x08

	cmdInitialize = 0
	linkUSB       = 0
	traceDebug    = 5
	noStatus      = 0xffffffff // until the applet has one
)

// call calls the applet that was loaded, and waits for it.
func (r *recovery) call(ctx context.Context, c call) error {
	words := append([]uint32{cmdInitialize, noStatus, linkUSB, traceDebug, c.console, c.ioSet}, c.params...)
	for i, v := range words {
		if err := r.m.setWord(ctx, r.chip.sram+mailbox+4*uint32(i), v); err != nil {
			return err
		}
	}
	if err := r.m.command(ctx, "G%x#", r.chip.sram); err != nil {
		return err
	}
	if err := r.await(ctx); err != nil {
		return err
	}
	status, err := r.m.word(ctx, r.chip.sram+mailboxStatus)
	if err == nil && status != 0 {
		err = statusError(status)
	}
	return err
}

// await waits until the applet has done the command. The monitor is back when it answers.
func (r *recovery) await(ctx context.Context) error {
	const finished = ^uint32(cmdInitialize)
	for begun := time.Now(); ; {
		command, err := r.m.wordWithin(ctx, r.chip.sram+mailbox, appletTime)
		switch {
		case err != nil:
			return fmt.Errorf("the applet was called and did not come back: %w", err)
		case command == finished:
			return nil
		case command != cmdInitialize:
			return fmt.Errorf("%w: the applet's command is %#x, expected %#x, or %#x when it is done", errOdd, command, cmdInitialize, finished)
		case time.Since(begun) > appletTime:
			return fmt.Errorf("the applet was called and does nothing: after %s its command is %#x, expected %#x", appletTime, command, finished)
		}
		select {
		case <-time.After(pollTime):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// statusError is a status with which an applet has failed.
type statusError uint32

// statuses are an applet's (applet.h).
var statuses = map[statusError]string{
	0x01: "APPLET_DEV_UNKNOWN", 0x02: "APPLET_WRITE_FAIL", 0x03: "APPLET_READ_FAIL", 0x04: "APPLET_PROTECT_FAIL", 0x05: "APPLET_UNPROTECT_FAIL",
	0x06: "APPLET_ERASE_FAIL", 0x07: "APPLET_NO_DEV", 0x08: "APPLET_ALIGN_ERROR", 0x09: "APPLET_BAD_BLOCK", 0x0a: "APPLET_PMECC_CONFIG", 0x0f: "APPLET_FAIL",
}

func (e statusError) Error() string {
	switch name := statuses[e]; {
	case name != "":
		return fmt.Sprintf("the applet failed with status %#02x, %s", uint32(e), name)
	case e == noStatus:
		return "the applet ended without a status"
	}
	return fmt.Sprintf("the applet failed with status %#x, which has no name", uint32(e))
}

// hint tells what may have caused a failure.
func (r *recovery) hint(err error) string {
	_, failed := errors.AsType[statusError](err)
	switch {
	case errors.Is(err, usb.ErrBusy):
		return "end the other program (SAM-BA, a terminal program, ModemManager, a virtual machine) that uses the board"
	case errors.Is(err, errSecure):
		return "snag cannot recover such a chip: it takes applets and U-Boot encrypted with the customer key, from Microchip's secure SAM-BA tools"
	case errors.Is(err, errNoMonitor):
		return "reset the board with nothing to boot from; this device is no boot ROM"
	case errors.Is(err, errChip):
		return "name the board's SoC with --soc, and give the applets for it"
	case errors.Is(err, errStillThere):
		return "U-Boot did not start, or came back: u-boot must be a bare program for DRAM (u-boot.bin), linked for this address"
	case failed && r.at == slotExtram, errors.Is(err, errMemory):
		return "check that preset is the board's memory; the applet says more on the board's console, if console_instance and console_ioset name it"
	case failed:
		return "the applet says more on the board's console, if console_instance and console_ioset name it"
	case r.at == stageROM && errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("is the board really a %s? A read that another chip does not have ends its monitor. Reset the board and run snag again", r.chip.model)
	case r.at == slotUBoot && errors.Is(err, context.DeadlineExceeded):
		return "reset the board and run snag again; a wrong preset, or an address behind the board's DRAM, ends the monitor too"
	}
	return "reset the board and run snag again; try another cable, and a port without hubs in between"
}
