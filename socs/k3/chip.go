package k3

import (
	"fmt"
	"slices"
	"strings"

	"snag/socs"
	"snag/usb"
)

// chip is a K3 SoC, or several that boot alike.
type chip struct {
	name       string
	models     string // of the model table
	product    uint16 // the ROM's; the vendor is TI
	compatible string // of the board descriptions in its firmware
	main       string // the cores that U-Boot runs on
	split      bool   // the system firmware is a file of its own, sysfw.itb
	bl1        bool   // tiboot3 is TF-A's BL1, which has the ROM load tispl too
	load       span   // where tiboot3's first stage goes
}

// span is a range of addresses, the end not included.
type span struct{ start, end uint64 }

const ti = 0x0451

// Memory that the ROMs load the first stage to: binman descriptions of U-Boot (arch/arm/dts/k3-*-binman.dtsi).
var (
	sramMCU   = span{0x41c00000, 0x41d00000}
	sramWKUP  = span{0x43c00000, 0x43c80000}
	sramMain  = span{0x70000000, 0x70200000}
	sramAM62L = span{0x70800000, 0x70900000}
)

// chips is the table: U-Boot, doc/board/ti; the product numbers are those of the SoCs' technical reference manuals,
// "USB DFU boot", and of U-Boot's configurations.
var chips = []chip{
	{name: "AM62x", models: "am623 am625", product: 0x6165, compatible: "ti,am625", main: "a53", load: sramWKUP},
	{name: "AM62Ax", models: "am62a7", product: 0x6165, compatible: "ti,am62a7", main: "a53", load: sramWKUP},
	{name: "AM62Dx", models: "am62d2", product: 0x6165, compatible: "ti,am62d2", main: "a53", load: sramWKUP},
	{name: "AM62Px", models: "am62p", product: 0x6165, compatible: "ti,am62p5", main: "a53", load: sramWKUP},
	{name: "AM62Lx", models: "am62l3", product: 0x6165, compatible: "ti,am62l3", main: "a53", bl1: true, load: sramAM62L},
	{name: "AM64x", models: "am6411 am6412 am6421 am6422 am6441 am6442", product: 0x6165, compatible: "ti,am642", main: "a53", load: sramMain},
	{name: "AM65x", models: "am6546 am6548", product: 0x6162, compatible: "ti,am654", main: "a53", split: true, load: sramMCU},
	{name: "J7200", models: "j7200", product: 0x6164, compatible: "ti,j7200", main: "a72", load: sramMCU},
	{name: "J721E", models: "j721e", product: 0x6163, compatible: "ti,j721e", main: "a72", split: true, load: sramMCU},
	{name: "J721S2", models: "j721s2", product: 0x6168, compatible: "ti,j721s2", main: "a72", load: sramMCU},
	{name: "J722S", models: "j722s", product: 0x6165, compatible: "ti,j722s", main: "a53", load: sramWKUP},
	{name: "J784S4", models: "j784s4", product: 0x6168, compatible: "ti,j784s4", main: "a72", load: sramMCU},
}

// chipOf finds a model's chip.
func chipOf(m socs.Model) (*chip, error) {
	for i := range chips {
		if slices.Contains(strings.Fields(chips[i].models), m.Name) {
			return &chips[i], nil
		}
	}
	return nil, fmt.Errorf("no boot ROM is known for the model %q", m.Name)
}

// identities are what the ROMs show, and the SPLs that keep it.
func identities() []socs.Identity {
	var all []socs.Identity
	for _, c := range chips {
		id := usb.ID{Vendor: ti, Product: c.product}
		i := slices.IndexFunc(all, func(i socs.Identity) bool { return i.ID == id })
		if i < 0 {
			i, all = len(all), append(all, socs.Identity{ID: id})
		}
		all[i].Models = append(all[i].Models, strings.Fields(c.models)...)
	}
	return all
}

// laterIdentities are those of SPLs with an ID of their own: Toradex's.
func laterIdentities() []socs.Identity {
	return []socs.Identity{{ID: usb.ID{Vendor: 0x1b67, Product: 0x4000}}}
}
