// Package keembay recovers boards with Intel's Keem Bay (Movidius 3400VE, 3700VE).
//
// The boot ROM speaks fastboot, of which it needs one command: "download" of a FIP with BL2 to U-Boot, which it then
// starts by itself. There is no second stage; U-Boot may show its own fastboot (8087:da00) afterwards. There is no
// public documentation of the ROM. The source is Snagboot (recoveries/keembay.py, the original contribution), and
// Trusted Firmware-A for the FIP (include/tools_share/firmware_image_package.h).
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
	"snag/socs/stages"
	"snag/usb"
	"snag/usb/fastboot"
)

const stageROM = "rom"

const slotFIP = "fip"

const (
	openTime    = 5 * time.Second
	reenumerate = 30 * time.Second
)

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
	const hint, again = "give the FIP that the board's firmware build makes (fip-evm.bin, fip-m2.bin, fip-hddl2.bin)", "copy or build the file again"
	c := socs.Checked{Sent: socs.Firmware{}}
	for slot, img := range fw {
		if slot != slotFIP {
			c.Take(slot, img, socs.Refuse("give "+slotFIP+" alone", "Keem Bay takes no such file"))
		}
	}
	img, ok := fw[slotFIP]
	fip, err := firmware.ParseFIP(img.Data)
	switch {
	case !ok:
		err = socs.Refuse(hint, "missing: Keem Bay needs it")
	case len(img.Data) == 0:
		err = socs.Refuse(again, "the file is empty")
	case int64(len(img.Data)) > maxFIP:
		err = socs.Refuse(hint, "it has %d bytes, the ROM can be told of %d at most", len(img.Data), int64(maxFIP))
	case fip == nil && !errors.Is(err, firmware.ErrTruncated):
		err = socs.Refuse(hint, "%w; it is %s", err, firmware.Identify(img.Data))
	case err != nil:
		err = socs.Refuse(again, "%w", err)
	case len(fip.Entries) == 0:
		err = socs.Refuse(hint, "the FIP has no images")
	}
	c.Take(slotFIP, img, err)
	if len(c.Errs) > 0 {
		return nil, nil, errors.Join(c.Errs...)
	}
	return c.Sent, nil, nil
}

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	r := &recovery{board: job.Board, img: job.Firmware[slotFIP], runs: stages.Runs{Did: "it was sent the FIP",
		Hint: "the FIP does not start on this board: check that it was built for this board, and that power and cable are good"}}
	return stages.Drive(ctx, job.Board, r.serve, func() string { return stageROM }, hintFor)
}

// recovery is one board on its way up.
type recovery struct {
	board socs.Board
	img   socs.Image
	runs  stages.Runs
	sent  *stages.Transfer // to the ROM before this one; nil if that did not take all of it
}

// serve sends the ROM its FIP.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (done bool, err error) {
	switch {
	case stage.ROM:
		if err := r.runs.Begin(r.board); err != nil {
			return false, err
		}
	case r.sent != nil:
		r.board.Emit(stageROM, event.Warning{Text: fmt.Sprintf("the ROM left before it had accepted the FIP, and %s came: taking that for success", stage.ID)})
		r.sent.Since = stage.Since
		r.sent.Done()
		return true, nil
	default:
		return false, &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("expected the boot ROM (%s) on port %s, got %s", rom, stage.Port, stage.ID),
			Hint: "put the board into USB recovery mode again"}
	}
	r.sent = nil
	short, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	// Snagboot takes the first interface with a bulk endpoint each way.
	transport, err := fastboot.OpenUSB(short, stage.USB, true)
	if err != nil {
		return false, err
	}
	size := int64(len(r.img.Data))
	t := stages.Begin(r.board, stageROM, r.img.Path, len(r.img.Data))
	t.Since = stage.Since
	client := fastboot.New(transport)
	client.Info = func(s string) { r.board.Emit(stageROM, event.Note{Text: "the boot ROM says: " + s}) }
	err = client.Download(ctx, bytes.NewReader(r.img.Data), size, func(n int64) {
		if t.At(int(n)); n == size {
			r.sent = t
		}
	})
	if err != nil {
		return false, err
	}
	t.Done()
	return true, nil
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
