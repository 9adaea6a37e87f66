package bcm

import (
	"context"
	"fmt"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// The requests.
const (
	toBoard = 0x40 // a length: wValue its lower half, wIndex its upper half
	toHost  = 0xc0 // so many bytes
)

// statusSize and messageSize are what the host reads.
const (
	statusSize  = 4
	messageSize = 260
)

// device is a stage on USB.
type device struct {
	*usbdev.Gadget
	b        *Board
	stage    *Stage
	out      uint8
	requests chan *request // that the stage has not taken yet

	stall    bool // the next request
	received int  // bytes of files
}

// request is one on endpoint 0.
type request struct {
	usbdev.Setup
	ctx   context.Context
	reply chan reply // has room for one
}

type reply struct {
	data []byte
	err  error
}

func (b *Board) device(stage string) *device {
	m := &b.cfg.Model
	d := &usbdev.Descriptors{Speed: usbdev.HighSpeed, ID: m.ID, Manufacturer: "Broadcom", Product: m.Product}
	switch {
	case stage == StageBootcode:
		d.SerialIndex = 1 // that is the manufacturer's string
	case m.Serial:
		d.Serial = "af04b2da"
	}
	out := uint8(1)
	vendor := usbdev.Interface{Class: 0xff, Endpoints: []usbdev.Endpoint{
		{Address: 0x01, Type: usbdev.Bulk, MaxPacket: 512}, {Address: 0x82, Type: usbdev.Bulk, MaxPacket: 512},
	}}
	interfaces := []usbdev.Interface{vendor}
	if b.cfg.TwoInterfaces {
		disk := usbdev.Interface{Class: 0xff, SubClass: 0x06, Protocol: 0x50, Endpoints: vendor.Endpoints}
		vendor.Number, out = 1, 3
		vendor.Endpoints = []usbdev.Endpoint{{Address: 0x03, Type: usbdev.Bulk, MaxPacket: 512}, {Address: 0x84, Type: usbdev.Bulk, MaxPacket: 512}}
		interfaces = []usbdev.Interface{disk, vendor}
	}
	d.Configs = []usbdev.Config{{Value: 1, Attributes: 0x40, MaxPower: 50, Interfaces: interfaces}}
	dev := &device{b: b, stage: &Stage{Files: []File{}}, out: out, requests: make(chan *request)}
	dev.Gadget = usbdev.NewGadget(d, function{Inert: usbdev.Inert{}, d: dev})
	return dev
}

// function is the gadget's side of a device.
type function struct {
	usbdev.Inert
	d *device
}

// Control hands a vendor's request to the stage, and waits for its answer: the host has nothing else to do meanwhile.
func (f function) Control(ctx context.Context, s usbdev.Setup, data []byte) (int, error) {
	d := f.d
	if s.Type != toBoard && s.Type != toHost || s.Request != 0 {
		d.b.board.Violation("request %02x %02x, which there is not", s.Type, s.Request)
		return 0, usbdev.ErrStall
	}
	r := &request{s, ctx, make(chan reply, 1)}
	select {
	case d.requests <- r:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-d.Gone():
		return 0, usbdev.ErrGone
	}
	select {
	case a := <-r.reply:
		return copy(data, a.data), a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-d.Gone():
		return 0, usbdev.ErrGone
	}
}

// next takes the host's next request in a direction; others are refused.
func (d *device) next(ctx context.Context, direction uint8, what string) (*request, error) {
	for {
		var r *request
		select {
		case r = <-d.requests:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		d.b.board.Edit(func(*Report) {
			if d.stage.First.IsZero() {
				d.stage.First = time.Now()
			}
		})
		switch {
		case r.ctx.Err() != nil:
		case d.stall:
			d.stall = false
			r.reply <- reply{err: usbdev.ErrStall}
		case r.Type != direction:
			d.b.board.Violation("request %02x while %s was due", r.Type, what)
			r.reply <- reply{err: usbdev.ErrStall}
		default:
			return r, nil
		}
	}
}

// give lets the host read.
func (d *device) give(ctx context.Context, b []byte, want int, what string) error {
	r, err := d.next(ctx, toHost, what)
	if err != nil {
		return err
	}
	if n := int(r.Index)<<16 | int(r.Value); n != want || int(r.Length) != want {
		d.b.board.Violation("%s: the host reads %d bytes in a request of %d, it is of %d", what, n, r.Length, want)
	}
	r.reply <- reply{data: b}
	return nil
}

// length takes a length.
func (d *device) length(ctx context.Context, what string) (int, error) {
	r, err := d.next(ctx, toBoard, "the length of "+what)
	if err != nil {
		return 0, err
	}
	if r.Length != 0 {
		d.b.board.Violation("the length of %s came with %d bytes of data", what, r.Length)
	}
	r.reply <- reply{}
	return int(r.Index)<<16 | int(r.Value), nil
}

// most is what a board has memory for.
const most = 256 << 20

// receive takes so many bytes from the bulk endpoint; they count as a file's or not.
func (d *device) receive(ctx context.Context, n int, file bool) ([]byte, error) {
	if n > most {
		return nil, fmt.Errorf("%d bytes have no room in memory", n)
	}
	data := make([]byte, 0, min(n, 1<<20))
	for len(data) < n {
		part := min(n-len(data), 16384)
		if file {
			if err := d.due(ctx, ""); err != nil {
				return data, err
			}
			part = d.b.board.Before(d.received, part)
		}
		buf := make([]byte, part)
		m, err := d.OutPipe(d.out).Read(ctx, buf)
		if err != nil {
			return data, err
		}
		if m == 0 {
			d.b.board.Violation("an empty packet")
		}
		data = append(data, buf[:m]...)
		if file {
			d.received += m
			d.b.board.Edit(func(*Report) { d.stage.Received() })
		}
	}
	return data, nil
}

// take is length and receive.
func (d *device) take(ctx context.Context, what string, file bool) ([]byte, error) {
	n, err := d.length(ctx, what)
	if err != nil {
		return nil, err
	}
	return d.receive(ctx, n, file)
}

// due carries out the faults that are due. Those that are a stage's own are [device.fault]'s.
func (d *device) due(ctx context.Context, command string) error {
	_, err := d.fault(ctx, command)
	return err
}

// fault returns what else is to go wrong.
func (d *device) fault(ctx context.Context, command string) (Fault, error) {
	for {
		f, err := d.b.board.Due(ctx, command, d.received)
		if err != nil || f.Kind != Stall {
			return f, err
		}
		if command != "" {
			d.stall = true
			continue
		}
		d.Halt(d.out)
		<-ctx.Done()
		return f, ctx.Err()
	}
}

// leaveTime is how long a stage is on the bus after its last answer.
const leaveTime = 20 * time.Millisecond

func leave(ctx context.Context) error { return virtual.Sleep(ctx, leaveTime) }
