// Package stages has what the families share whose boards enumerate on USB: the way from one enumeration to the next,
// and what is told of a file on its way to a board.
//
// [Drive] asks the board for its enumerations and hands each to the family; [Runs] counts how often the ROM was begun
// with, and [Transfer] tells of a file.
package stages

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snag/event"
	"snag/event/progress"
	"snag/socs"
	"snag/usb"
)

// goneTime is from a transfer that failed to the board's end, if that was the cause.
const goneTime = time.Second

// rom is the stage of the boot ROM.
const rom = "rom"

// Drive hands every enumeration of a board to serve, until that says that the board has everything or fails. name is
// the stage that serve is at, for errors. A board that leaves is waited for; other errors of serve become
// *socs.BoardErrors, with the hint that hint has for them.
func Drive(ctx context.Context, board socs.Board, serve func(context.Context, *socs.Stage) (done bool, err error), name func() string, hint func(error) string) error {
	for {
		stage, err := board.Next(ctx)
		if err != nil {
			return err
		}
		done, err := serve(ctx, stage)
		err = Gone(ctx, stage, err)
		var stuck *socs.BoardError
		switch {
		case err == nil && done:
			return nil
		case err == nil:
		case context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case errors.As(err, &stuck):
			return err
		case errors.Is(err, usb.ErrGone):
			board.Emit(name(), event.Warning{Text: fmt.Sprintf("the board left port %s: %v; waiting for it to come back", stage.Port, err)})
		default:
			return &socs.BoardError{Stage: name(), Err: err, Hint: hint(err)}
		}
	}
}

// Gone finds out whether an error on the wire means that the board left: a transfer to a device that is unplugged may
// fail before the host notices that. The error wraps usb.ErrGone then.
func Gone(ctx context.Context, stage *socs.Stage, err error) error {
	if errors.Is(err, usb.ErrProtocol) && !errors.Is(err, usb.ErrGone) && Left(ctx, stage, goneTime) {
		return fmt.Errorf("%w (%w)", err, usb.ErrGone)
	}
	return err
}

// Left waits for a stage to leave its port, for a time.
func Left(ctx context.Context, stage *socs.Stage, within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-stage.Gone:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

// MaxRuns is how often a recovery is begun: a board that is reset shows its ROM again, and so does one whose first
// stage does not start.
const MaxRuns = 3

// Runs counts the beginnings of a recovery.
type Runs struct {
	Did  string // what was done each time; empty: the first stage was sent
	Hint string // what to do when it was done too often; empty: what there is to say of a first stage
	n    int
}

// Begin counts one more. It fails when they are too many.
func (r *Runs) Begin(board socs.Board) error {
	if r.n++; r.n > MaxRuns {
		did, hint := r.Did, r.Hint
		if did == "" {
			did = "the first stage was sent"
		}
		if hint == "" {
			hint = "the first stage does not run on this board: check that it was built for this board and SoC, and that power and cable are good; a closed part starts signed images only"
		}
		return &socs.BoardError{Stage: rom, Err: fmt.Errorf("the boot ROM is back after %s %d times", did, MaxRuns), Hint: hint}
	}
	if r.n > 1 {
		board.Emit(rom, event.Warning{Text: "the boot ROM is back: starting over"})
	}
	return nil
}

// Transfer is a file on its way to a board.
type Transfer = progress.Transfer[int]

// Begin tells that a stage begins, which takes total bytes of a file.
func Begin(board socs.Board, stage, file string, total int) *Transfer {
	return progress.Begin(board.Emit, stage, file, total)
}
