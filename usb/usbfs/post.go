//go:build linux

package usbfs

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"snag/usb"
)

var _ usb.Poster = (*handle)(nil)

// Post implements [usb.Poster]. Nobody waits for such a transfer: how it ended is seen by the next one.
func (h *handle) Post(ep uint8, data []byte) (taken int, err error) {
	taken, err = h.post(ep, data)
	return taken, h.failed("post", int(ep), err)
}

func (h *handle) post(ep uint8, data []byte) (taken int, err error) {
	if ep&0x80 != 0 {
		return 0, errors.New("not an endpoint from the host")
	}
	if len(data) > h.chunk {
		return 0, fmt.Errorf("%d bytes, more than %d", len(data), h.chunk)
	}
	l := h.endpoints[ep&0xf]
	select {
	case l <- struct{}{}:
		defer func() { <-l }()
	default:
		return 0, usb.ErrNoRoom
	}
	w := &h.posts[ep&0xf]
	before := w.whole
	err = w.landed()
	taken = w.whole - before
	w.broken = false // each stands for itself
	if err != nil {
		return taken, err
	}
	if _, err := h.packet(ep); err != nil {
		return taken, err
	}
	if len(w.flights) == h.depth {
		return taken, usb.ErrNoRoom
	}
	w.h, w.kind, w.ep, w.begun = h, urbBulk, ep, false
	err = w.submit(data)
	if errors.Is(err, unix.ENOMEM) {
		return taken, usb.ErrNoRoom
	}
	return taken, cause(err)
}

// freePosts is for a handle that is closed, when nothing is in flight any more.
func (h *handle) freePosts() {
	for i := range h.posts {
		w := &h.posts[i]
		for _, t := range slices.Concat(w.flights, w.spare) {
			t.free()
		}
	}
}

// landed counts those URBs that were reaped, the oldest first, up to one that failed.
func (w *window) landed() error {
	for len(w.flights) > 0 {
		if !w.flights[0].over.Load() {
			return nil
		}
		if err := w.land(w.flights[0]); err != nil {
			return err
		}
	}
	return nil
}
