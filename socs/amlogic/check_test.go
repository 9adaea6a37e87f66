package amlogic_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"snag/firmware/firmwaretest"
	"snag/recovery"
	"snag/sim/amlogic"
	"snag/socs"
	soc "snag/socs/amlogic"
	"snag/socs/socstest"
)

func TestCheck(t *testing.T) {
	gx, axg, g12 := amlogic.Generate(amlogic.GX, 50_000, 1), amlogic.Generate(amlogic.AXG, 50_000, 1), amlogic.Generate(amlogic.G12, 50_000, 1)
	change := func(fw map[string][]byte, slot string, b []byte) map[string][]byte {
		c := map[string][]byte{}
		for k, v := range fw {
			c[k] = v
		}
		if c[slot] = b; b == nil {
			delete(c, slot)
		}
		return c
	}
	whole := g12["u-boot-fip"]
	random := bytes.Repeat([]byte{0x91, 0x17, 0xe3, 0x5d, 0x88, 0x02, 0xca, 0x71}, 0x1800)
	signed := slices.Clone(gx["bl2"])
	signed[32] = 3
	noBL33 := slices.Clone(axg["u-boot"])
	clear(noBL33[32+3*40:][:16])
	arm64 := append([]byte{0x0a, 0, 0, 0x14, 0x1f, 0x20, 3, 0xd5}, append(make([]byte, 600), "U-Boot 2026.01 (Jan 05 2026 - 00:00:00 +0000)\x00"...)...)
	for _, tc := range []struct {
		name, model string
		files       map[string][]byte
		refused     bool
		says        string // the error, or else the findings; empty: there are none
	}{
		{name: "as it should be", model: "s905x", files: gx},
		{name: "as it should be", model: "a113d", files: axg},
		{name: "as it should be", model: "a311d", files: g12},
		{name: "padded", model: "s905x", files: change(gx, "u-boot", append(slices.Clone(gx["u-boot"]), make([]byte, 9000)...))},
		{name: "a FIP of GXBB", model: "s905", files: change(gx, "u-boot", firmwaretest.FIP(firmwaretest.FIPImage{UUID: firmwaretest.UUIDBL33, Data: make([]byte, 100)}))},
		{name: "signed", model: "s905x", files: change(gx, "bl2", signed), says: "it is signed: snag cannot verify that"},
		{name: "encrypted BL2", model: "s905x", files: change(gx, "bl2", random[:0xc000]), says: "may be encrypted for a part with secure boot; expected a BL2"},
		{name: "encrypted FIP", model: "s905x", files: change(gx, "u-boot", random), says: "may be encrypted for a part with secure boot; expected a FIP"},
		{name: "encrypted", model: "a311d", files: change(g12, "u-boot-fip", bytes.Repeat(random, 2)), says: "may be encrypted for a part with secure boot; expected a BL2"},
		{name: "no BL33", model: "a113x", files: change(axg, "u-boot", noBL33), says: "the FIP has no BL33"},
		{name: "nothing behind BL2", model: "a311d", files: change(g12, "u-boot-fip", append(slices.Clone(whole[:0x10000]), random...)), says: "no FIP is recognised behind BL2, at 0x10000"},

		{name: "package", model: "s905x", files: change(gx, "u-boot", append([]byte{1, 2, 3, 4, 2, 0, 0, 0, 0x56, 0x19, 0xb5, 0x27}, random...)), refused: true, says: "a firmware package for Amlogic (aml_upgrade_package.img): unpack it first"},
		{name: "none", model: "s905x", refused: true, says: `firmware "bl2": missing: s905x, which is one of GXBB, GXL and GXM, needs it`},
		{name: "no u-boot", model: "a113x", files: change(axg, "u-boot", nil), refused: true, says: `firmware "u-boot": missing: a113x, which is one of AXG, needs it`},
		{name: "none", model: "s905d3", refused: true, says: `firmware "u-boot-fip": missing: s905d3, which is one of G12A, G12B and SM1, needs it`},
		{name: "of the other kind", model: "s905d3", files: gx, refused: true, says: `firmware "bl2" (bl2.bin): s905d3, which is one of G12A, G12B and SM1, takes no such file`},
		{name: "of the other kind", model: "s905x", files: g12, refused: true, says: `firmware "u-boot-fip" (u-boot-fip.bin): s905x, which is one of GXBB`},
		{name: "empty", model: "s905x", files: change(gx, "bl2", []byte{}), refused: true, says: "the file is empty"},
		{name: "swapped", model: "s905x", files: map[string][]byte{"bl2": gx["u-boot"], "u-boot": gx["bl2"]}, refused: true, says: "expected a BL2 (@AML at byte 16), it is an Amlogic FIP, encrypted"},
		{name: "swapped", model: "s905x", files: map[string][]byte{"bl2": gx["u-boot"], "u-boot": gx["bl2"]}, refused: true, says: "expected a FIP, it is an Amlogic boot image (@AML): a BL2"},
		{name: "text", model: "s905x", files: change(gx, "bl2", []byte("not found\n")), refused: true, says: "it is a text file"},
		{name: "U-Boot alone", model: "s905x", files: change(gx, "u-boot", arm64), refused: true, says: "U-Boot alone"},
		{name: "all in one", model: "s905x", files: change(gx, "bl2", whole), refused: true, says: "BL2 and FIP, for G12 and later"},
		{name: "for a card", model: "a311d", files: change(g12, "u-boot-fip", append(make([]byte, 512), whole...)), refused: true, says: "an Amlogic boot image for a card (@AML behind one sector), expected a BL2 at its begin"},
		{name: "BL2 too large", model: "s905x", files: change(gx, "bl2", append(slices.Clone(gx["bl2"]), 0)), refused: true, says: "it has 49153 bytes, and there is room for 49152"},
		{name: "BL2 damaged", model: "s905x", files: change(gx, "bl2", firmwaretest.Damage(gx["bl2"], 5000)), refused: true, says: "the SHA-256 of the image"},
		{name: "BL2 cut", model: "s905x", files: change(gx, "bl2", gx["bl2"][:5000]), refused: true, says: "truncated"},
		{name: "FIP damaged", model: "s905x", files: change(gx, "u-boot", firmwaretest.Damage(gx["u-boot"], 5000)), refused: true, says: "AMLC at 0x0: the SHA-256"},
		{name: "FIP damaged", model: "a113d", files: change(axg, "u-boot", firmwaretest.Damage(axg["u-boot"], len(axg["u-boot"])-1)), refused: true, says: "Non-Trusted Firmware BL33 in it: @AML: the SHA-256 of the program"},
		{name: "damaged", model: "a311d", files: change(g12, "u-boot-fip", firmwaretest.Damage(whole, len(whole)-1)), refused: true, says: "Non-Trusted Firmware BL33 in it: @AML: the SHA-256 of the program"},
		{name: "cut", model: "a311d", files: change(g12, "u-boot-fip", whole[:len(whole)-1]), refused: true, says: "truncated"},
		{name: "BL2 alone", model: "a311d", files: change(g12, "u-boot-fip", whole[:0x10000]), refused: true, says: "it has 65536 bytes, expected more than BL2's 65536"},
		{name: "BL2 of GX", model: "a311d", files: change(g12, "u-boot-fip", gx["bl2"]), refused: true, says: "it is a BL2 alone, as for GX and AXG"},
		{name: "too large", model: "a311d", files: change(g12, "u-boot-fip", append(slices.Clone(whole), make([]byte, 32<<20)...)), refused: true, says: "BL2 can be told of 33554432 at most"},
		{name: "BL33 for BL2", model: "s905x", files: change(gx, "bl2", bl33(axg["u-boot"])), refused: true, says: "expected a BL2, it is a BL31 or BL33"},
	} {
		t.Run(tc.name+" "+tc.model, func(t *testing.T) {
			judge(t, tc.model, socstest.Firmware(tc.files), tc.refused, tc.says)
		})
	}
}

// bl33 is that of a FIP.
func bl33(fip []byte) []byte {
	return fip[binary.LittleEndian.Uint64(fip[32+3*40+16:]):]
}

// judge checks firmware, and what is said of it.
func judge(t *testing.T, model string, fw socs.Firmware, refused bool, says string) {
	t.Helper()
	sent, findings, err := soc.Backend{}.Check(socs.Model{Name: model}, fw)
	said := fmt.Sprint(err)
	if !refused {
		said = fmt.Sprint(findings)
	}
	if (err != nil) != refused || !strings.Contains(said, says) || !refused && (len(sent) != len(fw) || says == "" && len(findings) > 0) {
		t.Errorf("%v, %v, want %q", err, findings, says)
	}
	if refused && (recovery.ExitCode(err) != 5 || recovery.Hint(err) == "") {
		t.Errorf("exit code %d, hint %q", recovery.ExitCode(err), recovery.Hint(err))
	}
}

// Addresses are numbers, written as numbers or as text.
func TestAddresses(t *testing.T) {
	for _, tc := range []struct {
		model, slot, key string
		value            any
		refused          bool
		says             string
	}{
		{"s905x", "u-boot", "load-addr", 0x200c000, false, ""},
		{"s905x", "u-boot", "load-addr", "0x200_C000", false, ""},
		{"s905x", "u-boot", "load-addr", 0x300c000, false, "load-addr is 0x0300c000: BL2 is told to look at 0x0200c000"},
		{"s905x", "u-boot", "load-addr", -1, true, "load-addr is -0x1, expected an address of 32 bits"},
		{"s905x", "u-boot", "load-addr", int64(1 << 32), true, "expected an address of 32 bits"},
		{"s905x", "u-boot", "load-addr", int64(0xffffffff), true, "do not fit in at 0xffffffff"},
		{"s905x", "u-boot", "load-addr", "here", true, "load-addr is here, expected an address"},
		{"s905x", "u-boot", "load-addr", true, true, "load-addr is true, expected an address"},
		{"a311d", "u-boot-fip", "bl2-load-addr", int64(0xfffa0000), false, ""},
		{"a311d", "u-boot-fip", "bl2-load-addr", false, true, "bl2-load-addr is false"},
	} {
		fw := socstest.Firmware(amlogic.Generate(model(t, tc.model).Family, 2000, 1))
		img := fw[tc.slot]
		img.Params = map[string]any{tc.key: tc.value}
		fw[tc.slot] = img
		judge(t, tc.model, fw, tc.refused, tc.says)
	}
}

func FuzzCheck(f *testing.F) {
	gx, axg, g12 := amlogic.Generate(amlogic.GX, 1, 1), amlogic.Generate(amlogic.AXG, 1, 1), amlogic.Generate(amlogic.G12, 1, 1)
	f.Add(gx["bl2"], gx["u-boot"][:0x600])
	f.Add(gx["bl2"][:0x600], axg["u-boot"][:0x200])
	f.Add(g12["u-boot-fip"][:0x200], []byte{})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		for model, files := range map[string]map[string][]byte{"s905x": {"bl2": a, "u-boot": b}, "a311d": {"u-boot-fip": a}} {
			sent, _, err := soc.Backend{}.Check(socs.Model{Name: model}, socstest.Firmware(files))
			if (err == nil) != (sent != nil) {
				t.Error(sent, err)
			}
		}
	})
}
