package fastboot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/usb"
)

// Board is a virtual board. It lives from [New] to the end of one [Board.Run], [Board.ServeTCP] or [Board.ServeUDP].
type Board struct {
	cfg   Config
	board *virtual.Board[*Stage]

	// By board.Edit:
	partitions map[string]Partition
	variables  map[string]string // U-Boot's environment, as far as fastboot sees it
}

// New makes a board that is not plugged in yet.
func New(cfg Config) (*Board, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("virtual fastboot board: %w", err)
	}
	b := &Board{cfg: c, board: virtual.New[*Stage]("", c.Faults), partitions: map[string]Partition{}, variables: map[string]string{}}
	maps.Copy(b.variables, c.Variables)
	if c.UBoot != nil && c.UBoot.Violation == nil {
		c.UBoot.Violation = b.board.Violation
	}
	return b, nil
}

// Settled is closed when nothing more happens by itself: U-Boot's gadget is there, or has been left, or the board is
// stuck or was unplugged.
func (b *Board) Settled() <-chan struct{} { return b.board.Settled() }

// Report returns what the board has seen so far.
func (b *Board) Report() Report {
	r := Report{Report: b.board.Report()}
	b.edit(func() { r.Partitions = maps.Clone(b.partitions) })
	return r
}

func (b *Board) edit(f func()) { b.board.Edit(func(*virtual.Report[*Stage]) { f() }) }

// errStarted is the end of a stage that started what it was sent, and leaves the bus.
var errStarted = errors.New("started what it was sent")

// leaveTime is how long a stage is on the bus after its last answer.
const leaveTime = 50 * time.Millisecond

// Run plugs the board into the port and powers it until the context ends, which unplugs it. The error is the carrier's;
// what became of the board is in [Board.Report].
func (b *Board) Run(ctx context.Context, port usbdev.Port) error {
	return b.board.Run(ctx, port, func(ctx context.Context) error {
		if b.cfg.UBoot != nil {
			b.cfg.UBoot.Power()
		}
		err := b.boot(ctx, port)
		if errors.Is(err, errStarted) {
			return nil
		}
		return err
	})
}

// boot takes the board from power-on to the end of its last stage. It returns only with an error.
func (b *Board) boot(ctx context.Context, port usbdev.Port) error {
	if b.cfg.Before != nil {
		if err := b.cfg.Before(ctx, port); err != nil {
			return err
		}
	}
	if b.cfg.KeemBay {
		if err := b.stage(ctx, port, StageROM, KeemBayROM); !errors.Is(err, errStarted) {
			return err
		}
		if b.cfg.UBootNever {
			return errors.New("U-Boot never shows on the bus")
		}
		if err := virtual.Sleep(ctx, b.cfg.UBootDelay); err != nil {
			return err
		}
	}
	return b.stage(ctx, port, StageGadget, b.cfg.ID)
}

// stage runs a stage from plug to unplug.
func (b *Board) stage(ctx context.Context, port usbdev.Port, name string, id usb.ID) error {
	dev := newGadget(b, name, id)
	s := newStage(b, dev)
	return b.board.Stage(ctx, port, name, dev, s.report, func(ctx context.Context) error {
		if name == StageGadget {
			if b.cfg.KeemBay {
				b.board.Booted()
			}
			b.board.Settle()
		}
		err := s.serve(ctx)
		if errors.Is(err, errStarted) || errors.Is(err, virtual.ErrReset) && s.answered {
			if err := virtual.Sleep(ctx, leaveTime); err != nil {
				return err
			}
		}
		return err
	})
}
