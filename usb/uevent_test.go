package usb

import (
	"encoding/binary"
	"strings"
	"testing"
)

const properties = "ACTION=add\x00DEVPATH=/devices/pci0000:00/usb1/1-2/1-2.3\x00SUBSYSTEM=usb\x00DEVTYPE=usb_device\x00SEQNUM=12\x00"

func fromUdev(props string, magic, off, n uint32) []byte {
	b := make([]byte, udevHeaderLen, udevHeaderLen+len(props))
	copy(b, udevPrefix)
	binary.BigEndian.PutUint32(b[8:], magic)
	binary.NativeEndian.PutUint32(b[12:], udevHeaderLen)
	binary.NativeEndian.PutUint32(b[16:], off)
	binary.NativeEndian.PutUint32(b[20:], n)
	return append(b, props...)
}

func TestParseUevent(t *testing.T) {
	want := Uevent{Action: "add", DevPath: "/devices/pci0000:00/usb1/1-2/1-2.3", Subsystem: "usb", DevType: "usb_device"}
	for name, b := range map[string][]byte{
		"kernel": []byte("add@/devices/pci0000:00/usb1/1-2/1-2.3\x00" + properties),
		"udevd":  fromUdev(properties, udevMagic, udevHeaderLen, uint32(len(properties))),
	} {
		got, err := ParseUevent(b)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if got.Port() != "1-2.3" {
			t.Errorf("%s: port %q", name, got.Port())
		}
	}
	n := uint32(len(properties))
	for name, b := range map[string][]byte{
		"empty":           nil,
		"no properties":   []byte("add@/devices/x\x00"),
		"no header":       []byte(properties),
		"header cut":      []byte(udevPrefix + "1234"),
		"wrong magic":     fromUdev(properties, 1, udevHeaderLen, n),
		"beyond the end":  fromUdev(properties, udevMagic, udevHeaderLen, n+1),
		"offset wraps":    fromUdev(properties, udevMagic, 0xffffffff, n),
		"path not rooted": []byte("add@x\x00ACTION=add\x00DEVPATH=x\x00"),
		"too long":        []byte("add@/x\x00" + strings.Repeat("A", maxUevent)),
	} {
		if u, err := ParseUevent(b); err == nil {
			t.Errorf("%s: got %+v", name, u)
		}
	}
}

func TestUeventPort(t *testing.T) {
	for path, want := range map[string]Port{
		"/devices/pci0000:00/usb1/1-2/1-2:1.0/net/usb0": "1-2",
		"/devices/pci0000:00/usb1":                      "",
		"/devices/virtual/net/lo":                       "",
	} {
		if got := (Uevent{DevPath: path}).Port(); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func FuzzParseUevent(f *testing.F) {
	f.Add([]byte("add@/devices/pci0000:00/usb1/1-2/1-2.3\x00" + properties))
	f.Add(fromUdev(properties, udevMagic, udevHeaderLen, uint32(len(properties))))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := ParseUevent(b)
		if err == nil && (u.Action == "" || !strings.HasPrefix(u.DevPath, "/")) {
			t.Errorf("accepted %+v", u)
		}
		u.Port()
	})
}
