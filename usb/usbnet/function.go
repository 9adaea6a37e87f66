package usbnet

import (
	"fmt"
	"slices"
	"strings"

	"snag/usb"
)

// Kind is how a function's frames are carried.
type Kind int

const (
	RNDIS Kind = iota // Remote NDIS: each frame in a message ([MS-RNDIS])
	ECM               // CDC's Ethernet control model: a frame is a transfer (ECM 1.2)
)

func (k Kind) String() string { return [...]string{"RNDIS", "CDC-ECM"}[k] }

// Function is a network adapter in a device's descriptors.
type Function struct {
	Kind   Kind
	Config uint8 // the configuration's value

	Control uint8        // the interface of class 2, or RNDIS's own
	Data    uint8        // the interface with the bulk endpoints
	Alt     uint8        // its alternate setting that has them
	Notify  usb.Endpoint // interrupt IN; Address 0: there is none
	In, Out usb.Endpoint

	mac uint8 // ECM: index of the string with the host's MAC
}

// Classes, and what CDC puts behind an interface (CDC 1.2, section 4.2 and table 13; ECM 1.2, section 5.4).
const (
	classComm     = 0x02
	classData     = 0x0a
	subClassECM   = 0x06
	descCS        = 0x24
	descUnion     = 0x06
	descEthernet  = 0x0f
	recipientIfac = 0x21 // class request to an interface
	fromIfac      = 0xa1 // class request for an interface's data
)

// rndisControls are the class, subclass and protocol of RNDIS control interfaces: as a vendor's modem (U-Boot, TI's
// ROM), as Microsoft's wireless controller, and as ActiveSync's (Linux, drivers/net/usb/rndis_host.c).
var rndisControls = [][3]uint8{{0x02, 0x02, 0xff}, {0xe0, 0x01, 0x03}, {0xef, 0x04, 0x01}}

// Find finds a network adapter by its interfaces' classes: in the active configuration (0: none is), which need not be
// changed then, else in the first that has one. ok is false if there is none.
func Find(d *usb.Descriptors, active uint8) (f Function, ok bool) {
	for i := range d.Configs {
		if active != 0 && d.Configs[i].Value == active {
			if f, ok = find(&d.Configs[i]); ok {
				return f, true
			}
		}
	}
	for i := range d.Configs {
		if f, ok = find(&d.Configs[i]); ok {
			return f, true
		}
	}
	return Function{}, false
}

func find(c *usb.ConfigDescriptor) (Function, bool) {
	for i := range c.Settings {
		s := &c.Settings[i]
		f := Function{Kind: RNDIS, Config: c.Value, Control: s.Number}
		switch class := [3]uint8{s.Class, s.SubClass, s.Protocol}; {
		case slices.Contains(rndisControls, class):
		case s.Class == classComm && s.SubClass == subClassECM:
			f.Kind = ECM
		default:
			continue
		}
		f.Data = s.Number + 1
		for e := s.Extra; len(e) >= 3 && e[0] >= 3 && int(e[0]) <= len(e); e = e[e[0]:] {
			// union (5): 5, 0x24, 6, the controlling interface, the one that it controls
			// Ethernet (13): 13, 0x24, 15, string index of the MAC, ...
			switch {
			case e[1] != descCS:
			case e[2] == descUnion && e[0] >= 5 && e[3] == s.Number:
				f.Data = e[4]
			case e[2] == descEthernet && e[0] >= 13:
				f.mac = e[3]
			}
		}
		f.Notify, _ = s.Find(usb.Interrupt, true)
		if f.data(c, func(d *usb.Setting) bool { return d.Number == f.Data }) {
			return f, true
		}
		// Some descriptors name an interface that is none, or themselves, or the two the wrong way round (Linux,
		// cdc_ether.c).
		if f.data(c, func(d *usb.Setting) bool { return d.Number != f.Control }) {
			return f, true
		}
	}
	return Function{}, false
}

// data takes the first setting of the data class that has both bulk endpoints, of those that may be it.
func (f *Function) data(c *usb.ConfigDescriptor, may func(*usb.Setting) bool) bool {
	for i := range c.Settings {
		d := &c.Settings[i]
		if d.Class != classData || !may(d) {
			continue
		}
		if in, out, ok := d.Bulk(); ok && in.MaxPacket > 0 && out.MaxPacket > 0 {
			f.Data, f.Alt, f.In, f.Out = d.Number, d.Alt, in, out
			return true
		}
	}
	return false
}

// parseMAC reads the string of an Ethernet functional descriptor: twelve hexadecimal digits (ECM 1.2, section 5.4).
func parseMAC(s string) (mac [6]byte, ok bool) {
	if len(s) != 12 || strings.ContainsAny(s, "+- ") {
		return mac, false
	}
	_, err := fmt.Sscanf(s, "%2x%2x%2x%2x%2x%2x", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5])
	return mac, err == nil && station(mac)
}

// station says whether an address can be that of an interface: not a group's, and not nothing (IEEE 802, section 8.2).
func station(mac [6]byte) bool { return mac[0]&1 == 0 && mac != [6]byte{} }
