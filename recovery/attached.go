package recovery

import (
	"slices"

	"snag/socs"
	"snag/usb"
)

// Attached is a device on the bus that snag knows.
type Attached struct {
	usb.Device
	Family string   // empty for a gadget that any board may show
	Models []string // of the family, that show this; nil: any
	Stage  string   // "rom", "spl", or what the gadget does
}

// Boards picks from a list of devices what a family that is built knows, and the gadgets that boards show after a
// recovery, in the order of the list. An identity that several families share is listed for each.
func Boards(devices []usb.Device) []Attached {
	var boards []Attached
	for _, d := range devices {
		is := func(i socs.Identity) bool { return i.Is(d) }
		before := len(boards)
		for _, b := range Backends() {
			f := b.Family()
			if i := slices.IndexFunc(f.ROM, is); i >= 0 {
				boards = append(boards, Attached{d, f.Name, f.ROM[i].Models, "rom"})
			} else if i := slices.IndexFunc(f.Later, is); i >= 0 {
				boards = append(boards, Attached{d, f.Name, f.Later[i].Models, "spl"})
			}
		}
		i := slices.IndexFunc(socs.Gadgets, func(g socs.Gadget) bool { return g.ID == d.ID })
		if i >= 0 && len(boards) == before {
			boards = append(boards, Attached{Device: d, Stage: socs.Gadgets[i].Does})
		}
	}
	return boards
}
