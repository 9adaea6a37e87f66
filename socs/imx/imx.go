// Package imx recovers boards with NXP's i.MX, from i.MX23 to i.MX95, i.MX RT106x and Vybrid.
//
// Three protocols cover them. The ROMs of i.MX50 to i.MX8MM speak the Serial Download Protocol (SDP) over HID reports:
// the host writes registers and files, has the DCD executed that sets up the DRAM, and jumps to an image. i.MX51 and 53
// speak the same over bulk endpoints, with half of the commands. The others take a stream (SDPS) and find in it what
// they need. Where the first stage is U-Boot's SPL it may serve SDP itself, to be given U-Boot (SDPU; SDPV if it
// searches for U-Boot in what it is given).
//
// [check] finds in the files what each stage has to be given, a [plan]; [recovery] carries it out. Sources: i.MX
// 6Dual/6Quad reference manual, 8.9 "USB/UART Serial Download"; uuu (libuuu/sdp.cpp, sdps.cpp, rominfo.cpp,
// config.cpp); imx_usb (imx_sdp.c); U-Boot (drivers/usb/gadget/f_sdp.c, arch/arm/mach-imx/spl_imx_romapi.c).
package imx

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"snag/socs"
	"snag/socs/stages"
	"snag/usb"
)

// The stages, as events and errors name them.
const (
	stageROM = "rom" // the ROM takes an image, or a stream
	stageSPL = "spl" // SPL takes U-Boot
)

// Deadlines. uuu waits for 10 s for any answer, Snagboot for 5.
const (
	answerTime  = 5 * time.Second  // for an answer to a command
	fileTime    = 10 * time.Second // for one that a file went before
	jumpTime    = time.Second      // for the refusal of a jump, of which there is none if it succeeds
	dataIdle    = 10 * time.Second // in which a board takes no data of a file
	streamIdle  = 30 * time.Second // and of a stream: SPL sets up the DRAM before it asks for the rest
	reenumerate = 30 * time.Second // from the jump to SPL's enumeration
)

// The firmware, by the names of Snagboot's files.
const (
	slotWithDCD = "u-boot-with-dcd"
	slotSPL     = "SPL"
	slotUBoot   = "u-boot"
	slotFlash   = "flash-bin"
)

// Backend recovers i.MX boards.
type Backend struct{}

var _ socs.Backend = Backend{}

// Family describes the i.MX.
func (Backend) Family() socs.Family {
	return socs.Family{
		Name:        "imx",
		Title:       "NXP i.MX, Vybrid",
		Carriers:    []socs.Carrier{socs.USB},
		ROM:         identities(),
		Later:       laterIdentities(),
		Reenumerate: reenumerate,
		Unproven:    unproven(),
		BootMode:    `boot mode pins to "serial downloader", which is BOOT_MODE[1:0] = 01 on many; on others nothing bootable on card, eMMC and flash is enough`,
		Slots: []socs.Slot{
			{Name: slotWithDCD, Doc: "i.MX5x, 6, 7, RT: the only stage, u-boot.imx or u-boot-dtb.imx"},
			{Name: slotSPL, Doc: "i.MX6, 7, 8MQ, 8MM: first stage with an IVT; u-boot follows"},
			{Name: slotUBoot, Doc: "second stage after SPL: u-boot.img, u-boot.imx, a FIT or a container"},
			{Name: slotFlash, Doc: "i.MX8, 9: all stages, flash.bin; i.MX23, 28: u-boot.sb; i.MX6, 7: u-boot-with-spl.imx"},
		},
	}
}

// Check implements socs.Backend. The images that it returns begin where what is sent begins. Those that are in order
// are returned beside an error about others.
func (Backend) Check(model socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	c, _, err := check(model, fw)
	if c == nil {
		return nil, nil, err
	}
	return c.Sent, c.Findings, err
}

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	c, p, err := check(job.Model, job.Firmware)
	if err != nil {
		return err
	}
	r := &recovery{chip: c.chip, plan: p, board: job.Board, at: stageROM, runs: stages.Runs{Did: "the first stage was begun"}, endLog: noLog}
	return r.drive(ctx)
}

// recovery is one board on its way up.
type recovery struct {
	*chip
	plan  *plan
	board socs.Board

	at     string // the stage
	runs   stages.Runs
	state  word   // the last HAB word that was told of
	endLog func() // ends the reading of the ROM's log
}

func noLog() {}

func (r *recovery) drive(ctx context.Context) error {
	defer func() { r.endLog() }()
	return stages.Drive(ctx, r.board, r.serve, func() string { return r.at }, func(err error) string { return hintFor(err, r.at == stageROM) })
}

// serve does what one enumeration of the board needs.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (done bool, err error) {
	r.endLog()
	if !stage.ROM {
		r.at = stageSPL
		return true, r.serveSPL(ctx, stage)
	}
	r.at = stageROM
	if d := stage.USB.Device(); d.Release < r.release {
		return false, &socs.BoardError{Stage: stageROM,
			Err:  fmt.Errorf("the boot ROM on port %s shows release %04x, expected %04x or later: first silicon (A0) of %s, whose ROM does not speak SDPS", stage.Port, d.Release, r.release, r.chip.name),
			Hint: "no tool recovers this silicon revision over USB: boot it from a card, or by JTAG"}
	}
	if err := r.runs.Begin(r.board); err != nil {
		return false, err
	}
	return r.plan.second == nil, r.serveROM(ctx, stage)
}

// hintFor tells what may have caused a failed transfer.
func hintFor(err error, rom bool) string {
	switch {
	case errors.Is(err, usb.ErrBusy):
		return "end the other program (uuu, imx_usb, a virtual machine) that uses the board"
	case errors.Is(err, context.DeadlineExceeded) && rom:
		return "reset the board and run snag again: a ROM that another program stopped talking to in the middle waits for ever; connect it without hubs in between"
	case errors.Is(err, usb.ErrStall) && rom:
		return "the ROM refuses this: reset the board and run snag again, and check that the firmware is for this model"
	case rom:
		return "reset the board and run snag again; try another cable, and a port without hubs in between"
	}
	return "reset the board and run snag again; watch the serial console of SPL"
}

func fields(s string) []string { return strings.Fields(s) }
