package firmware

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"snag/firmware/firmwaretest"
)

func TestZynqMP(t *testing.T) {
	b := firmwaretest.SomeBoot()
	z, err := ParseZynqMP(b)
	if err != nil || len(z.Images) != 4 || len(z.Partitions) != 5 || !z.Complete() || z.Load != 0xfffc0000 || z.FSBL != 3000 || z.PMUFW != 0 || z.Registers != 0 {
		t.Fatalf("%+v, %v", z, err)
	}
	var names []string
	for _, i := range z.Images {
		names = append(names, i.Name)
	}
	if s := strings.Join(names, " "); s != "fsbl.elf pmufw.elf bl31.elf u-boot.elf" {
		t.Error(s)
	}
	if p := z.Partitions[1]; p.CPU() != "PMU" || p.Device() != "PMU" || p.Owner() != "FSBL" || p.Load != 0xffdc0000 || p.Length != 1200 || p.Secure() || !bytes.Equal(b[p.Start:][:p.Length], pattern(1200)) {
		t.Errorf("%+v", p)
	}
	if p := z.Partitions[2]; p.CPU() != "A53-0" || p.Device() != "PS" || p.EL() != 3 || !p.Secure() || p.Signed() || p.Encrypted() {
		t.Errorf("%+v", p)
	}
	for name, tt := range map[string]struct {
		b    []byte
		want string
	}{
		"boot header":      {damage(b, 0x31), "boot header: its checksum is"},
		"table":            {damage(b, 0x8c1), "image header table: its checksum"},
		"partition header": {damage(b, 0xc80+64+0x15), "header of partition 1 at 0xcc0: its checksum"},
		"cut":              {b[:len(b)-64], "partition 4: truncated"},
		"no partitions":    {b[:0xc90], "partition header: truncated"},
		"short":            {b[:0x800], "the file has 0x800 bytes"},
		"other":            {pattern(4000), "no Zynq UltraScale+"},
		"Zynq-7000":        {damage(b, 0x2f), "is it for Zynq-7000?"},
		"circle":           {words(b, 0xc80+64*4+12, 0xc80/4), "in a circle, back to 0xc80"},
		"images in circle": {words(b, 0x900, 0x900/4), "in a circle, back to 0x900"},
		"table outside":    {words(b, 0x98, 0xfffffff0), "image header table: truncated"},
		"number":           {words(b, 0x8c4, 7), "announces 7 partitions, there are 5"},
	} {
		_, err := ParseZynqMP(tt.b)
		wants(t, name, err, tt.want)
	}
}

// words returns a copy with some words changed.
func words(b []byte, off int, values ...uint32) []byte {
	b = bytes.Clone(b)
	for i, v := range values {
		binary.LittleEndian.PutUint32(b[off+4*i:], v)
	}
	return b
}

// TestZynqMPFirstStage takes first stages out of whole images, and holds them against those that were built as such.
func TestZynqMPFirstStage(t *testing.T) {
	fsbl := firmwaretest.ZynqMPImage{Name: "fsbl.elf", Partitions: []firmwaretest.ZynqMPPartition{{Data: pattern(3000), Load: 0xfffc0000, Attributes: 0x116}}}
	pmu := firmwaretest.ZynqMPImage{Name: "pmufw.elf", Partitions: []firmwaretest.ZynqMPPartition{{Data: pattern(1200), Load: 0xffdc0000, Attributes: 0x830}}}
	uboot := firmwaretest.ZynqMPImage{Name: "u-boot.elf", Partitions: []firmwaretest.ZynqMPPartition{{Data: pattern(9000), Load: 0x8000000, Attributes: 0x114}}}
	build := func(pmufw []byte, images ...firmwaretest.ZynqMPImage) []byte {
		return firmwaretest.ZynqMP{PMUFW: pmufw, Images: images}.Bytes()
	}
	for name, tt := range map[string]struct{ whole, want []byte }{
		"PMU on its own":   {build(nil, fsbl, pmu, uboot), build(nil, fsbl, pmu)},
		"PMU by the ROM":   {build(pattern(1100), fsbl, uboot), build(pattern(1100), fsbl)},
		"PMU twice":        {build(pattern(1100), fsbl, pmu, uboot), build(pattern(1100), fsbl)},
		"no PMU":           {build(nil, fsbl, uboot), build(nil, fsbl)},
		"PMU later":        {build(nil, fsbl, uboot, pmu), build(nil, fsbl)},
		"first stage only": {build(nil, fsbl, pmu), build(nil, fsbl, pmu)},
	} {
		z, err := ParseZynqMP(tt.whole)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		was := bytes.Clone(tt.whole)
		got, err := z.FirstStage(tt.whole)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(was, tt.whole) {
			t.Errorf("%s: the whole image was changed", name)
		}
		first, err := ParseZynqMP(got)
		if err != nil || first.Complete() || first.FSBL != z.FSBL || first.PMUFW != z.PMUFW {
			t.Fatalf("%s: %+v, %v", name, first, err)
		}
		// Behind the headers that are left, those of the other images and partitions still stand; nothing leads there.
		n := len(first.Partitions)
		images := first.Images[len(first.Images)-1]
		clear(got[images.Offset+images.Size : first.Partitions[0].Offset])
		clear(got[first.Partitions[n-1].Offset+64 : first.Source])
		// The builder pads to 64 bytes.
		if want := tt.want; len(want)-len(got) < 0 || len(want)-len(got) >= 64 || !bytes.Equal(got, want[:len(got)]) {
			t.Errorf("%s: %d bytes, want %d; first difference at %#x", name, len(got), len(want), different(got, want))
		}
	}

	// What is left has its signature and its checksum with it.
	whole := build(nil, fsbl, pmu, uboot)
	z, err := ParseZynqMP(words(whole, 0xc80+64+0x34, uint32(len(whole)-0xec0)/4))
	wants(t, "changed", err, "checksum")
	if got, err := z.FirstStage(whole); err != nil || len(got) != len(whole) {
		t.Errorf("%d bytes of %d, %v", len(got), len(whole), err)
	}
	z.Partitions[1].certAt = len(whole)
	_, err = z.FirstStage(whole)
	wants(t, "certificate", err, "truncated")
}

func different(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
