package usbdev

import (
	"context"
	"sync"
)

// pipe hands transfers from a giver to a taker. The giver is the host for an OUT endpoint and the
// model for an IN endpoint. A transfer is offered as a whole; its packets are its pieces of max bytes.
type pipe struct {
	max   int           // bytes of a full packet
	gone  chan struct{} // closed with the gadget
	offer chan offer    // giver to taker
	taken chan int      // taker to giver: how much of the offer was consumed; refused

	mu sync.Mutex // held by the giver: one transfer at a time

	halting sync.Mutex
	halted  chan struct{} // closed while the endpoint is halted; the host's end of the pipe looks at it
}

// offer is what is left of a transfer.
type offer struct {
	data  []byte
	short bool // the last packet is a short one
}

// refused is the answer of a taker that was cancelled meanwhile: the offer is for the next one.
const refused = -1

func newPipe(max int, gone chan struct{}) pipe {
	return pipe{max: max, gone: gone, offer: make(chan offer), taken: make(chan int), halted: make(chan struct{})}
}

// halt stalls the host's transfers, pending and to come, or ends that.
func (p *pipe) halt(on bool) {
	p.halting.Lock()
	defer p.halting.Unlock()
	switch {
	case on == closed(p.halted):
	case on:
		close(p.halted)
	default:
		p.halted = make(chan struct{})
	}
}

// stall returns what is closed while the endpoint is halted.
func (p *pipe) stall() <-chan struct{} {
	p.halting.Lock()
	defer p.halting.Unlock()
	return p.halted
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// give offers data until the taker has consumed all of it, or until stall is closed.
func (p *pipe) give(ctx context.Context, data []byte, stall <-chan struct{}) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	short := len(data)%p.max != 0 || len(data) == 0
	n := 0
	for {
		if closed(stall) {
			return n, ErrStall
		}
		select {
		case p.offer <- offer{data[n:], short}:
		case <-stall:
			return n, ErrStall
		case <-ctx.Done():
			return n, ctx.Err()
		case <-p.gone:
			return n, ErrGone
		}
		m := <-p.taken // the taker answers at once
		if m == refused {
			continue
		}
		n += m
		if n == len(data) {
			return n, nil
		}
	}
}

// take fills buf until a short packet or until it is full.
// strict refuses a packet that does not fit, as a host controller does. It ends when stall is closed.
func (p *pipe) take(ctx context.Context, buf []byte, strict bool, stall <-chan struct{}) (int, error) {
	n := 0
	for {
		if closed(stall) {
			return n, ErrStall
		}
		select {
		case o := <-p.offer:
			if ctx.Err() != nil {
				p.taken <- refused
				return n, ctx.Err()
			}
			m := copy(buf[n:], o.data)
			n += m
			switch {
			case m == len(o.data):
				p.taken <- m
				if o.short || n == len(buf) {
					return n, nil
				}
			case strict && m%p.max != 0:
				p.taken <- len(o.data) // the rest is lost
				return n, ErrOverflow
			default:
				p.taken <- m
				return n, nil
			}
		case <-stall:
			return n, ErrStall
		case <-ctx.Done():
			return n, ctx.Err()
		case <-p.gone:
			return n, ErrGone
		}
	}
}

// InPipe is the device's end of an IN endpoint.
type InPipe struct {
	pipe

	hook sync.Mutex
	poll func(bool)
}

// Write sends one transfer and returns when the host has taken all of it. A transfer that is a
// multiple of the packet size is not ended by a zero-length packet: send one with an empty data
// where the class wants that.
func (p *InPipe) Write(ctx context.Context, data []byte) (int, error) { return p.give(ctx, data, nil) }

// OnPoll sets a function that is told when the host begins to ask for data (true) and when it
// cancels a transfer (false).
func (p *InPipe) OnPoll(f func(polling bool)) {
	p.hook.Lock()
	defer p.hook.Unlock()
	p.poll = f
}

func (p *InPipe) polled(on bool) {
	p.hook.Lock()
	f := p.poll
	p.hook.Unlock()
	if f != nil {
		f(on)
	}
}

func (p *InPipe) hostRead(ctx context.Context, buf []byte) (int, error) {
	p.polled(true)
	n, err := p.take(ctx, buf, true, p.stall())
	if ctx.Err() != nil {
		p.polled(false)
	}
	return n, err
}

// OutPipe is the device's end of an OUT endpoint.
type OutPipe struct{ pipe }

// Read receives one transfer: it returns at a short packet, or when buf is full; the rest of a
// transfer that does not fit is for the next Read.
func (p *OutPipe) Read(ctx context.Context, buf []byte) (int, error) {
	return p.take(ctx, buf, false, nil)
}
