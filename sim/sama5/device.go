package sama5

import (
	"context"
	"errors"
	"sync/atomic"

	"snag/sim/usbdev"
)

// The endpoints.
const (
	epOut    = 0x01
	epIn     = 0x82
	epNotify = 0x83 // never used
)

// device is the monitor's CDC ACM device.
type device struct {
	*usbdev.Gadget
	packet int
	seen   int // how often the host had selected a configuration when the monitor looked
	dead   atomic.Bool
}

func newDevice(cfg *Config) *device {
	d := &device{packet: 512}
	if cfg.Speed == usbdev.FullSpeed {
		d.packet = 64
	}
	bulk := func(ep uint8) usbdev.Endpoint {
		return usbdev.Endpoint{Address: ep, Type: usbdev.Bulk, MaxPacket: uint16(d.packet)}
	}
	d.Gadget = usbdev.NewGadget(&usbdev.Descriptors{
		Speed: cfg.Speed, Class: 0x02, ID: ID, Release: 0x0110,
		Configs: []usbdev.Config{{Value: 1, Attributes: 0x40, MaxPower: 50, Interfaces: []usbdev.Interface{
			{Class: 0x02, SubClass: 0x02, Extra: []byte{
				5, 0x24, 0x00, 0x10, 0x01, // header: CDC 1.10 (CDC 1.2, section 5.2.3)
				5, 0x24, 0x01, 0x00, 0x01, // call management
				4, 0x24, 0x02, 0x02, // abstract control management (PSTN 1.2, section 5.3.2): line coding
				5, 0x24, 0x06, 0x00, 0x01, // union
			}, Endpoints: []usbdev.Endpoint{{Address: epNotify, Type: usbdev.Interrupt, MaxPacket: 8, Interval: 16}}},
			{Number: 1, Class: 0x0a, Endpoints: []usbdev.Endpoint{bulk(epOut), bulk(epIn)}},
		}}},
	}, &function{})
	return d
}

// Control implements [usbdev.Device].
func (d *device) Control(ctx context.Context, s usbdev.Setup, data []byte) (int, error) {
	if d.dead.Load() {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return d.Gadget.Control(ctx, s, data)
}

// function is the class's side of the device (PSTN 1.2, section 6.3), which keeps what it is told and does not care.
type function struct{ coding [7]byte }

func (*function) Configured(uint8) {}

func (*function) Selected(uint8, uint8) {}

func (f *function) Control(_ context.Context, s usbdev.Setup, data []byte) (int, error) {
	switch s.Request {
	case 0x20: // SET_LINE_CODING
		return copy(f.coding[:], data), nil
	case 0x21: // GET_LINE_CODING
		return copy(data, f.coding[:]), nil
	case 0x22: // SET_CONTROL_LINE_STATE
		return 0, nil
	}
	return 0, usbdev.ErrStall
}

// errBegun is the host's beginning anew, as after a reset of the port.
var errBegun = errors.New("the host selected a configuration anew")

// transfer makes a transfer of the monitor's, which errBegun ends.
func (d *device) transfer(ctx context.Context, f func(context.Context) (int, error)) (int, error) {
	times, again := d.Configured()
	for ; times == 0; times, again = d.Configured() {
		select {
		case <-again:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if first := d.seen == 0; times != d.seen {
		d.seen = times
		if !first {
			return 0, errBegun
		}
	}
	ctx, cancel := d.While(ctx, d.seen, errBegun)
	defer cancel()
	n, err := f(ctx)
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	return n, err
}

// receive takes what the host sends next: a transfer, or what fits of it.
func (d *device) receive(ctx context.Context, buf []byte) (int, error) {
	return d.transfer(ctx, func(ctx context.Context) (int, error) { return d.OutPipe(epOut).Read(ctx, buf) })
}

// send returns when the host has it. There is no empty packet behind one that is full.
func (d *device) send(ctx context.Context, b []byte) error {
	_, err := d.transfer(ctx, func(ctx context.Context) (int, error) { return d.InPipe(epIn).Write(ctx, b) })
	return err
}

func (d *device) halt() {
	d.Halt(epOut)
	d.Halt(epIn)
}
