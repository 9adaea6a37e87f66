// Package zynqmp recovers boards with Xilinx's (AMD's) Zynq UltraScale+ MPSoC.
//
// The boot ROM takes a boot image over DFU that holds FSBL, the first stage boot loader, and the firmware of the PMU:
// no more, since it must fit the internal memory. FSBL, if it is built for USB, comes back as another DFU device and
// takes the whole boot image. Both show the same USB ID: FSBL's alternate setting 0 is not DFU, and that tells it from
// the ROM.
//
// FSBL has its own ways with DFU: it knows neither CLRSTATUS nor ABORT, and it counts. SET_INTERFACE(1), once, begins a
// download, and SET_INTERFACE(0) ends it; each SET_INTERFACE(1) more ends it too early.
//
// [check] looks at the files and takes the first stage out of the whole image; [recovery.serve] sends them. Sources:
// UG1085 "Zynq UltraScale+ Device TRM", chapter 11; UG1137 "Zynq UltraScale+ MPSoC Software Developer Guide", "USB Boot
// Mode"; Xilinx's embeddedsw (zynqmp_fsbl: xfsbl_usb.c, xfsbl_dfu_util.c, xfsbl_image_header.c).
package zynqmp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snag/firmware"
	"snag/socs"
	"snag/socs/dfustage"
	"snag/socs/stages"
	"snag/usb"
	"snag/usb/dfu"
)

// The stages, as events and errors name them.
const (
	stageROM  = "rom"  // the ROM takes FSBL
	stageFSBL = "fsbl" // FSBL takes the rest
)

const (
	reenumerate = 30 * time.Second // from the ROM's last byte to FSBL: it sets up the DRAM before
	endTime     = 2 * time.Second  // for the SET_INTERFACE that ends a download
)

// The firmware, by the names of Snagboot's files.
const (
	slotFSBL = "fsbl"
	slotBoot = "boot"
)

// Backend recovers ZynqMP boards.
type Backend struct{}

var _ socs.Backend = Backend{}

// Family describes the ZynqMP.
func (Backend) Family() socs.Family {
	return socs.Family{
		Name:        "zynqmp",
		Title:       "Xilinx Zynq UltraScale+ MPSoC",
		Carriers:    []socs.Carrier{socs.USB},
		ROM:         []socs.Identity{{ID: usb.ID{Vendor: 0x03fd, Product: 0x0050}}},
		Reenumerate: reenumerate,
		BootMode:    "boot mode pins PS_MODE[3:0] = 0111 (USB0)",
		Slots: []socs.Slot{
			{Name: slotBoot, Required: true, Doc: "the whole boot image, boot.bin, with an FSBL that is built for USB"},
			{Name: slotFSBL, Doc: "a boot image with FSBL and PMU firmware alone; if it is missing they are taken out of boot"},
		},
	}
}

// Check implements socs.Backend. The first stage is among the images that it returns, whether it was given or not.
// Those that are in order are returned beside an error about others.
func (Backend) Check(_ socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	c := check(fw)
	return c.Sent, c.Findings, errors.Join(c.Errs...)
}

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	r := &recovery{fw: job.Firmware, board: job.Board, at: stageROM}
	return stages.Drive(ctx, job.Board, r.serve, func() string { return r.at }, dfustage.Hint)
}

// recovery is one board on its way up.
type recovery struct {
	fw    socs.Firmware
	board socs.Board
	runs  stages.Runs
	at    string // the stage
}

func (r *recovery) file(slot string) dfustage.File {
	return dfustage.File{Path: r.fw[slot].Path, Data: r.fw[slot].Data}
}

// serve gives one enumeration of the board its file.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (done bool, err error) {
	s, err := dfustage.Open(ctx, r.board, stage, func(*dfu.Device) bool { return true })
	if _, transfer := errors.AsType[*usb.TransferError](err); err != nil && !transfer {
		return false, &socs.BoardError{Stage: r.at, Err: fmt.Errorf("expected DFU of the boot ROM or of FSBL: %w", err),
			Hint: "if the board runs U-Boot or Linux already, reset it with the boot mode set to USB; else build FSBL with FSBL_USB_EXCLUDE_VAL=0"}
	}
	if err != nil {
		return false, err
	}
	alt := s.Alts[0]
	if alt.Number == 0 {
		r.at = stageROM
		if err := r.runs.Begin(r.board); err != nil {
			return false, err
		}
		_, err := s.Send(ctx, r.at, alt, r.file(slotFSBL))
		return false, err
	}
	r.at = stageFSBL
	s.NoRecovery = true
	left, err := s.Send(ctx, r.at, alt, r.file(slotBoot))
	switch {
	case err != nil:
		return false, err
	case left:
		err := s.Started(ctx, alt)
		return err == nil, err
	}
	end, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	// Setting 0 is none of DFU's. FSBL may be on its way before it has acknowledged it.
	err = s.Select(end, dfu.Alt{Number: 0})
	if errors.Is(err, usb.ErrGone) || errors.Is(err, usb.ErrProtocol) {
		err = nil
	}
	return err == nil, err
}

// firstStage is what the ROM takes of a boot image.
func firstStage(data []byte) ([]byte, *firmware.ZynqMP, error) {
	z, err := firmware.ParseZynqMP(data)
	if err != nil {
		return nil, z, err
	}
	first, err := z.FirstStage(data)
	return first, z, err
}
