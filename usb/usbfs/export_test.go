//go:build linux

package usbfs

// SetFlight sets how many URBs are in flight, and how long one is at most.
func (h *Handle) SetFlight(depth, chunk int) { h.depth, h.chunk = depth, chunk }
