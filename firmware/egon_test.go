package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"snag/firmware/firmwaretest"
)

func TestEGON(t *testing.T) {
	uboot := makeUImage("U-Boot", 0x4a000000, pattern(100))
	small := firmwaretest.EGON{Minor: 2, DeviceTree: "sun8i-h3-orangepi-pc", Program: pattern(1001), UBoot: uboot}
	big := firmwaretest.EGON{Minor: 2, Program: pattern(40_000), UBoot: uboot}
	for _, tc := range []struct {
		egon   firmwaretest.EGON
		length int
		at     int // U-Boot
		tree   string
	}{
		{small, 1100, 0x8000, "sun8i-h3-orangepi-pc"},
		{big, 40_096, 40_096, ""},
		{firmwaretest.EGON{Minor: 1, DeviceTree: "x", Program: pattern(8), UBoot: uboot}, 104, 0x8000, ""}, // there were none in version 0.1
	} {
		b := tc.egon.Bytes()
		e, err := ParseEGON(b)
		if err != nil || len(e.Data) != tc.length || e.DeviceTree != tc.tree || !e.SPL || e.Major != 0 || e.Minor != int(tc.egon.Minor) || e.Branch != "arm" || e.Sum != e.Checksum {
			t.Fatalf("%+v, %v", e, err)
		}
		if at, err := e.UBoot(b); at != tc.at || err != nil || !bytes.Equal(b[at:], uboot) {
			t.Errorf("U-Boot at %#x, %v", at, err)
		}
		if info := Identify(b); info.Kind != KindEGON || !strings.Contains(info.Text, tc.tree) || !strings.Contains(info.Text, "with a legacy uImage") {
			t.Error(info)
		}
		alone := b[:tc.length]
		if e, err := ParseEGON(alone); err != nil || Identify(alone).Text == Identify(b).Text {
			t.Errorf("alone: %+v, %v", e, err)
		} else if _, err := e.UBoot(alone); !errors.Is(err, ErrNoUBoot) {
			t.Error(err)
		}
	}

	le := binary.LittleEndian
	good := small.Bytes()[:1100]
	edit := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	for _, tc := range []struct {
		name, says string
		file       []byte
		header     bool // which is told all the same
	}{
		{"no image", `it has no "eGON.BT0" at byte 4`, good[4:], false},
		{"too short", "truncated: 20 bytes, the header alone has 32", good[:20], false},
		{"cut", "truncated: the header announces 1100 bytes, the file has 1000", good[:1000], true},
		{"odd length", "its length is 1099", edit(func(b []byte) { le.PutUint32(b[16:], 1099) }), true},
		{"no length", "its length is 0", edit(func(b []byte) { le.PutUint32(b[16:], 0) }), true},
		{"huge", "announces 4294967292 bytes", edit(func(b []byte) { le.PutUint32(b[16:], 0xfffffffc) }), true},
		{"damaged", "checksum is", edit(func(b []byte) { b[500]++ }), true},
	} {
		e, err := ParseEGON(tc.file)
		if err == nil || !strings.Contains(err.Error(), tc.says) || (e != nil) != tc.header {
			t.Errorf("%s: %+v, %v; want %q", tc.name, e, err, tc.says)
		}
	}
	for _, off := range []uint32{1100, 0xffffffff, 1099} { // a name that is nowhere, or has no end
		b := edit(func(b []byte) { le.PutUint32(b[32:], off); b[1099] = 'x' })
		if e, _ := ParseEGON(b); e == nil || e.DeviceTree != "" {
			t.Errorf("name at %#x: %+v", off, e)
		}
	}
	if info := Identify(edit(func(b []byte) { copy(b, "\x6f\x00\x00\x06") })); !strings.Contains(info.Text, "RISC-V") {
		t.Error(info)
	}
	if info := Identify(edit(func(b []byte) { copy(b[20:], "boot") })); !strings.Contains(info.Text, "boot0") {
		t.Error(info)
	}
}

// What mkimage makes is read, and it is what the tests build.
func TestMkimageEGON(t *testing.T) {
	mkimage := tool(t, "mkimage", "u-boot-tools")
	mkimageHas(t, mkimage, "sunxi_egon")
	dir := t.TempDir()
	run(t, mkimage, "-T", "sunxi_egon", "-n", "sun8i-h3-nanopi-neo", "-d", write(t, dir, "in", pattern(6000)), filepath.Join(dir, "out"))
	b := read(t, filepath.Join(dir, "out"))
	e, err := ParseEGON(b)
	if err != nil || !e.SPL || e.DeviceTree != "sun8i-h3-nanopi-neo" {
		t.Errorf("%+v, %v", e, err)
	}
	ours := firmwaretest.EGON{Minor: 2, DeviceTree: "sun8i-h3-nanopi-neo", Program: firmwaretest.Pad(pattern(6000), len(b)-96)}.Bytes()
	if !bytes.Equal(b, ours) {
		t.Errorf("mkimage's begins with % x, ours with % x", b[:96], ours[:96])
	}
}

func FuzzEGON(f *testing.F) {
	good := firmwaretest.EGON{Minor: 2, DeviceTree: "sun8i-h3", Program: pattern(20), UBoot: makeUImage("U-Boot", 0x4a000000, pattern(8))}.Bytes()
	f.Add(good[:128])
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEGON(b)
		if e == nil {
			return
		}
		if !bytes.HasPrefix(b, e.Data) || len(e.DeviceTree) > maxText+3 || err == nil && e.Sum != e.Checksum {
			t.Errorf("%+v of %d bytes, %v", e, len(b), err)
		}
		if at, err := e.UBoot(b); err == nil && at >= len(b) {
			t.Errorf("U-Boot at %d of %d", at, len(b))
		}
	})
}
