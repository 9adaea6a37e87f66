package recovery

import (
	"slices"

	"snag/socs"
	"snag/usb"
)

// Attached is a device on the bus that a family knows.
type Attached struct {
	usb.Device
	Family socs.Family
	ROM    bool     // its boot ROM, else a later stage
	Models []string // the models that show this; nil: any of the family
}

// Boards picks what a family that is built knows, in the order of the devices. An identity that several families
// share is listed for each.
func Boards(devices []usb.Device) []Attached {
	var boards []Attached
	for _, d := range devices {
		for _, b := range Backends() {
			f := b.Family()
			if i := slices.IndexFunc(f.ROM, func(i socs.Identity) bool { return i.Is(d) }); i >= 0 {
				boards = append(boards, Attached{d, f, true, f.ROM[i].Models})
			} else if i := slices.IndexFunc(f.Later, func(i socs.Identity) bool { return i.Is(d) }); i >= 0 {
				boards = append(boards, Attached{d, f, false, f.Later[i].Models})
			}
		}
	}
	return boards
}
