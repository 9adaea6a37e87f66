package zynqmp_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"snag/firmware/firmwaretest"
	"snag/sim/dfu"
	"snag/socs"
	"snag/socs/socstest"
	"snag/socs/zynqmp"
)

func TestCheck(t *testing.T) {
	whole := boot(50_000)
	only := zynqmpFirst(t, whole)
	edit := func(at int) []byte {
		b := append([]byte(nil), whole...)
		b[at] ^= 1
		return b
	}
	big := firmwaretest.ZynqMP{Images: []firmwaretest.ZynqMPImage{
		{Name: "fsbl.elf", Partitions: []firmwaretest.ZynqMPPartition{{Data: make([]byte, 300_000), Load: 0xfffc0000, Attributes: 0x116}}},
		{Name: "u-boot.elf", Partitions: []firmwaretest.ZynqMPPartition{{Data: make([]byte, 100), Load: 0x8000000, Attributes: 0x114}}},
	}}.Bytes()
	zynq7 := append([]byte(nil), whole...)
	copy(zynq7[0x2c:], "\x00\x00\x01\x01")
	for _, tc := range []struct {
		name  string
		files map[string][]byte
		slot  string // with the error; none expected if empty
		says  string // the error with its hint, or else a finding
		fsbl  int    // bytes for the ROM
	}{
		{name: "whole", files: map[string][]byte{"boot": whole}, fsbl: len(only)},
		{name: "both", files: map[string][]byte{"boot": whole, "fsbl": only}, fsbl: len(only)},
		{name: "whole twice", files: map[string][]byte{"boot": whole, "fsbl": whole}, says: "only FSBL and the PMU's firmware in it are sent to the ROM", fsbl: len(only)},
		{name: "nothing", slot: "boot", says: "missing"},
		{name: "FSBL alone", files: map[string][]byte{"fsbl": only}, slot: "boot", says: "missing"},
		{name: "empty", files: map[string][]byte{"boot": {}}, slot: "boot", says: "empty"},
		{name: "FSBL as boot", files: map[string][]byte{"boot": only}, slot: "boot", says: "nothing in it but FSBL and PMU firmware (2 partitions); give boot.bin as bootgen makes it: FSBL, PMU firmware, TF-A and U-Boot; this one belongs under fsbl"},
		{name: "cut", files: map[string][]byte{"boot": whole[:150_000]}, slot: "boot", says: "truncated"},
		{name: "boot header", files: map[string][]byte{"boot": edit(0x30)}, slot: "boot", says: "boot header"},
		{name: "image header table", files: map[string][]byte{"boot": edit(0x8c4)}, slot: "boot", says: "image header table"},
		{name: "partition header", files: map[string][]byte{"boot": edit(0xc80 + 0x24)}, slot: "boot", says: "header of partition 0"},
		{name: "too large", files: map[string][]byte{"boot": big}, slot: "boot", says: "the internal memory 262144; build FSBL with less in it"},
		{name: "too large, with another for the ROM", files: map[string][]byte{"boot": big, "fsbl": only}, fsbl: len(only)},
		{name: "ELF", files: map[string][]byte{"boot": whole, "fsbl": firmwaretest.ELF64(0xfffc0000, make([]byte, 100))}, slot: "fsbl", says: "an ELF file for 64-bit ARM"},
		{name: "Zynq-7000", files: map[string][]byte{"boot": zynq7}, slot: "boot", says: "Zynq-7000"},
		{name: "FIP", files: map[string][]byte{"boot": firmwaretest.FIP()}, slot: "boot", says: "FIP"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sent, findings, err := zynqmp.Backend{}.Check(socs.Model{Name: "zynqmp"}, socstest.Firmware(tc.files))
			if tc.slot == "" {
				var texts []string
				for _, f := range findings {
					texts = append(texts, f.Text)
				}
				if all := strings.Join(texts, "\n"); err != nil || tc.says == "" && all != "" || !strings.Contains(all, tc.says) {
					t.Errorf("%v; findings %q, want %q", err, all, tc.says)
				}
				if n := len(sent["fsbl"].Data); n != tc.fsbl {
					t.Errorf("%d bytes are for the ROM, want %d", n, tc.fsbl)
				}
				if again, _, err := (zynqmp.Backend{}).Check(socs.Model{Name: "zynqmp"}, sent); err != nil || len(again["fsbl"].Data) != tc.fsbl {
					t.Errorf("what it returned is refused, or changed: %v", err)
				}
				return
			}
			f, ok := errors.AsType[*socs.FirmwareError](err)
			if !ok || f.Slot != tc.slot || f.Hint == "" || !strings.Contains(f.Err.Error()+"; "+f.Hint, tc.says) {
				t.Errorf("%v, want %q with %s", err, tc.says, tc.slot)
			}
		})
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(boot(100)[:20_000], []byte{})
	f.Add(firmwaretest.SomeBoot(), firmwaretest.SomeBootMerged())
	f.Fuzz(func(t *testing.T, boot, fsbl []byte) {
		files := map[string][]byte{"boot": boot}
		if len(fsbl) > 0 {
			files["fsbl"] = fsbl
		}
		sent, _, err := zynqmp.Backend{}.Check(socs.Model{Name: "zynqmp"}, socstest.Firmware(files))
		if err == nil {
			if _, _, err := (zynqmp.Backend{}).Check(socs.Model{Name: "zynqmp"}, sent); err != nil {
				t.Errorf("what it returned is refused: %v", err)
			}
		}
	})
}

// What virtual boards are given passes, and they come up with it; with the first stage that is given, and with that
// which is taken out of the whole.
func TestGenerated(t *testing.T) {
	m, err := dfu.FindModel("zynqmp")
	if err != nil {
		t.Fatal(err)
	}
	files := dfu.Generate(m, 50_000, 1)
	for range 2 {
		synctest.Test(t, func(t *testing.T) { trial{firmware: socstest.Firmware(files)}.run(t).Good(t) })
		delete(files, "fsbl")
	}
}
