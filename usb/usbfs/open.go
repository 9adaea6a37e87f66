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

// Open implements [usb.Host].
func (h Host) Open(ctx context.Context, d usb.Device) (usb.Handle, error) {
	fail := func(err error) error {
		return &usb.TransferError{Op: "open", Port: d.Port, ID: d.ID, Endpoint: -1, Err: err}
	}
	opened, err := h.open(d)
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
func (h Host) open(d usb.Device) (*handle, error) {
	if _, err := h.present(d); err != nil {
		return nil, err
	}
	fd, err := unix.Open(d.Node, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), d.Node) // blocking: not served by the runtime's poller
	// What is on the port now, and has the node's numbers, is what was opened, if that is still connected; newHandle
	// finds out.
	now, err := h.present(d)
	if err != nil {
		file.Close()
		return nil, err
	}
	opened, err := newHandle(now, h.Sysfs, file)
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
	events := make(chan struct{}, 1)
	_ = usb.Hotplug(watch, func(u usb.Uevent) { // where there is no socket, trying does
		if u.Port() == d.Port {
			select {
			case events <- struct{}{}:
			default:
			}
		}
	})
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
			if opened, err = h.open(d); !denied(err) {
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
