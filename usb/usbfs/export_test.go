//go:build linux

package usbfs

import "snag/usb"

// SetFlight sets how many URBs are in flight, and how long one is at most.
func SetFlight(h usb.Handle, depth, chunk int) {
	own := h.(*handle)
	own.depth, own.chunk, own.room = depth, chunk, depth*chunk
}
