package usbdev

import (
	"encoding/binary"
	"unicode/utf16"

	"snag/usb"
)

// Speed is a bus speed, with the numbers of Linux's enum usb_device_speed, which USB/IP uses too.
type Speed uint32

const (
	LowSpeed   Speed = 1
	FullSpeed  Speed = 2
	HighSpeed  Speed = 3
	SuperSpeed Speed = 5
)

// Mbps is the speed as sysfs shows it: "480".
func (s Speed) Mbps() string {
	switch s {
	case LowSpeed:
		return "1.5"
	case FullSpeed:
		return "12"
	case SuperSpeed:
		return "5000"
	default:
		return "480"
	}
}

// Descriptor types (USB 2.0, table 9-5; USB 3.2, table 9-6).
const (
	descDevice    = 1
	descConfig    = 2
	descString    = 3
	descInterface = 4
	descEndpoint  = 5
	descBOS       = 15
	descSSEpComp  = 48
)

// String indices of a device descriptor made here.
const (
	strManufacturer = 1
	strProduct      = 2
	strSerial       = 3
)

// Descriptors is a device's self-description (USB 2.0, section 9.6).
type Descriptors struct {
	Speed                     Speed
	USB                       uint16 // bcdUSB; zero: as the speed has it
	Class, SubClass, Protocol uint8
	MaxPacket0                uint8 // bytes; zero: 64, or 512 at super speed
	ID                        usb.ID
	Release                   uint16 // bcdDevice

	Manufacturer, Product, Serial string

	// SerialIndex is what iSerialNumber is to be, whichever string that has; 0: that of Serial, if there is one.
	SerialIndex uint8

	// Strings holds further strings by index, for class descriptors that name one. 1 to 3 are taken.
	Strings map[uint8]string

	Configs []Config
}

// Config is one configuration.
type Config struct {
	Value      uint8 // bConfigurationValue
	Attributes uint8 // without bit 7, which is always set
	MaxPower   uint8 // in units of 2 mA
	Interfaces []Interface
}

// Interface is one alternate setting of an interface.
type Interface struct {
	Number, Alt               uint8
	Class, SubClass, Protocol uint8
	Name                      uint8  // iInterface, an index of Strings; 0: none
	Extra                     []byte // class descriptors that follow
	Endpoints                 []Endpoint
}

// Endpoint types for [Endpoint].Type.
const (
	Isochronous = 1
	Bulk        = 2
	Interrupt   = 3
)

// Endpoint is one endpoint other than 0.
type Endpoint struct {
	Address   uint8 // bit 7: to the host
	Type      uint8
	MaxPacket uint16
	Interval  uint8
}

func (d *Descriptors) bcdUSB() uint16 {
	switch {
	case d.USB != 0:
		return d.USB
	case d.Speed == SuperSpeed:
		return 0x0300
	default:
		return 0x0200
	}
}

// Device encodes the device descriptor (USB 2.0, table 9-8), little-endian:
//
//	off size                        off size
//	0   1    length, 18             8   2    idVendor
//	1   1    type, 1                10  2    idProduct
//	2   2    bcdUSB                 12  2    bcdDevice
//	4   3    class, subclass, prot. 14  3    string indices: maker, product, serial
//	7   1    max packet of ep 0     17  1    number of configurations
func (d *Descriptors) Device() []byte {
	b := make([]byte, 18)
	b[0], b[1] = 18, descDevice
	binary.LittleEndian.PutUint16(b[2:], d.bcdUSB())
	b[4], b[5], b[6] = d.Class, d.SubClass, d.Protocol
	b[7] = d.MaxPacket0
	if b[7] == 0 {
		b[7] = 64
	}
	if d.Speed == SuperSpeed {
		b[7] = 9 // an exponent: 512 bytes
	}
	binary.LittleEndian.PutUint16(b[8:], d.ID.Vendor)
	binary.LittleEndian.PutUint16(b[10:], d.ID.Product)
	binary.LittleEndian.PutUint16(b[12:], d.Release)
	if d.Manufacturer != "" {
		b[14] = strManufacturer
	}
	if d.Product != "" {
		b[15] = strProduct
	}
	if d.Serial != "" {
		b[16] = strSerial
	}
	if d.SerialIndex != 0 {
		b[16] = d.SerialIndex
	}
	b[17] = uint8(len(d.Configs))
	return b
}

// Config encodes the configuration at an index with its interfaces and endpoints
// (USB 2.0, tables 9-10, 9-12 and 9-13), or returns nil if there is none:
//
//	configuration (9): 9, 2, wTotalLength, bNumInterfaces, bConfigurationValue, iConfiguration, bmAttributes, bMaxPower
//	interface (9):     9, 4, number, alternate, bNumEndpoints, class, subclass, protocol, iInterface
//	endpoint (7):      7, 5, address, attributes, wMaxPacketSize, bInterval
func (d *Descriptors) Config(index int) []byte {
	if index < 0 || index >= len(d.Configs) {
		return nil
	}
	c := d.Configs[index]
	numbers := make(map[uint8]bool)
	b := []byte{9, descConfig, 0, 0, 0, c.Value, 0, 0x80 | c.Attributes, c.MaxPower}
	for _, i := range c.Interfaces {
		numbers[i.Number] = true
		b = append(b, 9, descInterface, i.Number, i.Alt, uint8(len(i.Endpoints)), i.Class, i.SubClass, i.Protocol, i.Name)
		b = append(b, i.Extra...)
		for _, e := range i.Endpoints {
			b = append(b, 7, descEndpoint, e.Address, e.Type, uint8(e.MaxPacket), uint8(e.MaxPacket>>8), e.Interval)
			if d.Speed == SuperSpeed {
				b = append(b, 6, descSSEpComp, 0, 0, 0, 0)
			}
		}
	}
	b[4] = uint8(len(numbers))
	binary.LittleEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

// String encodes a string descriptor (USB 2.0, table 9-16), UTF-16 little-endian, or returns nil.
// Index 0 lists the languages: US English.
func (d *Descriptors) String(index uint8) []byte {
	var s string
	switch index {
	case 0:
		return []byte{4, descString, 0x09, 0x04}
	case strManufacturer:
		s = d.Manufacturer
	case strProduct:
		s = d.Product
	case strSerial:
		s = d.Serial
	default:
		s = d.Strings[index]
	}
	if s == "" {
		return nil
	}
	b := []byte{0, descString}
	for _, u := range utf16.Encode([]rune(s)) {
		if len(b) == 254 {
			break
		}
		b = append(b, uint8(u), uint8(u>>8))
	}
	b[0] = uint8(len(b))
	return b
}

// bos encodes the binary device object store that a super-speed device must have (USB 3.2, 9.6.2).
func (d *Descriptors) bos() []byte {
	if d.Speed != SuperSpeed {
		return nil
	}
	return []byte{
		5, descBOS, 22, 0, 2,
		7, 16, 2, 0, 0, 0, 0, // USB 2.0 extension
		10, 16, 3, 0, 0x0e, 0, 1, 10, 0xff, 0x07, // super speed: full, high, super
	}
}

// config finds a configuration by its value.
func (d *Descriptors) config(value uint8) *Config {
	for i := range d.Configs {
		if d.Configs[i].Value == value {
			return &d.Configs[i]
		}
	}
	return nil
}
