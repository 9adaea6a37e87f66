// Package sunxi recovers boards with Allwinner's SoCs.
//
// The boot ROM speaks FEL (package usb/fel): read and write memory, call a function. SPL goes into internal memory and
// is called; it sets the DRAM up and returns to FEL. U-Boot, and for 64-bit parts TF-A and what else is in the FIT, go
// into DRAM, and U-Boot or TF-A is started. Nothing re-enumerates between.
//
// SPL overlaps the memory of the ROM, which therefore changes places with parts of SPL while that runs. The program
// that does so, and smaller ones that reach registers, are in arm/, assembled in programs.go. [chip] has what differs
// between the SoCs, [check] looks at the files, [recovery.serve] does the rest.
//
// Allwinner documents neither the ROM nor FEL. The sources are sunxi-tools (fel.c, fel_lib.c, soc_info.c, fit_image.c)
// and Snagboot (recoveries/sunxi.py, firmware/sunxi_fw) for what the ROM takes, and U-Boot
// (arch/arm/include/asm/arch-sunxi/spl.h, arch/arm/mach-sunxi/board.c, arch/arm/dts/sunxi-u-boot.dtsi) for the images.
package sunxi

import (
	"context"
	"errors"
	"time"

	"snag/socs"
	"snag/socs/stages"
	"snag/usb/fel"
)

const family = "sunxi"

// The stages, as events and errors name them.
const (
	stageROM   = "rom"    // the ROM is asked
	stageSPL   = "spl"    // SPL is sent, and runs
	stageUBoot = "u-boot" // what SPL would load is sent, and started
)

// The firmware, by the names of Snagboot's files.
const (
	slotBoth  = "u-boot-with-spl"
	slotSPL   = "spl"
	slotUBoot = "u-boot"

	keyTree  = "dt"    // the device tree to choose of a FIT
	keyForce = "force" // send what seems to be for another SoC
)

// Backend recovers Allwinner's boards.
type Backend struct{}

var _ socs.Backend = Backend{}

// Family describes Allwinner's SoCs.
func (Backend) Family() socs.Family {
	return socs.Family{
		Name:        family,
		Title:       "Allwinner",
		Carriers:    []socs.Carrier{socs.USB},
		ROM:         []socs.Identity{{ID: fel.ROM}},
		Reenumerate: 15 * time.Second, // it comes back only if it was reset
		BootMode:    "hold the button FEL (or UBOOT, RECOVERY) at power-on, or take the card out; with nothing to boot from, the ROM waits for FEL on the OTG port",
		Slots: []socs.Slot{
			{Name: slotBoth, Doc: "SPL and U-Boot in one file, u-boot-sunxi-with-spl.bin", Keys: []string{keyTree, keyForce}},
			{Name: slotSPL, Doc: "SPL alone, sunxi-spl.bin; without " + slotUBoot + " the recovery ends when it has run", Keys: []string{keyForce}},
			{Name: slotUBoot, Doc: "what SPL starts, u-boot.img or u-boot.itb", Keys: []string{keyTree, keyForce}},
		},
	}
}

// Check implements socs.Backend. What is returned is in the slots for separate files.
func (Backend) Check(model socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	chip, err := chipOf(model)
	if err != nil {
		return nil, nil, err
	}
	p := check(chip, fw)
	return p.Sent, p.Findings, errors.Join(p.Errs...)
}

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	chip, err := chipOf(job.Model)
	if err != nil {
		return err
	}
	r := &recovery{fw: job.Firmware, board: job.Board, named: chip, at: stageROM}
	return stages.Drive(ctx, job.Board, r.serve, func() string { return r.at }, hint)
}
