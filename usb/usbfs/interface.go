//go:build linux

package usbfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"snag/usb"
)

// request performs f, which may take some seconds in the kernel, when those before it are over. f goes on when ctx
// ends.
func (h *handle) request(ctx context.Context, op string, ep int, f func() error) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if ctx.Err() != nil {
		return h.failed(op, ep, why(ctx))
	}
	select {
	case h.interfaces <- struct{}{}:
	case <-ctx.Done():
		return h.failed(op, ep, why(ctx))
	}
	h.mu.Lock()
	if h.closing {
		h.mu.Unlock()
		<-h.interfaces
		return h.failed(op, ep, os.ErrClosed)
	}
	h.requests.Add(1)
	h.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		defer h.requests.Done()
		err := f()
		<-h.interfaces
		done <- err
	}()
	select {
	case err := <-done:
		return h.failed(op, ep, cause(err))
	case <-ctx.Done():
		return h.failed(op, ep, why(ctx))
	}
}

// Claim implements [usb.Handle].
func (h *handle) Claim(ctx context.Context, iface uint8) error {
	return h.request(ctx, "claim", -1, func() error {
		h.mu.Lock()
		c := h.claims[iface]
		h.mu.Unlock()
		if c != nil {
			return nil
		}
		detached, err := h.claim(iface)
		if err == nil {
			h.mu.Lock()
			h.claims[iface] = &claim{detached: detached}
			h.mu.Unlock()
		}
		return err
	})
}

// claim takes an interface. It says whether a kernel driver had it.
func (h *handle) claim(iface uint8) (detached bool, err error) {
	driver, err := h.driver(iface)
	if err != nil {
		return false, err
	}
	detached = driver != "" && driver != "usbfs"
	dc := disconnectClaim{Interface: uint32(iface), Flags: exceptDriver}
	copy(dc.Driver[:], "usbfs")
	err = h.ioctl(reqDisconnectClaim, unsafe.Pointer(&dc))
	if errors.Is(err, unix.ENOTTY) { // before Linux 3.7
		if detached {
			if err := h.toDriver(iface, reqDisconnect); err != nil && !errors.Is(err, unix.ENODATA) {
				return false, err
			}
		}
		err = unix.EBUSY
	}
	if errors.Is(err, unix.EBUSY) {
		// Another program's, or this handle's: a request to an interface that nobody has claims it.
		n := uint32(iface)
		err = h.ioctl(reqClaim, unsafe.Pointer(&n))
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("the active configuration has no interface %d", iface)
	}
	return detached && err == nil, err
}

// driver is the name of the driver that is bound to an interface; empty if there is none.
func (h *handle) driver(iface uint8) (string, error) {
	gd := getDriver{Interface: uint32(iface)}
	err := h.ioctl(reqGetDriver, unsafe.Pointer(&gd))
	if errors.Is(err, unix.ENODATA) {
		return "", nil
	}
	name, _, _ := bytes.Cut(gd.Driver[:], []byte{0})
	return string(name), err
}

// toDriver performs a request for an interface's driver.
func (h *handle) toDriver(iface uint8, code uintptr) error {
	return h.ioctl(reqDriver, unsafe.Pointer(&driverIoctl{Interface: int32(iface), Code: int32(code)}))
}

var errNotClaimed = errors.New("the interface is not claimed")

// Release implements [usb.Handle]. The kernel selects alternate setting 0 of the interface.
func (h *handle) Release(ctx context.Context, iface uint8) error {
	return h.request(ctx, "release", -1, func() error {
		h.mu.Lock()
		c := h.claims[iface]
		h.mu.Unlock()
		if c == nil {
			return errNotClaimed
		}
		if err := h.release(iface); err != nil {
			return err
		}
		if c.detached {
			return h.rebind(iface)
		}
		return nil
	})
}

func (h *handle) release(iface uint8) error {
	h.mu.Lock()
	delete(h.claims, iface)
	h.mu.Unlock()
	n := uint32(iface)
	return h.ioctl(reqRelease, unsafe.Pointer(&n))
}

// rebind has the kernel look for a driver of an interface. Another program may have been faster.
func (h *handle) rebind(iface uint8) error {
	if err := h.toDriver(iface, reqConnect); err != nil && !errors.Is(err, unix.EBUSY) {
		return err
	}
	return nil
}

// giveBack releases all interfaces, and only then has drivers bound again: one of them may want several interfaces. An
// error of a device that is gone, or unconfigured, is none.
func (h *handle) giveBack() error {
	h.mu.Lock()
	claims := make(map[uint8]*claim, len(h.claims))
	for iface, c := range h.claims {
		claims[iface] = c
	}
	h.mu.Unlock()
	var first error
	keep := func(err error) {
		if first == nil && err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EHOSTUNREACH) {
			first = err
		}
	}
	for iface := range claims {
		keep(h.release(iface))
	}
	for iface, c := range claims {
		if c.detached {
			keep(h.rebind(iface))
		}
	}
	return first
}

// Abandon implements [usb.Abandoner].
func (h *handle) Abandon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.claims {
		c.detached = false
	}
}

// SetAlt implements [usb.Handle].
func (h *handle) SetAlt(ctx context.Context, iface, alt uint8) error {
	return h.request(ctx, "set alternate setting", -1, func() error {
		h.mu.Lock()
		c, exists := h.claims[iface], h.desc.Setting(h.config, iface, alt) != nil
		h.mu.Unlock()
		switch {
		case c == nil:
			return errNotClaimed
		case !exists:
			return fmt.Errorf("interface %d has no alternate setting %d", iface, alt)
		}
		err := h.ioctl(reqSetInterface, unsafe.Pointer(&setInterface{uint32(iface), uint32(alt)}))
		if err == nil {
			h.mu.Lock()
			c.alt = alt
			h.mu.Unlock()
		}
		return err
	})
}

// ClearHalt implements [usb.Handle].
func (h *handle) ClearHalt(ctx context.Context, ep uint8) error {
	return h.request(ctx, "clear halt", int(ep), func() error {
		if _, err := h.packet(ep); err != nil {
			return err
		}
		n := uint32(ep)
		return h.ioctl(reqClearHalt, unsafe.Pointer(&n))
	})
}

// Configure implements [usb.Handle]. Kernel drivers are detached from the interfaces of the configuration that ends.
func (h *handle) Configure(ctx context.Context, value uint8) error {
	return h.request(ctx, "configure", -1, func() error {
		address, config, err := h.sysfs.Active(h.dev.Port)
		if err != nil || address != h.dev.Address {
			return unix.ENODEV
		}
		h.mu.Lock()
		h.config = uint8(config)
		n := len(h.claims)
		h.mu.Unlock()
		switch {
		case config == int(value):
			return nil
		case n > 0:
			return fmt.Errorf("%w: %d interfaces are claimed", usb.ErrBusy, n)
		}
		active, err := h.sysfs.Device(h.dev.Port)
		if err != nil || active.Address != h.dev.Address {
			return unix.ENODEV
		}
		// The kernel refuses while anything is bound.
		var detached []uint8
		defer func() {
			for _, iface := range detached { // only after a failure: the new interfaces get drivers by themselves
				_ = h.rebind(iface)
			}
		}()
		for _, i := range active.Interfaces {
			iface := uint8(i.Number)
			bound, err := h.claim(iface)
			if err != nil {
				return err
			}
			if bound {
				detached = append(detached, iface)
			}
			if err := h.release(iface); err != nil {
				return err
			}
		}
		v := uint32(value)
		err = h.ioctl(reqSetConfiguration, unsafe.Pointer(&v))
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("the device has no configuration %d", value)
		}
		if err != nil {
			return err
		}
		detached = nil
		h.mu.Lock()
		h.config = value
		h.mu.Unlock()
		return nil
	})
}

// Reset implements [usb.Handle]. Claims survive, alternate settings do not: they are 0 afterwards.
func (h *handle) Reset(ctx context.Context) error {
	return h.request(ctx, "reset", -1, func() error {
		// The kernel would take the interfaces from usbfs, and offer them to its drivers after the reset.
		h.mu.Lock()
		claims := make(map[uint8]*claim, len(h.claims))
		for iface, c := range h.claims {
			claims[iface] = c
		}
		h.mu.Unlock()
		for iface := range claims {
			if err := h.release(iface); err != nil {
				return err
			}
		}
		err := h.ioctl(reqReset, nil)
		if errors.Is(err, unix.ENODEV) {
			return err // it comes back with another address, if at all
		}
		if desc, derr := readDescriptors(h.file); derr != nil || !bytes.Equal(desc.Raw, h.desc.Raw) {
			return unix.ENODEV
		}
		for iface, c := range claims {
			detached, cerr := h.claim(iface)
			if cerr != nil {
				err = errors.Join(err, cerr)
				continue
			}
			h.mu.Lock()
			h.claims[iface] = &claim{detached: detached || c.detached}
			h.mu.Unlock()
		}
		return err
	})
}
