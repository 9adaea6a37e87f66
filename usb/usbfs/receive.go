//go:build linux

package usbfs

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"snag/usb"
)

var _ usb.Receiver = (*handle)(nil)

// Receive implements [usb.Receiver]. The buffers are made multiples of the endpoint's packet, so that none of it is too
// large for what is left of one.
func (h *handle) Receive(ctx context.Context, ep uint8, size, inFlight int, take func([]byte)) error {
	return h.failed("receive", int(ep), h.receive(ctx, ep, size, inFlight, take))
}

func (h *handle) receive(ctx context.Context, ep uint8, size, inFlight int, take func([]byte)) (err error) {
	if ep&0x80 == 0 {
		return errors.New("not an endpoint to the host")
	}
	if err := h.lock(ctx, ep); err != nil {
		return err
	}
	defer h.unlock(ep)
	packet, err := h.packet(ep)
	if err != nil {
		return err
	}
	size = pieces(size+packet-1, packet)
	var all []*transfer
	for range max(inFlight, 1) {
		a := newTransfer()
		a.room(size)
		all = append(all, a)
	}
	idle := slices.Clone(all)
	var flights []*transfer // in their order
	h.receivers.Add(1)
	defer func() {
		h.receivers.Add(-1)
		for i := len(flights) - 1; i >= 0; i-- { // so that none overtakes one before it
			h.discard(flights[i])
		}
		h.watched()
		for _, f := range flights {
			h.wait(f)
		}
		for _, a := range all {
			a.free()
		}
	}()
	// submit submits all that are idle. If the kernel takes some of them only, those will have to do for now: what one of
	// a device that left has received is to be taken still.
	submit := func() error {
		for len(idle) > 0 {
			a := idle[len(idle)-1]
			err := h.submit(a, urbBulk, ep, 0, a.buf)
			switch {
			case err == nil:
				flights, idle = append(flights, a), idle[:len(idle)-1]
				continue
			case len(flights) > 0:
				return nil
			case !errors.Is(err, unix.ENOMEM):
				return cause(err)
			}
			if err := pause(ctx, h.closed); err != nil {
				return err
			}
		}
		return nil
	}
	for {
		// Half of them at a time: the host controller's driver, and a virtual board, is woken once for each time.
		if len(flights) <= len(all)/2 {
			if err := submit(); err != nil {
				return err
			}
		}
		first := flights[0]
		if h.direct(ctx, first, nil); !first.over.Load() {
			select {
			case <-h.await(first):
			case <-ctx.Done():
				return why(ctx)
			}
		}
		flights = slices.Delete(flights, 0, 1)
		idle = append(idle, first)
		n, err := h.result(first)
		if err != nil {
			return err
		}
		take(first.buf[:n])
	}
}
