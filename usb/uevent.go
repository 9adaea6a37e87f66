package usb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strings"
)

// Uevent is one message of the kernel's hotplug stream, as the kernel sent it or as udevd
// passed it on once its rules had run.
type Uevent struct {
	Action    string // "add", "remove", "bind", "change", "move", ...
	DevPath   string // below /sys: "/devices/pci0000:00/.../usb1/1-2"
	Subsystem string // "usb", "net", ...
	DevType   string // "usb_device", "usb_interface", ...
}

// Port is the physical port of the USB device that the event is about; empty if it is about
// something else.
func (u Uevent) Port() Port {
	for p := u.DevPath; len(p) > 1; p = path.Dir(p) {
		if base := path.Base(p); isDevice(base) {
			return Port(base)
		}
	}
	return ""
}

// maxUevent bounds a message: the kernel's buffer is 2 KiB (UEVENT_BUFFER_SIZE), udevd's 8 KiB.
const maxUevent = 16 << 10

// The header that udevd puts in front of the properties (systemd, sd-device/device-monitor.c):
//
//	offset size field
//	0      8    "libudev\0"
//	8      4    magic 0xfeedcafe, big-endian
//	12     4    length of this header, native order (all that follow too)
//	16     4    offset of the properties
//	20     4    length of the properties
//	24     16   filter hashes
const (
	udevPrefix    = "libudev\x00"
	udevMagic     = 0xfeedcafe
	udevHeaderLen = 40
)

// ParseUevent decodes a message of either source:
//
//	kernel   "ACTION@DEVPATH\0" then KEY=VALUE strings, each ended by a NUL
//	udevd    the header above, then KEY=VALUE strings, each ended by a NUL
func ParseUevent(b []byte) (Uevent, error) {
	if len(b) > maxUevent {
		return Uevent{}, fmt.Errorf("uevent: %d bytes, more than %d", len(b), maxUevent)
	}
	if bytes.HasPrefix(b, []byte(udevPrefix)) {
		if len(b) < udevHeaderLen {
			return Uevent{}, fmt.Errorf("uevent: udev header cut at %d bytes", len(b))
		}
		if m := binary.BigEndian.Uint32(b[8:]); m != udevMagic {
			return Uevent{}, fmt.Errorf("uevent: udev magic %#x, expected %#x", m, uint32(udevMagic))
		}
		off, n := binary.NativeEndian.Uint32(b[16:]), binary.NativeEndian.Uint32(b[20:])
		if uint64(off)+uint64(n) > uint64(len(b)) {
			return Uevent{}, fmt.Errorf("uevent: properties at %d+%d exceed %d bytes", off, n, len(b))
		}
		b = b[off : off+n]
	} else {
		head, rest, ok := bytes.Cut(b, []byte{0})
		if !ok || !bytes.ContainsRune(head, '@') {
			return Uevent{}, errors.New("uevent: neither the kernel's nor udevd's")
		}
		b = rest
	}
	var u Uevent
	for p := range bytes.SplitSeq(b, []byte{0}) {
		key, value, _ := strings.Cut(string(p), "=")
		switch key {
		case "ACTION":
			u.Action = value
		case "DEVPATH":
			u.DevPath = value
		case "SUBSYSTEM":
			u.Subsystem = value
		case "DEVTYPE":
			u.DevType = value
		}
	}
	if u.Action == "" || !strings.HasPrefix(u.DevPath, "/") {
		return Uevent{}, errors.New("uevent: no ACTION or DEVPATH")
	}
	return u, nil
}
