package fastboot

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

// Board is a virtual board. It lives from [New] to the end of one [Board.Run], [Board.ServeTCP] or [Board.ServeUDP].
type Board struct {
	cfg     Config
	settled chan struct{}

	mu        sync.Mutex
	report    Report
	faults    []Fault           // still to come
	variables map[string]string // U-Boot's environment, as far as fastboot sees it
}

// New makes a board that is not plugged in yet.
func New(cfg Config) (*Board, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("virtual fastboot board: %w", err)
	}
	b := &Board{
		cfg: c, settled: make(chan struct{}), faults: slices.Clone(c.Faults), variables: make(map[string]string),
		report: Report{Outcome: Running, Stages: []Stage{}, Partitions: map[string]Partition{}, Violations: []Count{}},
	}
	for name, value := range c.Variables {
		b.variables[name] = value
	}
	return b, nil
}

// Settled is closed when nothing more happens by itself: U-Boot's gadget is there, or has been left, or the board is stuck or
// was unplugged.
func (b *Board) Settled() <-chan struct{} { return b.settled }

func (b *Board) settle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.settled:
	default:
		close(b.settled)
	}
}

// How a stage ends, other than by the carrier.
var (
	errStarted = errors.New("started what it was sent") // and leaves the bus
	errReset   = errors.New("reset")
	errUnplug  = errors.New("unplugged")
)

// resetTime is how long a power cycle keeps the board off the bus; leaveTime how long a stage is there after its last answer.
const (
	resetTime = 300 * time.Millisecond
	leaveTime = 50 * time.Millisecond
)

// Run plugs the board into the port and powers it until the context ends, which unplugs it. The error is the carrier's; what
// became of the board is in [Board.Report].
func (b *Board) Run(ctx context.Context, port usbdev.Port) error {
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
		case errors.Is(err, errStarted):
			b.edit(func(r *Report) { r.Outcome = Booted })
		default:
			b.edit(func(r *Report) { r.Outcome, r.Error = Stuck, err.Error() })
		}
		b.settle()
		<-ctx.Done()
		return ctx.Err()
	}
}

// carrierError is a failure of what carries the board, not of the board.
type carrierError struct{ error }

func (e *carrierError) Unwrap() error { return e.error }

// boot takes the board from power-on to the end of its last stage. It returns only with an error.
func (b *Board) boot(ctx context.Context, port usbdev.Port) error {
	if b.cfg.KeemBay {
		if err := b.stage(ctx, port, StageROM, KeemBayROM); !errors.Is(err, errStarted) {
			return err
		}
		if b.cfg.UBootNever {
			return errors.New("U-Boot never shows on the bus")
		}
		if err := sleep(ctx, b.cfg.UBootDelay); err != nil {
			return err
		}
	}
	return b.stage(ctx, port, StageGadget, b.cfg.ID)
}

// stage runs a stage from plug to unplug.
func (b *Board) stage(ctx context.Context, port usbdev.Port, name string, id usb.ID) error {
	dev := newGadget(b, name, id)
	defer dev.Close()
	if err := port.Attach(ctx, dev); err != nil {
		return &carrierError{err}
	}
	s := b.begin(name, id.String(), dev)
	if name == StageGadget {
		if b.cfg.KeemBay {
			b.edit(func(r *Report) { r.Outcome = Booted })
		}
		b.settle()
	}
	err := s.serve(ctx)
	if errors.Is(err, errStarted) || errors.Is(err, errReset) && s.answered {
		if err := sleep(ctx, leaveTime); err != nil {
			return err
		}
	}
	s.edit(func(t *Stage) {
		if err != nil && ctx.Err() == nil {
			t.Error = err.Error()
		}
	})
	if detachErr := port.Detach(); detachErr != nil {
		return &carrierError{detachErr}
	}
	return fmt.Errorf("%s: %w", name, err)
}

// takeFault returns the next fault that is due, and uses it up.
func (b *Board) takeFault(stage, command string, n int) (Fault, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, f := range b.faults {
		if f.Stage == stage && f.Command == command && (command != "" || n >= f.At) {
			b.faults = slices.Delete(b.faults, i, i+1)
			return f, true
		}
	}
	return Fault{}, false
}

// nextByte is how many bytes of data may come before a fault is due; at most n.
func (b *Board) nextByte(stage string, received, n int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.faults {
		if f.Stage == stage && f.Command == "" && f.At > received {
			n = min(n, f.At-received)
		}
	}
	return n
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
