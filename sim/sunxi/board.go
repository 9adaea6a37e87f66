package sunxi

import (
	"context"
	"errors"
	"fmt"

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
		return nil, fmt.Errorf("virtual Allwinner board: %w", err)
	}
	return &Board{cfg: c, board: virtual.New[*Stage](c.Model.Name, c.Faults)}, nil
}

// Report returns what the board has seen so far.
func (b *Board) Report() Report { return b.board.Report() }

// Settled is closed when nothing more happens by itself: U-Boot was started (and its gadget is on the bus, if there is
// one), the board is stuck for good, or it was unplugged.
func (b *Board) Settled() <-chan struct{} { return b.board.Settled() }

// Run plugs the board into the port and powers it until the context ends, which unplugs it. The error is the carrier's;
// what became of the board is in [Board.Report].
func (b *Board) Run(ctx context.Context, port usbdev.Port) error {
	return b.board.Run(ctx, port, func(ctx context.Context) error { return b.power(ctx, port) })
}

// Resetter is a [Machine] that has to be told of a power cycle.
type Resetter interface {
	Reset(ctx context.Context) error
}

// power takes the board from power-on to the end of that.
func (b *Board) power(ctx context.Context, port usbdev.Port) error {
	err := b.boot(ctx, port)
	if m, ok := b.cfg.Machine.(Resetter); ok && errors.Is(err, virtual.ErrReset) {
		if err := m.Reset(ctx); err != nil {
			return &virtual.CarrierError{Err: err}
		}
	}
	return err
}

// boot takes the board from its ROM to U-Boot. Without an error U-Boot runs, and shows nothing on USB.
func (b *Board) boot(ctx context.Context, port usbdev.Port) error {
	s := b.session()
	err := b.board.Stage(ctx, port, StageROM, s.dev, s.stage, func(ctx context.Context) error {
		if err := s.serve(ctx); err != nil {
			return err
		}
		b.board.Booted()
		if b.cfg.Lingers {
			return b.board.Stay(ctx)
		}
		return virtual.Sleep(ctx, b.cfg.LeaveDelay)
	})
	if err != nil {
		return err
	}
	return b.board.Gadget(ctx, port, b.cfg.Gadget, "Allwinner", b.cfg.GadgetDelay, newStage())
}
