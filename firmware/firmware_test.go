package firmware

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"
)

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*i>>3 + i)
	}
	return b
}

// damage returns a copy with one byte changed.
func damage(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x10
	return b
}

func TestParseUImage(t *testing.T) {
	data := pattern(1000)
	img := makeUImage("U-Boot 2025.01 for am335x\x1b[31m", 0x80800000, data)
	u, err := ParseUImage(append(bytes.Clone(img), "tail"...))
	if err != nil {
		t.Fatal(err)
	}
	if u.Name != "U-Boot 2025.01 for am335x?[31m" || u.Load != 0x80800000 || u.Entry != 0x80800004 || u.Time.Unix() != 1700000000 ||
		u.OS != "u-boot" || u.Arch != "arm" || u.Type != "firmware" || u.Compression != "none" || !bytes.Equal(u.Data, data) || u.Trailing != 4 {
		t.Errorf("%+v", u)
	}
	for name, tt := range map[string]struct {
		img       []byte
		truncated bool
		want      string
	}{
		"header":    {damage(img, 40), false, "header checksum"},
		"data":      {damage(img, 500), false, "data checksum"},
		"truncated": {img[:len(img)-1], true, "announces 1000 bytes of data, the file has 999"},
		"short":     {img[:63], true, "the header alone has 64"},
		"magic":     {damage(img, 0), false, "no legacy uImage"},
		"empty":     {nil, false, "no legacy uImage"},
	} {
		_, err := ParseUImage(tt.img)
		if err == nil || errors.Is(err, ErrTruncated) != tt.truncated || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// makeFIT builds an image tree of a U-Boot with crc32 inside the tree and a device tree with sha256
// outside, by offset or by position.
func makeFIT(arch string, position bool) []byte {
	uboot, dtb := pattern(900), pattern(77)
	sum := sha256.Sum256(dtb)
	build := func(place string, at uint32) []byte {
		t := new(tree)
		t.begin("").text("description", "test").begin("images")
		t.begin("firmware-1").text("description", "U-Boot 2025.01 for am335x board").text("type", "firmware").text("arch", arch)
		t.text("os", "u-boot").text("compression", "none").num("load", 0x80800000).prop("data", uboot)
		t.begin("hash-1").text("algo", "crc32").num("value", crc32.ChecksumIEEE(uboot)).end().end()
		t.begin("fdt-1").text("type", "flat_dt").text("arch", arch).num(place, at).num("data-size", uint32(len(dtb)))
		t.begin("hash-1").text("algo", "sha256").prop("value", sum[:]).end().end()
		t.end().begin("configurations").text("default", "conf-1")
		t.begin("conf-1").text("description", "board").text("firmware", "firmware-1").text("fdt", "fdt-1").end().end().end()
		return t.bytes()
	}
	var b []byte
	if position {
		at := len(build("data-position", 0)) + 24
		b = append(build("data-position", uint32(at)), make([]byte, 24)...)
	} else {
		b = build("data-offset", 8)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		b = append(b, make([]byte, 8)...)
	}
	return append(b, dtb...)
}

func TestParseFIT(t *testing.T) {
	for _, position := range []bool{false, true} {
		b := makeFIT("arm", position)
		f, err := ParseFIT(b)
		if err != nil {
			t.Fatal(err)
		}
		if f.Description != "test" || f.Default != "conf-1" || len(f.Images) != 2 || len(f.Configs) != 1 || len(f.Unverified()) != 0 {
			t.Fatalf("%+v; unverified %q", f, f.Unverified())
		}
		uboot, dtb := f.Images[0], f.Images[1]
		if uboot.Name != "firmware-1" || uboot.Arch != "arm" || uboot.Load != 0x80800000 || !uboot.HasLoad || uboot.External || !bytes.Equal(uboot.Data, pattern(900)) {
			t.Errorf("%+v", uboot)
		}
		if !dtb.External || !bytes.Equal(dtb.Data, pattern(77)) || !dtb.Hashes[0].OK {
			t.Errorf("%+v", dtb)
		}
		if _, err := ParseFIT(damage(b, len(b)-1)); err == nil || !strings.Contains(err.Error(), `image "fdt-1": sha256 is`) {
			t.Errorf("damaged external data: %v", err)
		}
		at := bytes.Index(b, pattern(900)) + 500
		if _, err := ParseFIT(damage(b, at)); err == nil || !strings.Contains(err.Error(), `image "firmware-1": crc32 is`) {
			t.Errorf("damaged internal data: %v", err)
		}
		if _, err := ParseFIT(b[:len(b)-1]); !errors.Is(err, ErrTruncated) {
			t.Errorf("truncated external data: %v", err)
		}
		if _, err := ParseFIT(b[:600]); !errors.Is(err, ErrTruncated) {
			t.Errorf("truncated tree: %v", err)
		}
	}
}

func TestFITUnverified(t *testing.T) {
	tr := new(tree)
	tr.begin("").begin("images")
	tr.begin("a").prop("data", []byte{1}).end()
	tr.begin("b").prop("data", []byte{2}).begin("hash").text("algo", "blake3").prop("value", []byte{0}).end().begin("signature").end().end()
	tr.end().end()
	f, err := ParseFIT(tr.bytes())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`image "a" has no checksum`,
		`image "b" has a "blake3" checksum, which was not verified`,
		`image "b" is signed; the signature was not verified`,
	}
	if got := f.Unverified(); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFITRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		b    []byte
		want string
	}{
		"a board's tree": {new(tree).begin("").text("model", "TI AM335x BeagleBone Black").end().bytes(), "without /images"},
		"no image":       {new(tree).begin("").begin("images").end().end().bytes(), "holds no image"},
		"no data":        {new(tree).begin("").begin("images").begin("a").end().end().end().bytes(), "has no data"},
		"nowhere":        {new(tree).begin("").begin("images").begin("a").num("data-size", 4).end().end().end().bytes(), "does not say where"},
		"far away": {new(tree).begin("").begin("images").begin("a").num("data-size", 4).prop("data-offset", bytes.Repeat([]byte{0xff}, 8)).end().end().end().bytes(),
			"impossible data"},
		"unbalanced": {new(tree).begin("").bytes(), "ends before its nodes do"},
		"two roots":  {new(tree).begin("").end().begin("").end().bytes(), "second root"},
		"deep":       {deepTree(40), "nested more than 32 deep"},
	} {
		if _, err := ParseFIT(tt.b); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	good := makeFIT("arm", false)
	for field, want := range map[int]string{4: "announces", 8: "structure block", 12: "strings block", 20: "version", 32: "strings block", 36: "structure block"} {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint32(b[field:], 0xfffffff0)
		if field == 20 {
			binary.BigEndian.PutUint32(b[field:], 3)
		}
		if _, err := ParseFDT(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("field at %d: %v, want %q", field, err, want)
		}
	}
}

func deepTree(depth int) []byte {
	t := new(tree)
	for range depth {
		t.begin("n")
	}
	return t.bytes()
}

// TestFITWork bounds what a tree of overlapping images may cost.
func TestFITWork(t *testing.T) {
	tr := new(tree)
	tr.begin("").begin("images")
	for range 100 {
		tr.begin("a").num("data-position", 0).num("data-size", 40000)
		for range 10 {
			tr.begin("hash").text("algo", "sha512").prop("value", nil).end()
		}
		tr.end()
	}
	tr.end().end()
	_, err := ParseFIT(append(tr.bytes(), make([]byte, 40000)...))
	if err == nil || !strings.Contains(err.Error(), "far more checksums") {
		t.Errorf("%.200v", err)
	}
}

func TestParseMLO(t *testing.T) {
	spl := makeSPL(0x402f0400, "U-Boot SPL 2025.01 (Jan 01 2025)", 4096)
	mlo := makeMLO(0x402f0400, spl)
	other := bytes.Clone(mlo) // a tool that does not count the GP header
	binary.LittleEndian.PutUint32(other[512:], 4096)
	for name, b := range map[string][]byte{"MLO": mlo, "GP header alone": mlo[512:], "size without header": other} {
		m, err := ParseMLO(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if m.Load != 0x402f0400 || !bytes.Equal(m.Data, spl) {
			t.Errorf("%s: load %#x, %d bytes", name, m.Load, len(m.Data))
		}
	}
	if m, err := ParseMLO(append(bytes.Clone(other), make([]byte, 512)...)); err != nil || !bytes.Equal(m.Data, spl) {
		t.Errorf("padded: %v", err)
	}
	swapped := bytes.Clone(mlo)
	for i := 0; i+4 <= len(swapped); i += 4 {
		binary.LittleEndian.PutUint32(swapped[i:], binary.BigEndian.Uint32(mlo[i:]))
	}
	for name, tt := range map[string]struct {
		b    []byte
		want string
	}{
		"truncated": {mlo[:4000], "the GP header announces 4104 bytes, the file has 3480"},
		"headers":   {mlo[:515], "the headers alone have 520"},
		"no GP":     {append(bytes.Clone(mlo[:512]), spl...), "no GP header at byte 512"},
		"raw":       {spl, "no MLO"},
		"swapped":   {swapped, "byte-swapped"},
		"empty":     {nil, "no MLO"},
	} {
		if _, err := ParseMLO(tt.b); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func TestParseARM(t *testing.T) {
	p, ok := ParseARM(makeSPL(0x402f0400, "U-Boot SPL 2023.01+dfsg-2 (Jun 22 2026 - 08:38:07 +0000)\n", 1024))
	if !ok || !p.Vectors || p.Base != 0x402f0400 || p.UBoot != "U-Boot SPL 2023.01+dfsg-2" {
		t.Errorf("%+v, %v", p, ok)
	}
	bare := append([]byte{0xff, 0xff, 0xff, 0xea}, make([]byte, 100)...) // OMAP4's begins with a bare branch
	if p, ok := ParseARM(bare); !ok || p.Vectors {
		t.Errorf("%+v, %v", p, ok)
	}
	for _, b := range [][]byte{nil, pattern(200), bare[:40]} {
		if p, ok := ParseARM(b); ok {
			t.Errorf("%d bytes taken for a program: %+v", len(b), p)
		}
	}
}

func TestIdentify(t *testing.T) {
	at := func(off int, magic string) []byte { // somewhere in a file of no format
		b := append([]byte{1, 2, 3, 4, 5, 6, 7, 8}, bytes.Repeat([]byte{0x55, 0x99, 0}, 12000)...)
		copy(b[off:], magic)
		return b
	}
	for _, tt := range []struct {
		b    []byte
		kind Kind
		want string
	}{
		{nil, KindEmpty, "an empty file"},
		{bytes.Repeat([]byte{0xff}, 512), KindBlank, "512 bytes of 0xff and nothing else"},
		{at(4, "eGON.BT0"), KindEGON, "Allwinner eGON"},
		{at(32768, "\x3b\x8c\xdc\xfc"), KindOtherSoC, "Rockchip image of a card or of flash"},
		{at(8196, "eGON.BT0"), KindOtherSoC, "Allwinner SD card image"},
		{at(0, "\xd1\x00\x20\x40"), KindIVT, "i.MX image (damaged IVT)"},
		{at(0x400, "\xd1\x00\x20\x41"), KindIVT, "i.MX image (damaged IVT at 0x400)"},
		{at(0, "\x00\x20\x04\x87\x00\x00\x00\x00\x00\x00\x00\x02"), KindContainer, "i.MX8 or i.MX9 image (container)"},
		{at(0, "STM2"), KindSTM32, "STM32MP"},
		{at(0, "RKNS"), KindRKIDBlock, "Rockchip"},
		{at(0, "RK33"), KindOtherSoC, "Rockchip"},
		{at(0, "\x30\x82\x05\xdd\x30\x82\x05\x44\x2b\x06\x01\x04\x01\x82\x26\x01\x01"), KindTIX509, "TI K3"},
		{at(0x20, "\x66\x55\x99\xaaXNLX\x00\x00\x00\x00\x00\x00\xfc\xff"), KindZynqMP, "ZynqMP"},
		{at(0x20, "\x66\x55\x99\xaaXNLX\x00\x00\x00\x00\x00\x00\x01\x01"), KindOtherSoC, "Zynq-7000"},
		{at(0, "RZN1"), KindSPKG, "RZ/N1"},
		{at(16, "@AML"), KindAML, "Amlogic"},
		{at(0, "\x01\x00\x64\xaa\x78\x56\x34\x12"), KindFIP, "FIP"},
		{at(0, "\x01\x00\x64\xaa\x01\x00\x00\x00"), KindFIP, "FIP"},
		{at(0, "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"), KindELF, "64-bit ARM"},
		{at(0, "\x1f\x8b\x08"), KindArchive, "gzip"},
		{at(100, "CERT_ISW"), KindTISigned, "high-security"},
		{makeMLO(0x402f0400, pattern(99)), KindTIMemory, "a TI MLO for AM335x"},
		{makeMLO(0x40300000, pattern(99)), KindTIMemory, "DRA7xx, AM57xx"},
		{makeMLO(0x402f0400, pattern(99))[512:], KindTIMemory, "GP header for AM335x"},
		{makeSPL(0x402f0400, "U-Boot SPL 2025.01 (x)", 999), KindARM, "(U-Boot SPL 2025.01) linked for 0x402f0400"},
		{append([]byte{0x0a, 0, 0, 0x14}, append(make([]byte, 100), "U-Boot 2025.01 (x)"...)...), KindARM64, "64-bit ARM program (U-Boot 2025.01)"},
		{makeUImage("U-Boot for x", 0, nil), KindUImage, `a legacy uImage "U-Boot for x" for arm`},
		{makeFIT("arm", false), KindFIT, `a FIT image "test"`},
		{makeFIT("arm", false)[:100], KindFIT, "damaged"},
		{new(tree).begin("").text("model", "Board").end().bytes(), KindDTB, `"Board"`},
		{[]byte("spl:\n  path: x\n"), KindText, "a text file"},
		{[]byte("version https://git-lfs.github.com/spec/v1\noid"), KindText, "git lfs pull"},
		{[]byte("<!DOCTYPE html>\n<html>Not found"), KindText, "the download went wrong"},
		{[]byte(strings.Repeat("é", 600)), KindText, "a text file"},
		{pattern(600), KindUnknown, "begins with"},
	} {
		got := Identify(tt.b)
		if got.Kind != tt.kind || !strings.Contains(got.Text, tt.want) {
			t.Errorf("% .12x: kind %d, %q; want kind %d, %q", tt.b[:min(12, len(tt.b))], got.Kind, got, tt.kind, tt.want)
		}
	}
}
