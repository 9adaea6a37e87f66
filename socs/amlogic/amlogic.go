// Package amlogic recovers boards with Amlogic's S905, S912, A113, A311D and their kin.
//
// The ROM takes vendor requests and bulk transfers: memory is written, and a program in it started. What it starts is
// BL2, which stays on the ROM's enumeration and goes on in one of two ways. On GX and AXG it sets up the DRAM and
// starts U-Boot from there, each when a block of parameters that the host has written says so (gx.go). On G12 and SM1
// it asks the host for one piece after the other of the file that it is itself the begin of (g12.go).
//
// protocol.go has the bytes, client.go the transfers, check.go what the files must be. Sources: pyamlboot (PROTOCOL.md,
// OPTIMUS.md, boot.py, boot-g12.py, pyamlboot/pyamlboot.py); Snagboot 3.0 (protocols/amlogic.py,
// firmware/amlogic_fw.py, recoveries/amlogic.py) for the models. Of the ROMs themselves nothing is published.
package amlogic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snag/event"
	"snag/socs"
	"snag/socs/stages"
	"snag/usb"
)

// The stages, as events and errors name them.
const (
	stageROM = "rom" // the ROM takes BL2
	stageBL2 = "bl2" // BL2 takes U-Boot, on the same enumeration
)

// The firmware, by the names of Snagboot's files, and its keys.
const (
	slotBL2   = "bl2"
	slotUBoot = "u-boot"
	slotFIP   = "u-boot-fip"

	keyLoad    = "load-addr"
	keyBL2Load = "bl2-load-addr"
)

// Deadlines.
const (
	answerTime  = 10 * time.Second // for an answer; the peers wait for 1 s, but BL2 may be verifying what it has
	dataIdle    = 10 * time.Second // in which a board takes no data
	askTime     = time.Second      // for one answer to IDENTIFY, while BL2 starts
	reenumerate = 20 * time.Second
)

// How long a BL2 is left alone after it was started, as pyamlboot and Snagboot do: it takes the USB controller over
// while it sets up the DRAM, and nothing tells when it is done.
const (
	startTime = time.Second     // GX, AXG
	trainTime = 2 * time.Second // G12, SM1
)

var rom = usb.ID{Vendor: 0x1b8e, Product: 0xc003}

// Backend recovers Amlogic boards.
type Backend struct{}

var _ socs.Backend = Backend{}

// Family describes the SoCs.
func (Backend) Family() socs.Family {
	return socs.Family{
		Name:        "amlogic",
		Title:       "Amlogic S905, S912, A113, A311D",
		Carriers:    []socs.Carrier{socs.USB},
		ROM:         []socs.Identity{{ID: rom}},
		Reenumerate: reenumerate,
		BootMode:    "the board's USB boot button or jumper (Khadas: Function key three times), or nothing bootable on eMMC, flash and card; the cable in the USB port that can be a device",
		Slots: []socs.Slot{
			{Name: slotBL2, Doc: "GX, AXG: first stage, u-boot.bin.usb.bl2"},
			{Name: slotUBoot, Doc: "GX, AXG: second stage, u-boot.bin.usb.tpl", Keys: []string{keyLoad}},
			{Name: slotFIP, Doc: "G12, SM1: all stages, u-boot.bin", Keys: []string{keyBL2Load}},
		},
	}
}

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	chip, err := chipOf(job.Model)
	if err != nil {
		return err
	}
	r := &recovery{chip: chip, job: job}
	return stages.Drive(ctx, job.Board, r.serve, func() string { return r.stage }, r.hint)
}

// recovery is one board on its way up.
type recovery struct {
	*chip
	job   socs.Job
	runs  stages.Runs
	stage string
}

// serve gives one enumeration all that it needs.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (done bool, err error) {
	r.stage = stageROM
	if !stage.ROM {
		return false, r.fail("unplug the board and plug it in again, in USB boot mode", "expected the boot ROM (%s) on port %s, got %s", rom, stage.Port, stage.ID)
	}
	if err := r.runs.Begin(r.job.Board); err != nil {
		return false, err
	}
	d, err := open(ctx, stage.USB)
	if errors.Is(err, errInterface) {
		return false, r.fail("unplug the board and plug it in again; if it stays so this device is no boot ROM", "expected the boot ROM of %s: %w", r.job.Model.Name, err)
	} else if err != nil {
		return false, err
	}
	id, err := d.identify(ctx)
	if err != nil {
		return false, err
	}
	r.job.Board.Emit(stageROM, event.Note{Text: id.String()})
	if err := r.ready(id); err != nil {
		return false, err
	}
	if r.asks {
		return true, r.serveG12(ctx, d, stage)
	}
	return true, r.serveGX(ctx, d, stage)
}

// ready refuses what is no ROM that takes firmware.
func (r *recovery) ready(id identity) error {
	const again = "cut the board's power, and start it in USB boot mode again"
	switch {
	case id.locked:
		return r.fail("the board's owner has locked USB boot; unlock it with his tools and his password (request 0x35), then run snag at once", "USB boot of this board is protected by a password")
	case id.stage == stepBL2:
		return r.fail(again, "expected the boot ROM, but BL2 runs already: a recovery was broken off")
	case id.stage == stepUBoot:
		return r.fail(again, "expected the boot ROM, but U-Boot runs already, Amlogic's, which shows the ROM's USB ID")
	case id.stage != stepROM:
		return r.fail(again, "expected the boot ROM, which is stage %d, got stage %d", stepROM, id.stage)
	}
	return nil
}

// fail is a board that does not go on as it should.
func (r *recovery) fail(hint, format string, args ...any) error {
	return &socs.BoardError{Stage: r.stage, Err: fmt.Errorf(format, args...), Hint: hint}
}

// settle leaves a BL2 alone that was started.
func (r *recovery) settle(ctx context.Context, stage *socs.Stage, d time.Duration) error {
	if stages.Left(ctx, stage, d) {
		return fmt.Errorf("after BL2 was started: %w", usb.ErrGone)
	}
	return context.Cause(ctx)
}

// begin tells of a stage, of which n bytes are to be sent.
func (r *recovery) begin(name, path string, n int) *stages.Transfer {
	r.stage = name
	return stages.Begin(r.job.Board, name, path, n)
}

// hint tells what may have caused a transfer's failure.
func (r *recovery) hint(err error) string {
	switch {
	case errors.Is(err, usb.ErrBusy):
		return "end the other program (pyamlboot, Amlogic's update tool, a virtual machine) that uses the board"
	case errors.Is(err, usb.ErrStall):
		return "the board refuses this: is the model the right one? Families differ in their addresses. Cut its power and run snag again"
	case errors.Is(err, context.DeadlineExceeded) && r.stage == stageBL2:
		return "BL2 does not run, or hangs: is it for this board and its DRAM? A part with secure boot starts what its owner has signed only; the serial console tells more"
	case errors.Is(err, context.DeadlineExceeded):
		return "cut the board's power and run snag again: a ROM that another program stopped talking to in the middle waits for ever"
	}
	return "cut the board's power and run snag again; try another cable, and a port without hubs in between"
}
