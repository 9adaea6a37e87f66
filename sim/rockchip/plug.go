package rockchip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// A USB plug, and the loader mode of vendors' U-Boot, serve Rockchip's commands (rkdeveloptool, RKComm.h) on bulk
// endpoints, in mass storage's wrappers: 31 bytes with "USBC", a tag, the length of the data, the direction and the
// command; the data; 13 bytes with "USBS", the tag, the residue and the status. Only what a host asks to see whether it
// runs is here.
const (
	wrapper  = 31
	testUnit = 0x00
	chipInfo = 0x1b
	ability  = 0xaa
	reset    = 0xff
)

var commandNames = map[byte]string{testUnit: AtReady, chipInfo: AtChip, ability: "capability", reset: "reset"}

// plug runs the server until the board is reset.
func (b *Board) plug(ctx context.Context, port usbdev.Port) error {
	bcdUSB := uint16(0x0201)
	if b.cfg.PlainPlug {
		bcdUSB = 0x0200
	}
	g := usbdev.NewGadget(b.descriptors(bcdUSB), usbdev.Inert{})
	s := newStage()
	s.Commands = map[string]int{}
	return b.board.Stage(ctx, port, StagePlug, g, s, func(ctx context.Context) error {
		b.board.Settle()
		fails := b.cfg.PlugFails
		for {
			times, again := g.Configured()
			if times == 0 {
				select {
				case <-again:
				case <-ctx.Done():
					return ctx.Err()
				}
				continue
			}
			one, done := g.While(ctx, times, errConfigured)
			err := b.command(one, g, s, &fails)
			done()
			if err != nil && (ctx.Err() != nil || !errors.Is(context.Cause(one), errConfigured)) {
				return err
			}
		}
	})
}

var errConfigured = errors.New("the host selected a configuration anew")

// command serves one.
func (b *Board) command(ctx context.Context, g *usbdev.Gadget, s *Stage, fails *int) error {
	buf := make([]byte, 512)
	n, err := g.OutPipe(epOut).Read(ctx, buf)
	if err != nil {
		return err
	}
	if n != wrapper || string(buf[:4]) != "USBC" || buf[14] != 6 && buf[14] != 10 {
		b.board.Violation("a command of %d bytes: % x", n, buf[:min(n, wrapper)])
		g.Halt(epIn)
		g.Halt(epOut)
		return nil
	}
	length, op := binary.LittleEndian.Uint32(buf[8:]), buf[15]
	name := commandNames[op]
	if name == "" {
		name = fmt.Sprintf("%#02x", op)
	}
	b.board.Edit(func(*Report) {
		s.Commands[name]++
		if s.First.IsZero() {
			s.First = time.Now()
		}
	})
	answer := []byte("USBS")
	answer = append(answer, buf[4:8]...)
	answer = append(answer, 0, 0, 0, 0, 0)
	f, err := b.board.Due(ctx, name, 0)
	if err != nil {
		return err
	}
	var data []byte
	switch {
	case f.Kind == Fail || op == testUnit && *fails > 0:
		if answer[12] = 1; op == testUnit && *fails > 0 {
			*fails--
		}
	case op == chipInfo:
		data = chip(b.cfg.Model)
	case op == ability:
		data = []byte{0xfb, 0x03, 0, 0, 0, 0, 0, 0}
	case op != testUnit && op != reset:
		answer[12] = 1
	}
	switch f.Kind {
	case Cut:
		answer = answer[:7]
	case Wrong:
		answer[4] ^= 0xff
	case Mute:
		return nil
	case Stall:
		g.Halt(epIn)
		return nil
	}
	if uint32(len(data)) > length {
		b.board.Violation("%s with room for %d bytes, expected %d", name, length, len(data))
		data = data[:length]
	}
	if len(data) > 0 {
		if _, err := g.InPipe(epIn).Write(ctx, data); err != nil {
			return err
		}
	}
	if _, err := g.InPipe(epIn).Write(ctx, answer); err != nil {
		return err
	}
	if op == reset {
		if err := virtual.Sleep(ctx, b.cfg.JumpDelay); err != nil {
			return err
		}
		return virtual.ErrReset
	}
	return nil
}

// chip is the chip's name, its four characters backwards.
func chip(m Model) []byte {
	b := make([]byte, 16)
	for i := range b {
		b[i] = 0xff
	}
	name := fmt.Sprintf("%-6s", m.Chip)
	for i := range 4 {
		b[i] = name[5-i]
	}
	return b
}
