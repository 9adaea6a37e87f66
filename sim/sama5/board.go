package sama5

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// Board is a virtual board. It lives from [New] to the end of one [Board.Run].
type Board struct {
	cfg   Config
	board *virtual.Board[*Stage]
}

// New makes a board that is not plugged in yet.
func New(cfg Config) (*Board, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("virtual SAMA5 board: %w", err)
	}
	return &Board{cfg: c, board: virtual.New[*Stage](c.Model.Name, c.Faults)}, nil
}

// Settled is closed when nothing more happens by itself: U-Boot was started, and its gadget is there if it has one, or
// the board is stuck or was unplugged.
func (b *Board) Settled() <-chan struct{} { return b.board.Settled() }

// Report returns what the board has seen so far.
func (b *Board) Report() Report { return b.board.Report() }

// Run plugs the board into the port and powers it until the context ends, which unplugs it. The error is the carrier's;
// what became of the board is in [Board.Report].
func (b *Board) Run(ctx context.Context, port usbdev.Port) error {
	return b.board.Run(ctx, port, func(ctx context.Context) error { return b.boot(ctx, port) })
}

// leaveTime is how long the device is on the bus after U-Boot was started.
const leaveTime = 20 * time.Millisecond

// boot takes the board from power-on to U-Boot.
func (b *Board) boot(ctx context.Context, port usbdev.Port) error {
	dev := newDevice(&b.cfg)
	m := &monitor{b: b, dev: dev, machine: newMachine(&b.cfg), report: &Stage{Commands: []string{}, Writes: []Write{}, Applets: []Applet{}}}
	err := b.board.Stage(ctx, port, StageROM, dev, m.report, func(ctx context.Context) error {
		err := m.serve(ctx)
		if !errors.Is(err, errStarted) {
			return err
		}
		if b.cfg.Stays {
			dev.dead.Store(true)
			b.board.Booted()
			return b.board.Stay(ctx)
		}
		return virtual.Sleep(ctx, leaveTime)
	})
	if err != nil {
		return err
	}
	return b.board.Gadget(ctx, port, b.cfg.Gadget, "Atmel", b.cfg.UBootDelay, &Stage{})
}
