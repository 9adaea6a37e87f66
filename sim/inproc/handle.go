package inproc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"time"

	"snag/usb"
)

// handle is an open device. It implements [usb.Handle].
type handle struct {
	device *device
	info   usb.Device
	closed bool // guarded by device.mu
}

// failed describes a request that failed; nil if none did.
func (h *handle) failed(op string, ep int, err error) error {
	if err == nil {
		return nil
	}
	return &usb.TransferError{Op: op, Port: h.info.Port, ID: h.info.ID, Endpoint: ep, Err: err}
}

func (h *handle) Device() usb.Device { return h.info }

func (h *handle) Descriptors() *usb.Descriptors { return h.device.desc }

func (h *handle) Gone() <-chan struct{} { return h.device.gone }

// locked runs f with the device's lock, on an open handle.
func (h *handle) locked(ctx context.Context, op string, f func(*device) error) error {
	d := h.device
	if err := d.hold(ctx); err != nil {
		return h.failed(op, -1, err)
	}
	defer d.letGo()
	d.mu.Lock()
	closed := h.closed
	d.mu.Unlock()
	if closed {
		return h.failed(op, -1, os.ErrClosed)
	}
	return h.failed(op, -1, f(d))
}

func (h *handle) Configure(ctx context.Context, value uint8) error {
	return h.locked(ctx, "configure", func(d *device) error {
		d.mu.Lock()
		active, claims := d.config == value, len(d.claims)
		d.mu.Unlock()
		switch {
		case active:
			return nil
		case claims > 0:
			return fmt.Errorf("%w: %d interfaces are claimed", usb.ErrBusy, claims)
		}
		err := d.configure(value)
		d.bind()
		return err
	})
}

func (h *handle) Claim(ctx context.Context, iface uint8) error {
	return h.locked(ctx, "claim", func(d *device) error {
		detached, err := d.claim(h, iface)
		if detached {
			d.slot.host.changed()
		}
		return err
	})
}

// claim gives an interface to a handle. It says whether a driver had it.
func (d *device) claim(h *handle, iface uint8) (detached bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.has(iface) {
		return false, fmt.Errorf("the active configuration has no interface %d", iface)
	}
	if other := d.claims[iface]; other != nil && other != h {
		return false, usb.ErrBusy
	}
	d.claims[iface] = h
	detached = d.drivers[iface] != ""
	if detached {
		d.unbind(iface)
	}
	return detached, nil
}

// has says whether the active configuration has an interface. d.mu is held.
func (d *device) has(iface uint8) bool {
	for number := range d.settings() {
		if number == iface {
			return true
		}
	}
	return false
}

var errNotClaimed = errors.New("the interface is not claimed")

func (h *handle) Release(ctx context.Context, iface uint8) error {
	return h.locked(ctx, "release", func(d *device) error {
		d.mu.Lock()
		mine := d.claims[iface] == h
		d.mu.Unlock()
		if !mine {
			return errNotClaimed
		}
		d.release(iface)
		d.bind()
		return nil
	})
}

// release ends a claim. An interface is left in its first setting, as Linux leaves it.
func (d *device) release(iface uint8) {
	d.mu.Lock()
	d.abort(os.ErrClosed, func(f *flight) bool {
		owner, ok := d.owner(f.ep)
		return f.h != nil && ok && owner == iface
	})
	delete(d.claims, iface)
	alt := d.alts[iface]
	d.mu.Unlock()
	if alt != 0 {
		d.setAlt(iface, 0)
	}
}

// setAlt sends SET_INTERFACE. Transfers on the old setting's endpoints end.
func (d *device) setAlt(iface, alt uint8) error {
	d.mu.Lock()
	d.abort(errors.New("the alternate setting was changed"), func(f *flight) bool {
		owner, ok := d.owner(f.ep)
		return ok && owner == iface
	})
	d.mu.Unlock()
	if _, err := d.request(usb.Setup{Type: 1, Request: usb.ReqSetInterface, Value: uint16(alt), Index: uint16(iface)}); err != nil {
		return err
	}
	d.mu.Lock()
	d.alts[iface] = alt
	d.mu.Unlock()
	d.slot.host.changed()
	return nil
}

func (h *handle) SetAlt(ctx context.Context, iface, alt uint8) error {
	return h.locked(ctx, "set alternate setting", func(d *device) error {
		d.mu.Lock()
		mine, exists := d.claims[iface] == h, d.desc.Setting(d.config, iface, alt) != nil
		d.mu.Unlock()
		switch {
		case !mine:
			return errNotClaimed
		case !exists:
			return fmt.Errorf("interface %d has no alternate setting %d", iface, alt)
		}
		return d.setAlt(iface, alt)
	})
}

func (h *handle) Reset(ctx context.Context) error {
	err := h.locked(ctx, "reset", (*device).reset)
	if errors.Is(err, usb.ErrGone) {
		h.device.replug()
	}
	return err
}

// Recipients of a request (USB 2.0, table 9-2).
const (
	recipientMask      = 0x1f
	recipientInterface = 1
	typeMask           = 0x60
	typeVendor         = 0x40
)

func (h *handle) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	n, err := h.control(ctx, s, data)
	return n, h.failed("control", int(s.Type&0x80), err)
}

// control refuses what is meant for an interface that another program or a driver holds, as usbfs does.
func (h *handle) control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	d := h.device
	if s.Type&recipientMask == recipientInterface && s.Type&typeMask != typeVendor {
		iface := uint8(s.Index)
		d.mu.Lock()
		owner, name := d.claims[iface], d.drivers[iface]
		d.mu.Unlock()
		if name != "" || owner != nil && owner != h {
			return 0, usb.ErrBusy
		}
	}
	return d.control(ctx, h, s, data)
}

func (h *handle) StreamControl(ctx context.Context, idle time.Duration, transfers iter.Seq2[usb.Setup, []byte]) (int, error) {
	if idle <= 0 {
		idle = usb.DefaultTimeout
	}
	perform := func(s usb.Setup, data []byte) (int, error) {
		if s.ToHost() {
			return 0, errors.New("not a transfer to the device")
		}
		ctx, cancel := context.WithTimeout(ctx, idle)
		defer cancel()
		n, err := h.control(ctx, s, data)
		if err == nil && n < len(data) {
			err = fmt.Errorf("%d of %d bytes were taken", n, len(data))
		}
		return n, err
	}
	_, n, err := inFlight(func(yield func(pending) bool) {
		for s, data := range transfers {
			data = slices.Clone(data)
			if !yield(pending{len(data), func() (int, error) { return perform(s, data) }}) {
				return
			}
		}
	})
	return n, h.failed("control stream", 0, err)
}

func (h *handle) In(ctx context.Context, ep uint8, buf []byte) (int, error) {
	if ep&0x80 == 0 {
		return 0, h.failed("in", int(ep), errors.New("not an endpoint to the host"))
	}
	n, err := h.device.perform(ctx, h, ep, func(ctx context.Context) (int, error) { return h.device.dev.In(ctx, ep, buf) })
	return n, h.failed("in", int(ep), err)
}

func (h *handle) Out(ctx context.Context, ep uint8, data []byte) (int, error) {
	if ep&0x80 != 0 {
		return 0, h.failed("out", int(ep), errors.New("not an endpoint from the host"))
	}
	n, err := h.device.perform(ctx, h, ep, func(ctx context.Context) (int, error) { return h.device.dev.Out(ctx, ep, data) })
	return n, h.failed("out", int(ep), err)
}

func (h *handle) Stream(ctx context.Context, ep uint8, idle time.Duration, transfers iter.Seq[[]byte]) (int64, error) {
	if ep&0x80 != 0 {
		return 0, h.failed("stream", int(ep), errors.New("not an endpoint from the host"))
	}
	n, err := h.device.stream(ctx, h, ep, idle, transfers)
	return n, h.failed("stream", int(ep), err)
}

func (h *handle) ClearHalt(ctx context.Context, ep uint8) error {
	d := h.device
	d.mu.Lock()
	err := d.usable(h, ep)
	d.mu.Unlock()
	if err == nil {
		_, err = d.control(ctx, h, usb.Setup{Type: 2, Request: usb.ReqClearFeature, Index: uint16(ep)}, nil)
	}
	return h.failed("clear halt", int(ep), err)
}

func (h *handle) Close() error {
	d := h.device
	d.mu.Lock()
	if h.closed {
		d.mu.Unlock()
		return nil
	}
	h.closed = true
	d.abort(os.ErrClosed, func(f *flight) bool { return f.h == h })
	d.mu.Unlock()
	if d.hold(context.Background()) != nil {
		return nil // gone, and everything with it
	}
	defer d.letGo()
	d.mu.Lock()
	var mine []uint8
	for iface, owner := range d.claims {
		if owner == h {
			mine = append(mine, iface)
		}
	}
	d.mu.Unlock()
	for _, iface := range mine {
		d.release(iface)
	}
	d.bind()
	return nil
}
