package inproc

import (
	"context"
	"fmt"
	"iter"
	"os"
	"slices"
	"time"

	"snag/usb"
)

// flight is a transfer that is pending.
type flight struct {
	h   *handle // nil: the host's own
	ep  uint8
	end context.CancelCauseFunc
}

// abort ends the pending transfers that match. d.mu is held.
func (d *device) abort(cause error, match func(*flight) bool) {
	for f := range d.flights {
		if match(f) {
			f.end(cause)
		}
	}
}

// perform makes one transfer when those before it on its endpoint are over.
func (d *device) perform(ctx context.Context, h *handle, ep uint8, transfer func(context.Context) (int, error)) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, usb.DefaultTimeout)
		defer cancel()
	}
	own, end := context.WithCancelCause(ctx)
	defer end(nil)
	f := &flight{h, ep, end}

	d.mu.Lock()
	if err := d.usable(h, ep); err != nil {
		d.mu.Unlock()
		return 0, err
	}
	d.flights[f] = struct{}{}
	d.work.Add(1)
	queue := d.queues[ep]
	if queue == nil {
		queue = make(chan struct{}, 1)
		d.queues[ep] = queue
	}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.flights, f)
		d.mu.Unlock()
		d.work.Done()
	}()

	why := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return context.Cause(own)
	}
	select {
	case queue <- struct{}{}: // waiting senders are served in their order
		defer func() { <-queue }()
	case <-own.Done():
		return 0, why()
	}
	if own.Err() != nil {
		return 0, why()
	}
	n, err := transfer(own)
	if err != nil && own.Err() != nil {
		err = why()
	}
	return n, err
}

// usable says whether a transfer on an endpoint may begin. d.mu is held.
func (d *device) usable(h *handle, ep uint8) error {
	switch {
	case d.left:
		return usb.ErrGone
	case h != nil && h.closed:
		return os.ErrClosed
	case ep&0x7f == 0:
		return nil
	}
	iface, ok := d.owner(ep)
	if !ok {
		return fmt.Errorf("no active interface has endpoint %#02x", ep)
	}
	if d.claims[iface] != h {
		return fmt.Errorf("interface %d is not claimed", iface)
	}
	return nil
}

// owner finds the interface whose active setting has an endpoint. d.mu is held.
func (d *device) owner(ep uint8) (iface uint8, ok bool) {
	for number, s := range d.settings() {
		for _, e := range s.Endpoints {
			if e.Address == ep {
				return number, true
			}
		}
	}
	return 0, false
}

// control performs a control transfer.
func (d *device) control(ctx context.Context, h *handle, s usb.Setup, data []byte) (int, error) {
	if len(data) != int(s.Length) {
		return 0, fmt.Errorf("%d bytes of data with a setup packet that says %d", len(data), s.Length)
	}
	return d.perform(ctx, h, 0, func(ctx context.Context) (int, error) { return d.dev.Control(ctx, s, data) })
}

// out performs one transfer to an endpoint that must be over within a time.
func (d *device) out(ctx context.Context, h *handle, ep uint8, limit time.Duration, data []byte) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return d.perform(ctx, h, ep, func(ctx context.Context) (int, error) { return d.dev.Out(ctx, ep, data) })
}

// The bounds of what Stream has in flight: transfers, and bytes beyond the first transfer.
const (
	maxFlights = 16
	maxBytes   = 1 << 20
)

// pending is a transfer that is still to be performed.
type pending struct {
	size    int
	perform func() (int, error)
}

// stream performs transfers to an endpoint.
func (d *device) stream(ctx context.Context, h *handle, ep uint8, idle time.Duration, transfers iter.Seq[[]byte]) (int64, error) {
	if idle <= 0 {
		idle = usb.DefaultTimeout
	}
	bytes, _, err := inFlight(func(yield func(pending) bool) {
		for b := range transfers {
			b = slices.Clone(b)
			if !yield(pending{len(b), func() (int, error) { return d.out(ctx, h, ep, idle, b) }}) {
				return
			}
		}
	})
	return bytes, err
}

// inFlight performs transfers one after the other while the caller prepares the next ones. It returns how many bytes
// went, and how many transfers in whole.
func inFlight(transfers iter.Seq[pending]) (total int64, whole int, err error) {
	queue, freed := make(chan pending, maxFlights), make(chan int, maxFlights)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for p := range queue {
			var n int
			n, err = p.perform()
			total += int64(n)
			if err != nil {
				return
			}
			whole++
			freed <- p.size
		}
	}()
	func() {
		defer close(queue)
		flights, bytes := 0, 0
		for p := range transfers {
			select {
			case queue <- p:
			case <-done:
				return
			}
			flights, bytes = flights+1, bytes+p.size
			for flights == maxFlights || bytes >= maxBytes {
				select {
				case n := <-freed:
					flights, bytes = flights-1, bytes-n
				case <-done:
					return
				}
			}
		}
	}()
	<-done
	return total, whole, err
}
