package usb

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hid is an i.MX6-like ROM: one HID interface with an interrupt endpoint in.
var hid = []byte{
	18, 1, 0x00, 0x02, 0, 0, 0, 64, 0xa2, 0x15, 0x54, 0x00, 0x01, 0x00, 1, 2, 0, 1,
	9, 2, 34, 0, 1, 5, 0, 0xc0, 50,
	9, 4, 0, 0, 1, 3, 0, 0, 4,
	9, 0x21, 0x10, 0x01, 0, 1, 0x22, 76, 0,
	7, 5, 0x81, 3, 64, 0, 4,
}

func TestParseDescriptors(t *testing.T) {
	got, err := ParseDescriptors(hid)
	if err != nil {
		t.Fatal(err)
	}
	want := &Descriptors{
		USB: 0x200, MaxPacket0: 64, ID: ID{0x15a2, 0x0054}, Release: 1, Manufacturer: 1, Product: 2, Raw: hid,
		Configs: []ConfigDescriptor{{Value: 5, Settings: []Setting{{
			Class: 3, Name: 4, Extra: []byte{9, 0x21, 0x10, 0x01, 0, 1, 0x22, 76, 0},
			Endpoints: []Endpoint{{Address: 0x81, Type: Interrupt, MaxPacket: 64, Interval: 4}},
		}}}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	s := got.Setting(5, 0, 0)
	if s == nil || got.Setting(5, 1, 0) != nil || got.Setting(1, 0, 0) != nil {
		t.Errorf("Setting: %v", s)
	}
	if e, ok := s.Find(Interrupt, true); !ok || e.Address != 0x81 {
		t.Errorf("Find: %v, %v", e, ok)
	}
	if _, ok := s.Find(Interrupt, false); ok {
		t.Error("found an endpoint that is not there")
	}
	for n := range hid {
		d, err := ParseDescriptors(hid[:n])
		if (err == nil) != (n >= 18) {
			t.Errorf("cut at %d: %v, %v", n, d, err)
		}
	}
}

func FuzzDescriptors(f *testing.F) {
	f.Add(hid)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDescriptors(b)
		if err == nil {
			d.Setting(1, 0, 0)
		}
	})
}
