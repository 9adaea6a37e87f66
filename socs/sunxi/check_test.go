package sunxi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"testing"

	sim "snag/sim/sunxi"
	"snag/socs"
	"snag/socs/socstest"
	"snag/socs/sunxi"
)

// resum mends the checksum of an SPL.
func resum(img []byte) []byte {
	le := binary.LittleEndian
	sum := uint32(0x5f0a6c39) - le.Uint32(img[12:])
	for i := uint32(0); i < le.Uint32(img[16:]); i += 4 {
		sum += le.Uint32(img[i:])
	}
	le.PutUint32(img[12:], sum)
	return img
}

// legacy mends the checksum of a uImage's header after a change.
func legacy(img []byte, at int, b ...byte) []byte {
	img = bytes.Clone(img)
	copy(img[at:], b)
	clear(img[4:8])
	binary.BigEndian.PutUint32(img[4:], crc32.ChecksumIEEE(img[:64]))
	return img
}

// change is a copy with other bytes at a place.
func change(img []byte, at int, b ...byte) []byte {
	img = bytes.Clone(img)
	copy(img[at:], b)
	return img
}

// replace is a copy with another text of the same length.
func replace(t *testing.T, img []byte, old, text string) []byte {
	t.Helper()
	if len(old) != len(text) || !bytes.Contains(img, []byte(old)) {
		t.Fatalf("%q instead of %q", text, old)
	}
	return bytes.ReplaceAll(img, []byte(old), []byte(text))
}

func TestCheck(t *testing.T) {
	h3, a64, a20 := sim.Generate(simModel(t, "h3"), 10_000, 1), sim.Generate(simModel(t, "a64"), 10_000, 1), sim.Generate(simModel(t, "a20"), 10_000, 1)
	type files map[string][]byte
	for _, tc := range []struct {
		name, model string
		files       files
		keys        map[string]any
		says        string // of the error; else of the findings
		good        bool
	}{
		{name: "one file", model: "h3", files: files{"u-boot-with-spl": h3.Combined}, good: true},
		{name: "two", model: "h3", files: files{"spl": h3.SPL, "u-boot": h3.UBoot}, good: true},
		{name: "FIT", model: "a64", files: files{"u-boot-with-spl": a64.Combined}, says: "the device tree is that of SPL, sunxi-a64-board", good: true},
		{name: "two with a FIT", model: "sunxi", files: files{"spl": a64.SPL, "u-boot": a64.UBoot}, good: true},
		{name: "of a card", model: "h3", files: files{"u-boot-with-spl": slices.Concat(make([]byte, 8<<10), h3.Combined, make([]byte, 100_000))}, says: "an image of a card: SPL begins at 0x2000", good: true},
		{name: "of a card with a GPT", model: "a64", files: files{"u-boot-with-spl": slices.Concat(make([]byte, 128<<10), a64.Combined, make([]byte, 100_000))}, says: "an image of a card: SPL begins at 0x20000", good: true},
		{name: "secure", model: "h3", files: files{"u-boot-with-spl": append([]byte("TOC0.GLH"), make([]byte, 5000)...)}, says: "TOC0 (secure boot) SPL, expected an eGON image"},
		{name: "SPL alone", model: "h3", files: files{"spl": h3.SPL}, good: true},
		{name: "SPL alone of a whole file", model: "h3", files: files{"spl": h3.Combined}, says: "the U-Boot behind SPL in it is not sent: give the file as u-boot-with-spl", good: true},
		{name: "another U-Boot", model: "h3", files: files{"spl": h3.Combined, "u-boot": h3.UBoot}, says: "is not sent, that of u-boot is", good: true},

		{name: "nothing", model: "h3", says: "missing: there is nothing to send"},
		{name: "no SPL", model: "h3", files: files{"u-boot": h3.UBoot}, says: `firmware "spl": missing: U-Boot goes into DRAM, which SPL sets up`},
		{name: "no SPL, and no U-Boot either", model: "h3", files: files{"u-boot": make([]byte, 5000)}, says: `firmware "u-boot" (u-boot.bin): expected U-Boot as uImage or FIT, found`},
		{name: "no SPL, and an empty U-Boot", model: "h3", files: files{"u-boot": {}}, says: `firmware "u-boot" (u-boot.bin): the file is empty`},
		{name: "all", model: "h3", files: files{"u-boot-with-spl": h3.Combined, "spl": h3.SPL}, says: "which are given apart as well"},
		{name: "empty", model: "h3", files: files{"spl": {}}, says: "the file is empty"},
		{name: "text", model: "h3", files: files{"spl": []byte("#!/bin/sh\necho hello world\n")}, says: "it is a text file"},
		{name: "FIT alone", model: "a64", files: files{"u-boot-with-spl": a64.UBoot}, says: "there is no SPL in it: it is a FIT"},
		{name: "uImage alone", model: "h3", files: files{"u-boot-with-spl": h3.UBoot}, says: "there is no SPL in it: it is a legacy uImage"},
		{name: "SPL as both", model: "h3", files: files{"u-boot-with-spl": h3.SPL}, says: "there is no U-Boot behind SPL in it"},
		{name: "padded SPL as both", model: "h3", files: files{"u-boot-with-spl": append(bytes.Clone(h3.SPL), make([]byte, 90_000)...)}, says: "there is no U-Boot behind SPL in it"},
		{name: "cut SPL", model: "h3", files: files{"spl": h3.SPL[:5000]}, says: "truncated: the header announces 24576 bytes, the file has 5000"},
		{name: "cut U-Boot", model: "h3", files: files{"u-boot-with-spl": h3.Combined[:len(h3.Combined)-1]}, says: "truncated"},
		{name: "damaged SPL", model: "h3", files: files{"spl": change(h3.SPL, 5000, 1, 2, 3)}, says: "checksum is"},
		{name: "odd length", model: "h3", files: files{"spl": change(h3.SPL, 16, 1)}, says: "its length is 24577, expected a multiple of four"},
		{name: "boot0", model: "h3", files: files{"spl": resum(change(h3.SPL, 20, 0, 0, 0, 0))}, says: "it is the vendor's boot0"},
		{name: "boot0 forced", model: "h3", files: files{"spl": resum(change(h3.SPL, 20, 0, 0, 0, 0))}, keys: map[string]any{"force": true}, good: true},
		{name: "header of another version", model: "h3", files: files{"spl": resum(change(h3.SPL, 23, 0x21))}, says: "1.1, expected 0.1 to 0.31"},
		{name: "RISC-V", model: "r528", files: files{"spl": resum(change(h3.SPL, 0, 0x6f, 0, 0, 6))}, says: "it is for RISC-V"},
		{name: "too big", model: "a20", files: files{"spl": resum(change(append(bytes.Clone(h3.SPL), make([]byte, 24<<10)...), 16, 0, 0xc0, 0, 0))}, says: "SPL has 49152 bytes, A20 has room for 41472"},

		{name: "another SoC", model: "h3", files: files{"u-boot-with-spl": rename(t, a20.Combined, "sun7i-a20-cubietruck")}, says: "it is for sun7i-a20-cubietruck (A20), not for H3 or H2+"},
		{name: "another SoC, with the vendor's directory", model: "h3", files: files{"u-boot-with-spl": rename(t, a20.Combined, "allwinner/sun7i-a20-cubietruck")}, says: "it is for allwinner/sun7i-a20-cubietruck (A20), not for H3 or H2+"},
		{name: "another SoC forced", model: "h3", files: files{"u-boot-with-spl": rename(t, a20.Combined, "sun7i-a20-cubietruck")}, keys: map[string]any{"force": true}, says: "sent all the same", good: true},
		{name: "the same SoC", model: "h2+", files: files{"u-boot-with-spl": rename(t, h3.Combined, "sun8i-h3-orangepi-pc")}, good: true},
		{name: "H6 is not H616", model: "h6", files: files{"spl": rename(t, h3.SPL, "sun50i-h616-orangepi-zero2")}, says: "(H616), not for H6"},
		{name: "V5 is not V536", model: "v5s", files: files{"spl": rename(t, h3.SPL, "sun8i-v536-board")}, says: "(V536), not for V5"},
		{name: "64 bits for 32", model: "h3", files: files{"u-boot-with-spl": a64.Combined}, says: "it is for 64-bit ARM; H3 or H2+ is not"},
		{name: "FIT for another SoC", model: "h5", files: files{"spl": rename(t, a64.SPL, "sun50i-h5-nanopi-neo2"), "u-boot": replace(t, a64.UBoot, "another-board", "sun50i-a64-pi")},
			says: "it is for sun50i-a64-pi (A64), not for H5"},

		{name: "tree with the vendor's directory", model: "a64", files: files{"spl": rename(t, a64.SPL, "allwinner/sunxi-a64-board"), "u-boot": a64.UBoot}, says: "the device tree is that of SPL", good: true},
		{name: "chosen tree", model: "a64", files: files{"u-boot-with-spl": a64.Combined}, keys: map[string]any{"dt": "another-board"}, good: true},
		{name: "chosen configuration", model: "a64", files: files{"u-boot-with-spl": a64.Combined}, keys: map[string]any{"dt": "config-2"}, good: true},
		{name: "no such tree", model: "a64", files: files{"u-boot-with-spl": a64.Combined}, keys: map[string]any{"dt": "x"}, says: `the FIT has no device tree "x"; it has another-board, sunxi-a64-board`},
		{name: "tree of a uImage", model: "h3", files: files{"u-boot-with-spl": h3.Combined}, keys: map[string]any{"dt": "x"}, says: `the device tree "x" cannot be chosen`},
		{name: "SPL says another tree", model: "a64", files: files{"spl": rename(t, a64.SPL, "sun50i-a64-x"), "u-boot": a64.UBoot}, says: "taking another-board of another-board, sunxi-a64-board", good: true},

		{name: "kernel", model: "h3", files: files{"spl": h3.SPL, "u-boot": legacy(h3.UBoot, 28, 5, 2, 2)}, says: "type kernel for linux"},
		{name: "another architecture", model: "h3", files: files{"spl": h3.SPL, "u-boot": legacy(h3.UBoot, 29, 22)}, says: "a uImage for arm64, expected arm"},
		{name: "compressed", model: "h3", files: files{"spl": h3.SPL, "u-boot": legacy(h3.UBoot, 31, 1)}, says: "it is compressed (gzip)"},
		{name: "no DRAM", model: "h3", files: files{"spl": h3.SPL, "u-boot": legacy(h3.UBoot, 16, 0, 0, 0x10)}, says: "no DRAM of Allwinner's"},
		{name: "damaged U-Boot", model: "h3", files: files{"spl": h3.SPL, "u-boot": change(h3.UBoot, 1000, 1, 2, 3)}, says: "data checksum is"},
		{name: "FIT that goes to no DRAM", model: "a64", files: files{"spl": a64.SPL, "u-boot": replace(t, a64.UBoot, "\x4a\x00\x00\x00\x00\x00\x00\x03", "\x00\x20\x00\x00\x00\x00\x00\x03")}, says: "loads to 0x00200000, which is no DRAM of Allwinner's"},
		{name: "compressed in a FIT", model: "a64", files: files{"spl": a64.SPL, "u-boot": replace(t, a64.UBoot, "none\x00", "gzip\x00")}, says: "is compressed (gzip)"},
		{name: "FIT without the tree", model: "a64", files: files{"spl": a64.SPL, "u-boot": replace(t, a64.UBoot, "fdt-2\x00\x00\x00\x00\x00\x00\x03", "fdt-3\x00\x00\x00\x00\x00\x00\x03")}, says: `"fdt-2"`},
		{name: "raw U-Boot", model: "h3", files: files{"spl": h3.SPL, "u-boot": h3.UBoot[64:]}, says: "expected U-Boot as uImage or FIT"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fw := socstest.Firmware(tc.files)
			for slot, img := range fw {
				img.Params = tc.keys
				fw[slot] = img
			}
			sent, findings, err := sunxi.Backend{}.Check(socstest.Model(t, tc.model), fw)
			if tc.good {
				var texts []string
				for _, f := range findings {
					texts = append(texts, f.Text)
				}
				if err != nil || sent["spl"].Data == nil || !strings.Contains(strings.Join(texts, "\n"), tc.says) {
					t.Errorf("%v, %q; want %q", err, texts, tc.says)
				}
				if uboot := tc.files["u-boot"] != nil || tc.files["u-boot-with-spl"] != nil; (sent["u-boot"].Data != nil) != uboot || sent["u-boot-with-spl"].Data != nil {
					t.Errorf("sent are %v", maps.Keys(sent))
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("%v, want %q", err, tc.says)
			}
			if e, ok := errors.AsType[*socs.FirmwareError](err); !ok || e.Hint == "" {
				t.Errorf("%v: no hint", err)
			}
		})
	}
}

func FuzzCheck(f *testing.F) {
	for _, name := range []string{"h3", "a64"} {
		m, err := sim.FindModel(name)
		if err != nil {
			f.Fatal(err)
		}
		img := sim.Generate(m, 1000, 1)
		f.Add(img.Combined, name)
		f.Add(img.UBoot, name)
	}
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		model, err := socs.Lookup(name)
		if err != nil || model.Family != "sunxi" {
			return
		}
		if len(b) > 20 && string(b[4:12]) == "eGON.BT0" {
			if n := binary.LittleEndian.Uint32(b[16:]); n%4 == 0 && n >= 32 && uint64(n) <= uint64(len(b)) {
				b = resum(bytes.Clone(b))
			}
		}
		for _, fw := range []map[string][]byte{{"u-boot-with-spl": b}, {"spl": b, "u-boot": b}} {
			sent, _, err := sunxi.Backend{}.Check(model, socstest.Firmware(fw))
			if err == nil && sent["spl"].Data == nil {
				t.Error("nothing is sent")
			}
		}
	})
}
