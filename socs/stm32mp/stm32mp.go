// Package stm32mp recovers boards with ST's STM32MP13, STM32MP15, STM32MP21, STM32MP23 and STM32MP25.
//
// Everything goes over DFU, to alternate settings that are called by phases: "@FSBL /0x01/1*1Me" takes the first stage,
// phase 1. Behind "@virtual /0xF1/..." stands the phase that the board is in, and with it what it waits for. Both the
// boot ROM and TF-A's BL2 speak so; the ROM is given BL2, and BL2 the firmware of the memory controller (STM32MP2)
// and the FIP with U-Boot. A DETACH makes either of them start what it has. A first stage may also be U-Boot's
// SPL, if it has DFU: its settings are called by files.
//
// [check] looks at the files; [recovery.serve] does what the board's phases ask for (phase.go). Sources: AN5275 "USB
// DFU/USART protocols used in STM32MP1 series bootloaders"; TF-A (plat/st/common/usb_dfu.c, stm32cubeprogrammer_usb.c,
// plat/st/stm32mp1/stm32mp1_usb_dfu.c, plat/st/stm32mp2/stm32mp2_usb_dfu.c); U-Boot
// (arch/arm/mach-stm32mp/cmd_stm32prog, drivers/usb/gadget/f_dfu.c, include/configs/stm32mp15_dh_dhsom.h); ST's wiki,
// "How to load U-Boot with dfu-util".
package stm32mp

import (
	"context"
	"fmt"
	"strings"
	"time"

	"snag/socs"
	"snag/socs/dfustage"
	"snag/socs/stages"
	"snag/usb"
)

// The stages, as events and errors name them.
const (
	stageROM = "rom"  // the ROM takes the first stage
	stageTFA = "tf-a" // TF-A's BL2 takes what follows it
	stageSPL = "spl"  // U-Boot's SPL takes U-Boot
)

// Deadlines.
const (
	askTime     = 2 * time.Second       // for the phase
	startTime   = 15 * time.Second      // from a stage's last byte, or its DETACH, to the answer of what it starts
	askAgain    = 50 * time.Millisecond // while there is none
	leaveTime   = 5 * time.Second       // from the DETACH to the board's end, where it enumerates anew
	resetTime   = 10 * time.Second      // for a reset of the port
	resetAgain  = time.Second / 2       // to the next one, if the ROM was still there
	reenumerate = 30 * time.Second      // from one enumeration to the next
)

// The firmware: the first three by the names of Snagboot's files.
const (
	slotTFA    = "tf-a"
	slotFIP    = "fip"
	slotFIPDDR = "fip-ddr"
	slotUBoot  = "u-boot"
)

// Backend recovers STM32MP boards.
type Backend struct{}

var _ socs.Backend = Backend{}

// Family describes the STM32MP.
func (Backend) Family() socs.Family {
	return socs.Family{
		Name:     "stm32mp",
		Title:    "ST STM32MP",
		Carriers: []socs.Carrier{socs.USB},
		ROM:      []socs.Identity{{ID: usb.ID{Vendor: 0x0483, Product: 0xdf11}}},
		// U-Boot's SPL, if its builder did not give it the ROM's.
		Later:       []socs.Identity{{ID: usb.ID{Vendor: 0x0483, Product: 0x5720}}},
		Reenumerate: reenumerate,
		BootMode:    "boot pins to serial boot: BOOT[2:0] = 000 or 110 on STM32MP1, BOOT[3:0] = 0000 on STM32MP2",
		Slots: []socs.Slot{
			{Name: slotTFA, Required: true, Doc: "first stage with an STM32 header: tf-a-*-usb.stm32, or U-Boot's u-boot-spl.stm32"},
			{Name: slotFIPDDR, Doc: "STM32MP2: FIP with the firmware of the memory controller, fip-*-ddr.bin"},
			{Name: slotFIP, Doc: "FIP with secure firmware and U-Boot, fip-*.bin"},
			{Name: slotUBoot, Doc: "after U-Boot's SPL: u-boot.itb or u-boot.img"},
		},
	}
}

// Check implements socs.Backend. Those images that are in order are returned beside an error about others.
func (Backend) Check(model socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	c, err := check(model, fw)
	if c == nil {
		return nil, nil, err
	}
	return c.Sent, c.Findings, err
}

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	c, err := check(job.Model, job.Firmware)
	if err != nil {
		return err
	}
	r := &recovery{chip: c.chip, fw: c.Sent, board: job.Board, at: stageROM}
	return stages.Drive(ctx, job.Board, r.serve, func() string { return r.at }, dfustage.Hint)
}

// chip is what is different between the models.
type chip struct {
	name   string
	device string // what the product string says of "@Device ID"
	// Header versions of the first stage: major, lowest and highest minor.
	major, minor, minorTo int
	dram                  uint32 // where it begins: a first stage cannot be loaded there
	ddr                   bool   // the memory controller needs firmware
	detach                bool   // the ROM starts the first stage when it is told to leave
	// stays says that TF-A keeps the ROM's enumeration.
	stays bool
	arch  string
}

// chips are in the order of their names. STM32MP23 is an STM32MP25 with fewer parts, and shows its device ID.
var chips = []chip{
	{name: "stm32mp13", device: "0x501", major: 2, minorTo: 1, dram: 0xc0000000, detach: true, arch: "arm"},
	{name: "stm32mp15", device: "0x500", major: 1, dram: 0xc0000000, stays: true, arch: "arm"},
	{name: "stm32mp21", device: "0x503", major: 2, minor: 2, minorTo: 3, dram: 0x80000000, ddr: true, detach: true, stays: true, arch: "arm64"},
	{name: "stm32mp23", device: "0x505", major: 2, minor: 2, minorTo: 3, dram: 0x80000000, ddr: true, detach: true, stays: true, arch: "arm64"},
	{name: "stm32mp25", device: "0x505", major: 2, minor: 2, minorTo: 3, dram: 0x80000000, ddr: true, detach: true, stays: true, arch: "arm64"},
}

func chipOf(model socs.Model) (*chip, error) {
	for i := range chips {
		if chips[i].name == model.Name {
			return &chips[i], nil
		}
	}
	return nil, fmt.Errorf("%q is no model of the STM32MP", model.Name)
}

// other names the models that a board with another device ID is, or the header's version fits.
func other(match func(*chip) bool) string {
	var names []string
	for i := range chips {
		if match(&chips[i]) {
			names = append(names, chips[i].name)
		}
	}
	return strings.Join(names, " or ")
}
