package socstest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"snag/sim/usbdev"
)

// Disguise is a port on which boards show other descriptors than their own, as boards by another maker do that are
// right all the same: every interface has another number, behind one of nobody's, every endpoint another address; and,
// if it is wanted, other strings. SET_INTERFACE is refused where there is one setting (USB 2.0, section 9.4.10). All
// else stays as it is.
type Disguise struct {
	usbdev.Port
	Strings func(d *usbdev.Descriptors) // changes a copy; nil: they stay
	Release uint16                      // bcdDevice; 0: the board's
	// Languages answers for string descriptor 0, which lists them; nil: the board's own. An empty one is a stall.
	Languages []byte
}

// shift is what is added to interfaces' numbers.
const shift = 3

// Attach implements [usbdev.Port].
func (p Disguise) Attach(ctx context.Context, dev usbdev.Device) error {
	return p.Port.Attach(ctx, &disguised{Device: dev, port: p})
}

// disguised is a device in disguise. It answers standard requests itself, and hands on what they come to.
type disguised struct {
	usbdev.Device
	port Disguise

	mu     sync.Mutex
	shown  *usbdev.Descriptors // what gadget was made of
	gadget *usbdev.Gadget
}

// Descriptors implements [usbdev.Device].
func (d *disguised) Descriptors() *usbdev.Descriptors {
	d.mu.Lock()
	defer d.mu.Unlock()
	own := d.Device.Descriptors()
	if own != d.shown {
		d.shown, d.gadget = own, usbdev.NewGadget(d.port.disguise(own), function{d.Device})
	}
	return d.gadget.Descriptors()
}

// disguise changes descriptors.
func (p Disguise) disguise(own *usbdev.Descriptors) *usbdev.Descriptors {
	d := *own
	d.Strings = maps.Clone(own.Strings)
	if p.Release != 0 {
		d.Release = p.Release
	}
	d.Configs = nil
	for _, c := range own.Configs {
		interfaces := []usbdev.Interface{{Number: 0, Class: 0xff, SubClass: 0x55}}
		for _, i := range c.Interfaces {
			i.Number += shift
			i.Endpoints = slices.Clone(i.Endpoints)
			for n := range i.Endpoints {
				i.Endpoints[n].Address = swap(i.Endpoints[n].Address)
			}
			interfaces = append(interfaces, i)
		}
		c.Interfaces = interfaces
		d.Configs = append(d.Configs, c)
	}
	if p.Strings != nil {
		p.Strings(&d)
	}
	return &d
}

// swap is another address for an endpoint, and its own for the other: 1 and 11.
func swap(address uint8) uint8 {
	if address&0xf == 0 {
		return address
	}
	return address&0x80 | 12 - address&0xf
}

// Control implements [usbdev.Device].
func (d *disguised) Control(ctx context.Context, s usbdev.Setup, data []byte) (int, error) {
	const endpoint = 2 // the recipient
	if s.Standard() && s.Type&0x1f == endpoint {
		s.Index = uint16(swap(uint8(s.Index)))
		return d.Device.Control(ctx, s, data)
	}
	if s.Standard() && s.Request == 6 && s.Type == 0x80 {
		switch {
		case s.Value>>8 == 1:
			d.Descriptors() // it is enumerated anew
		case s.Value == 0x300 && d.port.Languages != nil && len(d.port.Languages) == 0:
			return 0, usbdev.ErrStall
		case s.Value == 0x300 && d.port.Languages != nil:
			return copy(data, d.port.Languages), nil
		}
	}
	d.mu.Lock()
	g := d.gadget
	d.mu.Unlock()
	if s.Type == 1 && s.Request == 11 && settings(g.Descriptors(), uint8(s.Index)) == 1 {
		return 0, usbdev.ErrStall
	}
	return g.Control(ctx, s, data)
}

// settings counts those of an interface.
func settings(d *usbdev.Descriptors, iface uint8) (n int) {
	for _, c := range d.Configs {
		for _, i := range c.Interfaces {
			if i.Number == iface {
				n++
			}
		}
	}
	return n
}

// In implements [usbdev.Device].
func (d *disguised) In(ctx context.Context, ep uint8, buf []byte) (int, error) {
	return d.Device.In(ctx, swap(ep), buf)
}

// Out implements [usbdev.Device].
func (d *disguised) Out(ctx context.Context, ep uint8, data []byte) (int, error) {
	return d.Device.Out(ctx, swap(ep), data)
}

// function is the other side of a disguise's gadget.
type function struct{ usbdev.Device }

// Configured implements [usbdev.Function].
func (f function) Configured(value uint8) {
	f.Device.Control(context.Background(), usbdev.Setup{Request: 9, Value: uint16(value)}, nil)
}

// Selected implements [usbdev.Function].
func (f function) Selected(iface, alt uint8) {
	f.Device.Control(context.Background(), usbdev.Setup{Type: 1, Request: 11, Value: uint16(alt), Index: uint16(iface) - shift}, nil)
}

// Control implements [usbdev.Function].
func (f function) Control(ctx context.Context, s usbdev.Setup, data []byte) (int, error) {
	const iface = 1 // the recipient
	if s.Type&0x1f == iface {
		s.Index -= shift
	}
	return f.Device.Control(ctx, s, data)
}
