package dfu_test

import (
	"slices"
	"testing"

	"snag/usb/dfu"
)

var (
	device  = make18()
	config1 = []byte{9, 2, 0, 0, 1, 1, 0, 0x80, 1}
	config2 = []byte{9, 2, 0, 0, 1, 2, 0, 0x80, 1}
	hid0    = []byte{9, 4, 0, 0, 0, 3, 0, 0, 0}
	dfu1    = []byte{9, 4, 1, 0, 0, 0xfe, 1, 2, 0}
	vendor1 = []byte{9, 4, 1, 1, 0, 0xff, 0, 0, 0}
	bulk    = []byte{7, 5, 0x81, 2, 0, 2, 0}
)

func make18() []byte {
	b := make([]byte, 18)
	b[0], b[1] = 18, 1
	return b
}

func TestFindFunctional(t *testing.T) {
	f := func(n uint16) []byte { return functional(n, 1) }
	for _, tc := range []struct {
		name string
		raw  [][]byte
		want int // -1: none
	}{
		{"after the setting", [][]byte{device, config1, dfu1, f(5)}, 5},
		{"after the last one", [][]byte{device, config1, dfu1, dfu1, f(6)}, 6},
		{"after the first", [][]byte{device, config1, dfu1, f(6), dfu1}, 6},
		{"before the interfaces", [][]byte{device, config1, f(7), dfu1}, 7},
		{"after another setting", [][]byte{device, config1, dfu1, vendor1, bulk, f(8)}, 8},
		{"DFU's own first", [][]byte{device, config1, vendor1, bulk, f(8), dfu1, f(9)}, 9},
		{"another interface's", [][]byte{device, config1, hid0, f(1), dfu1, f(9), hid0, f(2)}, 9},
		{"another configuration's", [][]byte{device, config2, dfu1, f(3), config1, dfu1, f(9)}, 9},
		{"only another's", [][]byte{device, config1, hid0, f(1), dfu1, config2, dfu1, f(3)}, -1},
		{"DFU 1.0", [][]byte{device, config1, dfu1, {7, 0x21, 1, 0, 0, 4, 0}}, 4},
		{"cut", [][]byte{device, config1, dfu1, {9, 0x21, 1, 0, 0, 4, 0}}, -1},
		{"too short", [][]byte{device, config1, dfu1, {5, 0x21, 1, 0, 0}}, -1},
	} {
		got, ok := dfu.FindFunctional(slices.Concat(tc.raw...), 1, 1)
		if ok != (tc.want >= 0) || ok && got.TransferSize != tc.want {
			t.Errorf("%s: %t, %+v", tc.name, ok, got)
		}
	}
}

func FuzzFindFunctional(f *testing.F) {
	f.Add(slices.Concat(device, config1, dfu1, functional(1024, 7)))
	f.Add([]byte{9, 2, 0, 0, 1, 1, 0, 0, 0, 9, 4, 1, 0, 0, 0xfe, 1, 2, 0, 7, 0x21, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got, ok := dfu.FindFunctional(raw, 1, 1); ok && (got.TransferSize > 0xffff || got.DetachTimeout < 0) {
			t.Errorf("%+v", got)
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 0})
	f.Add([]byte{15, 255, 255, 255, 10, 255})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := dfu.ParseAnswer(b)
		if err == nil && (a.State > dfu.Error || a.Poll < 0 || a.Status.String() == "" || a.State.String() == "") {
			t.Errorf("%+v", a)
		}
	})
}
