// Package dfustage has what the families share whose stages take files over DFU (package dfu), beside what [stages] has
// for all: [Open] opens an enumeration, and [Session.Send] gives it a file.
package dfustage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snag/socs"
	"snag/socs/stages"
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
	goneTime     = time.Second            // for a device that does not answer to leave, or to answer once more
)

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
		if stages.Left(ctx, stage, askAgain) {
			return nil, fmt.Errorf("USB device %s on port %s: %w", stage.ID, stage.Port, usb.ErrGone)
		}
	}
}

// File is what a stage is sent.
type File struct {
	Path string
	Data []byte
}

// Send gives a file to an alternate setting, which it selects, and tells of it in the name of a stage. That the device
// does not answer any more after it has the whole file is success, and left is set: it starts what it has received.
func (s *Session) Send(ctx context.Context, name string, alt dfu.Alt, f File) (left bool, err error) {
	if err := s.Select(ctx, alt); err != nil {
		return false, err
	}
	t := stages.Begin(s.Board, name, f.Path, len(f.Data))
	err = s.Download(ctx, f.Data, func(n int) {
		if n < t.Total { // else it is not over: the device may refuse the whole
			t.At(n)
		}
	})
	if err != nil && !errors.Is(err, dfu.ErrLeft) {
		return false, fmt.Errorf("%s: %w", f.Path, err)
	}
	t.Done()
	return err != nil, nil
}

// Started finds out what became of a device that does not answer any more after it has the whole file. One that hangs
// looks almost like one that has started it: it is still on the wire.
func (s *Session) Started(ctx context.Context, alt dfu.Alt) error {
	if stages.Left(ctx, s.Stage, goneTime) {
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

// Leave sends DETACH, and waits until the device has left the bus. That is what counts: an answer there may be none.
// One that says that it does not leave by itself (bitWillDetach) is given a reset of the bus (DFU 1.1, section 5.1).
func (s *Session) Leave(ctx context.Context) error {
	err := s.Detach(ctx)
	if s.Functional != (dfu.Functional{}) && !s.Functional.WillDetach && err == nil && !stages.Left(ctx, s.Stage, goneTime) {
		err = s.Reset(ctx)
	}
	switch {
	case errors.Is(err, usb.ErrGone):
		return nil
	case stages.Left(ctx, s.Stage, leaveTime):
		return nil
	case err != nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("DFU device %s on port %s did not leave within %s after DETACH", s.Stage.ID, s.Stage.Port, leaveTime)
}
