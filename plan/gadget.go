package plan

import (
	"slices"

	"snag/socs"
	"snag/usb"
)

// Gadget is what a board shows that can be flashed through.
type Gadget int

const (
	None     Gadget = iota // nothing in particular
	Fastboot               // U-Boot's fastboot, or Android's
	DFU                    // U-Boot's dfu
	Disk                   // U-Boot's ums, or any other mass storage
)

// gadgets are their names, and the classes of their interfaces (AOSP's fastboot; DFU 1.1, table 4.1; USB Mass Storage
// Class, Bulk-Only Transport 1.0, section 4.3).
var gadgets = map[Gadget]struct {
	name    string
	classes []socs.Class
}{
	None:     {"anything", nil},
	Fastboot: {"fastboot", []socs.Class{{Class: 0xff, SubClass: 0x42, Protocol: 0x03}}},
	DFU:      {"dfu", []socs.Class{{Class: 0xfe, SubClass: 0x01, Protocol: 0x02}, {Class: 0xfe, SubClass: 0x01, Protocol: 0x01}}}, // in DFU mode, in run-time mode
	Disk:     {"disk", []socs.Class{socs.MassStorage}},
}

func (g Gadget) String() string { return gadgets[g].name }

// of reports whether a device shows the gadget, or is taken for one since the user named its ID.
func (g Gadget) of(d usb.Device, named usb.ID) bool {
	return g == None || slices.ContainsFunc(gadgets[g].classes, func(c socs.Class) bool { return c.Of(d) }) ||
		g == Fastboot && d.ID == named && !DFU.of(d, usb.ID{}) && !Disk.of(d, usb.ID{})
}

// first is what the board must show for the first of some steps that needs something of it. Only that tells which board
// is meant: what it shows later, others may show now.
func first(steps []Step) (g Gadget, id usb.ID) {
	for _, s := range steps {
		if w, ok := s.Action.(*Wait); ok {
			return w.For, w.ID
		}
		if g := s.Action.gadget(); g != None {
			return g, usb.ID{}
		}
	}
	return None, usb.ID{}
}

// identities are how the board is told from others.
func identities(steps []Step) []socs.Identity {
	g, id := first(steps)
	if id != (usb.ID{}) {
		return []socs.Identity{{ID: id}}
	}
	var all []socs.Identity
	for _, c := range gadgets[g].classes {
		all = append(all, socs.Identity{Class: c})
	}
	return all
}
