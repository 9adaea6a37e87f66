package bcm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

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
		return nil, fmt.Errorf("virtual Broadcom board: %w", err)
	}
	return &Board{cfg: c, board: virtual.New[*Stage](c.Model.Name, c.Faults)}, nil
}

// Report returns what the board has seen so far.
func (b *Board) Report() Report { return b.board.Report() }

// Settled is closed when nothing more happens by itself: the kernel or U-Boot was started (and its gadget is on the
// bus, if there is one), the board is stuck, or it was unplugged.
func (b *Board) Settled() <-chan struct{} { return b.board.Settled() }

// Run plugs the board into the port and powers it until the context ends, which unplugs it. The error is the carrier's;
// what became of the board is in [Board.Report].
func (b *Board) Run(ctx context.Context, port usbdev.Port) error {
	return b.board.Run(ctx, port, func(ctx context.Context) error { return b.boot(ctx, port) })
}

// boot takes the board from power-on to what it starts at last.
func (b *Board) boot(ctx context.Context, port usbdev.Port) error {
	if !b.cfg.Started {
		rom := b.device(StageROM)
		if err := b.board.Stage(ctx, port, StageROM, rom, rom.stage, rom.rom); err != nil {
			return err
		}
		if b.cfg.BootcodeNever {
			return errors.New("the second stage never shows on the bus")
		}
		if err := virtual.Sleep(ctx, b.cfg.StageDelay); err != nil {
			return err
		}
	}
	second := b.device(StageBootcode)
	if err := b.board.Stage(ctx, port, StageBootcode, second, second.stage, second.bootcode); err != nil {
		return err
	}
	return b.board.Gadget(ctx, port, b.cfg.Gadget, "U-Boot", b.cfg.GadgetDelay, &Stage{Files: []File{}})
}

// bootMessageSize is the length of the second stage (4 bytes) with its signature (20), which is zero but for a signed
// boot of the old chips.
const bootMessageSize = 24

// rom is the boot ROM.
func (d *device) rom(ctx context.Context) error {
	if err := d.due(ctx, atMessage); err != nil {
		return err
	}
	message, err := d.take(ctx, "the boot message", false)
	if err != nil {
		return err
	}
	if len(message) != bootMessageSize {
		return fmt.Errorf("a boot message of %d bytes, expected %d", len(message), bootMessageSize)
	}
	want := int(binary.LittleEndian.Uint32(message))
	if string(message[4:]) != string(make([]byte, 20)) {
		d.b.board.Violation("the boot message has a signature % x", message[4:])
	}
	if err := d.due(ctx, atBootcode); err != nil {
		return err
	}
	n, err := d.length(ctx, "the second stage")
	if err != nil {
		return err
	}
	if n != want {
		return fmt.Errorf("the boot message announces %d bytes of second stage, then %d are to come", want, n)
	}
	data, err := d.receive(ctx, n, true)
	if err != nil {
		return err
	}
	d.b.board.Edit(func(*Report) {
		d.stage.Files = append(d.stage.Files, File{})
		d.stage.file(len(d.stage.Files)-1, newFile("second stage", data))
	})
	if err := virtual.Sleep(ctx, d.b.cfg.Verify); err != nil {
		return err
	}
	status := uint32(0)
	if blank(data) || utf8.Valid(data) {
		status = 1
	}
	f, err := d.fault(ctx, atStatus)
	if err != nil {
		return err
	}
	if f.Kind == Status {
		status = max(1, uint32(f.Status))
	}
	if status == 0 && d.b.cfg.EarlyLeave {
		d.b.board.Edit(func(*Report) { d.stage.Complete = true })
		return nil
	}
	answer := binary.LittleEndian.AppendUint32(nil, status)
	if f.Kind == Short {
		answer = answer[:2]
	}
	if err := d.give(ctx, answer, statusSize, "the status"); err != nil {
		return err
	}
	if err := leave(ctx); err != nil {
		return err
	}
	if status != 0 {
		return fmt.Errorf("the second stage was refused with status %d", status)
	}
	d.b.board.Edit(func(*Report) { d.stage.Complete = true })
	return nil
}

// blank says whether it is one byte repeated, or nothing.
func blank(b []byte) bool {
	for _, c := range b {
		if c != b[0] {
			return false
		}
	}
	return true
}
