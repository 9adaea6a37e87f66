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
	reenumerate  = 15 * time.Second
	openTime     = 5 * time.Second
	goneTime     = time.Second // from a transfer that failed to the board's end, if that was the cause
	progressTime = 100 * time.Millisecond
)

// maxRuns is how often the ROM is served: it may come back from a board that was reset.
const maxRuns = 3

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
	for {
		stage, err := job.Board.Next(ctx)
		if err != nil {
			return r.lost(err)
		}
		if !stage.ROM {
			return r.other(stage)
		}
		done, err := r.serve(ctx, stage)
		if err == nil {
			if done {
				return nil
			}
			continue
		}
		if err = r.explain(ctx, stage, err); !errors.Is(err, usb.ErrGone) {
			return err
		}
		job.Board.Emit("", event.Warning{Text: fmt.Sprintf("the board left port %s: %v; waiting for it to come back", stage.Port, err)})
	}
}

// recovery is one board on its way up.
type recovery struct {
	socs.Job
	chip  *chip
	files *files
	runs  int  // how often the ROM was served
	sent  bool // the second stage was, since
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
	return &recovery{Job: job, chip: c, files: f}, nil
}

// serve gives a stage what it wants. done says that there is nothing more to do.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (done bool, err error) {
	short, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	p, err := open(short, stage.USB)
	if err != nil {
		return false, err
	}
	if !p.rom {
		return true, r.bootcode(ctx, stage, p)
	}
	if r.runs++; r.runs > maxRuns {
		err := &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("the boot ROM is back after it was sent %s %d times", r.chip.bootcode, maxRuns),
			Hint: "the second stage does not start, or the board resets itself: check that bootfiles is of a version for this board, and that power and cable are good"}
		return false, err
	}
	if r.runs > 1 {
		r.Board.Emit(stageROM, event.Warning{Text: "the boot ROM is back: starting over"})
	}
	return false, r.rom(ctx, stage, p)
}

// rom sends the ROM the second stage.
func (r *recovery) rom(ctx context.Context, stage *socs.Stage, p *port) error {
	r.sent = false
	file := r.files.bootcode
	r.Board.Emit(stageROM, event.StageBegun{File: file.path, Bytes: int64(len(file.data))})
	if err := p.sendSecond(ctx, file.data, r.progress(stageROM, file)); err != nil {
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
	case err != nil && r.left(ctx, stage, err):
		r.Board.Emit(stageROM, event.Note{Text: "the ROM left before it told how it likes the second stage"})
	case err != nil:
		return fmt.Errorf("the status of the second stage: %w", err)
	case status != 0:
		return &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("the boot ROM refuses %s with status %#x", file.path, status),
			Hint: "it has to be Raspberry Pi's own for this SoC, unchanged; on a board that was locked it has to be signed with the owner's key too"}
	}
	r.done(stage, stageROM, file)
	return nil
}

// left says whether a transfer failed because the board left its port.
func (r *recovery) left(ctx context.Context, stage *socs.Stage, err error) bool {
	if errors.Is(err, usb.ErrGone) {
		return true
	}
	if !errors.Is(err, usb.ErrProtocol) {
		return false
	}
	select { // a device that is unplugged may fail a transfer before the host notices that it is gone
	case <-stage.Gone:
		return true
	case <-ctx.Done():
	case <-time.After(goneTime):
	}
	return false
}

// progress tells how much of a file was sent, not too often.
func (r *recovery) progress(stage string, f file) func(int64) {
	begun, emitted, total := time.Now(), time.Time{}, int64(len(f.data))
	return func(n int64) {
		now := time.Now()
		if n < total && now.Sub(emitted) < progressTime {
			return
		}
		emitted = now
		r.Board.Emit(stage, event.Progress{Bytes: n, Total: total, Rate: float64(n) / max(now.Sub(begun), time.Millisecond).Seconds()})
	}
}

// done tells that the board has a file.
func (r *recovery) done(stage *socs.Stage, name string, f file) {
	r.Board.Emit(name, event.StageDone{Summary: event.StageSummary{Stage: name, File: f.path, Bytes: int64(len(f.data)), Duration: time.Since(stage.Since)}})
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

// explain says why a stage failed. The error wraps usb.ErrGone if the board left.
func (r *recovery) explain(ctx context.Context, stage *socs.Stage, err error) error {
	if r.left(ctx, stage, err) && !errors.Is(err, usb.ErrGone) {
		err = fmt.Errorf("%w (%w)", err, usb.ErrGone)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if _, ok := errors.AsType[*socs.BoardError](err); ok || errors.Is(err, usb.ErrGone) {
		return err
	}
	name := stageROM
	if r.sent || r.runs == 0 {
		name = stageBootcode
	}
	return &socs.BoardError{Stage: name, Err: err, Hint: r.hintFor(err)}
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
