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

// gadgets are their names, and the classes of their interfaces (AOSP's fastboot; DFU 1.1, table 4.1; USB Mass Storage Class,
// Bulk-Only Transport 1.0, section 4.3).
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

// needed lists the gadgets that steps need, each once.
func needed(steps []Step) []Gadget {
	var all []Gadget
	for _, s := range steps {
		g := s.Action.gadget()
		if w, ok := s.Action.(*Wait); ok {
			g = w.For
		}
		if g != None && !slices.Contains(all, g) {
			all = append(all, g)
		}
	}
	return all
}
