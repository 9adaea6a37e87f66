package gpt

import (
	"bytes"
	"crypto/rand"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"snag/flash/image"
	"snag/sim/uboot"
)

// disk is what a disk of zeros holds when a table was written to it.
func disk(t *testing.T, table *Table) []byte {
	t.Helper()
	b, err := table.Sparse()
	if err != nil {
		t.Fatal(err)
	}
	im, err := image.New(t.Context(), "table", bytes.NewReader(b), image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	out := make(buffer, table.Size)
	if err := image.Copy(t.Context(), &out, im, image.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	return out
}

var parts = []Partition{
	{Name: "boot", Size: 2 << 20, Type: Types["system"], Bootable: true},
	{Name: "größer", Start: 4 << 20, Size: 1 << 20, UUID: must("12345678-9abc-def0-1234-56789abcdef0")},
	{Name: "root", Size: -1},
}

// TestNew has the virtual U-Boot, which was written from the specification by itself, read the table, at the begin and
// at the end.
func TestNew(t *testing.T) {
	const size = 16 << 20
	table, err := New(size+100, 512, parts, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := disk(t, table)
	if len(b) != size {
		t.Fatalf("%d bytes", len(b))
	}
	for _, spoiled := range []bool{false, true} {
		store := uboot.NewStore(size, 0)
		if spoiled {
			clear(b[512:1024])
		}
		store.WriteAt(b, 0)
		got, err := uboot.ReadGPT(store)
		if err != nil {
			t.Fatal(err)
		}
		if got.First != 34 || got.Last != size/512-34 || len(got.Parts) != 3 {
			t.Errorf("%+v", got)
		}
		for i, want := range []struct {
			name       string
			first, end int64
			attributes uint64
		}{{"boot", 2048, 6144, 4}, {"größer", 8192, 10240, 0}, {"root", 10240, size/512 - 33, 0}} {
			p := got.Parts[i]
			if p.Name != want.name || p.First != want.first || p.End != want.end || p.Attributes != want.attributes {
				t.Errorf("%+v, want %+v", p, want)
			}
		}
		if got.Parts[1].ID != must("12345678-9abc-def0-1234-56789abcdef0") || got.Parts[0].Type != Types["efi"] || got.Parts[0].ID == got.Parts[2].ID {
			t.Errorf("%+v", got.Parts)
		}
	}
}

// TestForeign asks sfdisk what it thinks of the table.
func TestForeign(t *testing.T) {
	sfdisk, err := exec.LookPath("sfdisk")
	if err != nil {
		t.Skip("no sfdisk (package fdisk)")
	}
	table, err := New(64<<20, 512, parts, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, disk(t, table), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--verify", name}, {"--dump", name}} {
		out, err := exec.Command(sfdisk, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("sfdisk %s: %v\n%s", args, err, out)
		}
		if args[0] == "--verify" && !strings.Contains(string(out), "No errors detected") ||
			args[0] == "--dump" && !(strings.Contains(string(out), "label: gpt") && strings.Contains(string(out), `uuid=12345678-9ABC-DEF0-1234-56789ABCDEF0, name="größer"`) && strings.Contains(string(out), `attrs="LegacyBIOSBootable"`)) {
			t.Errorf("sfdisk %s:\n%s", args, out)
		}
	}
}

func TestRefused(t *testing.T) {
	const size = 16 << 20
	for _, tc := range []struct {
		size, block int64
		parts       []Partition
		want        string
	}{
		{size, 512, nil, "expected 1 to 128"},
		{size, 500, parts, "power of two"},
		{20 << 10, 512, parts, "no room for a partition table"},
		{size, 512, []Partition{{Name: "a", Size: size}}, "there are"},
		{size, 512, []Partition{{Name: "a", Size: math.MaxInt64 &^ 511}}, "there are"},
		{size, 512, []Partition{{Name: "a", Start: 512, Size: 512}}, "what is before it goes up to 17408"},
		{size, 512, []Partition{{Name: "a", Start: math.MaxInt64 &^ 511, Size: 512}}, "there are 0 bytes"},
		{size, 4096, []Partition{{Name: "a", Size: 512}}, "whole blocks of 4096"},
		{size, 512, []Partition{{Name: "a", Size: 1 << 20}, {Name: "b", Start: 1 << 20, Size: 1 << 20}}, "goes up to 2097152"},
		{size, 512, []Partition{{Name: "a", Size: -1024}, {Name: "b", Size: 1 << 20}}, "there are"},
		{size, 512, []Partition{{Name: strings.Repeat("a", 37), Size: 1 << 20}}, "more than 36 letters"},
	} {
		_, err := New(tc.size, tc.block, tc.parts, rand.Reader)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", tc.parts, err, tc.want)
		}
	}
	if _, err := New(size, 512, parts, strings.NewReader("")); err != io.EOF {
		t.Errorf("without random bytes: %v", err)
	}
	for _, s := range []string{"", "0fc63daf", strings.Repeat("g", 36), "0fc63daf-8483-4772-8e79-3d69d8477dex", "0fc63daf-8483-4772-8e79-3d69d8-77de4"} {
		if _, err := ParseGUID(s); err == nil {
			t.Errorf("GUID %q is taken", s)
		}
	}
}
