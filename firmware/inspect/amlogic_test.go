package inspect

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"snag/firmware/firmwaretest"
	sim "snag/sim/amlogic"
)

// TestAmlogic holds generated images against testdata/amlogic.txt.
func TestAmlogic(t *testing.T) {
	gx, axg, g12 := sim.Generate(sim.GX, 20_000, 1), sim.Generate(sim.AXG, 2000, 1), sim.Generate(sim.G12, 2000, 1)["u-boot-fip"]
	flip := firmwaretest.Damage
	signed := slices.Clone(gx["bl2"])
	signed[32] = 3
	var got bytes.Buffer
	for _, g := range []file{
		{"gx/u-boot.bin.usb.bl2", gx["bl2"]},
		{"gx/signed.bl2", signed},
		{"gx/damaged.bl2", flip(gx["bl2"], 9000)},
		{"gx/cut.bl2", gx["bl2"][:9000]},
		{"gx/u-boot.bin.usb.tpl", gx["u-boot"]},
		{"gx/damaged.tpl", flip(gx["u-boot"], 0x4800)},
		{"gx/cut.tpl", gx["u-boot"][:0x5000]},
		{"axg/u-boot.bin.usb.tpl", axg["u-boot"]},
		{"axg/cut.tpl", axg["u-boot"][:0x5000]},
		{"g12/u-boot.bin", g12},
		{"g12/damaged.bin", flip(g12, len(g12)-1)},
		{"g12/u-boot.bin.sd.bin", append(make([]byte, 512), g12...)},
	} {
		r := Data(g.name, g.data)
		if err := r.Write(&got, true); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&got)
		inside(t, g.name, len(g.data), r.Parts)
	}
	compare(t, "amlogic.txt", got.Bytes())
}
