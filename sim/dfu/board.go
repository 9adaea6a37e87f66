package dfu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"snag/sim/usbdev"
)

// Board is a virtual board. It lives from [New] to the end of one [Board.Run].
type Board struct {
	cfg     Config
	way     []stage
	settled chan struct{}

	mu     sync.Mutex
	report Report
	faults []Fault // still to come
}

// New makes a board that is not plugged in yet.
func New(cfg Config) (*Board, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("virtual DFU board: %w", err)
	}
	b := &Board{
		cfg:     c,
		way:     c.stages(),
		settled: make(chan struct{}),
		faults:  slices.Clone(c.Faults),
		report:  Report{Model: c.Model.Name, Outcome: Running, Stages: []Stage{}, Violations: []Count{}},
	}
	for i := range b.way {
		s := &b.way[i]
		s.alts = slices.DeleteFunc(slices.Clone(s.alts), func(a alt) bool { return slices.Contains(c.Missing, a.name) })
		if len(s.alts) == 0 {
			return nil, fmt.Errorf("virtual DFU board: stage %s has no alternate setting without %q", s.name, c.Missing)
		}
	}
	return b, nil
}

// Report returns what the board has seen so far.
func (b *Board) Report() Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.report
	r.Stages = slices.Clone(r.Stages)
	for i := range r.Stages {
		r.Stages[i] = r.Stages[i].clone()
	}
	r.Violations = slices.Clone(r.Violations)
	return r
}

// Settled is closed when nothing more happens by itself: U-Boot was started (and its gadget is on the bus, if there is
// one), the board is stuck for good, or it was unplugged.
func (b *Board) Settled() <-chan struct{} { return b.settled }

// How a stage ends, other than well.
var (
	errReset  = errors.New("reset")
	errUnplug = errors.New("unplugged")
)

// resetTime is how long a power cycle keeps the board off the bus.
const resetTime = 300 * time.Millisecond

// Run plugs the board into the port and powers it until the context ends, which unplugs it. The error is the carrier's;
// what became of the board is in [Board.Report].
func (b *Board) Run(ctx context.Context, port usbdev.Port) error {
	b.edit(func(r *Report) { r.Plugged = time.Now() })
	err := b.power(ctx, port)
	detachErr := port.Detach()
	b.edit(func(r *Report) {
		if r.Outcome == Running {
			r.Outcome = Unplugged
		}
	})
	b.settle()
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, detachErr)
}

func (b *Board) edit(f func(*Report)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.report)
}

func (b *Board) settle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.settled:
	default:
		close(b.settled)
	}
}

// stuck says that nothing goes on any more.
func (b *Board) stuck(why string) {
	b.edit(func(r *Report) { r.Outcome, r.Error = Stuck, why })
	b.settle()
}

// begin begins a Stage of the report.
func (b *Board) begin(st *stage) (index int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.report.Stages = append(b.report.Stages, Stage{
		Name: st.name, ID: b.cfg.Model.ID.String(), Release: fmt.Sprintf("%04x", st.release), Plugged: time.Now(),
		Selects: []uint8{}, Files: []File{}, Requests: map[string]int{},
	})
	return len(b.report.Stages) - 1
}

// violation records something that the host did wrong.
func (b *Board) violation(text string) {
	b.edit(func(r *Report) {
		for i := range r.Violations {
			if r.Violations[i].Text == text {
				r.Violations[i].N++
				return
			}
		}
		if len(r.Violations) < 100 {
			r.Violations = append(r.Violations, Count{text, 1})
		}
	})
}

// takeFault returns the next fault that is due in a stage when it has n bytes of files, or at the end of one, and uses it up.
func (b *Board) takeFault(stage string, n int, manifest bool) (Fault, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, f := range b.faults {
		if f.Stage == stage && f.Manifest == manifest && (manifest || n >= f.At) {
			b.faults = slices.Delete(b.faults, i, i+1)
			return f, true
		}
	}
	return Fault{}, false
}

// carrierError is a failure of what carries the board, not of the board.
type carrierError struct{ error }

func (e *carrierError) Unwrap() error { return e.error }

// power runs the board from power-on to power-on.
func (b *Board) power(ctx context.Context, port usbdev.Port) error {
	for {
		err := b.boot(ctx, port)
		var carrier *carrierError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &carrier):
			return err
		case errors.Is(err, errReset):
			b.edit(func(r *Report) { r.Resets, r.Outcome = r.Resets+1, Running })
			if err := sleep(ctx, resetTime); err != nil {
				return err
			}
			continue
		case errors.Is(err, errUnplug):
			b.edit(func(r *Report) { r.Outcome = Unplugged })
			b.settle()
		case err != nil:
			b.stuck(err.Error())
		default:
			b.edit(func(r *Report) { r.Outcome = Booted })
			b.settle()
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

// boot takes the board from its ROM to U-Boot. Without an error U-Boot runs, and shows nothing on USB.
func (b *Board) boot(ctx context.Context, port usbdev.Port) error {
	for i := 0; i < len(b.way); i++ {
		if b.way[i].name == b.cfg.Never {
			return fmt.Errorf("%s: it never shows on the bus", b.way[i].name)
		}
		if i > 0 {
			if err := sleep(ctx, b.cfg.StageDelay); err != nil {
				return err
			}
		}
		last, err := b.stage(ctx, port, i)
		if err != nil {
			return err
		}
		if b.way[last].last {
			b.edit(func(r *Report) { r.Outcome = Booted })
		}
		i = last
	}
	return nil
}

// AddressKeeper is a port that can give a device the USB address of the one before.
type AddressKeeper interface {
	AttachSame(ctx context.Context, dev usbdev.Device) error
}

// stage runs one enumeration, in which there may be several stages, and returns the last one's index.
func (b *Board) stage(ctx context.Context, port usbdev.Port, index int) (last int, err error) {
	d := b.newDevice(index)
	attach := port.Attach
	if keeper, ok := port.(AddressKeeper); ok && b.cfg.SameAddress && index > 0 {
		attach = keeper.AttachSame
	}
	if err := attach(ctx, d); err != nil {
		return index, &carrierError{err}
	}
	if b.way[index].stays {
		b.settle()
	}
	select {
	case err = <-d.end:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil && !b.cfg.EarlyLeave {
		err = sleep(ctx, b.cfg.LeaveDelay)
	}
	detachErr := port.Detach()
	d.gadget.Load().Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.edit(func(s *Stage) {
		s.Left = time.Now()
		if err != nil && s.Error == "" && ctx.Err() == nil {
			s.Error = err.Error()
		}
	})
	if detachErr != nil {
		return d.index, &carrierError{detachErr}
	}
	return d.index, err
}

func sleep(ctx context.Context, d time.Duration) error {
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
