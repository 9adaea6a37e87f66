package bcm

import (
	"fmt"
	"slices"
	"strings"

	"snag/usb"
)

// Model is a SoC.
type Model struct {
	Name     string
	Aliases  []string
	ID       usb.ID // of both stages
	Dir      string // what a host keeps its files in
	Bootcode string // what a host sends the ROM
	Product  string
	Serial   bool // the ROM has a serial number

	// ProvenBy is the program, which nobody here wrote, that has recovered the virtual board, by hand, as docs/bcm.md
	// tells.
	ProvenBy string

	memsys int      // how many files of memory settings the second stage asks for; 0: it is of the old kind
	extra  []string // what it asks for besides, and can do without
	kernel string   // what is started if config.txt does not say
	tree   string   // the device tree that is asked for
}

// rpiboot is Raspberry Pi's, of usbboot at 87d6e03.
const rpiboot = "rpiboot"

var models = []Model{
	{Name: "bcm2835", ID: id(0x2763), Dir: "2710", Bootcode: "bootcode.bin", Product: "BCM2708 Boot", ProvenBy: rpiboot, kernel: "kernel.img", tree: "bcm2708-rpi-cm.dtb"},
	{Name: "bcm2836", ID: id(0x2764), Dir: "2710", Bootcode: "bootcode.bin", Product: "BCM2710 Boot", ProvenBy: rpiboot, kernel: "kernel7.img", tree: "bcm2709-rpi-2-b.dtb"},
	{Name: "bcm2837", Aliases: []string{"bcm2710"}, ID: id(0x2764), Dir: "2710", Bootcode: "bootcode.bin", Product: "BCM2710 Boot", ProvenBy: rpiboot, kernel: "kernel8.img", tree: "bcm2710-rpi-cm3.dtb"},
	{Name: "bcm2711", ID: id(0x2711), Dir: "2711", Bootcode: "bootcode4.bin", Product: "BCM2711 Boot", ProvenBy: rpiboot, Serial: true, memsys: 9, kernel: "kernel8.img", tree: "bcm2711-rpi-cm4.dtb"},
	{Name: "bcm2712", ID: id(0x2712), Dir: "2712", Bootcode: "bootcode5.bin", Product: "BCM2712D0 Boot", ProvenBy: rpiboot, Serial: true, memsys: 4,
		extra: []string{"rp1c0fw1.bin", "rp1c0fw2.bin"}, kernel: "kernel_2712.img", tree: "bcm2712-rpi-cm5-cm5io.dtb"},
}

func id(product uint16) usb.ID { return usb.ID{Vendor: 0x0a5c, Product: product} }

// Models lists all SoCs.
func Models() []Model { return slices.Clone(models) }

// FindModel finds a SoC by one of its names.
func FindModel(name string) (Model, error) {
	name = strings.ToLower(name)
	i := slices.IndexFunc(models, func(m Model) bool { return m.Name == name || slices.Contains(m.Aliases, name) })
	if i < 0 {
		return Model{}, fmt.Errorf("virtual Broadcom board %q: there are %s", name, strings.Join(Names(), ", "))
	}
	return models[i], nil
}

// Names are all names that [FindModel] knows.
func Names() (all []string) {
	for _, m := range models {
		all = append(append(all, m.Name), m.Aliases...)
	}
	return all
}
