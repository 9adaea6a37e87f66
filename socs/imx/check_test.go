package imx_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"snag/sim/imx"
	"snag/socs"
	soc "snag/socs/imx"
	"snag/socs/socstest"
)

// generated is what imx.Generate makes for a model as it is usually.
func generated(t testing.TB, model string) []byte {
	t.Helper()
	m, err := imx.FindModel(model)
	if err != nil {
		t.Fatal(err)
	}
	images, err := imx.Generate(imx.Config{Model: m}, sized, 1)
	if err != nil {
		t.Fatal(err)
	}
	return images.First
}

// card is an image of a card: boot stages at an offset, and a partition behind them.
func card(offset int, boot []byte) []byte {
	start := (offset + len(boot) + 511) / 512
	b := cat(offset, boot, start*512, make([]byte, 100_000))
	b[446+4] = 0x83
	binary.LittleEndian.PutUint32(b[446+8:], uint32(start))
	b[510], b[511] = 0x55, 0xaa
	return b
}

func TestCheck(t *testing.T) {
	direct := imx.IVTImage{Self: 0x177ff400, Before: 0x400, DCD: imx.GenerateDCD(5, false), Size: 20_000, Seed: 4}
	with := func(change func(*imx.IVTImage)) []byte {
		i := direct
		change(&i)
		return i.Generate()
	}
	edit := func(b []byte, off int, value uint32) []byte {
		b = cat(b)
		binary.LittleEndian.PutUint32(b[off:], value)
		return b
	}
	spl := imx.IVTImage{Self: 0x00907400, Before: 0x400, Size: 40_000, Seed: 1}.Generate()
	splAt := func(entry uint32) []byte { // code begins at 0x800
		first := imx.IVTImage{Self: entry - 0x800, Version: 0x41, Size: 40_000, Seed: 1}.Generate()
		return cat(first, 0x58000, imx.GenerateFIT(3, 50_000, 0, 20_000))
	}
	legacy := imx.GenerateLegacy(0x17800000, 20_000, 2)
	fit := imx.GenerateFIT(3, 150_000, 0, 20_000)
	two := func(first, second []byte) map[string][]byte { return map[string][]byte{"SPL": first, "u-boot": second} }
	one := func(slot string, data []byte) map[string][]byte { return map[string][]byte{slot: data} }
	const dcd, flash = "u-boot-with-dcd", "flash-bin"
	set := func(version byte, load uint64) []byte {
		b := imx.GenerateContainers(version, 1, []imx.ContainerImage{{Type: 6, Size: 3000}}, []imx.ContainerImage{{Type: 3, Core: 2, Size: 30_000, Load: load}})
		return append(b, imx.GenerateContainers(version, 2, []imx.ContainerImage{{Type: 3, Core: 2, Size: 50_000, Load: 0x80200000}})...)
	}
	ddr7 := []byte{0xd2, 0, 16, 0x40, 0xcc, 0, 12, 4, 0x30, 0x7a, 0, 0, 0, 0, 0, 1} // writes i.MX7D's
	moved := func(load uint32) []byte {
		b, from := cat(imx.GenerateFIT(3, 50_000)), binary.BigEndian.AppendUint32(nil, 0x80200000)
		copy(b[bytes.Index(b, from):], binary.BigEndian.AppendUint32(nil, load))
		return b
	}
	program := func(entry uint32, begin []byte) []byte { // code begins at 0x800
		b := imx.IVTImage{Self: entry - 0x800, Size: 40_000, Seed: 1}.Generate()
		copy(b[0x800:], begin)
		return b
	}
	vectors := append([]byte{0x0e, 0, 0, 0xea}, bytes.Repeat([]byte{0x14, 0xf0, 0x9f, 0xe5}, 7)...)
	branch64 := append([]byte{10, 0, 0, 0x14, 0x1f, 0x20, 0x03, 0xd5}, "U-Boot SPL 2025.01"...)
	mx93, mp := generated(t, "imx93"), generated(t, "imx8mp")
	for _, tc := range []struct {
		name   string
		model  string
		files  map[string][]byte
		slot   string // with the error; none expected if empty
		says   string // the error, or else a finding
		not    string // what the error does not say
		sent   int    // bytes of the first stage's file, if there is but one
		second int    // bytes of u-boot
	}{
		{name: "as it should be", model: "imx6q", files: one(dcd, direct.Generate()), sent: 22048},
		{name: "no file", model: "imx6q", slot: dcd, says: "missing: i.MX6Q needs it"},
		{name: "no file for a stream", model: "imx28", slot: flash, says: "missing"},
		{name: "empty", model: "imx6q", files: one(dcd, []byte{}), slot: dcd, says: "empty"},
		{name: "SPL alone", model: "imx6q", files: one("SPL", spl), slot: "u-boot", says: "missing"},
		{name: "u-boot alone", model: "imx6q", files: one("u-boot", legacy), slot: "SPL", says: "missing"},
		{name: "too much", model: "imx6q", files: map[string][]byte{"SPL": spl, "u-boot": legacy, dcd: direct.Generate()}, slot: dcd, says: "does not go together with SPL and u-boot"},
		{name: "swapped", model: "imx6q", files: two(legacy, spl), slot: "SPL", says: "a legacy uImage"},
		{name: "text", model: "imx6q", files: one(dcd, []byte("<!doctype html> not found")), slot: dcd, says: "a web page"},
		{name: "SPL for U-Boot", model: "imx6q", files: two(spl, spl), slot: "u-boot", says: "loads to 0x907400, where i.MX6Q has no DRAM", not: "it is for"},
		{name: "SPL and legacy", model: "imx6q", files: two(spl, legacy)},
		{name: "legacy with more behind it", model: "imx6q", files: two(spl, cat(legacy, 30_000)), says: "", second: len(legacy)},
		{name: "SPL and FIT", model: "imx6ull", files: two(spl, fit)},
		{name: "legacy for 64 bit", model: "imx8mm", files: two(splAt(0x7e1000)[:50_000], legacy), slot: "u-boot", says: "a uImage for arm; i.MX8MM is arm64"},
		{name: "legacy of another SoC", model: "imx6ull", files: two(spl, legacy), slot: "u-boot", says: "loads to 0x17800000, where i.MX6ULL/ULZ has no DRAM"},
		{name: "legacy, damaged", model: "imx6q", files: two(spl, edit(legacy, 100, 0)), slot: "u-boot", says: "data checksum"},
		{name: "FIT of another SoC", model: "imx6ull", files: two(spl, moved(0x17800000)), slot: "u-boot", says: "its programs load to 0x17800000, where i.MX6ULL/ULZ has no memory"},
		{name: "U-Boot with the DCD of another SoC", model: "imx6q", files: two(spl, with(func(i *imx.IVTImage) { i.Self, i.DCD = 0x777ff400, ddr7 })), slot: "u-boot", says: "the memory controller of imx7d, imx7s"},
		{name: "32 bits for 64", model: "imx8mm", files: two(program(0x007e1000, vectors), fit), slot: "SPL", says: "a program for 32-bit ARM"},
		{name: "32 bits for a stream", model: "imx8mp", files: one(flash, program(0x00920000, vectors)), slot: flash, says: "a program for 32-bit ARM"},
		{name: "Quad for UltraLite", model: "imx6ul", files: two(program(0x00908000, bytes.Repeat([]byte{0x40, 0, 0x20, 0x18}, 16)), fit), slot: "SPL", says: "it has its variables from 0x18200000 on"},
		{name: "64 bits for 32", model: "imx6q", files: two(program(0x00908000, branch64), legacy), slot: "SPL", says: "a program for 64-bit ARM"},
		{name: "FIT, cut", model: "imx6q", files: two(spl, fit[:100_000]), slot: "u-boot", says: "truncated"},
		{name: "cut", model: "imx6q", files: one(dcd, direct.Generate()[:15_000]), slot: dcd, says: "the file is cut"},
		{name: "cut a little", model: "imx6q", files: one(dcd, direct.Generate()[:20_000]), sent: 20_000},
		{name: "no DCD", model: "imx6q", files: one(dcd, with(func(i *imx.IVTImage) { i.DCD = nil })), slot: dcd, says: "has no DCD to set that up"},
		{name: "no DCD, signed", model: "imx6q", files: one(dcd, with(func(i *imx.IVTImage) { i.DCD, i.Signed = nil, true })), says: "has no DCD"},
		{name: "DCD hidden for the signature", model: "imx6q", files: one(dcd, edit(with(func(i *imx.IVTImage) { i.Signed = true }), 12, 0)), says: "one of 84 bytes stands behind the boot data"},
		{name: "signed with a DCD", model: "imx6q", files: one(dcd, with(func(i *imx.IVTImage) { i.Signed = true })), says: "spoils the signature"},
		{name: "signed with a DCD that is skipped", model: "imx6ull", files: one(dcd, with(func(i *imx.IVTImage) { i.Self, i.Signed = 0x877ff400, true })), says: "it is signed"},
		{name: "DCD outside", model: "imx6q", files: one(dcd, edit(direct.Generate(), 12, 0x20000000)), slot: dcd, says: "DCD"},
		{name: "DCD too long", model: "imx6q", files: one(dcd, with(func(i *imx.IVTImage) { i.DCD = imx.GenerateDCD(220, false) })), slot: dcd, says: "at most 1768"},
		{name: "DCD of another SoC", model: "imx6q", files: one(dcd, with(func(i *imx.IVTImage) {
			i.DCD = ddr7
		})), slot: dcd, says: "the memory controller of imx7d, imx7s"},
		{name: "DCD that unlocks, bulk", model: "imx53", files: one(dcd, with(func(i *imx.IVTImage) { i.Self, i.DCD = 0x777ff400, []byte{0xd2, 0, 8, 0x40, 0xb2, 0, 4, 0x1d} })), slot: dcd, says: "unlocks engine 0x1d"},
		{name: "i.MX8M's", model: "imx6q", files: one(dcd, with(func(i *imx.IVTImage) { i.Version = 0x41 })), slot: dcd, says: "an image for i.MX8M"},
		{name: "entry outside", model: "imx6q", files: one(dcd, edit(direct.Generate(), 4, 0x10000000)), slot: dcd, says: "entry point"},
		{name: "nowhere", model: "imx6q", files: one(dcd, with(func(i *imx.IVTImage) { i.Self = 0x08000000 })), slot: dcd, says: "where i.MX6Q has no memory"},
		{name: "too large for internal memory", model: "imx6q", files: two(imx.IVTImage{Self: 0x00907400, Size: 300_000}.Generate(), legacy), slot: "SPL", says: "memory ends at 0x940000"},
		{name: "of a card", model: "imx6q", files: one(dcd, card(0x400, direct.Generate())), says: "image of a whole card", sent: 22048},
		{name: "all in one, of a card", model: "imx6q", files: one(flash, card(0x400, cat(spl, 0x11000, legacy))), says: "stands at 0x11400", sent: -1},
		{name: "plugin without an image", model: "imx6q", files: one(dcd, imx.IVTImage{Self: 0x00907400, Size: 4000, Flags: 1}.Generate()), slot: dcd, says: "no image behind the plugin"},

		{name: "microcontroller", model: "imxrt106x", files: one(dcd, with(func(i *imx.IVTImage) { i.Self, i.DCD, i.Version = 0x20208000, nil, 0x41 })), sent: -1},
		{name: "microcontroller, later", model: "imxrt106x", files: one(dcd, with(func(i *imx.IVTImage) { i.Self, i.DCD, i.Version = 0x20208000, nil, 0x43 })), sent: -1},
		{name: "Mini", model: "imx8mm", files: one(flash, splAt(0x7e1000)), says: "stands at 0x58000"},
		{name: "Nano for Mini", model: "imx8mm", files: one(flash, splAt(0x912000)), slot: flash, says: "its entry point is 0x912000, that of i.MX8MN"},
		{name: "Mini for Plus", model: "imx8mp", files: one(flash, splAt(0x7e1000)), slot: flash, says: "that of i.MX8MQ or i.MX8MM"},
		{name: "Plus, of a card", model: "imx8mp", files: one(flash, card(0x8000, splAt(0x920000))), says: "begins at 0x8000"},
		{name: "Plus, SPL alone", model: "imx8mp", files: one(flash, splAt(0x920000)[:0x58000]), says: "in vain"},
		{name: "Quad with HDMI", model: "imx8mq", files: one(flash, generated(t, "imx8mq")), says: "HDMI firmware in front of the image at 0xa400 is not sent"},
		{name: "Quad with HDMI for Mini", model: "imx8mm", files: one(flash, generated(t, "imx8mq")), slot: flash, says: "HDMI firmware stands in front of it"},
		{name: "Quad, U-Boot not recognised", model: "imx8mq", files: one(flash, cat(generated(t, "imx8mq")[:0x57000], 0x60000)), says: "sending what stands at 0x57c00"},
		{name: "U-Boot not recognised, of a card", model: "imx8mm", files: one(flash, card(0x8400, cat(splAt(0x7e1000)[:0x57000], 0x60000))), says: "sending what stands at 0x60000"},
		{name: "U-Boot not recognised", model: "imx8mm", files: one(flash, cat(splAt(0x7e1000)[:0x57000], 0x60000)), says: "sending what stands at 0x57c00"},

		{name: "93", model: "imx93", files: one(flash, set(0, 0x2049a000)), sent: -1},
		{name: "93, of a card", model: "imx93", files: one(flash, card(0x8000, mx93)), says: "the containers begin at 0x8000", sent: -1},
		{name: "8QXP, of a card", model: "imx8qxp", files: one(flash, cat(0x8000, generated(t, "imx8qxp"))), says: "the second stage stands at 0x2c800"},
		{name: "version 2 for 93", model: "imx93", files: one(flash, set(2, 0x2049a000)), slot: flash, says: "expected version 0 for i.MX93"},
		{name: "version 0 for 943", model: "imx943", files: one(flash, set(0, 0x2049a000)), slot: flash, says: "expected version 2 for i.MX943"},
		{name: "either for 95", model: "imx95", files: one(flash, set(0, 0x2049a000))},
		{name: "8QXP's for 93", model: "imx93", files: one(flash, set(0, 0x00100000)), slot: flash, says: "its programs load to 0x100000, where i.MX93 has no memory"},
		{name: "8QXP's with SCU firmware for 93", model: "imx93", files: one(flash, generated(t, "imx8qxp")), says: "load to 0x100000, where no memory of i.MX93 is known", sent: -1},
		{name: "93, damaged", model: "imx93", files: one(flash, edit(mx93, 0x2000, 1)), slot: flash, says: "sha256"},
		{name: "93, cut", model: "imx93", files: one(flash, mx93[:20_000]), slot: flash, says: "truncated"},
		{name: "93, cut in U-Boot", model: "imx93", files: one(flash, mx93[:len(mx93)-2000]), slot: flash, says: "truncated"},
		{name: "IVT for 93", model: "imx93", files: one(flash, mp), slot: flash, says: "i.MX image"},
		{name: "containers for Plus", model: "imx8mp", files: one(flash, mx93), slot: flash, says: "container"},

		{name: "boot stream", model: "imx28", files: one(flash, imx.GenerateSB(50_000, 1))},
		{name: "boot stream, of a card", model: "imx28", files: one(flash, cat([]byte{0x33, 0x22, 0x11, 0, 1}, 2048, imx.GenerateSB(50_000, 1))), says: "begins at 0x800 of the file", sent: len(imx.GenerateSB(50_000, 1))},
		{name: "boot stream, damaged", model: "imx28", files: one(flash, edit(imx.GenerateSB(50_000, 1), 1000, 1)), slot: flash, says: "SHA-1"},
		{name: "boot stream for Plus", model: "imx8mp", files: one(flash, imx.GenerateSB(50_000, 1)), slot: flash, says: "boot stream"},
		{name: "flash header", model: "imx51", files: one(dcd, imx.GenerateV1(0x97800000, 5, 20_000, 1))},
		{name: "IVT for i.MX51", model: "imx51", files: one(dcd, direct.Generate()), slot: dcd, says: "expected the flash header of i.MX51"},
		{name: "flash header for i.MX53", model: "imx53", files: one(dcd, imx.GenerateV1(0x97800000, 5, 20_000, 1)), slot: dcd, says: "flash header"},
		{name: "flash header elsewhere", model: "imx51", files: one(dcd, imx.GenerateV1(0x77800000, 5, 20_000, 1)), slot: dcd, says: "no memory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			model, err := socs.Lookup(tc.model)
			if err != nil {
				t.Fatal(err)
			}
			sent, findings, err := soc.Backend{}.Check(model, socstest.Firmware(tc.files))
			if tc.slot != "" {
				e := about(err, tc.slot)
				if e == nil || !strings.Contains(e.Error(), tc.says) || e.Hint == "" || tc.not != "" && strings.Contains(e.Error(), tc.not) {
					t.Errorf("got %v, want %q with %q and a hint", err, tc.slot, tc.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(fmt.Sprint(findings), tc.says) {
				t.Errorf("findings %v, want %q", findings, tc.says)
			}
			if n := len(sent["u-boot"].Data); tc.second > 0 && n != tc.second {
				t.Errorf("%d bytes of u-boot are sent, want %d", n, tc.second)
			}
			for slot, img := range sent {
				if tc.sent > 0 && len(img.Data) != tc.sent {
					t.Errorf("%d bytes of %s are sent, want %d", len(img.Data), slot, tc.sent)
				}
				if img.Path != slot+".bin" {
					t.Errorf("%s has the path %q", slot, img.Path)
				}
			}
			// What is sent is what would be sent of itself.
			again, _, err := soc.Backend{}.Check(model, sent)
			if err != nil {
				t.Fatalf("what is sent is refused: %v", err)
			}
			for slot, img := range sent {
				if len(again[slot].Data) != len(img.Data) {
					t.Errorf("%s: %d bytes of the %d that are sent", slot, len(again[slot].Data), len(img.Data))
				}
			}
		})
	}
}

// A check of anything ends, with an error or with firmware.
func FuzzCheck(f *testing.F) {
	for i, model := range []string{"imx6q", "imx8mq", "imx93", "imx28", "imx51", "imx8qxp"} {
		f.Add(i, generated(f, model)[:3000])
	}
	f.Add(0, card(0x400, imx.IVTImage{Self: 0x177ff400, DCD: imx.GenerateDCD(5, false), Size: 300}.Generate())[:4000])
	var models []socs.Model
	for _, m := range socs.Models() {
		if m.Family == "imx" {
			models = append(models, m)
		}
	}
	f.Fuzz(func(t *testing.T, n int, data []byte) {
		model := models[uint(n)%uint(len(models))]
		for _, slot := range (soc.Backend{}).Family().Slots {
			sent, _, err := soc.Backend{}.Check(model, socs.Firmware{slot.Name: {Path: "x", Data: data}})
			if err == nil && len(sent[slot.Name].Data) > len(data) {
				t.Errorf("%s, %s: %d bytes of %d are sent", model.Name, slot.Name, len(sent[slot.Name].Data), len(data))
			}
		}
	})
}
