package k3_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"snag/firmware/firmwaretest"
	"snag/sim/dfu"
	"snag/socs"
	soc "snag/socs/k3"
)

// tree builds a device tree token by token.
type tree struct{ structure, strings []byte }

func (t *tree) cell(v uint32) { t.structure = binary.BigEndian.AppendUint32(t.structure, v) }

func (t *tree) bytes(b []byte) {
	t.structure = append(t.structure, b...)
	for len(t.structure)%4 != 0 {
		t.structure = append(t.structure, 0)
	}
}

func (t *tree) begin(name string) {
	t.cell(1)
	t.bytes(append([]byte(name), 0))
}

func (t *tree) end() { t.cell(2) }

func (t *tree) prop(name string, value []byte) {
	t.cell(3)
	t.cell(uint32(len(value)))
	t.cell(uint32(len(t.strings)))
	t.strings = append(append(t.strings, name...), 0)
	t.bytes(value)
}

func (t *tree) text(name, value string) { t.prop(name, append([]byte(value), 0)) }

func (t *tree) blob() []byte {
	t.cell(9)
	const header, reserve = 40, 16
	b := binary.BigEndian.AppendUint32(nil, 0xd00dfeed)
	for _, v := range []int{header + reserve + len(t.structure) + len(t.strings), header + reserve, header + reserve + len(t.structure),
		header, 17, 16, 0, len(t.strings), len(t.structure)} {
		b = binary.BigEndian.AppendUint32(b, uint32(v))
	}
	return slices.Concat(b, make([]byte, reserve), t.structure, t.strings)
}

// dtb is a board's description.
func dtb(compatible ...string) []byte {
	var t tree
	t.begin("")
	t.text("compatible", strings.Join(compatible, "\x00"))
	t.end()
	return t.blob()
}

// fit is an image tree with a board's description and images of these names, which may be followed by where they go: "uboot to 0x80800000".
func fit(board []byte, names ...string) []byte {
	var t tree
	t.begin("")
	t.text("description", "a test")
	t.begin("images")
	for _, n := range names {
		name, load, to := strings.Cut(n, " to ")
		t.begin(name)
		t.text("type", "firmware")
		if to {
			at, _ := strconv.ParseUint(load, 0, 32)
			t.prop("load", binary.BigEndian.AppendUint32(nil, uint32(at)))
		}
		t.prop("data", firmwaretest.Pattern(5000))
		t.end()
	}
	t.begin("fdt-0")
	t.text("type", "flat_dt")
	t.prop("data", board)
	t.end()
	t.end()
	t.end()
	return t.blob()
}

// tiboot3 is one with SPL for a board.
func tiboot3(load uint32, board []byte) []byte {
	spl := append(firmwaretest.Pattern(3000), board...)
	return firmwaretest.TICombined(firmwaretest.TIComponent{Type: 2, Load: 0x40000, Data: firmwaretest.Pattern(2000)},
		firmwaretest.TIComponent{Type: 1, Core: 16, Load: load, Data: spl})
}

// of has the files of a model's build.
func of(model string) socs.Firmware {
	chip := map[string]struct {
		load       uint32
		compatible string
	}{
		"am623": {0x43c00000, "ti,am625"}, "am625": {0x43c00000, "ti,am625"}, "am62a7": {0x43c00000, "ti,am62a7"}, "am62d2": {0x43c00000, "ti,am62d2"},
		"am62p": {0x43c00000, "ti,am62p5"}, "am62l3": {0x70800000, "ti,am62l3"}, "am6546": {0x41c00000, "ti,am654"}, "am6548": {0x41c00000, "ti,am654"},
		"j7200": {0x41c00000, "ti,j7200"}, "j721e": {0x41c00000, "ti,j721e"}, "j721s2": {0x41c00000, "ti,j721s2"},
		"j722s": {0x43c00000, "ti,j722s"}, "j784s4": {0x41c00000, "ti,j784s4"},
	}[model]
	if chip.load == 0 {
		chip.load, chip.compatible = 0x70000000, "ti,am642"
	}
	board := dtb("a,board", chip.compatible)
	fw := socs.Firmware{
		"tiboot3": {Path: "tiboot3.bin", Data: tiboot3(chip.load, board)},
		"tispl":   {Path: "tispl.bin", Data: fit(board, "atf", "tee", "dm", "spl")},
		"u-boot":  {Path: "u-boot.img", Data: fit(board, "uboot")},
	}
	switch model {
	case "am62l3":
		fw["tiboot3"] = socs.Image{Path: "tiboot3.bin", Data: tiboot3(chip.load, nil)} // BL1 has no board
		fw["tispl"] = socs.Image{Path: "tispl.bin", Data: tiboot3(0x80000000, append([]byte("\x00U-Boot SPL 2026.10\x00\x00"), board...))}
	case "am6546", "am6548", "j721e":
		fw["sysfw"] = socs.Image{Path: "sysfw.itb", Data: fit(nil, "sysfw.bin", "board-cfg.bin")}
	}
	return fw
}

// models are all of the family.
func models() (names []string) {
	for _, m := range socs.Models() {
		if m.Family == "k3" {
			names = append(names, m.Name)
		}
	}
	return names
}

func TestCheck(t *testing.T) {
	type files = map[string][]byte
	am62 := of("am625")
	for _, tc := range []struct {
		name  string
		model string
		give  files  // instead of the model's; nil: that slot is empty
		slot  string // with the error; none expected if empty
		says  string // the error, or else a finding
		hint  string
	}{
		{name: "as it should be", model: "am625"},
		{name: "no tiboot3", model: "am625", give: files{"tiboot3": nil}, slot: "tiboot3", says: "missing: AM62x needs it", hint: "give tiboot3, tispl, u-boot"},
		{name: "no u-boot", model: "am62l3", give: files{"u-boot": nil}, slot: "u-boot", says: "missing"},
		{name: "no sysfw", model: "am6548", give: files{"sysfw": nil}, slot: "sysfw", says: "missing: AM65x needs it"},
		{name: "sysfw that nobody needs", model: "am625", give: files{"sysfw": of("j721e")["sysfw"].Data}, says: "only if SPL asks for it"},
		{name: "empty", model: "am625", give: files{"tispl": {}}, slot: "tispl", says: "the file is empty"},
		{name: "text", model: "am625", give: files{"u-boot": []byte("<html>not found</html>\n")}, slot: "u-boot", says: "expected a FIT image with U-Boot, it is "},
		{name: "tispl as tiboot3", model: "am625", give: files{"tiboot3": am62["tispl"].Data}, slot: "tiboot3", says: "expected an image with an X.509 certificate", hint: `belongs under "tispl"`},
		{name: "tiboot3 as tispl", model: "am625", give: files{"tispl": am62["tiboot3"].Data}, slot: "tispl", says: "expected a FIT image with TF-A and SPL", hint: `belongs under "tiboot3"`},
		{name: "u-boot as tispl", model: "am625", give: files{"tispl": am62["u-boot"].Data}, slot: "tispl", says: "which has U-Boot", hint: `belongs under "u-boot"`},
		{name: "tispl as u-boot", model: "am625", give: files{"u-boot": am62["tispl"].Data}, slot: "u-boot", says: "which has SPL", hint: `belongs under "tispl"`},
		{name: "sysfw as u-boot", model: "j721e", give: files{"u-boot": of("j721e")["sysfw"].Data}, slot: "u-boot", says: "system firmware", hint: `belongs under "sysfw"`},
		{name: "FIT as AM62L's tispl", model: "am62l3", give: files{"tispl": am62["tispl"].Data}, slot: "tispl", says: "expected an image with an X.509 certificate", hint: "AM62Lx"},
		{name: "AM62L's tispl as tiboot3", model: "am62l3", give: files{"tiboot3": of("am62l3")["tispl"].Data}, slot: "tiboot3", says: "which has SPL", hint: `belongs under "tispl"`},
		{name: "FIT for Rockchip", model: "am625", give: files{"u-boot": fit(nil, "firmware-1 to 0x00200000")}, slot: "u-boot", says: "a FIT that loads to 0x200000, where AM62x has no DRAM", hint: "u-boot.img"},
		{name: "FIT that goes to DRAM", model: "am625", give: files{"u-boot": fit(nil, "uboot to 0x80800000", "blob to 0x70000000")}},
		{name: "unknown FIT", model: "am625", give: files{"u-boot": fit(nil, "firmware-1")}},
		{name: "SPL without a certificate", model: "am625", give: files{"tiboot3": firmwaretest.Pattern(9000)}, slot: "tiboot3", says: "expected an image with an X.509"},
		{name: "signed for the system firmware", model: "am625", give: files{"tiboot3": firmwaretest.TISigned(firmwaretest.Pattern(900))}, slot: "tiboot3", says: "no boot loader"},
		{name: "boot loader alone", model: "am6548", give: files{"tiboot3": firmwaretest.TIBoot(0x41c00100, firmwaretest.Pattern(900))}},
		{name: "damaged tiboot3", model: "am625", give: files{"tiboot3": firmwaretest.Damage(am62["tiboot3"].Data, len(am62["tiboot3"].Data)-9)}, slot: "tiboot3", says: "is damaged", hint: "again"},
		{name: "cut tiboot3", model: "am625", give: files{"tiboot3": am62["tiboot3"].Data[:4000]}, slot: "tiboot3", says: "truncated", hint: "again"},
		{name: "cut tispl", model: "am625", give: files{"tispl": am62["tispl"].Data[:7000]}, slot: "tispl", says: "FIT"},
		{name: "tiboot3 of AM64x", model: "am625", give: files{"tiboot3": tiboot3(0x70000000, nil)}, slot: "tiboot3", says: "it loads its first stage to 0x70000000, which is where it goes on AM64x; expected 0x43c00000 for AM62x"},
		{name: "tiboot3 of AM62P", model: "am625", give: files{"tiboot3": of("am62p")["tiboot3"].Data}, slot: "tiboot3", says: "it is for boards with AM62Px, expected AM62x (ti,am625)"},
		{name: "u-boot of AM64x", model: "am625", give: files{"u-boot": of("am6442")["u-boot"].Data}, slot: "u-boot", says: "it is for boards with AM64x"},
		{name: "unknown load address", model: "am625", give: files{"tiboot3": tiboot3(0x12340000, nil)}, says: "loads its first stage to 0x12340000"},
		{name: "large tispl", model: "am625", give: files{"tispl": append(slices.Clone(am62["tispl"].Data), make([]byte, 2<<20)...)}, says: "SPL's room for it is usually 2097152"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			model, err := socs.Lookup(tc.model)
			if err != nil {
				t.Fatal(err)
			}
			fw := of(tc.model)
			for slot, data := range tc.give {
				fw[slot] = socs.Image{Path: slot + ".bin", Data: data}
				if data == nil {
					delete(fw, slot)
				}
			}
			sent, findings, err := soc.Backend{}.Check(model, fw)
			if tc.slot == "" {
				if err != nil || len(sent) != len(fw) {
					t.Errorf("%v, %d of %d images are in order", err, len(sent), len(fw))
				}
				if text := fmt.Sprint(findings); !strings.Contains(text, tc.says) || tc.says == "" && len(findings) > 0 {
					t.Errorf("it said %s, want %q", text, tc.says)
				}
				return
			}
			var all []*socs.FirmwareError
			if joined, ok := err.(interface{ Unwrap() []error }); ok {
				for _, e := range joined.Unwrap() {
					all = append(all, e.(*socs.FirmwareError))
				}
			}
			if len(all) != 1 || all[0].Slot != tc.slot || !strings.Contains(all[0].Error(), tc.says) || !strings.Contains(all[0].Hint, tc.hint) || all[0].Hint == "" {
				t.Errorf("%v (hint %q), want %q of %s (hint %q)", err, hints(all), tc.says, tc.slot, tc.hint)
			}
			if _, ok := sent[tc.slot]; ok {
				t.Error("the refused image is to be sent")
			}
		})
	}
}

// The virtual boards' own files are in order.
func TestCheckGenerated(t *testing.T) {
	for _, name := range models() {
		model, _ := socs.Lookup(name)
		board, err := dfu.FindModel(chip(name))
		if err != nil {
			t.Fatal(err)
		}
		fw := socs.Firmware{}
		for slot, data := range dfu.Generate(board, 20_000, 1) {
			fw[slot] = socs.Image{Path: slot, Data: data}
		}
		if _, findings, err := (soc.Backend{}).Check(model, fw); err != nil || len(findings) > 0 {
			t.Errorf("%s: %v, %v", name, err, findings)
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, model := range []string{"am625", "am62l3", "j721e"} {
		for slot, img := range of(model) {
			f.Add(model, slot, img.Data)
		}
	}
	f.Fuzz(func(t *testing.T, name, slot string, data []byte) {
		model, err := socs.Lookup(name)
		if err != nil {
			return
		}
		sent, _, err := soc.Backend{}.Check(model, socs.Firmware{slot: {Path: "file", Data: data}})
		if err == nil {
			t.Error("one file alone is in order")
		}
		if img, ok := sent[slot]; ok && len(img.Data) != len(data) {
			t.Errorf("%d of %d bytes are to be sent", len(img.Data), len(data))
		}
	})
}

func hints(all []*socs.FirmwareError) (s []string) {
	for _, e := range all {
		s = append(s, e.Hint)
	}
	return s
}

// What a build for one model makes is in order for it, and is refused for all with another SoC.
func TestCheckModels(t *testing.T) {
	same := map[string]string{"am623": "am62x", "am625": "am62x", "am6546": "am65x", "am6548": "am65x"}
	soCOf := func(name string) string {
		switch {
		case same[name] != "":
			return same[name]
		case strings.HasPrefix(name, "am64"):
			return "am64x"
		}
		return name
	}
	for _, name := range models() {
		model, _ := socs.Lookup(name)
		for _, other := range models() {
			_, findings, err := soc.Backend{}.Check(model, of(other))
			if (err == nil) != (soCOf(name) == soCOf(other)) || err == nil && len(findings) > 0 {
				t.Errorf("%s with the files of %s: %v, %v", name, other, err, findings)
			}
		}
	}
}
