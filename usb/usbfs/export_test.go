//go:build linux

package usbfs

import (
	"context"
	"math"

	"snag/usb"
)

// SetFlight sets how many URBs are in flight, and how long one is at most.
func SetFlight(h usb.Handle, depth, chunk int) {
	own := h.(*handle)
	own.depth, own.chunk, own.room = depth, chunk, depth*chunk
}

// LeadForEver has who waits for a handle's only transfers never leave them to the watcher.
func LeadForEver(h usb.Handle) { h.(*handle).leadFor = math.MaxInt64 }

// Led says whether somebody reaps in the watcher's stead.
func Led(h usb.Handle) bool {
	own := h.(*handle)
	own.mu.Lock()
	defer own.mu.Unlock()
	return own.led
}

// Asked says whether somebody else waits while somebody reaps in the watcher's stead.
func Asked(h usb.Handle) bool {
	own := h.(*handle)
	own.mu.Lock()
	defer own.mu.Unlock()
	return own.asked
}

// Aside says whether the watcher is put aside.
func Aside(h usb.Handle) bool {
	own := h.(*handle)
	own.mu.Lock()
	defer own.mu.Unlock()
	return !own.there
}

// Hear is told of a port's uevents.
func Hear(ctx context.Context, p usb.Port) <-chan struct{} { return hear(ctx, p) }
