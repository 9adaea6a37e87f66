// Package recovery is the engine: it checks the firmware, waits for a board, locks its port,
// follows it there from stage to stage, and hands each stage to the family's backend.
//
// A board is a physical port. What it enumerates as changes at every stage; the engine finds the
// new device or network interface on the same port, moves an interface into a namespace of the
// board's own (netsetup), and gives the backend what carries the stage. Everything it sees and does
// is told as events; a failure is one error that says which board, where it stood, and why.
package recovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"snag/event"
	"snag/socs"
	"snag/usb"
)

// DefaultTimeout is long enough for two of the longest pauses that a boot ROM was seen to make
// between requests, and for both transfers of a slow board.
const DefaultTimeout = 5 * time.Minute

// Options say what to recover and how.
type Options struct {
	Backend  socs.Backend
	Model    socs.Model
	Firmware socs.Firmware // as read; it is checked before anything else is done
	Then     []Leg         // what follows with the same board, on its port

	// Which board: its port, or the USB ID that it shows, or neither: the one board of the family.
	Port usb.Port
	ID   usb.ID

	ROM, SPL usb.ID // replace the family's own IDs, if not zero

	UART string // recover over this tty instead
	Baud int    // 115200 if zero

	Net     Net           // who drives a network adapter
	NetNS   string        // look for interfaces in this named network namespace (root only)
	Timeout time.Duration // for all of it; DefaultTimeout if zero
	Wait    time.Duration // until the board appears; as long as Timeout if zero
	OnWait  string        // shell command to run when the board is awaited
	Expect  usb.ID        // after the last stage wait for this device on the port, if not zero

	USB  usb.Host // finds devices, and opens those of families that boot over plain USB
	Emit event.Sink
	Log  *slog.Logger
}

// Leg is the part of a run that one backend does.
type Leg struct {
	Backend  socs.Backend
	Model    socs.Model
	Firmware socs.Firmware // as read; it is checked before anything is done
}

// Run recovers one board. Whatever happens, the last event is a Done or a Failed, and the error is
// nil or an *Error.
func Run(ctx context.Context, opt Options) error {
	if opt.Timeout == 0 {
		opt.Timeout = DefaultTimeout
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Emit == nil {
		opt.Emit = func(event.Event) {}
	}
	b := newBoard(opt)
	start := time.Now()
	err := b.recover(ctx)
	b.close()
	if err == nil {
		b.Emit("", event.Done{Duration: time.Since(start), Stages: b.done})
		return nil
	}
	failure := &Error{Port: b.name(), SoC: b.opt.Model.Name, Stage: b.stage, Err: err}
	if stuck, ok := errors.AsType[*socs.BoardError](err); ok && stuck.Stage != "" {
		failure.Stage = stuck.Stage // of which there may have been no event yet
	}
	b.Emit(failure.Stage, event.Failed{Err: err, Hint: Hint(err), ExitCode: ExitCode(err), Duration: time.Since(start), Stages: b.done})
	return failure
}

// errTimeout is the cause of a context that the overall timeout ended.
var errTimeout = errors.New("overall timeout")

func (b *board) recover(ctx context.Context) error {
	opt := &b.opt
	legs := append([]Leg{{opt.Backend, opt.Model, opt.Firmware}}, opt.Then...)
	for i := range legs {
		if err := b.check(&legs[i]); err != nil {
			return err
		}
	}

	ctx, cancelTimeout := context.WithTimeoutCause(ctx, opt.Timeout, errTimeout)
	defer cancelTimeout()
	ctx, b.fail = context.WithCancelCause(ctx)
	defer b.fail(nil)
	if opt.Port == "" && opt.UART == "" {
		first := board{rom: b.rom, later: b.later} // a later leg's are other ones
		id := opt.ID
		b.aside.Go(func() {
			b.watchRivals(ctx, func(d usb.Device) bool { return first.known(d) && (id == usb.ID{} || d.ID == id) })
		})
	}

	for i, leg := range legs {
		if i > 0 {
			b.begin(leg)
		}
		err := b.open(ctx)
		if err == nil {
			err = leg.Backend.Recover(ctx, socs.Job{Model: leg.Model, Firmware: leg.Firmware, Board: b})
		}
		if err != nil {
			return b.explain(ctx, err)
		}
	}
	if opt.Expect != (usb.ID{}) {
		return b.explain(ctx, b.expect(ctx))
	}
	return nil
}

// check has a leg's backend check its firmware, and replaces that by what is to be sent.
func (b *board) check(leg *Leg) error {
	firmware, findings, err := leg.Backend.Check(leg.Model, leg.Firmware)
	for _, f := range findings {
		if f.Warning {
			b.Emit("", event.Warning{Text: f.Text})
		} else {
			b.Emit("", event.Note{Text: f.Text})
		}
	}
	leg.Firmware = firmware
	return err
}

// explain turns the end of a context into what ended it.
func (b *board) explain(ctx context.Context, err error) error {
	if why := b.closed(err); why != nil {
		return why
	}
	if errors.Is(err, errUserLink) {
		return &socs.BoardError{Stage: b.stage, Err: err, Hint: "reset the board and run snag again; try another cable or hub port"}
	}
	cause := context.Cause(ctx)
	switch {
	case err == nil || cause == nil:
		return err
	case errors.Is(cause, context.Canceled):
		return ErrInterrupted
	case !errors.Is(cause, errTimeout):
		return cause
	case !b.seen:
		return b.noBoard(err)
	}
	if _, stuck := errors.AsType[*socs.BoardError](err); stuck {
		return err
	}
	text := fmt.Sprintf("not done within the overall timeout of %s", b.opt.Timeout)
	switch {
	case b.waiting != "":
		text += ": still waiting for " + b.waiting
	case b.sending != "":
		through := fmt.Sprint(b.through.Bytes)
		if b.through.Total >= 0 {
			through += fmt.Sprintf(" of %d", b.through.Total)
		}
		text += fmt.Sprintf(": %s bytes of %s were through, and nothing new since %s", through, b.sending, time.Since(b.moved).Round(100*time.Millisecond))
	}
	return &socs.BoardError{Stage: b.stage, Err: errors.New(text),
		Hint: "give it longer with --timeout, or reset the board and try again"}
}
