//go:build linux

package usbfs

import (
	"context"
	"fmt"

	"snag/usb"
)

// spares are the transfers of a [handle.ControlPair], of which Control uses the first. A handle keeps them for the next
// one: a file is thousands of them.
type spares [2]*transfer

// takeSpares is for who has locked endpoint 0.
func (h *handle) takeSpares() *spares {
	if c := h.spares.Swap(nil); c != nil {
		return c
	}
	return &spares{newTransfer(), newTransfer()}
}

// putSpares ends what takeSpares began.
func (h *handle) putSpares(c *spares) {
	h.spares.Store(c)
	select {
	case <-h.closed:
		h.freeSpares()
	default:
	}
}

// freeSpares is for a handle that is closed.
func (h *handle) freeSpares() {
	if c := h.spares.Swap(nil); c != nil {
		c[0].free()
		c[1].free()
	}
}

// ControlPair implements [usb.Pairer].
func (h *handle) ControlPair(ctx context.Context, first, second *usb.ControlTransfer) {
	first.Err, second.Err = h.controlPair(ctx, first, second)
	for _, c := range []*usb.ControlTransfer{first, second} {
		c.Err = h.failed("control", int(c.Setup.Type&0x80), c.Err)
	}
}

func (h *handle) controlPair(ctx context.Context, first, second *usb.ControlTransfer) (firstErr, secondErr error) {
	pair := [2]*usb.ControlTransfer{first, second}
	for _, c := range pair {
		if c.N = 0; len(c.Data) != int(c.Setup.Length) {
			err := fmt.Errorf("%d bytes of data with a setup packet that says %d", len(c.Data), c.Setup.Length)
			return err, err
		}
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := h.lock(ctx, 0); err != nil {
		return err, err
	}
	defer h.unlock(0)
	t := h.takeSpares()
	defer h.putSpares(t)
	if err := h.submitControl(ctx, t[0], first.Setup, first.Data); err != nil {
		return err, err
	}
	own := t[:]
	if secondErr = h.submitControl(ctx, t[1], second.Setup, second.Data); secondErr != nil {
		own = t[:1]
	}
	last := own[len(own)-1]
	if h.direct(ctx, last, nil, own...); !last.over.Load() {
		select {
		case <-h.await(last):
		case <-ctx.Done():
			h.discard(last) // the first must not be followed by it when it is discarded
		}
	}
	var errs [2]error
	for i, c := range pair {
		if i == 1 && secondErr != nil {
			break
		}
		if c.N, errs[i] = h.finish(ctx, t[i]); c.Setup.ToHost() {
			copy(c.Data, t[i].buf[setupSize:setupSize+c.N])
		}
	}
	if secondErr == nil {
		secondErr = errs[1]
	}
	return errs[0], secondErr
}
