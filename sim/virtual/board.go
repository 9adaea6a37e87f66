package virtual

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"snag/sim/usbdev"
	"snag/usb"
)

// How a stage ends, other than well.
var (
	ErrReset  = errors.New("reset")
	ErrUnplug = errors.New("unplugged")
)

// resetTime is how long a power cycle keeps the board off the bus.
const resetTime = 300 * time.Millisecond

// Board is a virtual board. It lives from [New] to the end of one [Board.Run].
type Board[S Staged] struct {
	// SameAddress lets each stage but the ROM keep the USB address of the one before, on an [AddressKeeper].
	SameAddress bool
	// Watchdog power-cycles a board whose stage gave up, after this time. Zero: it stays stuck.
	Watchdog time.Duration

	settled chan struct{}

	mu     sync.Mutex
	report Report[S]
	faults []Fault // still to come
}

// New makes a board that is not plugged in yet. The model's name may be empty.
func New[S Staged](model string, faults []Fault) *Board[S] {
	return &Board[S]{
		settled: make(chan struct{}),
		faults:  slices.Clone(faults),
		report:  Report[S]{Model: model, Outcome: Running, Stages: []S{}, Violations: []Count{}},
	}
}

// Report returns what the board has seen so far.
func (b *Board[S]) Report() Report[S] {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.report.Stages {
		s.base().sum()
	}
	return b.report.clone()
}

// Settled is closed when nothing more happens by itself.
func (b *Board[S]) Settled() <-chan struct{} { return b.settled }

// Settle closes Settled.
func (b *Board[S]) Settle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.settled:
	default:
		close(b.settled)
	}
}

// Edit changes the report, or a stage that is in it.
func (b *Board[S]) Edit(f func(*Report[S])) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.report)
}

// end settles the board.
func (b *Board[S]) end(o Outcome, why string) {
	b.Edit(func(r *Report[S]) { r.Outcome, r.Error = o, why })
	b.Settle()
}

// Stuck says that nothing goes on any more in the stage that runs.
func (b *Board[S]) Stuck(why string) {
	b.Edit(func(r *Report[S]) { r.Outcome, r.Error = Stuck, b.running()+": "+why })
	b.Settle()
}

// running is the name of the stage that runs, or that was the last to run. b.mu is held.
func (b *Board[S]) running() string {
	if len(b.report.Stages) == 0 {
		return ""
	}
	return b.report.Stages[len(b.report.Stages)-1].base().Name
}

// Violation records something that the host did wrong to the stage that runs.
func (b *Board[S]) Violation(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := b.running() + ": " + fmt.Sprintf(format, args...)
	v := &b.report.Violations
	i := slices.IndexFunc(*v, func(c Count) bool { return c.Text == text })
	switch {
	case i >= 0:
		(*v)[i].N++
	case len(*v) < 100:
		*v = append(*v, Count{text, 1})
	}
}

// Run plugs the board into the port and powers it until the context ends, which unplugs it. boot takes the board from
// power-on to its last stage, each time: it returns nil if that runs and shows nothing on USB, else [ErrReset],
// [ErrUnplug] or why the board is stuck. A board that settled stays as it is. The error is the carrier's.
func (b *Board[S]) Run(ctx context.Context, port usbdev.Port, boot func(context.Context) error) error {
	b.Edit(func(r *Report[S]) { r.Plugged = time.Now() })
	err := b.power(ctx, boot)
	detachErr := port.Detach()
	b.Edit(func(r *Report[S]) {
		if r.Outcome == Running {
			r.Outcome = Unplugged
		}
	})
	b.Settle()
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, detachErr)
}

// power runs the board from power-on to power-on.
func (b *Board[S]) power(ctx context.Context, boot func(context.Context) error) error {
	for {
		err := boot(ctx)
		_, carrier := errors.AsType[*CarrierError](err)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case carrier:
			return err
		case errors.Is(err, ErrReset):
		case errors.Is(err, ErrUnplug):
			b.end(Unplugged, "")
		case err == nil:
			b.end(Booted, "")
		case b.Watchdog > 0:
			if err := Sleep(ctx, b.Watchdog); err != nil {
				return err
			}
			err = ErrReset
		default:
			b.end(Stuck, err.Error())
		}
		if !errors.Is(err, ErrReset) {
			<-ctx.Done()
			return ctx.Err()
		}
		b.Edit(func(r *Report[S]) { r.Resets, r.Outcome = r.Resets+1, Running })
		if err := Sleep(ctx, resetTime); err != nil {
			return err
		}
	}
}

// CarrierError is a failure of what carries the board, not of the board.
type CarrierError struct{ Err error }

func (e *CarrierError) Error() string { return e.Err.Error() }
func (e *CarrierError) Unwrap() error { return e.Err }

// AddressKeeper is a port that can give a device the USB address of the one before.
type AddressKeeper interface {
	AttachSame(ctx context.Context, dev usbdev.Device) error
}

// Device is what a stage has on the bus.
type Device interface {
	usbdev.Device
	Close()
}

// Begin begins a stage in the report, which is the one that runs from now on. The descriptors may be nil.
func (b *Board[S]) Begin(name string, d *usbdev.Descriptors, s S) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := s.base()
	t.Name, t.Plugged = name, time.Now()
	if d != nil {
		t.ID, t.Release = d.ID.String(), fmt.Sprintf("%04x", d.Release)
	}
	b.report.Stages = append(b.report.Stages, s)
}

// Stage runs a stage from plug to unplug: it plugs dev in, calls run, unplugs and closes dev. s is the stage in the
// report. The error is run's with the stage's name.
func (b *Board[S]) Stage(ctx context.Context, port usbdev.Port, name string, dev Device, s S, run func(context.Context) error) error {
	defer dev.Close()
	b.Begin(name, dev.Descriptors(), s)
	attach := port.Attach
	if keeper, ok := port.(AddressKeeper); ok && b.SameAddress && name != StageROM {
		attach = keeper.AttachSame
	}
	if err := attach(ctx, dev); err != nil {
		return &CarrierError{err}
	}
	b.Edit(func(*Report[S]) { s.base().Plugged = time.Now() })
	err := run(ctx)
	if detachErr := port.Detach(); detachErr != nil {
		return &CarrierError{detachErr}
	}
	dev.Close()
	b.Edit(func(r *Report[S]) {
		last := r.Stages[len(r.Stages)-1].base() // s, or one that went on with its device
		last.Left = time.Now()
		if err != nil && ctx.Err() == nil && last.Error == "" {
			last.Error = err.Error()
		}
		name = last.Name
	})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Booted notes that the last stage was started. What settles the board may still come.
func (b *Board[S]) Booted() { b.Edit(func(r *Report[S]) { r.Outcome = Booted }) }

// Stay settles the board, and waits until it is unplugged: the run of a stage that does nothing more.
func (b *Board[S]) Stay(ctx context.Context) error {
	b.Settle()
	<-ctx.Done()
	return ctx.Err()
}

// Gadget runs U-Boot, which shows its gadget after a delay and stays. Without an ID it shows nothing on USB.
func (b *Board[S]) Gadget(ctx context.Context, port usbdev.Port, id usb.ID, manufacturer string, delay time.Duration, s S) error {
	b.Booted()
	if id == (usb.ID{}) {
		return nil
	}
	if err := Sleep(ctx, delay); err != nil {
		return err
	}
	return b.Stage(ctx, port, StageGadget, UBoot(id, manufacturer), s, b.Stay)
}

// UBoot is the gadget of U-Boot's fastboot, which answers nothing here.
func UBoot(id usb.ID, manufacturer string) *usbdev.Gadget {
	return usbdev.NewGadget(&usbdev.Descriptors{
		Speed: usbdev.HighSpeed, ID: id, Manufacturer: manufacturer, Product: "USB download gadget",
		Configs: []usbdev.Config{{Value: 1, Attributes: 0x40, MaxPower: 1, Interfaces: []usbdev.Interface{{
			Class: 0xff, SubClass: 0x42, Protocol: 0x03,
			Endpoints: []usbdev.Endpoint{{Address: 0x81, Type: usbdev.Bulk, MaxPacket: 512}, {Address: 0x01, Type: usbdev.Bulk, MaxPacket: 512}},
		}}}},
	}, usbdev.Inert{})
}

// Sleep waits for a time; not at all if that is not positive. The error is the context's.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
