// Package bcm recovers boards with Broadcom's BCM2835, BCM2836, BCM2837, BCM2711 and BCM2712: Raspberry Pi and its
// compute modules.
//
// In USB device boot mode the boot ROM takes a second stage (bootcode.bin, bootcode4.bin, bootcode5.bin). That
// enumerates anew, with the same IDs, and asks the host for files: settings of the memory, a loader, config.txt, then
// boot.img, a disk with a FAT file system that has kernel and device trees, or these files one by one. A file that the
// host does not have is nothing unusual. At the end the board says that it is done.
//
// There is no description of the protocol. The sources are raspberrypi/usbboot (main.c is the host's program, rpiboot;
// bootfiles.c and Readme.md), for names and slots Snagboot (firmware/bcm.py). protocol.go has the requests, server.go
// the second stage's files, check.go what is looked at before, and how U-Boot gets into boot.img (package
// [snag/firmware/fat]).
package bcm

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

// The stages.
const (
	stageROM      = "rom"
	stageBootcode = "bootcode"
)

// The slots, as Snagboot names them.
const (
	slotBootfiles = "bootfiles"
	slotBoot      = "boot"
	slotConfig    = "config"
	slotUBoot     = "u-boot"
)

const (
	reenumerate = 30 * time.Second
	openTime    = 5 * time.Second
)

// chip is what differs from SoC to SoC.
type chip struct {
	id       usb.ID
	dir      string // in bootfiles, and in rpiboot's directories
	bootcode string // the second stage
	arm32    bool   // it has no 64-bit processor
	arm64    bool   // it has 32 bits for applications alone: Cortex-A76 (its technical reference manual, 1.2)
}

// old are BCM2835 to BCM2837.
func (c *chip) old() bool { return c.bootcode == "bootcode.bin" }

func product(p uint16) usb.ID { return usb.ID{Vendor: 0x0a5c, Product: p} }

var chips = map[string]*chip{
	"bcm2835": {id: product(0x2763), dir: "2710", bootcode: "bootcode.bin", arm32: true},
	"bcm2836": {id: product(0x2764), dir: "2710", bootcode: "bootcode.bin", arm32: true},
	"bcm2837": {id: product(0x2764), dir: "2710", bootcode: "bootcode.bin"},
	"bcm2711": {id: product(0x2711), dir: "2711", bootcode: "bootcode4.bin"},
	"bcm2712": {id: product(0x2712), dir: "2712", bootcode: "bootcode5.bin", arm64: true},
}

// Backend recovers boards with a Broadcom SoC.
type Backend struct{}

var _ socs.Backend = Backend{}

// Family describes them.
func (Backend) Family() socs.Family {
	return socs.Family{
		Name:     "bcm",
		Title:    "Broadcom BCM2711, BCM2712, BCM2835 to BCM2837 (Raspberry Pi)",
		Carriers: []socs.Carrier{socs.USB},
		ROM: []socs.Identity{
			{ID: product(0x2711), Models: []string{"bcm2711"}},
			{ID: product(0x2712), Models: []string{"bcm2712"}},
			{ID: product(0x2763), Models: []string{"bcm2835"}},
			{ID: product(0x2764), Models: []string{"bcm2836", "bcm2837"}},
		},
		Reenumerate: reenumerate,
		BootMode:    "compute modules: jumper nRPIBOOT (EMMC_DISABLE); Pi 5: hold the power button while the USB-C cable is plugged in",
		Slots: []socs.Slot{
			{Name: slotBootfiles, Required: true, Doc: "tar archive with the second stage and what it asks for: bootfiles.bin of raspberrypi/usbboot"},
			{Name: slotBoot, Doc: "boot.img: image of a disk with a FAT file system that has config.txt, kernel and device trees"},
			{Name: slotConfig, Doc: "config.txt for the second stage, with boot_ramdisk=1 if there is a boot.img"},
			{Name: slotUBoot, Doc: "u-boot.bin, which takes the kernel's place in boot.img"},
		},
	}
}

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	r, err := newRecovery(job)
	if err != nil {
		return err
	}
	return stages.Drive(ctx, r, r.serve, func() string { return r.at }, r.hintFor)
}

// recovery is one board on its way up.
type recovery struct {
	socs.Board
	chip  *chip
	files *files
	runs  stages.Runs
	at    string // the stage
	sent  bool   // the ROM was sent the second stage
}

func newRecovery(job socs.Job) (*recovery, error) {
	c := chips[job.Model.Name]
	if c == nil {
		return nil, fmt.Errorf("package bcm: no model %s", job.Model.Name)
	}
	f, err := newFiles(c, job.Firmware)
	if err != nil {
		return nil, err
	}
	runs := stages.Runs{Did: "it was sent " + c.bootcode,
		Hint: "the second stage does not start, or the board resets itself: check that bootfiles is of a version for this board, and that power and cable are good"}
	return &recovery{Board: job.Board, chip: c, files: f, runs: runs, at: stageROM}, nil
}

// Next implements socs.Board.
func (r *recovery) Next(ctx context.Context) (*socs.Stage, error) {
	stage, err := r.Board.Next(ctx)
	return stage, r.lost(err)
}

// serve gives a stage what it wants.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (done bool, err error) {
	if !stage.ROM {
		err := r.other(stage)
		return err == nil, err
	}
	short, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	p, err := open(short, stage.USB)
	if err != nil {
		return false, err
	}
	if !p.rom {
		r.at = stageBootcode
		err := r.bootcode(ctx, stage, p)
		return err == nil, err
	}
	r.at = stageROM
	if err := r.runs.Begin(r.Board); err != nil {
		return false, err
	}
	return false, r.rom(ctx, stage, p)
}

// rom sends the ROM the second stage.
func (r *recovery) rom(ctx context.Context, stage *socs.Stage, p *port) error {
	r.sent = false
	file := r.files.bootcode
	t := r.begin(stage, file)
	if err := p.sendSecond(ctx, file.data, t.At); err != nil {
		return err
	}
	r.sent = true
	// rpiboot waits for a second, Snagboot for two, before they ask how it went: the ROM is looking at the signature.
	select {
	case <-time.After(statusDelay):
	case <-stage.Gone:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	status, err := p.status(ctx)
	switch {
	case errors.Is(stages.Gone(ctx, stage, err), usb.ErrGone):
		r.Board.Emit(stageROM, event.Note{Text: "the ROM left before it told how it likes the second stage"})
	case err != nil:
		return fmt.Errorf("the status of the second stage: %w", err)
	case status != 0:
		return &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("the boot ROM refuses %s with status %#x", file.path, status),
			Hint: "it has to be Raspberry Pi's own for this SoC, unchanged; on a board that was locked it has to be signed with the owner's key too"}
	}
	t.Done()
	r.at = stageBootcode
	return nil
}

// begin tells that the board is sent a file.
func (r *recovery) begin(stage *socs.Stage, f file) *stages.Transfer {
	t := stages.Begin(r.Board, r.at, f.path, len(f.data))
	t.Since = stage.Since
	return t
}

// other says what to make of a device that is no stage of the family.
func (r *recovery) other(stage *socs.Stage) error {
	if len(r.files.served) > 0 {
		r.Board.Emit(stageBootcode, event.Warning{Text: fmt.Sprintf("the second stage left before it said that it is done, and %s came: taking that for success", stage.ID)})
		return nil
	}
	return &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("expected %s on port %s, got %s", r.chip.id, stage.Port, stage.ID),
		Hint: "bring the board into USB device boot mode again"}
}

// lost adds to the error of a board that did not come (back) what may be known of the cause.
func (r *recovery) lost(err error) error {
	stuck, ok := errors.AsType[*socs.BoardError](err)
	if !ok {
		return err
	}
	hint := r.files.hint()
	switch {
	case hint != "":
		stuck.Hint = hint
	case len(r.files.served) > 0:
		stuck.Hint = "the board left before it said that it is done (" + r.files.String() + "): check cable and power, and run snag again"
	case r.sent:
		stuck.Hint = "the second stage did not start: check the board's LED and power, and that bootfiles is of a version for this board"
	}
	return err
}

// hintFor tells what may have caused a failure.
func (r *recovery) hintFor(err error) string {
	if hint := r.files.hint(); hint != "" {
		return hint
	}
	switch {
	case errors.Is(err, usb.ErrBusy):
		return "end the other program (rpiboot, a virtual machine) that uses the board"
	case errors.Is(err, errInterface):
		return "unplug the board and plug it in again; if it stays so this device is no boot ROM"
	case errors.Is(err, errMessage):
		return "power-cycle the board and run snag again: what answers is out of step, or no second stage that snag knows"
	}
	return "power-cycle the board and run snag again; try another cable, and a port without hubs in between"
}
