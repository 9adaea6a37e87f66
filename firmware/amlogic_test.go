package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	sim "snag/sim/amlogic"
)

// edit returns a copy with other bytes at a place.
func edit(b []byte, off int, with ...byte) []byte {
	b = slices.Clone(b)
	copy(b[off:], with)
	return b
}

func TestAML(t *testing.T) {
	bl2 := sim.Generate(sim.GX, 50_000, 1)["bl2"]
	whole := sim.Generate(sim.G12, 2000, 1)["u-boot-fip"]
	fip, err := ParseAMLFIP(whole[0x10000:])
	if err != nil {
		t.Fatal(err)
	}
	bl33, _ := fip.FIP.Entry("nt-fw")
	for _, tc := range []struct {
		name string
		b    []byte
		says string
	}{
		{"BL2", bl2, ""},
		{"with more", whole, ""},
		{"BL33", bl33.Data, ""},
		{"signed", edit(bl2, 32, 2), ""},
		{"nothing", nil, "no @AML at byte 16"},
		{"the magic alone", bl2[:20], "truncated: the header ends with the file"},
		{"cut", bl2[:2000], "truncated: the header announces 49136 bytes, the file has 1984"},
		{"header of another size", edit(bl2, 24, 65), "a header of 65 bytes"},
		{"no size", edit(bl2, 20, 2, 0, 0, 0), "points out of the 2 bytes"},
		{"digest out of it", edit(bl2, 36, 0xff, 0xff, 0xff, 0xff), "points out of"},
		{"covers more", edit(bl2, 60, 0xff, 0xff, 0xff, 0xff), "points out of"},
		{"program out of it", edit(bl2, 68, 0xff, 0xff, 0xff, 0xff), "points out of"},
		{"damaged", edit(bl2, 0x2000, 1, 2, 3), "the SHA-256 of the image is not the one"},
		{"damaged digest", edit(bl2, 16+64, 1, 2, 3), "the SHA-256 of the image is not the one"},
		{"BL33, cut header", bl33.Data[:200], "truncated: the header ends with the file"},
		{"BL33, damaged header", edit(bl33.Data, 100, 9), "the SHA-256 of the header is wrong"},
		{"BL33, cut", bl33.Data[:1000], "truncated: the header announces"},
		{"BL33, damaged", edit(bl33.Data, 1000, 1, 2, 3), "the SHA-256 of the program is not the one"},
	} {
		a, err := ParseAML(tc.b)
		switch {
		case tc.says == "" && (err != nil || a.Verified == a.Signed || a.BL3 != strings.HasPrefix(tc.name, "BL33")):
			t.Errorf("%s: %+v, %v", tc.name, a, err)
		case tc.says == "" && !bytes.Equal(a.Program, tc.b[a.Start:a.Size]):
			t.Errorf("%s: the program is another", tc.name)
		case tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)):
			t.Errorf("%s: %v, want %q", tc.name, err, tc.says)
		case strings.Contains(tc.says, "truncated") && !errors.Is(err, ErrTruncated):
			t.Errorf("%s: %v is no ErrTruncated", tc.name, err)
		}
	}
}

func TestAMLFIP(t *testing.T) {
	gx, axg := sim.Generate(sim.GX, 2000, 1)["u-boot"], sim.Generate(sim.AXG, 2000, 1)["u-boot"]
	for _, tc := range []struct {
		name   string
		b      []byte
		pieces int
		images int
		says   string
	}{
		{"encrypted", gx, 3, 0, ""},
		{"plain", axg, 0, 4, ""},
		{"padded", append(slices.Clone(gx), make([]byte, 0x8000)...), 3, 0, ""},
		{"nothing", nil, 0, 0, "neither a FIP at byte 16 nor AMLC at byte 12"},
		{"the magic alone", gx[:16], 0, 0, "truncated"},
		{"bad header", edit(gx, 252, 0), 0, 0, "AMLC at 0x0: a header that is not understood"},
		{"bad second header", edit(gx, 0x4000+20, 1), 1, 0, "AMLC at 0x4000: a header that is not understood"},
		{"huge", edit(edit(gx, 16, 0xff, 0xff, 0xff, 0xff), 24, 0xff, 0xff, 0xff, 0xff), 1, 0, "truncated: the header announces 4294967807 bytes"},
		{"damaged", edit(gx, 0x5000, 1, 2), 2, 0, "AMLC at 0x4000: the SHA-256 of the blocks"},
		{"cut", gx[:0x5000], 2, 0, "AMLC at 0x4000: truncated"},
		{"plain, cut", axg[:0x5000], 0, 4, "truncated"},
		{"plain, cut in the table", axg[:60], 0, 0, "inside the table of contents"},
		{"plain, without a serial number", edit(axg, 20, 0, 0, 0, 0), 0, 0, "serial number is 0"},
	} {
		f, err := ParseAMLFIP(tc.b)
		if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.says)
		}
		pieces, images := 0, 0
		if f != nil {
			pieces = len(f.Pieces)
			if f.FIP != nil {
				images = len(f.FIP.Entries)
			}
		}
		if pieces != tc.pieces || images != tc.images {
			t.Errorf("%s: %d pieces, %d images, want %d, %d", tc.name, pieces, images, tc.pieces, tc.images)
		}
	}
}

func FuzzAML(f *testing.F) {
	bl2, whole := sim.Generate(sim.GX, 1, 1)["bl2"], sim.Generate(sim.G12, 1, 1)["u-boot-fip"]
	f.Add(bl2[:0x1200])
	fip, _ := ParseAMLFIP(whole[0x10000:])
	for _, e := range fip.FIP.Entries {
		f.Add(e.Data[:min(len(e.Data), 2000)])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAML(b)
		if a == nil {
			if err == nil {
				t.Error("neither an image nor an error")
			}
			return
		}
		if a.Size > len(b) || a.Start > len(b) && err == nil || len(a.Program) > len(b) || err == nil && a.Start+len(a.Program) != a.Size {
			t.Errorf("%+v of %d bytes", a, len(b))
		}
		Identify(b)
	})
}

func FuzzAMLFIP(f *testing.F) {
	gx, axg := sim.Generate(sim.GX, 1, 1)["u-boot"], sim.Generate(sim.AXG, 1, 1)["u-boot"]
	f.Add(gx[:0x600])
	f.Add(axg[:0x200])
	small := slices.Clone(gx[:0x600])
	for _, off := range []int{16, 24, 28} {
		binary.LittleEndian.PutUint32(small[off:], 512)
	}
	f.Add(small)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseAMLFIP(b)
		if p == nil {
			if err == nil {
				t.Error("neither a FIP nor an error")
			}
			return
		}
		if p.Size > len(b) || len(p.Pieces) > amlcMost {
			t.Errorf("%+v of %d bytes", p, len(b))
		}
		for _, q := range p.Pieces {
			if q.Offset+q.Size > len(b) {
				t.Errorf("%+v of %d bytes", q, len(b))
			}
		}
	})
}

// TestAmlogicFiles reads the files of boards, where there are some: those of pyamlboot, files/.
func TestAmlogicFiles(t *testing.T) {
	dir := os.Getenv("SNAG_AMLOGIC_FILES")
	if dir == "" {
		t.Skip("SNAG_AMLOGIC_FILES names no directory with BOARD/u-boot.bin and the like, such as pyamlboot's files")
	}
	names, err := filepath.Glob(filepath.Join(dir, "*", "u-boot.bin*"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".tpl") {
			if f, err := ParseAMLFIP(b); err != nil || f.Size > len(b) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		a, err := ParseAML(b)
		if err != nil || !a.Verified {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if strings.HasSuffix(name, ".bl2") {
			continue
		}
		f, err := ParseAMLFIP(b[a.Size:])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, e := range f.FIP.Entries {
			if _, err := ParseAML(e.Data); err != nil && Identify(e.Data).Kind == KindAML {
				t.Errorf("%s: %s: %v", name, e.Text, err)
			}
		}
	}
}
