// Package keembay recovers boards with Intel's Keem Bay (Movidius 3400VE, 3700VE).
//
// The boot ROM speaks fastboot, of which it needs one command: "download" of a FIP with BL2 to U-Boot, which it then starts by itself.
// There is no second stage; U-Boot may show its own fastboot (8087:da00) afterwards. There is no public documentation of the
// ROM. The source is Snagboot (recoveries/keembay.py, the original contribution), and Trusted Firmware-A for the FIP
// (include/tools_share/firmware_image_package.h).
package keembay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"snag/event"
	"snag/firmware"
	"snag/socs"
	"snag/usb"
	"snag/usb/fastboot"
)

const stageROM = "rom"

const slotFIP = "fip"

const (
	openTime     = 5 * time.Second
	reenumerate  = 20 * time.Second
	goneTime     = time.Second // from a transfer that failed to the board's end, if that was the cause
	progressTime = 100 * time.Millisecond
)

// maxRuns is how often the ROM is served: it may come back from a board that was reset.
const maxRuns = 3

// maxFIP bounds the file: the command has eight hexadecimal digits.
const maxFIP = 0xffffffff

var rom = usb.ID{Vendor: 0x8087, Product: 0x0b39}

// Backend recovers Keem Bay boards.
type Backend struct{}

var _ socs.Backend = Backend{}

// Family describes Keem Bay.
func (Backend) Family() socs.Family {
	return socs.Family{
		Name:        "keembay",
		Title:       "Intel Keem Bay",
		Carriers:    []socs.Carrier{socs.USB},
		ROM:         []socs.Identity{{ID: rom}},
		Reenumerate: reenumerate,
		BootMode:    "boot mode switches to USB recovery; a board with nothing bootable on eMMC and flash may get there by itself",
		Slots:       []socs.Slot{{Name: slotFIP, Required: true, Doc: "all stages, BL2 to U-Boot: fip-evm.bin, fip-m2.bin or fip-hddl2.bin, by board"}},
	}
}

// Check implements socs.Backend.
func (Backend) Check(_ socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	const hint = "give the FIP that the board's firmware build makes (fip-evm.bin, fip-m2.bin, fip-hddl2.bin)"
	refuse := func(slot, hint, format string, args ...any) error {
		return &socs.FirmwareError{Slot: slot, Path: fw[slot].Path, Err: fmt.Errorf(format, args...), Hint: hint}
	}
	var errs []error
	for slot := range fw {
		if slot != slotFIP {
			errs = append(errs, refuse(slot, "give "+slotFIP+" alone", "Keem Bay takes no such file"))
		}
	}
	img, ok := fw[slotFIP]
	switch {
	case !ok:
		errs = append(errs, refuse(slotFIP, hint, "missing: Keem Bay needs it"))
	case len(img.Data) == 0:
		errs = append(errs, refuse(slotFIP, "copy or build the file again", "the file is empty"))
	case int64(len(img.Data)) > maxFIP:
		errs = append(errs, refuse(slotFIP, hint, "it has %d bytes, the ROM can be told of %d at most", len(img.Data), int64(maxFIP)))
	default:
		fip, err := firmware.ParseFIP(img.Data)
		switch {
		case fip == nil && !errors.Is(err, firmware.ErrTruncated):
			errs = append(errs, refuse(slotFIP, hint, "%w; it is %s", err, firmware.Identify(img.Data)))
		case err != nil:
			errs = append(errs, refuse(slotFIP, "copy or build the file again", "%w", err))
		case len(fip.Entries) == 0:
			errs = append(errs, refuse(slotFIP, hint, "the FIP has no images"))
		}
	}
	if len(errs) > 0 {
		return nil, nil, errors.Join(errs...)
	}
	return socs.Firmware{slotFIP: img}, nil, nil
}

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	img := job.Firmware[slotFIP]
	sent := false // all data at least, if not answered
	for runs := 0; ; {
		stage, err := job.Board.Next(ctx)
		if err != nil {
			return err
		}
		switch {
		case stage.ROM:
			if runs++; runs > maxRuns {
				return &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("the boot ROM is back after it was sent the FIP %d times", maxRuns),
					Hint: "the FIP does not start on this board: check that it was built for this board, and that power and cable are good"}
			}
			if runs > 1 {
				job.Board.Emit(stageROM, event.Warning{Text: "the boot ROM is back: starting over"})
			}
		case sent:
			job.Board.Emit(stageROM, event.Warning{Text: fmt.Sprintf("the ROM left before it had accepted the FIP, and %s came: taking that for success", stage.ID)})
			done(job.Board, stage, img)
			return nil
		default:
			return &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("expected the boot ROM (%s) on port %s, got %s", rom, stage.Port, stage.ID),
				Hint: "put the board into USB recovery mode again"}
		}
		sent, err = serve(ctx, job.Board, stage, img)
		if err == nil {
			return nil
		}
		if err = explain(ctx, stage, err); !errors.Is(err, usb.ErrGone) {
			return err
		}
		job.Board.Emit(stageROM, event.Warning{Text: fmt.Sprintf("the board left port %s: %v; waiting for it to come back", stage.Port, err)})
	}
}

// serve sends the ROM its FIP. It tells whether the ROM took all of it, if that failed.
func serve(ctx context.Context, board socs.Board, stage *socs.Stage, img socs.Image) (sent bool, err error) {
	short, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	// Snagboot takes the first interface with a bulk endpoint each way.
	transport, err := fastboot.OpenUSB(short, stage.USB, true)
	if err != nil {
		return false, err
	}
	size := int64(len(img.Data))
	board.Emit(stageROM, event.StageBegun{File: img.Path, Bytes: size})
	begun, emitted := time.Now(), time.Time{}
	progress := func(n int64) {
		now := time.Now()
		if sent = n == size; !sent && now.Sub(emitted) < progressTime {
			return
		}
		emitted = now
		board.Emit(stageROM, event.Progress{Bytes: n, Total: size, Rate: float64(n) / max(now.Sub(begun), time.Millisecond).Seconds()})
	}
	client := fastboot.New(transport)
	client.Info = func(s string) { board.Emit(stageROM, event.Note{Text: "the boot ROM says: " + s}) }
	if err := client.Download(ctx, bytes.NewReader(img.Data), size, progress); err != nil {
		return sent, err
	}
	done(board, stage, img)
	return true, nil
}

// done tells that the board has everything.
func done(board socs.Board, stage *socs.Stage, img socs.Image) {
	board.Emit(stageROM, event.StageDone{Summary: event.StageSummary{Stage: stageROM, File: img.Path, Bytes: int64(len(img.Data)), Duration: time.Since(stage.Since)}})
}

// explain says why a stage failed. The error wraps usb.ErrGone if the board left.
func explain(ctx context.Context, stage *socs.Stage, err error) error {
	if errors.Is(err, usb.ErrProtocol) {
		// A device that is unplugged may fail a transfer before the host notices that it is gone.
		select {
		case <-stage.Gone:
			err = fmt.Errorf("%w (%w)", err, usb.ErrGone)
		case <-ctx.Done():
		case <-time.After(goneTime):
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, usb.ErrGone) {
		return err
	}
	return &socs.BoardError{Stage: stageROM, Err: err, Hint: hintFor(err)}
}

// hintFor tells what may have caused a failure.
func hintFor(err error) string {
	refused, _ := errors.AsType[*fastboot.FailError](err)
	wrong, _ := errors.AsType[*fastboot.ReplyError](err)
	switch {
	case errors.Is(err, usb.ErrBusy):
		return "end the other program (fastboot, a virtual machine) that uses the board"
	case errors.Is(err, fastboot.ErrNoInterface):
		return "unplug the board and plug it in again; if it stays so this device is no boot ROM"
	case refused != nil:
		return "the ROM refuses this file: check that the FIP is for this board, and signed if the part is closed; reset the board and run snag again"
	case wrong != nil:
		return "reset the board and run snag again: what answers is out of step, or no boot ROM"
	case errors.Is(err, context.DeadlineExceeded):
		return "reset the board and run snag again: a ROM that another program stopped sending to in the middle waits for the rest for ever"
	}
	return "reset the board and run snag again; try another cable, and a port without hubs in between"
}
