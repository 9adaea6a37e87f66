//go:build linux

package usbfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"snag/usb"
)

// How long permission may be missing after a plug.
const (
	udevTakes   = time.Minute            // where udevd runs, but does not say that it is done: it has many boards to see to, or hangs
	nobodyTakes = time.Second            // where it does not: a script may
	aclTakes    = 500 * time.Millisecond // from udevd's record of a device to its access list
	tryInterval = 50 * time.Millisecond  // where no uevent arrives
)

// kernelTakes is how long a device may be without a configuration after a plug. The kernel takes milliseconds, a program
// that has to allow the device (USBGuard) some more.
const kernelTakes = 2 * time.Second

// Open implements [usb.Host].
func (h Host) Open(ctx context.Context, d usb.Device) (usb.Handle, error) {
	fail := func(err error) error {
		return &usb.TransferError{Op: "open", Port: d.Port, ID: d.ID, Endpoint: -1, Err: err}
	}
	opened, err := h.open(ctx, d)
	if denied(err) {
		opened, err = h.retry(ctx, d)
	}
	var access *usb.AccessError
	switch {
	case err == nil:
		return opened, nil
	case errors.As(err, &access):
		return nil, err
	}
	return nil, fail(cause(err))
}

// denied says whether an error may be over when udevd has run.
func denied(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist)
}

// open opens the node, and makes sure that it is the device that was listed.
func (h Host) open(ctx context.Context, d usb.Device) (*handle, error) {
	fd, err := unix.Open(d.Node, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		if _, gone := h.present(d); gone != nil {
			return nil, gone
		}
		return nil, err // ENODEV, too, is of a device that leaves: one that comes is known to usbfs before its node is there
	}
	file := os.NewFile(uintptr(fd), d.Node) // blocking: not served by the runtime's poller
	// What is on the port now, and has the node's numbers, is what was opened, if that is still connected; newHandle
	// finds out.
	now, err := h.settled(ctx, d)
	if err != nil {
		file.Close()
		return nil, err
	}
	opened, err := newHandle(now, h, file)
	if err != nil {
		file.Close()
		return nil, err
	}
	if opened.desc.ID != d.ID || opened.desc.Release != d.Release {
		opened.Close()
		return nil, fmt.Errorf("%w: %s is %s now", usb.ErrGone, d.Node, opened.desc.ID)
	}
	return opened, nil
}

// settled returns d as it is when the kernel has configured it. The node is there before: the kernel makes it, tells of
// the device, and only then selects a configuration and makes its interfaces (Linux, drivers/usb/core/hub.c,
// usb_new_device; generic.c, usb_generic_driver_probe). A device that remains without one is returned as it is: a caller
// may select one.
func (h Host) settled(ctx context.Context, d usb.Device) (usb.Device, error) {
	config, err := h.config(d)
	if err == nil && config == 0 {
		config, err = h.configured(ctx, d)
	}
	if err != nil || config == d.Config { // with its address, and its configuration, it is as it was listed
		return d, err
	}
	return h.present(d)
}

// configured waits until a device has a configuration. It returns 0 if it gets none.
func (h Host) configured(ctx context.Context, d usb.Device) (int, error) {
	watch, cancel := context.WithTimeout(ctx, kernelTakes)
	defer cancel()
	events := hear(watch, d.Port) // the interfaces' "add", or the device's "bind"
	again := time.NewTicker(tryInterval)
	defer again.Stop()
	for {
		if config, err := h.config(d); err != nil || config != 0 {
			return config, err
		}
		select {
		case <-events:
		case <-again.C:
		case <-watch.Done():
			if ctx.Err() != nil {
				return 0, why(ctx)
			}
			return 0, nil
		}
	}
}

// config is the active configuration of d, 0 if it has none. While the kernel selects one, sysfs has it wait.
func (h Host) config(d usb.Device) (int, error) {
	address, config, err := h.Sysfs.Active(d.Port)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV):
		return 0, usb.ErrGone
	case err == nil && address != d.Address:
		return 0, fmt.Errorf("%w: port %s has address %d, not %d, now", usb.ErrGone, d.Port, address, d.Address)
	}
	return config, err
}

// hear returns a channel that gets a value when a uevent of a port has come, until ctx ends.
func hear(ctx context.Context, p usb.Port) <-chan struct{} {
	events := make(chan struct{}, 1)
	_ = usb.Hotplug(ctx, func(u usb.Uevent) { // where there is no socket, trying does
		if u.Port() == p {
			select {
			case events <- struct{}{}:
			default:
			}
		}
	})
	return events
}

// present returns what is on d's port, if that is d.
func (h Host) present(d usb.Device) (usb.Device, error) {
	now, err := h.Sysfs.Device(d.Port)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV):
		return now, usb.ErrGone
	case err != nil:
		return now, err
	case now.Bus != d.Bus || now.Address != d.Address || now.ID != d.ID || now.Release != d.Release || now.Serial != d.Serial:
		return now, fmt.Errorf("%w: port %s has %s, address %d, now", usb.ErrGone, d.Port, now.ID, now.Address)
	}
	return now, nil
}

// retry opens again whenever udevd may have run for a device.
func (h Host) retry(ctx context.Context, d usb.Device) (*handle, error) {
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	events := hear(watch, d.Port)
	limit := nobodyTakes
	if _, err := os.Stat("/run/udev/control"); err == nil {
		limit = udevTakes
	}
	late := time.NewTimer(limit)
	defer late.Stop()
	again := time.NewTicker(tryInterval)
	defer again.Stop()
	for look := true; ; {
		err := unix.Access(d.Node, unix.R_OK|unix.W_OK) // of what costs little first: udevd may have to see to many boards
		if look || !errors.Is(err, fs.ErrPermission) {
			var opened *handle
			if opened, err = h.open(ctx, d); !denied(err) {
				return opened, err
			}
		}
		if age, ok := recorded(d.Node); ok && age > aclTakes {
			return nil, d.Denied(err)
		}
		look = false
		select {
		case <-events:
			look = true
		case <-again.C:
		case <-late.C:
			return nil, d.Denied(err)
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", why(ctx), d.Denied(err))
		}
	}
}

// recorded says how long ago udevd wrote down that it knows a device, which it does when its rules have run
// (sd-device/device-private.c).
func recorded(node string) (time.Duration, bool) {
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		return 0, false
	}
	fi, err := os.Stat(fmt.Sprintf("/run/udev/data/c%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))))
	if err != nil {
		return 0, false
	}
	return time.Since(fi.ModTime()), true
}
