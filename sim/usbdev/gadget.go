package usbdev

import (
	"context"
	"sync"
)

// Function is what a gadget does beyond the standard requests. Its methods must not block for long
// and must not wait for a transfer on another endpoint: the host waits for them.
type Function interface {
	// Configured says that the host selected a configuration (0: none).
	Configured(value uint8)

	// Selected says that the host selected an alternate setting.
	Selected(iface, alt uint8)

	// Control answers a class or vendor request, as [Device.Control] does.
	Control(ctx context.Context, setup Setup, data []byte) (int, error)
}

// Inert is a [Function] that refuses everything.
type Inert struct{}

// Configured implements [Function].
func (Inert) Configured(uint8) {}

// Selected implements [Function].
func (Inert) Selected(uint8, uint8) {}

// Control implements [Function].
func (Inert) Control(context.Context, Setup, []byte) (int, error) { return 0, ErrStall }

// Gadget is a [Device] made of descriptors and a function.
type Gadget struct {
	desc *Descriptors
	fn   Function
	in   map[uint8]*InPipe
	out  map[uint8]*OutPipe
	gone chan struct{}

	mu     sync.Mutex
	closed bool
	config uint8
	alt    map[uint8]uint8
	times  int           // that a configuration was selected
	again  chan struct{} // closed when one is
}

// NewGadget makes a gadget that is not configured yet. d is not to be changed afterwards.
// An endpoint address means one pipe, in whatever configuration it occurs.
func NewGadget(d *Descriptors, fn Function) *Gadget {
	g := &Gadget{
		desc: d,
		fn:   fn,
		in:   make(map[uint8]*InPipe),
		out:  make(map[uint8]*OutPipe),
		gone: make(chan struct{}),
		alt:  make(map[uint8]uint8),

		again: make(chan struct{}),
	}
	for _, c := range d.Configs {
		for _, i := range c.Interfaces {
			for _, e := range i.Endpoints {
				// Bits 12-11 count further transactions of a microframe; they are not part of the size.
				size := max(1, int(e.MaxPacket&0x7ff))
				if e.Address&0x80 != 0 {
					g.in[e.Address] = &InPipe{pipe: newPipe(size)}
				} else {
					g.out[e.Address] = &OutPipe{pipe: newPipe(size)}
				}
			}
		}
	}
	return g
}

// InPipe is the device's end of an endpoint to the host; nil if no such endpoint was described.
func (g *Gadget) InPipe(ep uint8) *InPipe { return g.in[ep] }

// OutPipe is the device's end of an endpoint from the host; nil if no such endpoint was described.
func (g *Gadget) OutPipe(ep uint8) *OutPipe { return g.out[ep] }

// Close makes every transfer, pending and to come, fail with [ErrGone].
func (g *Gadget) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.closed = true
		close(g.gone)
		for _, p := range g.in {
			p.close()
		}
		for _, p := range g.out {
			p.close()
		}
	}
}

// Gone is closed when the gadget is.
func (g *Gadget) Gone() <-chan struct{} { return g.gone }

// Configured returns how often the host has selected a configuration (0 does not count), and what is closed when it
// does so again.
func (g *Gadget) Configured() (times int, again <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.times, g.again
}

// While returns a context for what ends, by the cause, when the host selects a configuration again after so many times.
func (g *Gadget) While(ctx context.Context, times int, cause error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	now, again := g.Configured()
	if now != times {
		cancel(cause)
	}
	go func() {
		select {
		case <-again:
			cancel(cause)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// Halt stalls the host's transfers on an endpoint, pending and to come, until the host clears the halt or selects a
// configuration or a setting of the endpoint's interface (USB 2.0, section 9.4.5). What the model's end of the pipe
// has begun waits meanwhile.
func (g *Gadget) Halt(ep uint8) { g.halt(ep, true) }

func (g *Gadget) halt(ep uint8, on bool) {
	if p := g.pipe(ep); p != nil {
		p.halt(on)
	}
}

// pipe is that of an endpoint; nil if no such endpoint was described.
func (g *Gadget) pipe(ep uint8) *pipe {
	if p := g.in[ep]; p != nil {
		return &p.pipe
	}
	if p := g.out[ep]; p != nil {
		return &p.pipe
	}
	return nil
}

// resume ends the halts of an interface's endpoints, in whatever setting; of all if iface is negative.
func (g *Gadget) resume(iface int) {
	for _, c := range g.desc.Configs {
		for _, i := range c.Interfaces {
			for _, e := range i.Endpoints {
				if iface < 0 || iface == int(i.Number) {
					g.halt(e.Address, false)
				}
			}
		}
	}
}

// Descriptors implements [Device].
func (g *Gadget) Descriptors() *Descriptors { return g.desc }

// In implements [Device].
func (g *Gadget) In(ctx context.Context, ep uint8, buf []byte) (int, error) {
	p := g.in[ep]
	if p == nil {
		return 0, ErrStall
	}
	return p.hostRead(ctx, buf)
}

// Out implements [Device].
func (g *Gadget) Out(ctx context.Context, ep uint8, data []byte) (int, error) {
	p := g.out[ep]
	if p == nil {
		return 0, ErrStall
	}
	return p.hostWrite(ctx, data)
}

// Control implements [Device].
func (g *Gadget) Control(ctx context.Context, s Setup, data []byte) (int, error) {
	select {
	case <-g.gone:
		return 0, ErrGone
	default:
	}
	if !s.Standard() {
		return g.fn.Control(ctx, s, data)
	}
	return g.standard(ctx, s, data)
}

// Standard request codes (USB 2.0, table 9-4).
const (
	reqGetStatus     = 0
	reqClearFeature  = 1
	reqSetFeature    = 3
	reqSetAddress    = 5
	reqGetDescriptor = 6
	reqGetConfig     = 8
	reqSetConfig     = 9
	reqGetInterface  = 10
	reqSetInterface  = 11
	reqSetSEL        = 48
	reqSetIsochDelay = 49

	recipientEndpoint = 2 // bits 4-0 of bmRequestType
	featureHalt       = 0 // ENDPOINT_HALT (USB 2.0, table 9-6)
)

// standard answers the standard requests. A descriptor of an interface (HID's report descriptor)
// is the function's business.
func (g *Gadget) standard(ctx context.Context, s Setup, data []byte) (int, error) {
	reply := func(b []byte) (int, error) {
		if b == nil {
			return 0, ErrStall
		}
		return copy(data, b), nil
	}
	switch s.Request {
	case reqGetDescriptor:
		if s.Type&0x1f != 0 {
			return g.fn.Control(ctx, s, data)
		}
		switch s.Value >> 8 {
		case descDevice:
			return reply(g.desc.Device())
		case descConfig:
			return reply(g.desc.Config(int(s.Value & 0xff)))
		case descString:
			return reply(g.desc.String(uint8(s.Value)))
		case descBOS:
			return reply(g.desc.bos())
		}
		return 0, ErrStall
	case reqGetStatus:
		if p := g.pipe(uint8(s.Index)); s.Type&0x1f == recipientEndpoint && p != nil && p.isHalted() {
			return reply([]byte{1, 0})
		}
		return reply([]byte{0, 0})
	case reqGetConfig:
		g.mu.Lock()
		defer g.mu.Unlock()
		return reply([]byte{g.config})
	case reqSetConfig:
		value := uint8(s.Value)
		if value != 0 && g.desc.config(value) == nil {
			return 0, ErrStall
		}
		g.mu.Lock()
		g.config = value
		clear(g.alt)
		g.mu.Unlock()
		g.resume(-1)
		if value != 0 {
			g.mu.Lock()
			g.times++
			close(g.again)
			g.again = make(chan struct{})
			g.mu.Unlock()
		}
		g.fn.Configured(value)
		return 0, nil
	case reqGetInterface:
		g.mu.Lock()
		defer g.mu.Unlock()
		return reply([]byte{g.alt[uint8(s.Index)]})
	case reqSetInterface:
		if !g.hasAlt(uint8(s.Index), uint8(s.Value)) {
			return 0, ErrStall
		}
		g.mu.Lock()
		g.alt[uint8(s.Index)] = uint8(s.Value)
		g.mu.Unlock()
		g.resume(int(uint8(s.Index)))
		g.fn.Selected(uint8(s.Index), uint8(s.Value))
		return 0, nil
	case reqClearFeature, reqSetFeature:
		if s.Type&0x1f == recipientEndpoint && s.Value == featureHalt {
			g.halt(uint8(s.Index), s.Request == reqSetFeature)
		}
		return 0, nil
	case reqSetAddress, reqSetSEL, reqSetIsochDelay:
		return len(data), nil
	}
	return 0, ErrStall
}

func (g *Gadget) hasAlt(iface, alt uint8) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.desc.config(g.config)
	if c == nil {
		return false
	}
	for _, i := range c.Interfaces {
		if i.Number == iface && i.Alt == alt {
			return true
		}
	}
	return false
}
