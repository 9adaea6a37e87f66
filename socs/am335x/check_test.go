package am335x

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"snag/socs"
)

// spl builds a program of n bytes with the vectors of U-Boot's SPL for base and these strings.
func spl(base uint32, n int, text ...string) []byte {
	b := make([]byte, n)
	le := binary.LittleEndian
	le.PutUint32(b, 0xea00000f)
	for i := 1; i < 8; i++ {
		le.PutUint32(b[4*i:], 0xe59ff014)
		le.PutUint32(b[28+4*i:], base+0x40)
	}
	copy(b[128:], strings.Join(text, "\x00"))
	return b
}

func goodSPL(n int) []byte {
	return spl(0x402f0400, n, "U-Boot SPL 2025.01 (today)", "AM335x U-Boot SPL")
}

// mlo puts the headers for memory boot in front, as mkimage does.
func mlo(load uint32, program []byte) []byte {
	b := make([]byte, 520, 520+len(program))
	le := binary.LittleEndian
	le.PutUint32(b, 0x40)
	le.PutUint32(b[4:], 0xc)
	copy(b[20:], "CHSETTINGS")
	copy(b[32:], bytes.Repeat([]byte{0xff}, 32))
	le.PutUint32(b[512:], uint32(len(program)+8))
	le.PutUint32(b[516:], load)
	return append(b, program...)
}

// uimage builds a legacy image; osArchTypeComp are its four bytes.
func uimage(name, osArchTypeComp string, load uint32, data []byte) []byte {
	h := make([]byte, 64, 64+len(data))
	be := binary.BigEndian
	copy(h, "\x27\x05\x19\x56")
	be.PutUint32(h[12:], uint32(len(data)))
	be.PutUint32(h[16:], load)
	be.PutUint32(h[24:], crc32.ChecksumIEEE(data))
	copy(h[28:], osArchTypeComp)
	copy(h[32:], name)
	be.PutUint32(h[4:], crc32.ChecksumIEEE(h))
	return append(h, data...)
}

func goodUBoot() []byte {
	return uimage("U-Boot 2025.01 for am335x board", "\x11\x02\x05\x00", 0x80800000, make([]byte, 999))
}

func itb(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".itb"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func firmwareOf(spl, uboot []byte) socs.Firmware {
	return socs.Firmware{
		"spl":    {Path: "first.bin", Data: spl, Params: map[string]any{"x": 1}},
		"u-boot": {Path: "second.img", Data: uboot},
	}
}

var model = socs.Model{Name: "am3358", Family: "am335x"}

func TestCheckAccepts(t *testing.T) {
	raw := goodSPL(4096)
	hs := append([]byte{9, 8, 7, 6}, bytes.Repeat([]byte("x\x80\x00"), 500)...)
	for _, tt := range []struct {
		name       string
		model      string
		path       string
		spl, uboot []byte
		sent       []byte
		findings   []string // parts of each; a warning begins with !
	}{
		{name: "raw and uImage", spl: raw, uboot: goodUBoot(), sent: raw},
		{name: "MLO and FIT", spl: mlo(0x402f0400, raw), uboot: itb(t, "am335x"), sent: raw, findings: []string{"headers (520 bytes) are not sent"}},
		{name: "GP header alone", spl: mlo(0x402f0400, raw)[512:], uboot: goodUBoot(), sent: raw, findings: []string{"headers (8 bytes) are not sent"}},
		{name: "as big as Debian's", spl: goodSPL(109_728), uboot: goodUBoot(), sent: goodSPL(109_728)},
		{name: "up to U-Boot's scratch space", spl: goodSPL(110_592), uboot: goodUBoot(), sent: goodSPL(110_592)},
		{name: "into the scratch space", spl: goodSPL(110_593), uboot: goodUBoot(), sent: goodSPL(110_593), findings: []string{"!may overwrite itself"}},
		{name: "as big as can be", spl: goodSPL(111_616), uboot: goodUBoot(), sent: goodSPL(111_616), findings: []string{"!but for 0:"}},
		{name: "no network in SPL", spl: spl(0x402f0400, 999, "U-Boot SPL 2025.01 ("), uboot: goodUBoot(), sent: spl(0x402f0400, 999, "U-Boot SPL 2025.01 ("),
			findings: []string{`!no "AM335x U-Boot SPL" in it`}},
		{name: "not U-Boot", spl: spl(0x402f0400, 999), uboot: goodUBoot(), sent: spl(0x402f0400, 999), findings: []string{"!nothing in it says that it is a U-Boot SPL"}},
		{name: "nobody knows what", spl: hs, uboot: goodUBoot(), sent: hs, findings: []string{"!nothing in it says what it is"}},
		{name: "nobody knows what, as MLO", spl: mlo(0x402f0400, hs), uboot: goodUBoot(), sent: hs, findings: []string{"headers (520 bytes)", "!nothing in it says what it is"}},
		{name: "signed, by name", path: "u-boot-spl_HS_2ND", spl: hs, uboot: goodUBoot(), sent: hs, findings: []string{"signed first stage of a high-security device"}},
		{name: "signed, by contents", spl: append(hs, "CERT_ISW"...), uboot: goodUBoot(), sent: append(hs, "CERT_ISW"...), findings: []string{"signed first stage"}},
		{name: "of another board in the same place", spl: raw, uboot: itb(t, "dra7xx"), sent: raw, findings: []string{`!for dra7xx board"; the model is an AM335x`}},
		{name: "AM43xx", model: "am4378", spl: mlo(0x402f4000, spl(0x402f4000, 200_000, "U-Boot SPL 2025.01", "AM43xx U-Boot SPL")), uboot: uimage("U-Boot", "\x11\x02\x05\x00", 0x80800000, nil),
			sent: spl(0x402f4000, 200_000, "U-Boot SPL 2025.01", "AM43xx U-Boot SPL"), findings: []string{"headers"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := model
			if tt.model != "" {
				m.Name = tt.model
			}
			in := firmwareOf(tt.spl, tt.uboot)
			if tt.path != "" {
				in["spl"] = socs.Image{Path: tt.path, Data: tt.spl}
			}
			fw, findings, err := check(m, in)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(fw["spl"].Data, tt.sent) || !bytes.Equal(fw["u-boot"].Data, tt.uboot) {
				t.Errorf("%d and %d bytes would be sent, want %d and %d", len(fw["spl"].Data), len(fw["u-boot"].Data), len(tt.sent), len(tt.uboot))
			}
			if !bytes.Equal(in["spl"].Data, tt.spl) || fw["spl"].Path != in["spl"].Path {
				t.Error("the caller's image was changed")
			}
			if len(findings) != len(tt.findings) {
				t.Fatalf("findings %+v, want %q", findings, tt.findings)
			}
			for i, f := range findings {
				want, warning := strings.CutPrefix(tt.findings[i], "!")
				if f.Warning != warning || !strings.Contains(f.Text, want) || f.Slot == "" {
					t.Errorf("finding %+v, want %q", f, tt.findings[i])
				}
			}
		})
	}
}

// The name that a board is offered is the user's, as far as a BOOTP reply can carry it.
func TestCheckBootfile(t *testing.T) {
	for _, tt := range []struct {
		name any
		want string
	}{
		{"boot/u-boot.img", ""},
		{strings.Repeat("x", 127), ""},
		{strings.Repeat("x", 128), "expected a name of 1 to 127 bytes"},
		{"", "1 to 127 bytes"},
		{"a\x00b", "1 to 127 bytes"},
		{7, `got "7"`},
		{true, `got "true"`},
	} {
		fw := firmwareOf(goodSPL(999), goodUBoot())
		fw["u-boot"] = socs.Image{Path: "second.img", Data: goodUBoot(), Params: map[string]any{"bootfile": tt.name}}
		_, _, err := check(model, fw)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%v: %v", tt.name, err)
		case tt.want != "" && (err == nil || slotsOf(t, err) != "u-boot" || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%v: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	damaged := goodUBoot()
	damaged[500] ^= 1
	badFIT := itb(t, "am335x")
	badFIT[len(badFIT)-50] ^= 1
	file := func(magic string) []byte { return append([]byte(magic), bytes.Repeat([]byte{0x55, 0x99, 0}, 400)...) }
	for _, tt := range []struct {
		name       string
		model      string
		spl, uboot []byte // nil: a good one
		slots      string // whose errors are expected
		want       string
	}{
		{name: "too big", spl: goodSPL(111_617), slots: "spl", want: "111617 bytes are too many: the ROM of AM335x takes 111616 (0x402f0400 to 0x4030b800)"},
		{name: "too big behind its header", spl: mlo(0x402f0400, goodSPL(111_617)), slots: "spl", want: "111617 bytes are too many"},
		{name: "MLO for AM57xx", spl: mlo(0x40300000, goodSPL(99_999)), slots: "spl", want: "AM57xx or TI81xx (load address 0x40300000), expected 0x402f0400"},
		{name: "MLO for OMAP3", spl: mlo(0x40200000, goodSPL(9_999)), slots: "spl", want: "OMAP3"},
		{name: "truncated MLO", spl: mlo(0x402f0400, goodSPL(9_999))[:7_000], slots: "spl", want: "truncated"},
		{name: "raw SPL for AM57xx", spl: spl(0x40300000, 9_999, "U-Boot SPL 2025.01"), slots: "spl", want: "linked for 0x40300000: a program for OMAP4, OMAP5, DRA7xx"},
		{name: "SPL for AM43xx", spl: spl(0x402f4000, 9_999, "AM43xx U-Boot SPL"), slots: "spl", want: "a program for AM43xx"},
		{name: "SPL that calls itself AM43xx", spl: spl(0x402f0400, 9_999, "AM43xx U-Boot SPL"), slots: "spl", want: `it calls itself "AM43xx U-Boot SPL"`},
		{name: "SPL for AM335x on AM43xx", model: "am4376", spl: mlo(0x402f0400, goodSPL(9_999)), slots: "spl", want: "it is for AM335x (load address 0x402f0400), expected 0x402f4000"},
		{name: "raw U-Boot as SPL", spl: spl(0x80800000, 99_999, "U-Boot 2025.01 ("), slots: "spl", want: "a program for DRAM, not an SPL"},
		{name: "MLO around something else", spl: mlo(0x402f0400, []byte(strings.Repeat("some text\n", 99))), slots: "spl", want: "its program is a text file, not an SPL"},
		{name: "eGON", spl: file("....eGON.BT0"), slots: "spl", want: "it is an Allwinner eGON image (boot0, not U-Boot's SPL), not an SPL for AM335x"},
		{name: "i.MX", spl: file("\xd1\x00\x20\x40"), slots: "spl", want: "NXP i.MX"},
		{name: "STM32", spl: file("STM2"), slots: "spl", want: "STM32MP"},
		{name: "ELF", spl: file("\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x28\x00"), slots: "spl", want: "ELF file for ARM"},
		{name: "gzip", spl: file("\x1f\x8b"), slots: "spl", want: "gzip"},
		{name: "text", spl: []byte("spl\n"), slots: "spl", want: "a text file"},
		{name: "empty", spl: []byte{}, slots: "spl", want: "an empty file"},
		{name: "u-boot.img in both", spl: goodUBoot(), slots: "spl", want: "not a first stage"},
		{name: "swapped", spl: itb(t, "am335x"), uboot: mlo(0x402f0400, goodSPL(999)), slots: "spl", want: "the two are swapped"},
		{name: "swapped, raw", spl: goodUBoot(), uboot: goodSPL(999), slots: "spl", want: "the two are swapped"},
		{name: "SPL in both", uboot: goodSPL(999), slots: "u-boot", want: "without the header of a uImage or FIT"},
		{name: "MLO in both", uboot: mlo(0x402f0400, goodSPL(999)), slots: "u-boot", want: "not U-Boot itself"},
		{name: "data checksum", uboot: damaged, slots: "u-boot", want: "data checksum"},
		{name: "truncated uImage", uboot: goodUBoot()[:700], slots: "u-boot", want: "truncated"},
		{name: "FIT checksum", uboot: badFIT, slots: "u-boot", want: `image "firmware-1": crc32 is`},
		{name: "truncated FIT", uboot: itb(t, "am335x")[:len(itb(t, "am335x"))-4], slots: "u-boot", want: "truncated"},
		{name: "arm64 FIT", uboot: itb(t, "arm64"), slots: "u-boot", want: `image "firmware-1" is for arm64; AM335x is arm`},
		{name: "arm64 uImage", uboot: uimage("U-Boot", "\x11\x16\x05\x00", 0x80800000, nil), slots: "u-boot", want: "for arm64; AM335x is arm"},
		{name: "FIT for i.MX6", uboot: itb(t, "imx6"), slots: "u-boot", want: "loads to 0x17800000, where AM335x has no DRAM"},
		{name: "uImage for STM32", uboot: uimage("U-Boot", "\x11\x02\x05\x00", 0xc0100000, nil), slots: "u-boot", want: "loads to 0xc0100000"},
		{name: "script", uboot: uimage("boot.scr", "\x05\x02\x06\x00", 0x80800000, nil), slots: "u-boot", want: "of type script, not a boot loader"},
		{name: "neither", uboot: file("\x01\x02"), slots: "u-boot", want: "neither a uImage nor a FIT"},
		{name: "both wrong", spl: []byte("text"), uboot: []byte("text"), slots: "spl u-boot", want: "neither"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := model
			if tt.model != "" {
				m.Name = tt.model
			}
			first, second := tt.spl, tt.uboot
			if first == nil {
				first = goodSPL(999)
			}
			if second == nil {
				second = goodUBoot()
			}
			_, _, err := check(m, firmwareOf(first, second))
			if got := slotsOf(t, err); got != tt.slots || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("errors of %q: %v; want %q of %q", got, err, tt.want, tt.slots)
			}
		})
	}
	_, _, err := check(model, socs.Firmware{"spl": {}})
	if got := slotsOf(t, err); got != "u-boot" {
		t.Errorf("without u-boot: %v", err)
	}
}

// slotsOf lists the slots of the joined firmware errors; each must have a hint.
func slotsOf(t *testing.T, err error) string {
	t.Helper()
	var errs []error
	if one, ok := errors.AsType[*socs.FirmwareError](err); ok && error(one) == err {
		errs = []error{err}
	} else if joined, ok := err.(interface{ Unwrap() []error }); ok {
		errs = joined.Unwrap()
	}
	var slots []string
	for _, e := range errs {
		fe, ok := errors.AsType[*socs.FirmwareError](e)
		if !ok || fe.Hint == "" {
			t.Errorf("%T (%v), want a FirmwareError with a hint", e, e)
			continue
		}
		slots = append(slots, fe.Slot)
	}
	return strings.Join(slots, " ")
}

// TestCheckDebian checks what Debian's u-boot-omap installs, where it is installed.
func TestCheckDebian(t *testing.T) {
	dir := os.Getenv("SNAG_UBOOT_DIR")
	if dir == "" {
		dir = "/usr/lib/u-boot"
	}
	load := func(path string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			t.Skipf("no firmware to check (Debian package u-boot-omap:armhf; SNAG_UBOOT_DIR): %v", err)
		}
		return b
	}
	for _, board := range []string{"am335x_evm", "am335x_boneblack"} {
		first, second := load(board+"/MLO"), load(board+"/u-boot.img")
		fw, findings, err := check(model, firmwareOf(first, second))
		if err != nil {
			t.Errorf("%s: %v", board, err)
			continue
		}
		if !bytes.Equal(fw["spl"].Data, first[520:]) || len(findings) != 1 || findings[0].Warning {
			t.Errorf("%s: %d bytes of %d, findings %+v", board, len(fw["spl"].Data), len(first), findings)
		}
		if _, _, err := check(model, firmwareOf(second, first)); err == nil || !strings.Contains(err.Error(), "swapped") {
			t.Errorf("%s, swapped: %v", board, err)
		}
		if _, _, err := check(socs.Model{Name: "am4378"}, firmwareOf(first, second)); slotsOf(t, err) != "spl" {
			t.Errorf("%s, taken for AM43xx: %v", board, err)
		}
	}
	for _, board := range []string{"am57xx_evm", "dra7xx_evm", "igep00x0"} {
		if _, _, err := check(model, firmwareOf(load(board+"/MLO"), load(board+"/u-boot.img"))); slotsOf(t, err) != "spl" {
			t.Errorf("%s: %v", board, err)
		}
	}
}
