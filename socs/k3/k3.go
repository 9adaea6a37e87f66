// Package k3 recovers boards with TI's K3 SoCs: AM62x, AM62Ax, AM62Dx, AM62Px, AM62Lx, AM64x, AM65x, J7200, J721E,
// J721S2, J722S and J784S4.
//
// All of their stages take files by DFU, into alternate settings that are named after the files. The ROM takes
// tiboot3.bin, an X.509 certificate with SPL for the Cortex-R5 and, on most, the system firmware. That SPL enumerates
// anew and takes tispl.bin, a FIT with TF-A, OP-TEE and SPL for the Cortex-A, which takes u-boot.img. On AM65x and
// J721E the R5's SPL asks for sysfw.itb before. On AM62L, which boots on the Cortex-A at once, tiboot3.bin has TF-A's
// BL1, and the ROM takes tispl.bin too.
//
// Which SPL takes what depends on its version: until U-Boot 2026.07 both offer tispl.bin and u-boot.img, then each what
// it needs. [recovery] therefore goes by the settings that it finds (stages.go); check.go looks at the files. Sources:
// U-Boot (doc/board/ti, include/env/ti/k3_dfu.env, common/spl/spl_dfu.c, drivers/usb/gadget/f_dfu.c,
// arch/arm/mach-k3/r5/sysfw-loader.c), and the technical reference manuals of the SoCs, chapter "Initialization".
package k3

import (
	"context"
	"time"

	"snag/socs"
	"snag/socs/stages"
)

// The firmware, by the names of Snagboot's files.
const (
	slotTiboot3 = "tiboot3"
	slotSysfw   = "sysfw"
	slotTispl   = "tispl"
	slotUBoot   = "u-boot"
)

var slots = []string{slotTiboot3, slotSysfw, slotTispl, slotUBoot}

const (
	// reenumerate is how long the next stage may take: it sets up the DRAM.
	reenumerate = 30 * time.Second
	// lastTime is how long a board that may have everything may take to ask for more.
	lastTime = 15 * time.Second
	// stayTime is how long the ROM may stay on the bus after a file that it starts.
	stayTime = 8 * time.Second
	// goneTime is how long an SPL that does not answer may take to be seen gone.
	goneTime = time.Second
)

// Backend recovers K3 boards.
type Backend struct{}

var _ socs.Backend = Backend{}

// Family describes K3.
func (Backend) Family() socs.Family {
	return socs.Family{
		Name:        "k3",
		Title:       "TI K3 (AM62x to AM65x, J7)",
		Carriers:    []socs.Carrier{socs.USB},
		ROM:         identities(),
		Later:       laterIdentities(),
		Reenumerate: reenumerate,
		BootMode:    `boot mode switches to USB (BOOTMODE[6:3] = 1010 on AM6x) as a device: the mode's pin, BOOTMODE[8] on AM6x and BOOTMODE[5] on J7, at 0`,
		Slots: []socs.Slot{
			{Name: slotTiboot3, Required: true, Doc: "first stage for the ROM: tiboot3.bin, built with DFU, of the SoC's security variant (GP, HS-FS, HS-SE)"},
			{Name: slotSysfw, Doc: "AM65x, J721E: system firmware, sysfw.itb"},
			{Name: slotTispl, Required: true, Doc: "TF-A, OP-TEE and SPL for the Cortex-A: tispl.bin"},
			{Name: slotUBoot, Required: true, Doc: "U-Boot: u-boot.img"},
		},
	}
}

// Check implements socs.Backend. The images are sent as they are.
func (Backend) Check(model socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	c, err := check(model, fw)
	if c == nil {
		return nil, nil, err
	}
	return c.Sent, c.Findings, err
}

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	c, err := chipOf(job.Model)
	if err != nil {
		return err
	}
	r := &recovery{Board: job.Board, chip: c, firmware: job.Firmware, at: stageROM}
	if err := stages.Drive(ctx, r, r.serve, func() string { return r.at }, r.hint); err != errEverything {
		return err
	}
	return nil
}
