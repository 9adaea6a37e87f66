// Package rzn1 recovers boards with Renesas' RZ/N1.
//
// The ROM takes one file by DFU, into the only alternate setting there is: U-Boot in an SPKG, which says where it goes and
// has a CRC. U-Boot runs from the internal memory until it has set up the DRAM, and is the last stage. Sources: RZ/N1D,
// RZ/N1S and RZ/N1L Group User's Manual: System Introduction, Multiplexing, Electrical and Mechanical Information, chapter
// "Boot"; U-Boot, tools/renesas_spkgimage.c.
package rzn1

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snag/event"
	"snag/firmware"
	"snag/socs"
	"snag/socs/dfuboot"
	"snag/usb"
	"snag/usb/dfu"
)

const stageROM = "rom"

const slotUBoot = "u-boot"

// maxRuns is how often the file is begun: a board that was reset shows its ROM again.
const maxRuns = 3

// The internal memory that the ROM loads to: 2 MiB on RZ/N1D, 6 MiB on the others (User's Manual, chapter "Memory Map").
const (
	sramStart = 0x20000000
	sramEnd   = 0x20600000
)

// Backend recovers RZ/N1 boards.
type Backend struct{}

var _ socs.Backend = Backend{}

// Family describes the RZ/N1.
func (Backend) Family() socs.Family {
	return socs.Family{
		Name:        "rzn1",
		Title:       "Renesas RZ/N1",
		Carriers:    []socs.Carrier{socs.USB},
		ROM:         []socs.Identity{{ID: usb.ID{Vendor: 0x045b, Product: 0x0239}}},
		Reenumerate: 20 * time.Second,
		BootMode:    `boot mode pins to "USB function", and the cable in the USB port that can be a device`,
		Slots:       []socs.Slot{{Name: slotUBoot, Required: true, Doc: "the only stage: U-Boot as SPKG, u-boot.bin.spkg"}},
	}
}

// Check implements socs.Backend. The image is sent as it is.
func (Backend) Check(model socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	img, ok := fw[slotUBoot]
	refuse := func(hint string, err error) (socs.Firmware, []socs.Finding, error) {
		return nil, nil, &socs.FirmwareError{Slot: slotUBoot, Path: img.Path, Err: err, Hint: hint}
	}
	const want = "give u-boot.bin.spkg, which U-Boot's build makes for RZ/N1"
	if !ok {
		return refuse(want, errors.New("missing: the ROM needs it"))
	}
	const again = "copy or build the file again"
	s, err := firmware.ParseSPKG(img.Data)
	switch {
	case len(img.Data) == 0:
		return refuse(again, errors.New("the file is empty"))
	case s == nil:
		return refuse(want, fmt.Errorf("expected an SPKG, it is %s (%w)", firmware.Identify(img.Data), err))
	case err != nil:
		return refuse(again, err)
	}
	var findings []socs.Finding
	if s.Load < sramStart || uint64(s.Load)+uint64(len(s.Payload)) > sramEnd {
		findings = append(findings, socs.Finding{Slot: slotUBoot, Warning: true, Text: fmt.Sprintf(
			"%s loads to %#08x: only the internal memory, from %#08x on, is there before U-Boot sets up the DRAM", img.Path, s.Load, sramStart)})
	}
	return socs.Firmware{slotUBoot: img}, findings, nil
}

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	for run := 1; ; run++ {
		stage, err := job.Board.Next(ctx)
		if err != nil {
			return err
		}
		if run > maxRuns {
			return &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("the boot ROM is back after its file was begun %d times", maxRuns), Hint: "check power and cable; the serial console may tell more"}
		}
		if run > 1 {
			job.Board.Emit(stageROM, event.Warning{Text: "the boot ROM is back: starting over"})
		}
		err = dfuboot.Gone(ctx, stage, serve(ctx, stage, job))
		if cause := context.Cause(ctx); cause != nil && err != nil {
			return cause
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, dfu.ErrLeft):
			// The ROM starts U-Boot, which is not in DFU mode any more. Time alone does not tell that from a ROM that hangs.
			if !errors.Is(err, context.DeadlineExceeded) {
				return nil
			}
			err = fmt.Errorf("%w: it does not leave the bus either", err)
		case errors.Is(err, usb.ErrGone):
			job.Board.Emit(stageROM, event.Warning{Text: fmt.Sprintf("the board left port %s: %v; waiting for it to come back", stage.Port, err)})
			continue
		}
		hint := dfuboot.Hint(err)
		if hint == "" {
			hint = "reset the board and run snag again; try another cable, and a port without hubs in between"
		}
		return &socs.BoardError{Stage: stageROM, Err: err, Hint: hint}
	}
}

// serve gives the ROM its file.
func serve(ctx context.Context, stage *socs.Stage, job socs.Job) error {
	d, err := dfuboot.Open(ctx, job.Board, stage, false)
	if errors.Is(err, dfuboot.ErrNoDFU) {
		return fmt.Errorf("expected the boot ROM of RZ/N1: %w", err)
	}
	if err != nil {
		return err
	}
	alt, err := d.Number(0)
	if err != nil {
		return err
	}
	return d.Send(ctx, stageROM, alt, job.Firmware[slotUBoot])
}
