package dfu

import (
	"encoding/binary"
	"fmt"
	"time"

	"snag/usb"
)

// Class, subclass and descriptor types (DFU 1.1, sections 4.1 and 4.2).
const (
	class          = 0xfe
	subClass       = 0x01
	descInterface  = 4
	descConfig     = 2
	descFunctional = 0x21
)

// VersionDfuSe is what a device with ST's extension says its version is.
const VersionDfuSe = 0x011a

// Functional is a device's description of what it can do.
type Functional struct {
	Download      bool // it takes downloads
	Upload        bool // it gives uploads
	Tolerant      bool // it answers requests after manifestation
	WillDetach    bool // it leaves the bus by itself when that is due
	DetachTimeout time.Duration
	TransferSize  int    // bytes of a block, at most; as the device says, 0 if it says nothing
	Version       uint16 // bcdDFUVersion; 0x0100 if it is not said
}

// ParseFunctional decodes a functional descriptor (DFU 1.1, section 4.1.3), little-endian. That of DFU 1.0 lacks the
// version. ok is false if it is too short.
//
//	off size                                         off size
//	0   1    length, 9                               3   2    wDetachTimeOut, ms
//	1   1    type, 0x21                              5   2    wTransferSize
//	2   1    can download, can upload, tolerant,     7   2    bcdDFUVersion
//	         will detach: bits 0 to 3
func ParseFunctional(b []byte) (f Functional, ok bool) {
	if len(b) < 7 || b[0] < 7 || b[1] != descFunctional {
		return Functional{}, false
	}
	f = Functional{
		Download: b[2]&1 != 0, Upload: b[2]&2 != 0, Tolerant: b[2]&4 != 0, WillDetach: b[2]&8 != 0,
		DetachTimeout: time.Duration(binary.LittleEndian.Uint16(b[3:])) * time.Millisecond,
		TransferSize:  int(binary.LittleEndian.Uint16(b[5:])),
		Version:       0x0100,
	}
	if len(b) >= 9 && b[0] >= 9 {
		f.Version = binary.LittleEndian.Uint16(b[7:])
	}
	return f, true
}

// FindFunctional looks for the functional descriptor of an interface in a device's descriptors, as
// [usb.Descriptors].Raw has them. It may follow any of the alternate settings, and is mostly behind the last one. Other
// classes have descriptors of the same type, HID for one: one that follows a DFU setting of the interface is preferred
// to one that follows any other setting of it, and what belongs to other interfaces does not count.
func FindFunctional(raw []byte, config, iface uint8) (f Functional, ok bool) {
	var inConfig, inIface, inSetting bool
	for rest := raw; len(rest) >= 2; {
		n := int(rest[0])
		if n < 2 || n > len(rest) {
			break
		}
		b := rest[:n:n]
		rest = rest[n:]
		switch {
		case b[1] == descConfig && n >= 9:
			inConfig, inIface, inSetting = b[5] == config, true, false // what is before the first interface is for all
		case b[1] == descInterface && n >= 9:
			inIface = b[2] == iface
			inSetting = inIface && b[5] == class && b[6] == subClass
		case b[1] == descFunctional && inConfig && inIface:
			found, valid := ParseFunctional(b)
			if valid && inSetting {
				return found, true
			}
			if valid && !ok {
				f, ok = found, true
			}
		}
	}
	return f, ok
}

// Alt is an alternate setting: a place that a file can go to.
type Alt struct {
	Number   uint8
	Name     string // empty: it has none, or the device did not tell
	Protocol uint8  // 2 in DFU mode, 1 in run-time mode; there are devices that say 1 in DFU mode
}

func (a Alt) String() string {
	if a.Name == "" {
		return fmt.Sprint(a.Number)
	}
	return fmt.Sprintf("%d %q", a.Number, a.Name)
}

// settings returns the DFU settings of the first interface of the active configuration that has any.
func settings(h usb.Handle) []usb.Setting {
	var all []usb.Setting
	for _, s := range h.Descriptors().Settings(h.Device().Config) {
		if s.Class == class && s.SubClass == subClass && (len(all) == 0 || s.Number == all[0].Number) {
			all = append(all, s)
		}
	}
	return all
}
