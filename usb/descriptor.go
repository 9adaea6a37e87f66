package usb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf16"
)

// Descriptors is what a device says of itself (USB 2.0, section 9.6).
type Descriptors struct {
	USB                       uint16 // bcdUSB
	Class, SubClass, Protocol uint8
	MaxPacket0                uint8 // as in the descriptor: an exponent at super speed
	ID                        ID
	Release                   uint16 // bcdDevice
	// Manufacturer, Product and Serial are string indices; 0: there is none.
	Manufacturer, Product, Serial uint8

	Configs []ConfigDescriptor

	Raw []byte // the device descriptor and all configurations, as the device sent them
}

// ConfigDescriptor is one configuration.
type ConfigDescriptor struct {
	Value    uint8
	Settings []Setting // of all interfaces, in the device's order
	Extra    []byte    // class descriptors before the first interface
}

// Setting is one alternate setting of an interface.
type Setting struct {
	Number, Alt               uint8
	Class, SubClass, Protocol uint8
	Name                      uint8  // string index; 0: none
	Extra                     []byte // class descriptors: a HID, CDC or DFU functional descriptor
	Endpoints                 []Endpoint
}

// TransferType is that of an endpoint, as in bits 1-0 of bmAttributes.
type TransferType uint8

const (
	Isochronous TransferType = 1
	Bulk        TransferType = 2
	Interrupt   TransferType = 3
)

// Endpoint is one endpoint other than 0.
type Endpoint struct {
	Address   uint8 // bit 7: to the host
	Type      TransferType
	MaxPacket int // bytes, of one transaction
	Interval  uint8
	Extra     []byte // what follows it: a super-speed companion
}

// Setting finds an alternate setting of a configuration; nil if there is none.
func (d *Descriptors) Setting(config, iface, alt uint8) *Setting {
	all := d.Settings(int(config))
	if i := slices.IndexFunc(all, func(s Setting) bool { return s.Number == iface && s.Alt == alt }); i >= 0 {
		return &all[i]
	}
	return nil
}

// Settings are the alternate settings of a configuration, of all its interfaces; none if it has no descriptor.
func (d *Descriptors) Settings(config int) []Setting {
	for i := range d.Configs {
		if int(d.Configs[i].Value) == config {
			return d.Configs[i].Settings
		}
	}
	return nil
}

// Find returns the address and the packet size of the first endpoint of a type and a direction; ok is false if there
// is none.
func (s *Setting) Find(t TransferType, in bool) (Endpoint, bool) {
	for _, e := range s.Endpoints {
		if e.Type == t && (e.Address&0x80 != 0) == in {
			return e, true
		}
	}
	return Endpoint{}, false
}

// Bulk returns the first bulk endpoint of each direction; ok is false unless there are both.
func (s *Setting) Bulk() (in, out Endpoint, ok bool) {
	in, ok1 := s.Find(Bulk, true)
	out, ok2 := s.Find(Bulk, false)
	return in, out, ok1 && ok2
}

// Descriptor types (USB 2.0, table 9-5).
const (
	descDevice    = 1
	descConfig    = 2
	descString    = 3
	descInterface = 4
	descEndpoint  = 5
)

// ParseDescriptors decodes a device descriptor with the configurations that follow it, as sysfs's file "descriptors"
// has them. A device may lie: a configuration that is cut, or lengths that do not add up, end the list there, and
// what was read until then counts. Only a device descriptor that cannot be read is an error.
//
//	device (18): length, 1, bcdUSB, class, subclass, protocol, max packet 0, idVendor, idProduct, bcdDevice,
//	             maker, product, serial, number of configurations
//	configuration (9): 9, 2, wTotalLength, bNumInterfaces, bConfigurationValue, iConfiguration, bmAttributes, bMaxPower
//	interface (9):     9, 4, number, alternate, bNumEndpoints, class, subclass, protocol, iInterface
//	endpoint (7):      7, 5, address, attributes, wMaxPacketSize, bInterval
func ParseDescriptors(raw []byte) (*Descriptors, error) {
	if len(raw) < 18 || raw[0] < 18 || raw[1] != descDevice {
		return nil, fmt.Errorf("USB device descriptor: expected 18 bytes of type 1, got % x", raw[:min(len(raw), 18)])
	}
	le := binary.LittleEndian
	d := &Descriptors{
		USB: le.Uint16(raw[2:]), Class: raw[4], SubClass: raw[5], Protocol: raw[6], MaxPacket0: raw[7],
		ID: ID{le.Uint16(raw[8:]), le.Uint16(raw[10:])}, Release: le.Uint16(raw[12:]),
		Manufacturer: raw[14], Product: raw[15], Serial: raw[16], Raw: raw,
	}
	var config *ConfigDescriptor
	var setting *Setting
	var endpoint *Endpoint
	for rest := raw[min(int(raw[0]), len(raw)):]; len(rest) >= 2; {
		n := int(rest[0])
		if n < 2 || n > len(rest) {
			break
		}
		b := rest[:n:n]
		rest = rest[n:]
		switch {
		case b[1] == descConfig && n >= 9:
			d.Configs = append(d.Configs, ConfigDescriptor{Value: b[5]})
			config, setting, endpoint = &d.Configs[len(d.Configs)-1], nil, nil
		case config == nil: // before any configuration
		case b[1] == descInterface && n >= 9:
			config.Settings = append(config.Settings, Setting{
				Number: b[2], Alt: b[3], Class: b[5], SubClass: b[6], Protocol: b[7], Name: b[8],
			})
			setting, endpoint = &config.Settings[len(config.Settings)-1], nil
		case b[1] == descEndpoint && n >= 7 && setting != nil:
			setting.Endpoints = append(setting.Endpoints, Endpoint{
				Address: b[2], Type: TransferType(b[3] & 3), MaxPacket: int(le.Uint16(b[4:]) & 0x7ff), Interval: b[6],
			})
			endpoint = &setting.Endpoints[len(setting.Endpoints)-1]
		case endpoint != nil:
			endpoint.Extra = append(endpoint.Extra, b...)
		case setting != nil:
			setting.Extra = append(setting.Extra, b...)
		default:
			config.Extra = append(config.Extra, b...)
		}
	}
	return d, nil
}

// Standard requests (USB 2.0, table 9-4).
const (
	ReqClearFeature     = 1
	ReqGetDescriptor    = 6
	ReqSetConfiguration = 9
	ReqSetInterface     = 11
)

// english is the language of strings where a device does not tell which it has: English (United States), as Linux takes
// it for (drivers/usb/core/message.c, usb_get_langid).
const english = 0x0409

// ErrNoString is a string descriptor that cannot be read.
var ErrNoString = errors.New("no string")

// String asks a device for one of its strings, in the first language that it has. Index 0 is the empty string. The
// error wraps [ErrStall] or [ErrNoString] where the device answers, and has none.
func String(ctx context.Context, h Handle, index uint8) (string, error) {
	if index == 0 {
		return "", nil
	}
	languages, err := stringDescriptor(ctx, h, 0, 0)
	if err != nil && !errors.Is(err, ErrStall) && !errors.Is(err, ErrNoString) {
		return "", err
	}
	languages = append(languages, english)
	units, err := stringDescriptor(ctx, h, index, languages[0])
	return string(utf16.Decode(units)), err
}

// stringDescriptor returns the 16-bit units of a string descriptor (USB 2.0, tables 9-15 and 9-16).
func stringDescriptor(ctx context.Context, h Handle, index uint8, language uint16) ([]uint16, error) {
	b := make([]byte, 255)
	n, err := h.Control(ctx, Setup{Type: 0x80, Request: ReqGetDescriptor, Value: descString<<8 | uint16(index), Index: language, Length: uint16(len(b))}, b)
	if err != nil {
		return nil, fmt.Errorf("USB string descriptor %d: %w", index, err)
	}
	if n < 2 || int(b[0]) < 2 || b[1] != descString {
		return nil, fmt.Errorf("USB string descriptor %d: %w: got % x", index, ErrNoString, b[:min(n, 8)])
	}
	b = b[2:min(n, int(b[0]))]
	units := make([]uint16, 0, len(b)/2)
	for ; len(b) >= 2; b = b[2:] {
		units = append(units, binary.LittleEndian.Uint16(b))
	}
	return units, nil
}
