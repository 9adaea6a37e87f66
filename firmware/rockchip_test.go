package firmware

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"snag/sim/rockchip"
)

// rockchipModel is a virtual SoC, whose own code makes the files.
func rockchipModel(t testing.TB, name string) rockchip.Model {
	t.Helper()
	m, err := rockchip.FindModel(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRockchipLoader(t *testing.T) {
	for _, name := range []string{"rk3399", "rk3588", "rksmart", "rk2928"} {
		m := rockchipModel(t, name)
		img := rockchip.Generate(m, 5000, 9000, 1)
		l, err := ParseRockchipLoader(img.Loader)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		chip := strings.Replace(m.Chip, "RV", "RK", 1)
		if l.Chip != chip || l.Major != 1 || l.Minor != 25 || l.Time.Format("2006-01-02 15:04") != "2026-11-22 20:15" || l.PlainFlash == m.RC4 || len(l.Code471) != 1 {
			t.Errorf("%s: %+v", name, l)
		}
		e := l.Code471[0]
		code := e.Data
		if m.RC4 {
			code = RockchipRC4(code)
		}
		if e.Delay.Milliseconds() != 1 || e.Name == "" || !bytes.Equal(code[:len(img.Code471)], img.Code471) || len(code)%2048 != 0 {
			t.Errorf("%s: 471: %q, %s, %d bytes", name, e.Name, e.Delay, len(code))
		}
		if name == "rksmart" {
			if len(l.Code472) != 0 {
				t.Errorf("%+v", l.Code472)
			}
			continue
		}
		plug := l.Code472[0].Data
		if m.RC4 {
			plug = RockchipRC4(plug)
		}
		if !RockchipPlug(plug) || RockchipPlug(img.Code472) || !bytes.Equal(plug[:len(img.Plug)], img.Plug) {
			t.Errorf("%s: 472 is not the plug", name)
		}
	}
}

// The checksum of "123456789" is what rkdeveloptool's CRC_32 makes of it with its polynomial; the common one makes
// 0x89a1897f.
func TestRockchipCRC32(t *testing.T) {
	bits := func(poly uint32, b []byte) (c uint32) {
		for _, x := range b {
			for i := 7; i >= 0; i-- {
				top := c>>31 ^ uint32(x>>i)&1
				if c <<= 1; top != 0 {
					c ^= poly
				}
			}
		}
		return c
	}
	b := []byte("123456789")
	if got, want := rockchipCRC32(b), bits(0x04c10db7, b); got != want {
		t.Errorf("%#x, want %#x", got, want)
	}
	if bits(0x04c11db7, b) != 0x89a1897f {
		t.Error("the test computes no CRC32")
	}
}

// A container or an ID block that is wrong says where.
func TestRockchipWrong(t *testing.T) {
	img := rockchip.Generate(rockchipModel(t, "rk3399"), 5000, 9000, 1)
	v2 := rockchip.Generate(rockchipModel(t, "rk3588"), 5000, 9000, 1)
	change := func(b []byte, at int, x ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], x)
		return b
	}
	first := func(x ...byte) []byte { // of the decrypted header, at 506
		h := RockchipRC4(img.IDBlock[:512])
		return append(RockchipRC4(change(h, 506, x...)), img.IDBlock[512:]...)
	}
	for _, tc := range []struct {
		data  []byte
		block bool
		says  string
		some  bool // what can be read is returned
		cut   bool
	}{
		{data: nil, says: "begins with"},
		{data: []byte("BOOT"), says: "truncated", cut: true},
		{data: change(img.Loader, 4, 90), says: "it has 90 bytes, expected 102"},
		{data: change(img.Loader, 25, 65), says: "65 471 entries"},
		{data: change(img.Loader, 26, 0, 0, 0, 0x80), says: "the table of 471 entries ends at", cut: true},
		{data: change(img.Loader, 30, 56), says: "have 56 bytes, expected 57"},
		{data: change(img.Loader, 103, 2), says: "is of kind 2, expected 1"},
		{data: change(img.Loader, 102+45, 0xff, 0xff, 0xff, 0xff), says: "at 0xffffffff", cut: true},
		{data: change(img.Loader, 102+49, 0xff, 0xff, 0xff, 0xff), says: "has 4294967295 bytes", cut: true},
		{data: change(img.Loader, 1000, img.Loader[1000]^1), says: "CRC32", some: true},
		{block: true, data: []byte("RKNS"), says: "truncated", cut: true},
		{block: true, data: img.Loader, says: "no Rockchip ID block"},
		{block: true, data: first(0, 0), says: "images at sector 4, of 0 and"},
		{block: true, data: first(9, 0, 8, 0), says: "no larger than both"},
		{block: true, data: img.IDBlock[:9000], says: "second image has 10240 bytes, of which the file has 808", some: true, cut: true},
		{block: true, data: change(v2.IDBlock, 10, 5), says: "5 images"},
		{block: true, data: change(v2.IDBlock, 12, 3), says: "hashes of kind 3"},
		{block: true, data: change(v2.IDBlock, 8, 0xff, 0xff), says: "behind its end"},
		{block: true, data: change(v2.IDBlock, 122, 0, 0), says: "no images", some: true},
		{block: true, data: change(v2.IDBlock, 200, 1), says: "sha256", some: true},
		{block: true, data: change(v2.IDBlock, 9000, v2.IDBlock[9000]^1), says: "of image 2 is another", some: true},
	} {
		var some bool
		var err error
		if tc.block {
			var d *RockchipIDBlock
			d, err = ParseRockchipIDBlock(tc.data)
			some = d != nil
		} else {
			var l *RockchipLoader
			l, err = ParseRockchipLoader(tc.data)
			some = l != nil
		}
		if !strings.Contains(fmt.Sprint(err), tc.says) || some != tc.some || errors.Is(err, ErrTruncated) != tc.cut {
			t.Errorf("%v, something: %t; want %q", err, some, tc.says)
		}
	}
}

// What mkimage makes for media is read, of every SoC that it knows: with one image, with two, and for SPI flash.
func TestMkimageRockchip(t *testing.T) {
	mkimage := tool(t, "mkimage", "u-boot-tools")
	dir := t.TempDir()
	init, boot := pattern(5000), pattern(9001)
	for _, b := range [][]byte{init, boot} {
		copy(b, "\x01\x00\x00\x14")
	}
	a, b, out := write(t, dir, "init", init), write(t, dir, "boot", boot), filepath.Join(dir, "out")
	known := 0
	for _, soc := range []string{"px30", "rk3036", "rk3066", "rk3128", "rk3188", "rk322x", "rk3288", "rk3308", "rk3328", "rk3368", "rk3399", "rk3568", "rk3588"} {
		for _, kind := range []string{"rksd", "rkspi"} {
			for _, files := range []string{a, a + ":" + b} {
				cmd := exec.Command(mkimage, "-T", kind, "-n", soc, "-d", files, out)
				if text, err := cmd.CombinedOutput(); err != nil {
					t.Logf("this mkimage cannot make %s of %s: %v: %s", kind, soc, err, text)
					continue
				}
				known++
				name := fmt.Sprint(soc, " ", kind, " ", strings.Count(files, ":")+1)
				d, err := ParseRockchipIDBlock(read(t, out))
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				want := [][]byte{init, boot}[:strings.Count(files, ":")+1]
				if len(d.Images) != len(want) || d.SPI != (kind == "rkspi") || d.Version == 2 != strings.HasPrefix(soc, "rk35") || d.RC4 != (soc == "rk3066" || soc == "rk3188") {
					t.Errorf("%s: version %d, %d images, SPI %t, RC4 %t", name, d.Version, len(d.Images), d.SPI, d.RC4)
					continue
				}
				for n, w := range want {
					got := d.Images[n].Data
					if len(got) < len(w) || len(got)-len(w) >= 2048 || !bytes.Equal(got[4:len(w)], w[4:]) || n > 0 && !bytes.Equal(got[:4], w[:4]) {
						t.Errorf("%s: image %d has %d bytes, others than the %d that went in", name, n, len(got), len(w))
					}
				}
			}
		}
	}
	if known == 0 {
		t.Skip("this mkimage knows no Rockchip SoC")
	}
}

func FuzzRockchipLoader(f *testing.F) {
	for _, chip := range []string{"RK330C", "RK3588", "RKSMART"} {
		e := []rockchip.Entry{{Name: "a name", Data: pattern(20), Delay: 1, Bare: true}}
		f.Add(rockchip.Loader{Chip: chip, New: chip == "RK3588", Code471: e, Code472: e, Flash: e}.Bytes()) // small, as fuzzing wants it
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		look := func(b []byte) {
			l, err := ParseRockchipLoader(b)
			if l == nil {
				return
			}
			n := 0
			for _, list := range [][]RockchipEntry{l.Code471, l.Code472, l.Flash} {
				for _, e := range list {
					if n++; !bytes.Equal(e.Data, b[e.Offset:][:len(e.Data)]) {
						t.Errorf("%+v", e)
					}
				}
			}
			if n > 3*rockchipMaxEntries || l.Table > len(b) || l.Size != len(b) || l.Chip == "" || (err == nil) != (l.Sum == l.Want) {
				t.Errorf("%+v of %d bytes: %v", l, len(b), err)
			}
		}
		look(b)
		if len(b) > 4 { // behind the checksum
			c := rockchipCRC32(b[:len(b)-4])
			look(append(bytes.Clone(b[:len(b)-4]), byte(c), byte(c>>8), byte(c>>16), byte(c>>24)))
		}
	})
}

func FuzzRockchipIDBlock(f *testing.F) {
	for _, name := range []string{"rk3399", "rk3588"} {
		f.Add(rockchip.Generate(rockchipModel(f, name), 100, 100, 1).IDBlock)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		look := func(b []byte) {
			d, err := ParseRockchipIDBlock(b)
			if d == nil {
				return
			}
			if len(d.Images) == 0 && err == nil || len(d.Images) > rockchipV2Images || d.Size > len(b) {
				t.Errorf("%+v of %d bytes: %v", d, len(b), err)
			}
			for _, i := range d.Images {
				if i.Offset+i.Size > len(b) || len(i.Data) > i.Size {
					t.Errorf("%d bytes of %d at %#x in %d", len(i.Data), i.Size, i.Offset, len(b))
				}
			}
		}
		look(b)
		if len(b) >= rockchipSector { // as if it had been decrypted
			look(append(RockchipRC4(b[:rockchipSector]), b[rockchipSector:]...))
		}
	})
}
