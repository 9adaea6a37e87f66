package recovery

import (
	"context"
	"fmt"
	"time"

	"snag/usb"
)

// together is how long after its choice a board's only rival may come and still count as plugged in with it. A hub
// brings up its ports one after the other, some 200 ms each: of boards that get power at once one is always the first.
const together = 2 * time.Second

// watchRivals ends the run if the board was chosen only because it was the first of several that are like it. Nothing
// waits for that: a boot ROM's first request is not to be missed for it.
func (b *board) watchRivals(ctx context.Context, like func(usb.Device) bool) {
	var port usb.Port
	select {
	case port = <-b.chosen:
	case <-ctx.Done():
		return
	}
	ctx, cancel := context.WithTimeout(ctx, together)
	defer cancel()
	change, err := b.opt.USB.Watch(ctx)
	if err != nil {
		b.opt.Log.Info("nobody looks for other boards", "err", err)
		return
	}
	for range change { // until ctx ends
		devices, _ := b.opt.USB.Devices()
		for _, d := range devices {
			if d.Port == port || d.Port == b.peer || !like(d) || portLocked(lockName(d.Port, b.peerOf(d.Port))) {
				continue
			}
			b.fail(&UsageError{
				Err:  fmt.Errorf("2 boards match, plugged in together: %s, which was begun with, and %s (%s)", port, d.Port, d.ID),
				Hint: fmt.Sprintf("name one of them: --usb-path %s or --usb-path %s; reset the one that was begun with", port, d.Port),
			})
			return
		}
	}
}
