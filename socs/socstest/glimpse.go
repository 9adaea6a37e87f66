package socstest

import (
	"context"
	"time"

	"snag/sim/usbdev"
)

// Glimpse is a port on which a device enumerates, leaves before it has answered anything but that, and comes back: bad
// contacts, and gadgets that a boot stage sets up twice. Nth says which of the board's devices does, from 1 on.
type Glimpse struct {
	usbdev.Port
	Nth int

	n int
}

// Attach implements [usbdev.Port].
func (p *Glimpse) Attach(ctx context.Context, dev usbdev.Device) error {
	if p.n++; p.n == p.Nth {
		if err := p.Port.Attach(ctx, deaf{usbdev.NewGadget(dev.Descriptors(), usbdev.Inert{})}); err != nil {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := p.Port.Detach(); err != nil {
			return err
		}
	}
	return p.Port.Attach(ctx, dev)
}

// deaf is a device that does not get beyond its enumeration.
type deaf struct{ *usbdev.Gadget }

// Control implements [usbdev.Device].
func (d deaf) Control(ctx context.Context, s usbdev.Setup, data []byte) (int, error) {
	const own = 4 // the first string of a class's
	if s.Standard() && s.Type&0x1f == 0 && (s.Value>>8 != 3 || s.Value&0xff < own) || s.Standard() && s.Request == 11 {
		return d.Gadget.Control(ctx, s, data)
	}
	<-ctx.Done()
	return 0, ctx.Err()
}

// In implements [usbdev.Device].
func (d deaf) In(ctx context.Context, _ uint8, _ []byte) (int, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// Out implements [usbdev.Device].
func (d deaf) Out(ctx context.Context, _ uint8, _ []byte) (int, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}
