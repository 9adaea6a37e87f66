// Package dfuboot has what the families that boot over DFU have in common: opening the DFU device of a stage, sending it
// a file with the events that tell of it, and making it go on to what it has received.
//
// What is sent where and in which order is the families' own (socs/k3, socs/rzn1). The protocol is in usb/dfu.
package dfuboot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"snag/event"
	"snag/socs"
	"snag/usb"
	"snag/usb/dfu"
)

// Deadlines. Stages do not answer while they copy a file, and on a host that has much to do; dfu-util waits for 5 s.
const (
	readyTime    = 10 * time.Second       // from the enumeration to readable names
	readyRetry   = 100 * time.Millisecond // and from one try to the next
	blockTime    = 10 * time.Second       // for a block, or any other request
	manifestTime = 30 * time.Second       // for what follows the last block
	leaveTime    = 10 * time.Second       // from DETACH to the disconnect
	goneTime     = time.Second            // from a transfer that failed to the board's end, if that was the cause
	progressTime = 100 * time.Millisecond
)

// ErrNoDFU says that a device has no DFU interface.
var ErrNoDFU = errors.New("it has no DFU interface")

// Link is the DFU device of a stage.
type Link struct {
	*dfu.Device
	stage *socs.Stage
	board socs.Board
}

// Open opens the DFU device of a stage. named says that its settings are expected to have names, which a gadget that has
// only just enumerated may not be ready to tell: it is asked again for some time. The error wraps [ErrNoDFU] if there is
// nothing to open.
func Open(ctx context.Context, board socs.Board, stage *socs.Stage, named bool) (*Link, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		d, err := dfu.Open(ctx, stage.USB)
		var transfer *usb.TransferError
		switch {
		case err == nil && !named, err == nil && slices.ContainsFunc(d.Alts, func(a dfu.Alt) bool { return a.Name != "" }):
			d.BlockTimeout, d.ManifestTimeout = blockTime, manifestTime
			return &Link{d, stage, board}, nil
		case err == nil:
			err = errors.New("none of its alternate settings has a name")
			d.Release(ctx)
		case !errors.As(err, &transfer):
			return nil, fmt.Errorf("%w: %w", ErrNoDFU, err)
		case !errors.Is(err, usb.ErrProtocol) && !errors.Is(err, usb.ErrStall):
			return nil, err
		}
		select {
		case <-stage.Gone:
			return nil, fmt.Errorf("%w (%w)", err, usb.ErrGone)
		case <-ctx.Done():
			return nil, fmt.Errorf("DFU device %s on port %s, after %s: %w", stage.ID, stage.Port, readyTime, err)
		case <-time.After(readyRetry):
		}
	}
}

// Has reports whether there is an alternate setting of a name.
func (l *Link) Has(name string) bool {
	_, err := l.Find(name)
	return err == nil
}

// Send sends a file to an alternate setting. name is the stage's. The error wraps [dfu.ErrLeft] if the device has the
// whole file and does not answer any more.
func (l *Link) Send(ctx context.Context, name string, alt dfu.Alt, img socs.Image) error {
	total := int64(len(img.Data))
	l.board.Emit(name, event.StageBegun{File: img.Path, Bytes: total})
	if err := l.Select(ctx, alt); err != nil {
		return err
	}
	begun := time.Now()
	var told time.Time
	err := l.Download(ctx, img.Data, func(n int) {
		now := time.Now()
		if n < len(img.Data) && now.Sub(told) < progressTime {
			return
		}
		told = now
		l.board.Emit(name, event.Progress{Bytes: int64(n), Total: total, Rate: float64(n) / max(now.Sub(begun), time.Millisecond).Seconds()})
	})
	if err == nil || errors.Is(err, dfu.ErrLeft) {
		l.board.Emit(name, event.StageDone{Summary: event.StageSummary{Stage: name, File: img.Path, Bytes: total, Duration: time.Since(l.stage.Since)}})
	}
	return err
}

// Leave sends DETACH, and waits until the device has left the bus. That is what counts: an answer there may be none.
func (l *Link) Leave(ctx context.Context) error {
	err := l.Detach(ctx)
	if gone, cause := wait(ctx, l.stage, leaveTime); gone || cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("DFU device %s on port %s did not leave within %s after DETACH", l.stage.ID, l.stage.Port, leaveTime)
}

// Gone completes the error of a failed transfer: a device that is unplugged may fail one before the host notices that
// it is gone.
func Gone(ctx context.Context, stage *socs.Stage, err error) error {
	if errors.Is(err, usb.ErrProtocol) && !errors.Is(err, usb.ErrGone) {
		if gone, _ := wait(ctx, stage, goneTime); gone {
			return fmt.Errorf("%w (%w)", err, usb.ErrGone)
		}
	}
	return err
}

// wait waits for a device to leave.
func wait(ctx context.Context, stage *socs.Stage, most time.Duration) (gone bool, err error) {
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-stage.Gone:
		return true, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case <-t.C:
		return false, nil
	}
}

// Hint tells what may have caused a failed transfer; empty if nothing is known.
func Hint(err error) string {
	switch {
	case errors.Is(err, usb.ErrBusy):
		return "end the other program (dfu-util, a virtual machine) that uses the board"
	case errors.Is(err, context.DeadlineExceeded):
		return "the stage does not answer any more: reset the board and run snag again; its serial console may tell why"
	}
	return ""
}
