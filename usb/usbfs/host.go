//go:build linux

package usbfs

import (
	"context"
	"slices"
	"time"

	"snag/usb"
)

// Host is Linux's USB. It implements [usb.Host]. The zero value is the running system; tests point it elsewhere.
type Host struct {
	Sysfs usb.Sysfs
}

var (
	_ usb.Host   = Host{}
	_ usb.Peerer = Host{}
	_ usb.Handle = (*handle)(nil)
)

// Devices implements [usb.Host].
func (h Host) Devices() ([]usb.Device, error) { return h.Sysfs.Devices() }

// Peer implements [usb.Peerer].
func (h Host) Peer(p usb.Port) (usb.Port, error) { return h.Sysfs.Peer(p) }

// lookInterval is how often Watch looks by itself: where no uevent arrives, as in a user namespace, and where one was lost.
const lookInterval = 500 * time.Millisecond

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
	seen, err := h.Devices()
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
			case <-ticker.C:
				if now, err := h.Devices(); err == nil && !slices.EqualFunc(seen, now, same) {
					seen = now
					changed()
				}
			}
		}
	}()
	return changes, nil
}

// same says whether nothing has changed that a list of devices shows.
func same(a, b usb.Device) bool {
	return a.Port == b.Port && a.Address == b.Address && a.Config == b.Config && slices.Equal(a.Interfaces, b.Interfaces)
}
