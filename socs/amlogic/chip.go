package amlogic

import (
	"fmt"

	"snag/socs"
)

// chip is how the models of a family start: pyamlboot, boot.py and boot-g12.py.
type chip struct {
	name       string // for people
	asks       bool   // BL2 asks for what it wants: G12, SM1
	bl2        uint32 // where BL2 goes
	parameters uint32 // where it looks for a block of parameters, which ends what room BL2 has
	fip        uint32 // where U-Boot and the rest go
}

var (
	gx  = &chip{name: "GXBB, GXL and GXM", bl2: 0xd9000000, parameters: 0xd900c000, fip: 0x0200c000}
	axg = &chip{name: "AXG", bl2: 0xfffc0000, parameters: 0xfffcc000, fip: 0x0200c000}
	g12 = &chip{name: "G12A, G12B and SM1", asks: true, bl2: 0xfffa0000}
)

// chips are by model; Snagboot 3.0, recoveries/amlogic.py.
var chips = map[string]*chip{
	"s905": gx, "s905h": gx, "s905m": gx, // GXBB
	"s905d": gx, "s905x": gx, "s905w": gx, "s905l": gx, "s905m2": gx, "s805x": gx, "s805y": gx, // GXL
	"s912":  gx, // GXM
	"a113x": axg, "a113d": axg,
	"s905d2": g12, "s905y2": g12, "s905x2": g12, // G12A
	"a311d": g12, "s922x": g12, // G12B
	"s905x3": g12, "s905d3": g12, // SM1
}

func chipOf(m socs.Model) (*chip, error) {
	if c := chips[m.Name]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("amlogic: no model %q", m.Name)
}

// slots are the files that the chip takes.
func (c *chip) slots() []string {
	if c.asks {
		return []string{slotFIP}
	}
	return []string{slotBL2, slotUBoot}
}
