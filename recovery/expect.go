package recovery

import (
	"context"
	"fmt"
	"time"

	"snag/event"
	"snag/socs"
	"snag/usb"
)

// expectPatience is how long U-Boot may take from its last byte to its USB gadget.
const expectPatience = 60 * time.Second

// expect waits until the device that proves that the last stage runs stands on the board's port.
// The stage before may bear the same ID: only a new enumeration counts.
func (b *board) expect(ctx context.Context) error {
	b.Emit("", event.Waiting{For: fmt.Sprintf("USB device %s on port %s", b.opt.Expect, b.port), Deadline: expectPatience})
	ctx, cancel := context.WithTimeoutCause(ctx, expectPatience, errAway)
	defer cancel()
	wake := make(chan struct{}, 1)
	err := usb.Hotplug(ctx, func(usb.Uevent) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		b.opt.Log.Info("no uevents", "err", err)
	}
	tick := time.NewTicker(100 * time.Millisecond) // under the uevents, which a user namespace does not get
	defer tick.Stop()
	found := "nothing is there"
	for {
		if d, err := b.opt.Sysfs.Device(b.port); err != nil {
			found = "nothing is there"
		} else if d.Address == b.address {
			found = "the stage before is still there"
		} else if d.ID != b.opt.Expect {
			found = fmt.Sprintf("%s is there", d.ID)
		} else {
			b.Emit("", event.BoardSeen{ID: d.ID.String(), Product: d.Product, Device: d.Node})
			return nil
		}
		select {
		case <-ctx.Done():
			if context.Cause(ctx) != errAway {
				return context.Cause(ctx)
			}
			return &socs.BoardError{Stage: b.stage,
				Err:  fmt.Errorf("everything was sent, but %s did not appear on port %s within %s: %s", b.opt.Expect, b.port, expectPatience, found),
				Hint: "watch the serial console of U-Boot; does its configuration start that gadget by itself?"}
		case <-wake:
		case <-tick.C:
		}
	}
}
