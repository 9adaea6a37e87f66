// Package rzn1 recovers boards with Renesas' RZ/N1.
//
// The ROM takes one file by DFU, into the only alternate setting there is: U-Boot in an SPKG, which says where it goes
// and has a CRC. U-Boot runs from the internal memory until it has set up the DRAM, and is the last stage. Sources:
// RZ/N1D, RZ/N1S and RZ/N1L Group User's Manual: System Introduction, Multiplexing, Electrical and Mechanical
// Information, chapter "Boot"; U-Boot, tools/renesas_spkgimage.c.
package rzn1

import (
	"context"
	"errors"
	"time"

	"snag/firmware"
	"snag/socs"
	"snag/socs/dfustage"
	"snag/socs/stages"
	"snag/usb"
	"snag/usb/dfu"
)

const stageROM = "rom"

const slotUBoot = "u-boot"

// The internal memory that the ROM loads to: 2 MiB on RZ/N1D, 6 MiB on the others (User's Manual, chapter "Memory
// Map").
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
func (Backend) Check(_ socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	const want, again = "give u-boot.bin.spkg, which U-Boot's build makes for RZ/N1", "copy or build the file again"
	c := socs.Checked{Sent: socs.Firmware{}}
	img, ok := fw[slotUBoot]
	s, err := firmware.ParseSPKG(img.Data)
	switch {
	case !ok:
		err = socs.Refuse(want, "missing: the ROM needs it")
	case len(img.Data) == 0:
		err = socs.Refuse(again, "the file is empty")
	case s == nil:
		err = socs.Refuse(want, "expected an SPKG, it is %s (%w)", firmware.Identify(img.Data), err)
	case err != nil:
		err = socs.Refuse(again, "%w", err)
	case s.Load < sramStart || uint64(s.Load)+uint64(len(s.Payload)) > sramEnd:
		c.Warn(slotUBoot, "%s loads to %#08x: only the internal memory, from %#08x on, is there before U-Boot sets up the DRAM", img.Path, s.Load, sramStart)
	}
	if c.Take(slotUBoot, img, err); err != nil {
		return nil, nil, errors.Join(c.Errs...)
	}
	return c.Sent, c.Findings, nil
}

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	r := &recovery{job: job}
	return stages.Drive(ctx, job.Board, r.serve, func() string { return stageROM }, dfustage.Hint)
}

// recovery is one board on its way up.
type recovery struct {
	job  socs.Job
	runs stages.Runs
}

// serve gives the ROM its file.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (done bool, err error) {
	if err := r.runs.Begin(r.job.Board); err != nil {
		return false, err
	}
	s, err := dfustage.Open(ctx, r.job.Board, stage, func(*dfu.Device) bool { return true })
	if err != nil {
		return false, err
	}
	alt := s.Alts[0] // the only one
	img := r.job.Firmware[slotUBoot]
	left, err := s.Send(ctx, stageROM, alt, dfustage.File{Path: img.Path, Data: img.Data})
	if err == nil && left { // it starts U-Boot, which leaves the USB controller as it is
		err = s.Started(ctx, alt)
	}
	return err == nil, err
}
