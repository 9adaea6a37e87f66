package ums

import (
	"context"
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
		return nil, fmt.Errorf("virtual mass storage board: %w", err)
	}
	return &Board{cfg: c, board: virtual.New[*Stage]("", c.Faults)}, nil
}

// Settled is closed when nothing more happens by itself: the gadget is there, or has been left, or the board is stuck
// or was unplugged.
func (b *Board) Settled() <-chan struct{} { return b.board.Settled() }

// Report returns what the board has seen so far.
func (b *Board) Report() Report { return b.board.Report() }

// Storage is that of a unit.
func (b *Board) Storage(lun int) Storage { return b.cfg.Units[lun].Storage }

// Run plugs the board into the port and powers it until the context ends, which unplugs it. The error is the carrier's;
// what became of the board is in [Board.Report]: booted means that the host has ejected it.
func (b *Board) Run(ctx context.Context, port usbdev.Port) error {
	return b.board.Run(ctx, port, func(ctx context.Context) error {
		d := newDevice(b)
		return b.board.Stage(ctx, port, StageGadget, d, d.report, func(ctx context.Context) error {
			b.board.Settle()
			err := d.serve(ctx)
			b.board.Edit(func(*virtual.Report[*Stage]) {
				for i, u := range b.cfg.Units {
					if m, ok := u.Storage.(*Memory); ok {
						d.report.Units[i].Sum = m.Sum()
					}
				}
			})
			return err
		})
	})
}
