//go:build !linux

package libusb

import (
	"context"
	"slices"
	"time"

	"github.com/google/gousb"

	"snag/usb"
)

// lookInterval is how often Watch looks.
const lookInterval = time.Second

// releaseResets says that SET_INTERFACE for setting 0 is sent when an interface with another setting is released.
const releaseResets = false

func devices() ([]usb.Device, error) {
	lib, err := start()
	if err != nil {
		return nil, err
	}
	defer lib.Close()
	return list(lib), nil
}

func hotplug(context.Context, func()) {}

// present says whether a device that was listed is still there.
func present(lib *gousb.Context, d usb.Device) bool {
	return slices.ContainsFunc(list(lib), func(now usb.Device) bool {
		return now.Bus == d.Bus && now.Address == d.Address && now.ID == d.ID && now.Release == d.Release
	})
}

func rawDescriptors(ctx context.Context, h *Handle) ([]byte, error) { return getDescriptors(ctx, h) }

func accessible(context.Context, usb.Device) error { return nil }

func isAccess(error) bool { return false }
