package amlogic

import (
	"fmt"
	"slices"
	"strings"

	"snag/sim/virtual"
	"snag/usb"
)

// ID is that of every ROM, and of the vendor's U-Boot.
var ID = usb.ID{Vendor: 0x1b8e, Product: 0xc003}

// Family is how a chip starts.
type Family string

const (
	GX  Family = "gx"  // GXBB, GXL, GXM
	AXG Family = "axg" // as GX, with other addresses
	G12 Family = "g12" // G12A, G12B, SM1
)

// Model is a chip.
type Model struct {
	Name   string
	Family Family
	// Returns says that the BL2 which has set up the DRAM returns to the ROM, which shows stage 0 still, as GXBB's
	// does.
	Returns bool

	// ProvenBy are the programs, which nobody here wrote, that have recovered the virtual board, or in brackets one
	// that is alike but for its name: by hand, see docs/amlogic.md.
	ProvenBy string
}

// byHand are the two whose sources were run.
const byHand = "pyamlboot, Snagboot"

var models = []Model{
	{Name: "s905", Family: GX, Returns: true, ProvenBy: byHand},
	{Name: "s905h", Family: GX, Returns: true, ProvenBy: byHand + " (s905)"},
	{Name: "s905m", Family: GX, Returns: true, ProvenBy: byHand + " (s905)"},
	{Name: "s905x", Family: GX, ProvenBy: byHand},
	{Name: "s905d", Family: GX, ProvenBy: byHand + " (s905x)"},
	{Name: "s905w", Family: GX, ProvenBy: byHand + " (s905x)"},
	{Name: "s905l", Family: GX, ProvenBy: byHand + " (s905x)"},
	{Name: "s905m2", Family: GX, ProvenBy: byHand + " (s905x)"},
	{Name: "s805x", Family: GX, ProvenBy: byHand + " (s905x)"},
	{Name: "s805y", Family: GX, ProvenBy: byHand + " (s905x)"},
	{Name: "s912", Family: GX, ProvenBy: byHand + " (s905x)"},
	{Name: "a113d", Family: AXG, ProvenBy: byHand},
	{Name: "a113x", Family: AXG, ProvenBy: byHand + " (a113d)"},
	{Name: "a311d", Family: G12, ProvenBy: byHand},
	{Name: "s922x", Family: G12, ProvenBy: byHand + " (a311d)"},
	{Name: "s905d2", Family: G12, ProvenBy: byHand + " (a311d)"},
	{Name: "s905y2", Family: G12, ProvenBy: byHand + " (a311d)"},
	{Name: "s905x2", Family: G12, ProvenBy: byHand + " (a311d)"},
	{Name: "s905x3", Family: G12, ProvenBy: byHand + " (a311d)"},
	{Name: "s905d3", Family: G12, ProvenBy: byHand + " (a311d)"},
}

// Names are their names.
func Names() []string {
	var all []string
	for _, m := range models {
		all = append(all, m.Name)
	}
	return all
}

// FindModel finds a chip by its name.
func FindModel(name string) (Model, error) {
	i := slices.IndexFunc(models, func(m Model) bool { return m.Name == strings.ToLower(name) })
	if i < 0 {
		return Model{}, fmt.Errorf("virtual Amlogic board %q: there are %s", name, strings.Join(Names(), ", "))
	}
	return models[i], nil
}

// The names of the stages.
const (
	StageROM    = virtual.StageROM
	StageBL2    = "bl2" // on the ROM's enumeration
	StageGadget = virtual.StageGadget
)

// layout is where things are in a chip's address space.
type layout struct {
	sram, sramEnd uint32 // what the ROM lets the host write
	bl2           uint32 // GX, AXG
	parameters    uint32 // GX, AXG
}

// dramEnd is where the DRAM of the smallest boards ends. It begins at 0.
const dramEnd = 0x20000000

func (f Family) layout() layout {
	switch f {
	case GX:
		return layout{0xd9000000, 0xd9014000, 0xd9000000, 0xd900c000}
	case AXG:
		return layout{0xfffc0000, 0xfffd4000, 0xfffc0000, 0xfffcc000}
	}
	return layout{sram: 0xfffa0000, sramEnd: 0xfffd0000}
}
