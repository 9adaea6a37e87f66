package sama5

import (
	"fmt"
	"slices"
	"strings"
)

// ProvenBy are the programs, which nobody here wrote, that have recovered every virtual board, as docs/sama5.md tells.
const ProvenBy = "Snagboot, SAM-BA (by hand)"

// Model is a chip.
type Model struct {
	Name string

	cidr, cidrAt uint32 // the chip ID, and where it is
	exid, exidAt uint32 // its extension
	sram, size   uint32 // where applets run
	remap        uint32 // AXIMX_REMAP
	cache        uint32 // SFR_L2CC_HRAMC, which makes the applets' memory one; 0: it is one
	sets         []int  // I/O sets of each console instance
}

// The models. All have DRAM at 0x20000000.
var models = []Model{
	{Name: "sama5d2", cidr: 0x8a5c08c1, cidrAt: 0xfc069000, exid: 0x00000021, exidAt: 0xfc069004, sram: 0x220000, size: 128 << 10, remap: 0x600000, cache: 0xf8030058,
		sets: []int{1, 2, 3, 3, 1, 1, 1, 2, 3, 3}},
	{Name: "sama5d3", cidr: 0x8a5c07c2, cidrAt: 0xffffee40, exid: 0x00414301, exidAt: 0xffffee44, sram: 0x300000, size: 64 << 10, remap: 0x800000,
		sets: []int{1, 1, 1, 1, 1, 1, 1}},
	{Name: "sama5d4", cidr: 0x8a5c07c1, cidrAt: 0xfc069040, exid: 0x00000003, exidAt: 0xfc069044, sram: 0x200000, size: 64 << 10, remap: 0x700000,
		sets: []int{1, 1, 1, 1, 1, 1, 1, 1}},
}

// Models are all.
func Models() []Model { return slices.Clone(models) }

// Names are the models' names.
func Names() (names []string) {
	for _, m := range models {
		names = append(names, m.Name)
	}
	return names
}

// FindModel finds a model by its name.
func FindModel(name string) (Model, error) {
	for _, m := range models {
		if m.Name == name {
			return m, nil
		}
	}
	return Model{}, fmt.Errorf("no virtual board is a %q: there are %s", name, strings.Join(Names(), ", "))
}

const (
	dram      = 0x20000000
	testWords = 1024 // of the RAM applet's test pattern
)
