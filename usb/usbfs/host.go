//go:build linux

package usbfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"snag/usb"
)

// Host is Linux's USB. It implements [usb.Host]. The zero value is the running system; tests point it elsewhere.
type Host struct {
	Sysfs usb.Sysfs

	// Quick has Go's scheduler not told of the system calls by which transfers begin and end: they are over sooner than
	// it could be (docs/bench.md). But one waits while somebody else configures, resets or removes the device, which the
	// kernel bounds, and a garbage collection waits with it. So it is not for a process that is the device, too.
	Quick bool
}

var (
	_ usb.Host   = Host{}
	_ usb.Peerer = Host{}
	_ usb.Looker = Host{}
	_ usb.Handle = (*handle)(nil)
)

// Devices implements [usb.Host].
func (h Host) Devices() ([]usb.Device, error) { return h.Sysfs.Devices() }

// Device implements [usb.Looker].
func (h Host) Device(p usb.Port) (usb.Device, error) {
	d, err := h.Sysfs.Device(p)
	switch {
	case errors.Is(err, unix.ENODEV):
		return d, fmt.Errorf("port %s: %w: %w", p, fs.ErrNotExist, err)
	case err == nil && d.Address == 0: // as in Sysfs.Devices
		return d, fmt.Errorf("port %s: %w: the device is being reset", p, fs.ErrNotExist)
	}
	return d, err
}

// Peer implements [usb.Peerer].
func (h Host) Peer(p usb.Port) (usb.Port, error) { return h.Sysfs.Peer(p) }

// How often Watch looks by itself.
const (
	lookInterval  = 500 * time.Millisecond // where no uevent arrives, as in a user namespace
	heardInterval = 2 * time.Second        // where some have, but one may be lost
)

// Watch implements [usb.Host].
func (h Host) Watch(ctx context.Context) (<-chan struct{}, error) {
	changes := make(chan struct{}, 1)
	changed := func() {
		select {
		case changes <- struct{}{}:
		default: // not received yet
		}
	}
	events := make(chan struct{}, 1)
	seen, err := h.Sysfs.Fingerprint()
	if err != nil {
		return nil, err
	}
	// Where there is no socket for uevents, looking does.
	_ = usb.Hotplug(ctx, func(usb.Uevent) {
		select {
		case events <- struct{}{}:
		default:
		}
	})
	changed()
	go func() {
		defer close(changes)
		ticker := time.NewTicker(lookInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-events:
				changed()
				ticker.Reset(heardInterval)
			case <-ticker.C:
				if now, err := h.Sysfs.Fingerprint(); err == nil && now != seen {
					seen = now
					changed()
				}
			}
		}
	}()
	return changes, nil
}
