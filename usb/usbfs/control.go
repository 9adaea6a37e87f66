//go:build linux

package usbfs

import (
	"context"
	"fmt"

	"snag/usb"
)

// ControlPair implements [usb.Pairer].
func (h *handle) ControlPair(ctx context.Context, first, second *usb.ControlTransfer) {
	first.Err, second.Err = h.controlPair(ctx, first, second)
	for _, c := range []*usb.ControlTransfer{first, second} {
		c.Err = h.failed("control", int(c.Setup.Type&0x80), c.Err)
	}
}

func (h *handle) controlPair(ctx context.Context, first, second *usb.ControlTransfer) (firstErr, secondErr error) {
	pair := [2]*usb.ControlTransfer{first, second}
	var buf [2][]byte
	for i, c := range pair {
		if c.N = 0; len(c.Data) != int(c.Setup.Length) {
			err := fmt.Errorf("%d bytes of data with a setup packet that says %d", len(c.Data), c.Setup.Length)
			return err, err
		}
		buf[i] = controlBuffer(c.Setup, c.Data)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	unlock, err := h.lock(ctx, 0)
	if err != nil {
		return err, err
	}
	defer unlock()
	t := [2]*transfer{newTransfer(), newTransfer()}
	if err := h.submitControl(ctx, t[0], buf[0]); err != nil {
		return err, err
	}
	own := t[:]
	if secondErr = h.submitControl(ctx, t[1], buf[1]); secondErr != nil {
		own = t[:1]
	}
	last := own[len(own)-1]
	h.direct(ctx, last, nil, own...)
	select {
	case <-last.done:
		last.done <- struct{}{} // for await
	case <-ctx.Done():
		h.discard(last) // the first must not be followed by it when it is discarded
	}
	var errs [2]error
	for i, c := range pair {
		if i == 1 && secondErr != nil {
			break
		}
		if c.N, errs[i] = h.await(ctx, t[i]); c.Setup.ToHost() {
			copy(c.Data, buf[i][setupSize:setupSize+c.N])
		}
	}
	if secondErr == nil {
		secondErr = errs[1]
	}
	return errs[0], secondErr
}
