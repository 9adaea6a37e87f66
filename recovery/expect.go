package recovery

import (
	"context"
	"fmt"
	"time"

	"snag/event"
	"snag/socs"
)

// expectPatience is how long U-Boot may take from its last byte to its USB gadget.
const expectPatience = 60 * time.Second

// expect waits until the device that proves that the last stage runs stands on the board's port. The stage before may
// bear the same ID: only an enumeration after it counts. One that the backend was handed, and that it found to be no
// stage of its own, is such.
func (b *board) expect(ctx context.Context) error {
	b.Emit("", event.Waiting{For: fmt.Sprintf("USB device %s on port %s", b.opt.Expect, b.port), Deadline: expectPatience})
	ctx, cancel := context.WithTimeoutCause(ctx, expectPatience, errAway)
	defer cancel()
	change, err := b.opt.USB.Watch(ctx)
	if err != nil {
		return err
	}
	found := "nothing is there"
	for {
		select {
		case <-ctx.Done():
			if context.Cause(ctx) != errAway {
				return context.Cause(ctx)
			}
			return &socs.BoardError{Stage: b.stage,
				Err:  fmt.Errorf("everything was sent, but %s did not appear on port %s within %s: %s", b.opt.Expect, b.port, expectPatience, found),
				Hint: "watch the serial console of U-Boot; does its configuration start that gadget by itself?"}
		case _, ok := <-change:
			if !ok { // with the context that ends this wait too
				change = nil
				continue
			}
		}
		d, ok := b.device()
		switch {
		case !ok:
			found = "nothing is there"
		case (b.handle == nil || !b.stageDone.IsZero()) && !b.fresh(d):
			found = "the stage before is still there"
		case d.ID != b.opt.Expect:
			found = fmt.Sprintf("%s is there", d.ID)
		default:
			b.Emit("", event.BoardSeen{ID: d.ID.String(), Product: d.Product, Device: d.Node})
			return nil
		}
	}
}
