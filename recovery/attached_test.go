package recovery

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"snag/usb"
)

func TestBoards(t *testing.T) {
	device := func(port usb.Port, vendor, product uint16) usb.Device {
		return usb.Device{Port: port, ID: usb.ID{Vendor: vendor, Product: product}}
	}
	rom, spl, fb := device("1-1", 0x0451, 0x6141), device("1-2", 0x0451, 0xd022), device("1-3", 0x18d1, 0x0d02)
	got := Boards([]usb.Device{rom, spl, fb, device("1-4", 0x046d, 0xc52b)})
	want := []Attached{
		{Device: rom, Family: "am335x", Stage: "rom"},
		{Device: spl, Family: "am335x", Stage: "spl"},
		{Device: fb, Stage: "fastboot"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
