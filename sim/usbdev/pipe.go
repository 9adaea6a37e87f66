package usbdev

import (
	"context"
	"slices"
	"sync"
	"time"
)

// pipe hands transfers from a giver to a taker. The giver is the host for an OUT endpoint and the
// model for an IN endpoint. A transfer is offered as a whole; its packets are its pieces of max bytes.
// Who comes second moves the data, and waits for nobody.
type pipe struct {
	max  int           // bytes of a full packet
	turn chan struct{} // holds one while there is a giver: one transfer at a time

	mu     sync.Mutex
	halted bool // the host's transfers are stalled
	gone   bool // with the gadget
	given  *transfer
	taken  []*transfer // in the order in which they came
}

func newPipe(max int) pipe { return pipe{max: max, turn: make(chan struct{}, 1)} }

// transfer is one end of a transfer, as it waits in a pipe for the other.
type transfer struct {
	ctx    context.Context
	data   []byte // to give, or to fill
	n      int    // bytes of that
	short  bool   // of a giver: the last packet is a short one
	strict bool   // of a taker: it refuses a packet that does not fit, as a host controller does
	host   bool   // it is the host's

	until <-chan struct{} // what ends it, besides its context; nil: nothing
	wait  time.Duration   // how long it waits at most; 0: as long as its context

	err  error
	done chan struct{} // of one that waits; holds one
}

// ends says that nothing happens to a transfer any more. The pipe's mu is held.
func (t *transfer) ends(err error) {
	t.err = err
	if t.done != nil {
		t.done <- struct{}{}
	}
}

// move moves what there is. It tells whose transfer is over. The pipe's mu is held.
func (p *pipe) move(from, to *transfer) (given, taken bool) {
	rest := from.data[from.n:]
	m := copy(to.data[to.n:], rest)
	to.n += m
	switch {
	case m == len(rest):
		given, taken = true, from.short || to.n == len(to.data)
	case to.strict && m%p.max != 0: // the rest is lost
		given, taken, to.err = true, true, ErrOverflow
	default:
		taken = true
	}
	if given {
		m = len(rest)
	}
	from.n += m
	return given, taken
}

// refuses returns why a transfer cannot begin. p.mu is held.
func (p *pipe) refuses(t *transfer) error {
	switch {
	case t.host && p.halted:
		return ErrStall
	case p.gone:
		return ErrGone
	}
	return t.ctx.Err()
}

// give offers data until the taker has consumed all of it. It returns how much that was.
func (p *pipe) give(t transfer) (int, error) {
	select {
	case p.turn <- struct{}{}:
	case <-t.ctx.Done():
		return 0, t.ctx.Err()
	}
	defer func() { <-p.turn }()
	return p.offer(t)
}

// giveNow is give, but does not wait for another giver: it returns errBusy.
func (p *pipe) giveNow(t transfer) (int, error) {
	select {
	case p.turn <- struct{}{}:
	default:
		return 0, errBusy
	}
	defer func() { <-p.turn }()
	return p.offer(t)
}

// offer is give for the giver whose turn it is.
func (p *pipe) offer(t transfer) (int, error) {
	t.short = len(t.data)%p.max != 0 || len(t.data) == 0
	p.mu.Lock()
	if err := p.refuses(&t); err != nil {
		p.mu.Unlock()
		return 0, err
	}
	for len(p.taken) > 0 {
		to := p.taken[0]
		given, taken := false, true
		if to.err = to.ctx.Err(); to.err == nil { // what the host has cancelled takes nothing any more
			given, taken = p.move(&t, to)
		}
		if taken {
			p.taken = slices.Delete(p.taken, 0, 1)
			to.ends(to.err)
		}
		if given {
			p.mu.Unlock()
			return t.n, nil
		}
	}
	t.done = make(chan struct{}, 1)
	p.given = &t
	p.mu.Unlock()
	return p.await(&t)
}

// take fills t.data until a short packet or until it is full.
func (p *pipe) take(t transfer) (int, error) {
	p.mu.Lock()
	if err := p.refuses(&t); err != nil {
		p.mu.Unlock()
		return 0, err
	}
	if from := p.given; from != nil && len(p.taken) == 0 && from.ctx.Err() == nil {
		given, taken := p.move(from, &t)
		if given {
			p.given = nil
			from.ends(nil)
		}
		if taken {
			p.mu.Unlock()
			return t.n, t.err
		}
	}
	t.done = make(chan struct{}, 1)
	p.taken = append(p.taken, &t)
	p.mu.Unlock()
	return p.await(&t)
}

// await waits for the end of a transfer that is in the pipe.
func (p *pipe) await(t *transfer) (int, error) {
	var expired <-chan time.Time
	if t.wait > 0 {
		timer := time.NewTimer(t.wait)
		defer timer.Stop()
		expired = timer.C
	}
	var err error
	select {
	case <-t.done:
		return t.n, t.err
	case <-t.ctx.Done():
		err = t.ctx.Err()
	case <-t.until:
		err = context.Canceled
	case <-expired:
		err = context.DeadlineExceeded
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.drop(func(other *transfer) bool { return other == t }) {
		return t.n, t.err // it was over before
	}
	return t.n, err
}

// drop takes transfers that match out of the pipe. p.mu is held.
func (p *pipe) drop(match func(*transfer) bool) (any bool) {
	if p.given != nil && match(p.given) {
		p.given, any = nil, true
	}
	before := len(p.taken)
	p.taken = slices.DeleteFunc(p.taken, match)
	return any || len(p.taken) < before
}

// end ends transfers that match. p.mu is held.
func (p *pipe) end(err error, match func(*transfer) bool) {
	p.drop(func(t *transfer) bool {
		ends := match(t)
		if ends {
			t.ends(err)
		}
		return ends
	})
}

// halt stalls the host's transfers, pending and to come, or ends that.
func (p *pipe) halt(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.halted = on
	if on {
		p.end(ErrStall, func(t *transfer) bool { return t.host })
	}
}

// isHalted says whether the endpoint is.
func (p *pipe) isHalted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.halted
}

// close ends all transfers, pending and to come.
func (p *pipe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	p.end(ErrGone, func(*transfer) bool { return true })
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
func (p *InPipe) Write(ctx context.Context, data []byte) (int, error) {
	return p.give(transfer{ctx: ctx, data: data})
}

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
	n, err := p.take(transfer{ctx: ctx, data: buf, strict: true, host: true})
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
	return p.take(transfer{ctx: ctx, data: buf})
}

// hostWrite is the host's transfer to the device.
func (p *OutPipe) hostWrite(ctx context.Context, data []byte) (int, error) {
	return p.give(transfer{ctx: ctx, data: data, host: true})
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
