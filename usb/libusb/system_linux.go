package libusb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/gousb"

	"snag/usb"
)

// lookInterval is how often Watch looks without a uevent: none arrives in a user namespace.
const lookInterval = 500 * time.Millisecond

// releaseResets says that SET_INTERFACE for setting 0 is sent when an interface with another setting is released
// (usb_unbind_interface in Linux's drivers/usb/core/driver.c).
const releaseResets = true

func devices() ([]usb.Device, error) { return usb.Sysfs{}.Devices() }

// hotplug calls f when a device comes or goes.
func hotplug(ctx context.Context, f func()) {
	_ = usb.Hotplug(ctx, func(usb.Uevent) { f() }) // where there is no socket, looking does
}

// present says whether a device that was listed is still there. While it is reset it has no address.
func present(_ *gousb.Context, d usb.Device) bool {
	now, err := usb.Sysfs{}.Device(d.Port)
	return err == nil && now.Bus == d.Bus && (now.Address == d.Address || now.Address == 0) && now.ID == d.ID && now.Release == d.Release && now.Serial == d.Serial
}

// rawDescriptors are a device's descriptors as the kernel read them.
func rawDescriptors(_ context.Context, h *Handle) ([]byte, error) {
	return os.ReadFile(filepath.Join("/sys/bus/usb/devices", string(h.info.Port), "descriptors"))
}

// How long permission may be missing after a plug.
const (
	udevTakes   = 5 * time.Second       // where udevd runs; then its rules have run, or it hangs
	nobodyTakes = time.Second           // where it does not: a script may
	tryInterval = 50 * time.Millisecond // where no uevent arrives
)

// accessible waits until the device's node may be opened, or udevd must have run.
func accessible(ctx context.Context, d usb.Device) error {
	err := d.Access()
	if err == nil {
		return nil
	}
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	events := make(chan struct{}, 1)
	hotplug(watch, func() {
		select {
		case events <- struct{}{}:
		default:
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
	for {
		if !present(nil, d) {
			return usb.ErrGone
		}
		if err = d.Access(); err == nil {
			return nil
		}
		select {
		case <-events:
		case <-again.C:
		case <-late.C:
			return err
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", why(ctx), err)
		}
	}
}

// isAccess says whether an error is accessible's last word.
func isAccess(err error) bool {
	var access *usb.AccessError
	return errors.As(err, &access)
}
