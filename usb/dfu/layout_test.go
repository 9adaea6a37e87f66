package dfu_test

import (
	"slices"
	"testing"

	"snag/usb/dfu"
)

func TestParseLayout(t *testing.T) {
	for _, tc := range []struct {
		name string
		want []dfu.Segment // nil: an error
	}{
		{"@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Ka", []dfu.Segment{
			{0x08000000, 4, 16 << 10, true, true, true}, {0x08010000, 1, 64 << 10, true, true, true}, {0x08020000, 7, 128 << 10, true, false, false},
		}},
		{"@Option Bytes  /0x1FFFC000/01*016 e/0x1FFFC008/01*8Bb", []dfu.Segment{
			{0x1fffc000, 1, 16, true, false, true}, {0x1fffc008, 1, 8, false, true, false},
		}},
		{"@RAM/0x20000000/2*1Md", []dfu.Segment{{0x20000000, 2, 1 << 20, false, false, true}}},
		{"@Bytes/0x0/16*4e", []dfu.Segment{{0, 16, 4, true, false, true}}},
		{"@End/0xffff0000/1*64Kg", []dfu.Segment{{0xffff0000, 1, 64 << 10, true, true, true}}},
		{"@Beyond/0xffff0000/1*65Kg", nil},
		{"rootfs", nil}, {"@Flash", nil}, {"@Flash/0x0", nil}, {"@Flash/x/1*1Kg", nil}, {"@Flash/0x0/1*1Kh", nil}, {"@Flash/0x0/1*1Gg", nil},
		{"@Flash/0x0/0*1Kg", nil}, {"@Flash/0x0/1*0Kg", nil}, {"@Flash/0x0/1*1K", nil}, {"@Flash/0x0/1*1Kgg", nil}, {"@Flash/0x0/", nil}, {"@Flash/0x0/1*", nil},
		{"@Flash/0x0/1*1Kg/0x8000", nil},
	} {
		got, err := dfu.ParseLayout(tc.name)
		if !slices.Equal(got, tc.want) || (err == nil) != (tc.want != nil) {
			t.Errorf("%q: %+v, %v", tc.name, got, err)
		}
	}
}

// FuzzLayout has names that a device may have.
func FuzzLayout(f *testing.F) {
	f.Add("@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg")
	f.Add("@Option Bytes  /0x1FFFC000/01*016 e/0x1FFFC008/01*8Bb")
	f.Fuzz(func(t *testing.T, name string) {
		all, err := dfu.ParseLayout(name)
		if (err == nil) != (len(all) > 0) {
			t.Fatal(all, err)
		}
		for _, s := range all {
			if s.Pages < 1 || s.PageSize < 1 || int64(s.Address)+s.Size() > 1<<32 {
				t.Fatalf("%+v", s)
			}
		}
	})
}
