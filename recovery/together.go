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

// lookout is how long nobody looks for rivals after the choice, and between two looks: each lists all devices, which
// takes the processor from the first blocks of a recovery, and an enumeration is a dozen changes.
const lookout = 250 * time.Millisecond

// watchRivals ends the run if the board was chosen only because it was the first of several that are like it. Nothing
// waits for that: a boot ROM's first request is not to be missed for it.
func (b *board) watchRivals(ctx context.Context, like func(usb.Device) bool) {
	var chosen candidate
	select {
	case chosen = <-b.chosen:
	case <-ctx.Done():
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var change <-chan struct{}
	end := time.Now().Add(together)
	for left := together; left > 0; left = time.Until(end) {
		select {
		case <-time.After(min(lookout, left)):
		case <-ctx.Done():
			return
		}
		if change == nil {
			var err error
			if change, err = b.opt.USB.Watch(ctx); err != nil {
				b.opt.Log.Info("nobody looks for other boards", "err", err)
				return
			}
		}
		select {
		case <-change:
		default:
			continue
		}
		devices, _ := b.opt.USB.Devices()
		for _, d := range devices {
			if d.Port == chosen.port || d.Port == b.peer || !like(d) || portLocked(b.lockName(d.Port, b.peerOf(d.Port))) {
				continue
			}
			b.fail(&UsageError{
				Err:  fmt.Errorf("2 boards match, plugged in together: %s, which was begun with, and %s", chosen, candidate{d.Port, d.ID}),
				Hint: fmt.Sprintf("name one of them: --usb-path %s or --usb-path %s; reset the one that was begun with", chosen.port, d.Port),
			})
			return
		}
	}
}
