// Package dfustage has what the families share whose stages take files over DFU (package dfu): the way from enumeration to
// enumeration, and the sending of a file with all that is told of it.
//
// [Drive] asks the board for its enumerations and hands each to the family. [Open] opens one of them; [Session.Send]
// gives it a file.
package dfustage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snag/event"
	"snag/socs"
	"snag/usb"
	"snag/usb/dfu"
)

// Deadlines.
const (
	openTime     = 5 * time.Second        // in which a stage must tell what it offers
	askAgain     = 100 * time.Millisecond // while it does not
	blockTime    = 10 * time.Second       // for a block
	manifestTime = 30 * time.Second       // from the last block on
	leaveTime    = 10 * time.Second       // from DETACH to the disconnect
	goneTime     = time.Second            // from a transfer that failed to the board's end, if that was the cause
	progressTime = 100 * time.Millisecond
)

// MaxRuns is how often a recovery is begun: a board that is reset shows its ROM again, and so does one whose first stage
// does not start.
const MaxRuns = 3

// Runs counts the beginnings of a recovery.
type Runs int

// Begin counts one more, of a ROM whose stage has the name. It fails when they are too many.
func (r *Runs) Begin(board socs.Board, stage string) error {
	if *r++; *r > MaxRuns {
		return &socs.BoardError{Stage: stage, Err: fmt.Errorf("the boot ROM is back after the first stage was sent %d times", MaxRuns),
			Hint: "the first stage does not run on this board: check that it was built for this board and SoC, and that power and cable are good; a closed part starts signed images only"}
	}
	if *r > 1 {
		board.Emit(stage, event.Warning{Text: "the boot ROM is back: starting over"})
	}
	return nil
}

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
		err = whether(ctx, stage, err)
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

// whether finds out whether an error on the wire means that the board left: a transfer to a device that is unplugged may
// fail before the host notices that.
func whether(ctx context.Context, stage *socs.Stage, err error) error {
	if !errors.Is(err, usb.ErrProtocol) {
		return err
	}
	if Left(ctx, stage, goneTime) {
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

// Hint tells what may have caused a transfer's failure.
func Hint(err error) string {
	switch {
	case errors.Is(err, usb.ErrBusy):
		return "end the other program (dfu-util, STM32CubeProgrammer, a virtual machine) that uses the board"
	case errors.Is(err, context.DeadlineExceeded):
		return "reset the board and run snag again; connect it without hubs in between, and watch its serial console"
	case errors.Is(err, usb.ErrStall):
		return "the board refuses this: check that the firmware is for this board and its SoC, reset the board and run snag again"
	}
	if _, ok := errors.AsType[*dfu.StatusError](err); ok {
		return "check that the firmware is for this board and its SoC, reset the board and run snag again"
	}
	if _, ok := errors.AsType[*dfu.AltError](err); ok {
		return "the stage that runs does not take this file: check that all files are of one build"
	}
	return "reset the board and run snag again; try another cable, and a port without hubs in between"
}

// Session is an open stage.
type Session struct {
	*dfu.Device
	Stage *socs.Stage
	Board socs.Board
}

// Open opens a stage. A gadget that has just enumerated may not tell its names yet: it is asked until ready, or
// until it has had its time; what it says then counts.
func Open(ctx context.Context, board socs.Board, stage *socs.Stage, ready func(*dfu.Device) bool) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	for end := time.Now().Add(openTime - time.Second); ; {
		d, err := dfu.Open(ctx, stage.USB)
		if err != nil {
			return nil, err
		}
		if ready(d) || time.Now().After(end) {
			d.BlockTimeout, d.ManifestTimeout = blockTime, manifestTime
			return &Session{d, stage, board}, nil
		}
		if err := d.Release(ctx); err != nil {
			return nil, err
		}
		if Left(ctx, stage, askAgain) {
			return nil, fmt.Errorf("USB device %s on port %s: %w", stage.ID, stage.Port, usb.ErrGone)
		}
	}
}

// File is what a stage is sent.
type File struct {
	Path string
	Data []byte
}

// Send gives a file to an alternate setting, which it selects, and tells of it in the name of a stage. That the device does
// not answer any more after it has the whole file is success, and left is set: it starts what it has received.
func (s *Session) Send(ctx context.Context, name string, alt dfu.Alt, f File) (left bool, err error) {
	if err := s.Select(ctx, alt); err != nil {
		return false, err
	}
	s.Board.Emit(name, event.StageBegun{File: f.Path, Bytes: int64(len(f.Data))})
	begun := time.Now()
	var emitted time.Time
	tell := func(now time.Time, n int) {
		emitted = now
		s.Board.Emit(name, event.Progress{Bytes: int64(n), Total: int64(len(f.Data)), Rate: float64(n) / max(now.Sub(begun), time.Millisecond).Seconds()})
	}
	err = s.Download(ctx, f.Data, func(n int) {
		if now := time.Now(); n < len(f.Data) && now.Sub(emitted) >= progressTime {
			tell(now, n)
		}
	})
	if err != nil && !errors.Is(err, dfu.ErrLeft) {
		return false, fmt.Errorf("%s: %w", f.Path, err)
	}
	now := time.Now()
	tell(now, len(f.Data))
	s.Board.Emit(name, event.StageDone{Summary: event.StageSummary{Stage: name, File: f.Path, Bytes: int64(len(f.Data)), Duration: now.Sub(begun)}})
	return err != nil, nil
}

// Started finds out what became of a device that does not answer any more after it has the whole file. One that hangs looks
// almost like one that has started it: it is still on the wire.
func (s *Session) Started(ctx context.Context, alt dfu.Alt) error {
	if Left(ctx, s.Stage, goneTime) {
		return nil
	}
	ask, cancel := context.WithTimeout(ctx, goneTime)
	defer cancel()
	_, err := s.Status(ask)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("DFU device %s on port %s, alternate setting %s: it has the whole file, and neither answers nor leaves: %w", s.Stage.ID, s.Stage.Port, alt, err)
	}
	return nil
}

// Leave sends DETACH, and waits until the device has left the bus. That is what counts: an answer there may be none. One that says
// that it does not leave by itself (bitWillDetach) is given a reset of the bus (DFU 1.1, section 5.1).
func (s *Session) Leave(ctx context.Context) error {
	err := s.Detach(ctx)
	if s.Functional != (dfu.Functional{}) && !s.Functional.WillDetach && err == nil && !Left(ctx, s.Stage, goneTime) {
		err = s.Reset(ctx)
	}
	switch {
	case errors.Is(err, usb.ErrGone):
		return nil
	case Left(ctx, s.Stage, leaveTime):
		return nil
	case err != nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("DFU device %s on port %s did not leave within %s after DETACH", s.Stage.ID, s.Stage.Port, leaveTime)
}
