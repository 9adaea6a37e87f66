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
	ROM    bool // its boot ROM, else a later stage
}

// Boards lists what is attached of all families that are built, in port order.
func Boards(sysfs usb.Sysfs) ([]Attached, error) {
	devices, err := sysfs.Devices()
	if err != nil {
		return nil, err
	}
	var boards []Attached
	for _, d := range devices {
		for _, b := range Backends() {
			f := b.Family()
			rom := slices.Contains(f.ROM, d.ID)
			if rom || slices.Contains(f.Later, d.ID) {
				boards = append(boards, Attached{d, f, rom})
			}
		}
	}
	return boards, nil
}
