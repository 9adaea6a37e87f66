package qcom

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
		return nil, fmt.Errorf("virtual Qualcomm board: %w", err)
	}
	return &Board{cfg: c, board: virtual.New[*Stage]("iq9075", c.Faults)}, nil
}

// Report returns what the board has seen so far.
func (b *Board) Report() Report { return b.board.Report() }

// Settled is closed when nothing more happens by itself: the last image was started (and U-Boot's gadget is on the bus,
// if there is one), the board is stuck, or it was unplugged.
func (b *Board) Settled() <-chan struct{} { return b.board.Settled() }

// Run plugs the board into the port and powers it until the context ends, which unplugs it. The error is the carrier's;
// what became of the board is in [Board.Report].
func (b *Board) Run(ctx context.Context, port usbdev.Port) error {
	mode, eaten := b.cfg.Mode, b.cfg.Eaten
	return b.board.Run(ctx, port, func(ctx context.Context) error {
		err := b.boot(ctx, port, mode, eaten)
		mode, eaten = Image, false // a power cycle brings it to its ROM
		return err
	})
}

// errAgain is the end of a session whose image goes on with another one.
var errAgain = errors.New("the image leaves the bus and comes back")

// boot takes the board from power-on to its end.
func (b *Board) boot(ctx context.Context, port usbdev.Port, mode Mode, eaten bool) error {
	d := newDevice(b, mode)
	rom := &Stage{Images: []Transfer{}}
	err := b.board.Stage(ctx, port, StageROM, d, rom, func(ctx context.Context) error {
		s := &session{b: b, device: d, report: rom, eaten: eaten}
		return s.rom(ctx, mode)
	})
	if errors.Is(err, errAgain) {
		if err = virtual.Sleep(ctx, b.cfg.Delay); err != nil {
			return err
		}
		d, xbl := newDevice(b, Image), &Stage{Images: []Transfer{}}
		err = b.board.Stage(ctx, port, StageXBL, d, xbl, func(ctx context.Context) error {
			s := &session{b: b, device: d, report: xbl}
			return s.image(ctx, b.cfg.IDs[1])
		})
	}
	if err != nil {
		return err
	}
	return b.board.Gadget(ctx, port, b.cfg.Gadget, "U-Boot", b.cfg.Delay, &Stage{Images: []Transfer{}})
}

// rom is the session that begins with the ROM, and that xbl or a programmer may go on with.
func (s *session) rom(ctx context.Context, mode Mode) error {
	if mode == Firehose {
		return s.programmer(ctx)
	}
	s.mode = map[Mode]uint32{Image: modeImage, Dump: modeDump, Command: modeCommand}[mode]
	if err := s.image(ctx, s.b.cfg.IDs[0]); err != nil {
		return err
	}
	switch {
	case s.b.cfg.Single:
		if err := virtual.Sleep(ctx, s.b.cfg.Delay); err != nil {
			return err
		}
		return s.programmer(ctx)
	case s.b.cfg.Reenumerate && s.b.cfg.Never == "":
		return errAgain
	}
	s.report = &Stage{Images: []Transfer{}}
	s.got = 0
	s.b.board.Begin(StageXBL, s.Descriptors(), s.report)
	if s.b.cfg.Never != "" {
		s.b.board.Stuck("it does not start")
		<-ctx.Done()
		return ctx.Err()
	}
	if err := virtual.Sleep(ctx, s.b.cfg.Delay); err != nil {
		return err
	}
	return s.image(ctx, s.b.cfg.IDs[1])
}
