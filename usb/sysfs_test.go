package usb

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// attach writes one device the way the kernel shows it.
func attach(t *testing.T, sys, port string, attrs map[string]string) string {
	t.Helper()
	dir := filepath.Join(sys, "devices/pci0000:00/usb1", port)
	for name, value := range attrs {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(sys, "bus/usb/devices", port)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestDevices(t *testing.T) {
	sys := t.TempDir()
	s := Sysfs{Sys: sys, Dev: "/dev"}
	if got, err := s.Devices(); got != nil || err != nil {
		t.Fatalf("without USB: %v, %v", got, err)
	}
	attach(t, sys, "1-10", map[string]string{"idVendor": "1d6b", "idProduct": "0104", "bcdDevice": "0100", "busnum": "1", "devnum": "9", "bConfigurationValue": ""})
	rom := attach(t, sys, "1-2.3", map[string]string{
		"idVendor": "0451", "idProduct": "6141", "bcdDevice": "0200", "busnum": "1", "devnum": "12", "speed": "480",
		"product": "AM335x USB", "manufacturer": "Texas Instruments", "bConfigurationValue": "1",
		"1-2.3:1.0/bInterfaceClass": "02", "1-2.3:1.0/bInterfaceSubClass": "02", "1-2.3:1.0/bInterfaceProtocol": "ff",
		"1-2.3:1.0/net/usb0/ifindex": "7",
		"1-2.3:1.1/bInterfaceClass":  "0a", "1-2.3:1.1/bInterfaceSubClass": "00", "1-2.3:1.1/bInterfaceProtocol": "00",
	})
	if err := os.Symlink("../../../../bus/usb/drivers/rndis_host", filepath.Join(rom, "1-2.3:1.0/driver")); err != nil {
		t.Fatal(err)
	}
	// A device that leaves while it is read, and names that are no devices.
	attach(t, sys, "1-3", map[string]string{"idVendor": "0451"})
	attach(t, sys, "usb1", map[string]string{"idVendor": "1d6b"})

	got, err := s.Devices()
	if err != nil {
		t.Fatal(err)
	}
	want := []Device{
		{
			Port: "1-2.3", ID: ID{0x0451, 0x6141}, Release: 0x200, Bus: 1, Address: 12, Speed: "480", Config: 1,
			Product: "AM335x USB", Manufacturer: "Texas Instruments", Node: "/dev/bus/usb/001/012",
			Interfaces: []Interface{
				{Number: 0, Class: 2, SubClass: 2, Protocol: 0xff, Driver: "rndis_host", Net: "usb0"},
				{Number: 1, Class: 0xa},
			},
		},
		{Port: "1-10", ID: ID{0x1d6b, 0x0104}, Release: 0x100, Bus: 1, Address: 9, Node: "/dev/bus/usb/001/009"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("devices (-want +got):\n%s", d)
	}
	if _, err := s.Device("1-4"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty port: %v", err)
	}
}

func TestDeviceRejectsNonsense(t *testing.T) {
	sys := t.TempDir()
	attach(t, sys, "1-1", map[string]string{"idVendor": "zzzz", "idProduct": "0104", "bcdDevice": "0100", "busnum": "1", "devnum": "9"})
	if d, err := (Sysfs{Sys: sys}).Device("1-1"); err == nil {
		t.Errorf("got %+v", d)
	}
}

func TestAccess(t *testing.T) {
	node := filepath.Join(t.TempDir(), "005")
	d := Device{Port: "1-1", ID: ID{0x0451, 0x6141}, Node: node}
	var e *AccessError
	if err := d.Access(); !errors.As(err, &e) || !errors.Is(err, fs.ErrNotExist) || e.Owner != "" {
		t.Errorf("missing node: %v", err)
	}
	if err := os.WriteFile(node, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Access(); err != nil {
		t.Errorf("own node: %v", err)
	}
}

func TestActive(t *testing.T) {
	sys := t.TempDir()
	s := Sysfs{Sys: sys}
	attach(t, sys, "1-1", map[string]string{"devnum": "9", "bConfigurationValue": "2"})
	attach(t, sys, "1-2", map[string]string{"devnum": "10", "bConfigurationValue": ""})
	attach(t, sys, "1-3", map[string]string{"bConfigurationValue": "1"}) // leaving
	for _, tc := range []struct {
		port            Port
		address, config int
		err             error
	}{
		{"1-1", 9, 2, nil},
		{"1-2", 10, 0, nil},
		{"1-3", 0, 0, fs.ErrNotExist},
		{"1-4", 0, 0, fs.ErrNotExist},
	} {
		if address, config, err := s.Active(tc.port); address != tc.address || config != tc.config || !errors.Is(err, tc.err) {
			t.Errorf("port %s: address %d, configuration %d, %v; expected %d, %d, %v", tc.port, address, config, err, tc.address, tc.config, tc.err)
		}
	}
}

// Whatever a host must look at again changes the fingerprint, and nothing else does.
func TestFingerprint(t *testing.T) {
	sys := t.TempDir()
	s := Sysfs{Sys: sys}
	last, err := s.Fingerprint()
	if last != "" || err != nil {
		t.Fatalf("without USB: %q, %v", last, err)
	}
	dir := attach(t, sys, "1-2", map[string]string{"idVendor": "0451", "idProduct": "6141", "devnum": "12"})
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name    string
		do      func()
		changes bool
	}{
		{"a device came", func() {}, true},
		{"nothing", func() {}, false},
		{"another attribute", func() { write("speed", "480\n") }, false},
		{"it enumerated again", func() { write("devnum", "13\n") }, true},
		{"it was configured", func() { attach(t, sys, "1-2:1.0", map[string]string{"bInterfaceClass": "02"}) }, true},
		{"it left", func() { os.Remove(filepath.Join(sys, "bus/usb/devices/1-2")) }, true},
	} {
		step.do()
		now, err := s.Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		if (now != last) != step.changes {
			t.Errorf("%s: %q, before it %q", step.name, now, last)
		}
		last = now
	}
}
