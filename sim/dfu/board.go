package dfu

import (
	"context"
	"fmt"
	"slices"

	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// Board is a virtual board. It lives from [New] to the end of one [Board.Run].
type Board struct {
	cfg   Config
	way   []stage
	board *virtual.Board[*Stage]
}

// New makes a board that is not plugged in yet.
func New(cfg Config) (*Board, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("virtual DFU board: %w", err)
	}
	b := &Board{cfg: c, way: c.stages(), board: virtual.New[*Stage](c.Model.Name, c.Faults)}
	b.board.SameAddress = c.SameAddress
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
func (b *Board) Report() Report { return b.board.Report() }

// Settled is closed when nothing more happens by itself: U-Boot was started (and its gadget is on the bus, if there is
// one), the board is stuck for good, or it was unplugged.
func (b *Board) Settled() <-chan struct{} { return b.board.Settled() }

// Run plugs the board into the port and powers it until the context ends, which unplugs it. The error is the carrier's;
// what became of the board is in [Board.Report].
func (b *Board) Run(ctx context.Context, port usbdev.Port) error {
	return b.board.Run(ctx, port, func(ctx context.Context) error { return b.boot(ctx, port) })
}

// boot takes the board from its ROM to U-Boot. Without an error U-Boot runs, and shows nothing on USB.
func (b *Board) boot(ctx context.Context, port usbdev.Port) error {
	for i := 0; i < len(b.way); i++ {
		if b.way[i].name == b.cfg.Never {
			return fmt.Errorf("%s: it never shows on the bus", b.way[i].name)
		}
		if i > 0 {
			if err := virtual.Sleep(ctx, b.cfg.StageDelay); err != nil {
				return err
			}
		}
		d := b.newDevice(i)
		err := b.board.Stage(ctx, port, b.way[i].name, d, d.report, func(ctx context.Context) error {
			if b.way[i].stays {
				b.board.Settle()
			}
			return d.wait(ctx)
		})
		if err != nil {
			return err
		}
		i = d.index
		if b.way[i].last {
			b.board.Booted()
		}
	}
	return nil
}
