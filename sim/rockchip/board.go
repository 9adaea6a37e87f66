package rockchip

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
		return nil, fmt.Errorf("virtual Rockchip board: %w", err)
	}
	b := &Board{cfg: c, board: virtual.New[*Stage](c.Model.Name, c.Faults)}
	b.board.SameAddress = c.SameAddress
	return b, nil
}

// Report returns what the board has seen so far.
func (b *Board) Report() Report { return b.board.Report() }

// Settled is closed when nothing more happens by itself: what the ROM was sent runs (and its USB plug or gadget is on
// the bus, if there is one), the board is stuck for good, or it was unplugged.
func (b *Board) Settled() <-chan struct{} { return b.board.Settled() }

// Run plugs the board into the port and powers it until the context ends, which unplugs it. The error is the carrier's;
// what became of the board is in [Board.Report].
func (b *Board) Run(ctx context.Context, port usbdev.Port) error {
	loader := b.cfg.Loader // at the first power-on only: it is reset into the ROM
	return b.board.Run(ctx, port, func(ctx context.Context) error {
		if loader {
			loader = false
			return b.plug(ctx, port)
		}
		return b.boot(ctx, port)
	})
}

// boot takes the board from its ROM to what runs then.
func (b *Board) boot(ctx context.Context, port usbdev.Port) error {
	m := newMaskrom(b)
	if err := b.board.Stage(ctx, port, StageROM, m, m.report, m.run); err != nil {
		return err
	}
	if m.plug {
		if b.cfg.NeverPlug {
			return errors.New("the USB plug never shows on the bus")
		}
		if err := virtual.Sleep(ctx, b.cfg.PlugDelay); err != nil {
			return err
		}
		b.board.Booted()
		if b.cfg.PlugTwice {
			if err := b.glimpse(ctx, port); err != nil {
				return err
			}
		}
		return b.plug(ctx, port)
	}
	return b.board.Gadget(ctx, port, b.cfg.Gadget, "Rockchip", b.cfg.PlugDelay, newStage())
}

// glimpse shows the plug for a moment in which it answers nothing.
func (b *Board) glimpse(ctx context.Context, port usbdev.Port) error {
	d := usbdev.NewGadget(b.descriptors(0x0201), usbdev.Inert{})
	return b.board.Stage(ctx, port, StagePlug, d, newStage(), func(ctx context.Context) error { return virtual.Sleep(ctx, 10*time.Millisecond) })
}

func newStage() *Stage { return &Stage{Sections: []Section{}} }

// The endpoints of ROM and plug.
const (
	epIn  = 0x81
	epOut = 0x02
)

// descriptors are those of ROM, plug and loader. Rockchip's interface is vendor specific, 6, 5 in all; bit 0 of bcdUSB
// tells them apart.
func (b *Board) descriptors(bcdUSB uint16) *usbdev.Descriptors {
	return &usbdev.Descriptors{
		Speed: usbdev.HighSpeed, USB: bcdUSB, ID: b.cfg.Model.ID, Release: 0x0100,
		Configs: []usbdev.Config{{Value: 1, MaxPower: 200, Interfaces: []usbdev.Interface{{
			Class: 0xff, SubClass: 6, Protocol: 5,
			Endpoints: []usbdev.Endpoint{{Address: epIn, Type: usbdev.Bulk, MaxPacket: 512}, {Address: epOut, Type: usbdev.Bulk, MaxPacket: 512}},
		}}}},
	}
}
