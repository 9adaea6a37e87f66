package amlogic

import (
	"bytes"
	"context"
	"errors"

	"snag/sim/usbdev"
)

// The endpoints.
const (
	epIn   = 0x81
	epOut  = 0x02
	packet = 512
)

// device is the USB device. Its control requests are handed to the board one by one, which answers them in its own
// time.
type device struct {
	*usbdev.Gadget
	requests chan *request
	held     *request // came while the board was at a bulk transfer
}

// request is a control request of the vendor.
type request struct {
	usbdev.Setup
	data  []byte // that came with it
	reply chan reply
}

// reply is the answer to a request.
type reply struct {
	data []byte // for the host
	err  error
}

func (r *request) accept(data []byte) { r.reply <- reply{data: data} }
func (r *request) refuse()            { r.reply <- reply{err: usbdev.ErrStall} }

func newDevice() *device {
	d := &device{requests: make(chan *request)}
	d.Gadget = usbdev.NewGadget(&usbdev.Descriptors{
		Speed: usbdev.HighSpeed, ID: ID, Release: 0x0020, Manufacturer: "Amlogic", Product: "GX-CHIP",
		Configs: []usbdev.Config{{Value: 1, MaxPower: 250, Interfaces: []usbdev.Interface{{Class: 0xff, Endpoints: []usbdev.Endpoint{
			{Address: epIn, Type: usbdev.Bulk, MaxPacket: packet}, {Address: epOut, Type: usbdev.Bulk, MaxPacket: packet},
		}}}}},
	}, (*function)(d))
	return d
}

// function is the vendor's side of the device.
type function device

func (*function) Configured(uint8)      {}
func (*function) Selected(uint8, uint8) {}

// Control implements [usbdev.Function].
func (f *function) Control(ctx context.Context, s usbdev.Setup, data []byte) (int, error) {
	r := &request{Setup: s, reply: make(chan reply, 1)}
	if !s.ToHost() {
		r.data = bytes.Clone(data)
	}
	select {
	case f.requests <- r:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-f.Gone():
		return 0, usbdev.ErrGone
	}
	select {
	case a := <-r.reply:
		if s.ToHost() {
			return copy(data, a.data), a.err
		}
		return len(data), a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-f.Gone():
		return 0, usbdev.ErrGone
	}
}

// next waits for a request.
func (d *device) next(ctx context.Context) (*request, error) {
	if r := d.held; r != nil {
		d.held = nil
		return r, nil
	}
	select {
	case r := <-d.requests:
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// errRequest is a control request where the host owed a bulk transfer.
var errRequest = errors.New("a request in the middle of another one's data")

// bulk performs bulk transfers, which a control request breaks off.
func (d *device) bulk(ctx context.Context, transfers func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case d.held = <-d.requests:
			cancel(errRequest)
		case <-ctx.Done():
		}
	}()
	err := transfers(ctx)
	if cause := context.Cause(ctx); errors.Is(err, context.Canceled) && cause != nil {
		err = cause
	}
	cancel(nil)
	<-watched
	return err
}

// halt stalls both endpoints.
func (d *device) halt() {
	d.Halt(epIn)
	d.Halt(epOut)
}
