package stm32mp

import (
	"testing"

	"snag/usb/dfu"
)

func TestPhase(t *testing.T) {
	for _, tc := range []struct {
		data string
		want phase
		bad  bool
	}{
		{data: "\x01\x00\x24\xfc\x2f\x00\x00\x00\x00", want: phase{id: 1, addr: 0x2ffc2400}},
		{data: "\x00\xff\xff\xff\xff\x00\x00\x00\x00", want: phase{addr: undefined}},
		{data: "\x00\xff\xff\xff\xff\x00\x00\x00\x00\x01", want: phase{addr: undefined, detach: true}},
		{data: "\x03\x00\x00\x00\xc0\x00\x00\x00\x00\x01", want: phase{id: 3, addr: 0xc0000000}},
		{data: "\xff\xff\xff\xff\xff\x00\x00\x00\x00no \x1b[31mFIP\n\x00rest", want: phase{id: 0xff, addr: undefined, text: "no .[31mFIP."}},
		{data: "", bad: true},
		{data: "\x01\x00\x00\x00\x00\x00\x00\x00", bad: true},
	} {
		if got, err := parsePhase([]byte(tc.data)); got != tc.want || (err != nil) != tc.bad {
			t.Errorf("%q: %+v, %v, want %+v", tc.data, got, err, tc.want)
		}
	}
}

func TestSettings(t *testing.T) {
	alts := []dfu.Alt{
		{Number: 0, Name: "@Partition0 /0x00/1*256Ke"}, {Number: 3, Name: "@FIP /0x03/1*16Me"}, {Number: 4, Name: "@again /0x3/1*16Me"},
		{Number: 5, Name: "@virtual/0xF1/1*512Be"}, {Number: 6, Name: "@Internal Flash  /0x08000000/04*016Kg"}, {Number: 7, Name: "u-boot.itb"}, {Number: 8},
	}
	got := settingsByPhase(alts)
	if len(got) != 3 || got[phaseLayout].Number != 0 || got[phaseSSBL].Number != 3 || got[phaseCmd].Number != 5 {
		t.Errorf("got %v", got)
	}
}

func FuzzPhase(f *testing.F) {
	f.Add([]byte("\xff\xff\xff\xff\xff\x00\x00\x00\x00no FIP"), "@virtual /0xF1/1*512Ba")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		p, err := parsePhase(data)
		if err == nil {
			for _, r := range p.text {
				if r < ' ' || r > '~' {
					t.Errorf("%q is not printable", p.text)
				}
			}
		}
		settingsByPhase([]dfu.Alt{{Name: name}})
	})
}
