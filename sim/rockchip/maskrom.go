package rockchip

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// The maskrom's request (rkdeveloptool, RKComm.cpp, RKU_DeviceRequest).
const (
	vendorOut = 0x40 // to the device itself
	download  = 0x0c
	piece     = 4096
	most      = 64 << 20 // that the model keeps
)

// maskrom is the ROM's USB device.
type maskrom struct {
	*usbdev.Gadget
	b      *Board
	report *Stage
	end    chan error // buffered; nil: it has jumped
	plug   bool       // to a USB plug

	silent atomic.Bool // it answers nothing any more

	mu      sync.Mutex
	request uint16
	section []byte
	called  bool      // what 471 loaded has run
	refuses string    // why it takes nothing any more
	until   time.Time // what 471 loaded runs
	over    bool      // end was sent
}

func newMaskrom(b *Board) *maskrom {
	m := &maskrom{b: b, report: newStage(), end: make(chan error, 1)}
	d := b.descriptors(0x0200)
	if b.cfg.BareROM {
		d.Configs[0].Interfaces[0].Endpoints = nil
	}
	m.Gadget = usbdev.NewGadget(d, (*romFunction)(m))
	return m
}

// run waits for the end of the stage.
func (m *maskrom) run(ctx context.Context) error {
	select {
	case err := <-m.end:
		if err != nil || m.b.cfg.EarlyLeave {
			return err
		}
		return virtual.Sleep(ctx, m.b.cfg.JumpDelay)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Control implements [usbdev.Device].
func (m *maskrom) Control(ctx context.Context, s usbdev.Setup, data []byte) (int, error) {
	if m.silent.Load() {
		return 0, m.never(ctx)
	}
	return m.Gadget.Control(ctx, s, data)
}

// never waits for the end of a transfer that is not answered.
func (m *maskrom) never(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.Gone():
		return usbdev.ErrGone
	}
}

// leave ends the stage, and waits for that. m.mu is held.
func (m *maskrom) leave(ctx context.Context, err error) error {
	m.finish(err)
	return m.never(ctx)
}

func (m *maskrom) finish(err error) {
	if !m.over {
		m.over = true
		m.end <- err
	}
}

// refuse puts the ROM out of step. m.mu is held.
func (m *maskrom) refuse(format string, args ...any) error {
	if m.refuses == "" {
		m.refuses = fmt.Sprintf(format, args...)
		m.b.board.Stuck(m.refuses)
	}
	return usbdev.ErrStall
}

// romFunction is the maskrom's side of endpoint 0.
type romFunction maskrom

func (f *romFunction) Configured(uint8)      {}
func (f *romFunction) Selected(uint8, uint8) {}

func (f *romFunction) Control(ctx context.Context, s usbdev.Setup, data []byte) (int, error) {
	m := (*maskrom)(f)
	m.mu.Lock()
	defer m.mu.Unlock()
	violation := m.b.board.Violation
	if s.Type != vendorOut || s.Request != download || s.Index != 0x471 && s.Index != 0x472 || len(data) == 0 || len(data) > piece {
		violation("request %#02x %#02x, value %#x, index %#x, %d bytes", s.Type, s.Request, s.Value, s.Index, len(data))
		return 0, usbdev.ErrStall
	}
	if s.Value != 0 {
		violation("download with value %#x", s.Value)
	}
	m.b.board.Edit(func(*Report) {
		if m.report.First.IsZero() {
			m.report.First = time.Now()
		}
	})
	if err := virtual.Sleep(ctx, time.Until(m.until)); err != nil { // what 471 loaded does not serve USB
		return 0, err
	}
	if m.refuses != "" {
		return 0, usbdev.ErrStall
	}
	switch {
	case len(m.section) > 0 && s.Index != m.request:
		violation("%#x in the middle of a section for %#x", s.Index, m.request)
		return 0, m.refuse("a section for %#x has not ended when one for %#x comes", m.request, s.Index)
	case s.Index == 0x472 && !m.called:
		violation("472 before memory was set up by 471")
		return 0, m.refuse("472 before 471")
	}
	if err := virtual.Sleep(ctx, m.b.cfg.Piece); err != nil {
		return 0, err
	}
	m.request = s.Index
	at := len(m.section)
	m.section = append(m.section, data...)
	total := 0
	m.b.board.Edit(func(*Report) {
		m.report.Bytes += len(data)
		m.report.Received()
		total = m.report.Bytes
	})
	if err := m.faults(ctx, "", total, at); err != nil {
		return 0, err
	}
	if sram := m.b.cfg.Model.SRAM; m.request == 0x471 && sram > 0 && len(m.section) > sram+2 || len(m.section) > most {
		return 0, m.refuse("a section for %#x of more than %d bytes", m.request, len(m.section)-len(data))
	}
	if len(data) == piece {
		return len(data), nil
	}
	name := fmt.Sprintf("%#x", m.request)
	if err := m.faults(ctx, name, 0, at); err != nil {
		return 0, err
	}
	jumps := m.ended(name)
	if jumps {
		if err := m.faults(ctx, AtJump, 0, at); err != nil {
			return 0, err
		}
		if m.b.cfg.EarlyLeave {
			return 0, m.leave(ctx, nil)
		}
		m.started()
	}
	return len(data), nil
}

// faults carries out those that are due; at is where the piece begins that has just come. m.mu is held.
func (m *maskrom) faults(ctx context.Context, command string, n, at int) error {
	for {
		f, err := m.b.board.Due(ctx, command, n)
		switch {
		case errors.Is(err, virtual.ErrReset) || errors.Is(err, virtual.ErrUnplug):
			return m.leave(ctx, err)
		case err != nil: // it hangs
			m.silent.Store(true)
			return err
		case f.Kind == Stall:
			return m.refuse("it stalls by request")
		case f.Kind == CRC:
			if at < len(m.section) { // at a jump there is none any more
				m.section[at] ^= 1
			}
		case f.Kind == Mute:
			m.silent.Store(true)
			return m.never(ctx)
		case f.Kind == "":
			return nil
		}
	}
}

// ended judges a whole section. It tells whether the ROM leaves for what it was sent. m.mu is held.
func (m *maskrom) ended(name string) (jumps bool) {
	b, right := m.section, crc16(m.section) == 0 && len(m.section) > 2
	m.section = nil
	end := len(b) - 2
	if len(b)%piece == 1 { // what is behind a CRC16 that fills its piece
		if right && b[len(b)-1] == 0 && crc16(b[:len(b)-1]) == 0 {
			end--
		} else if right {
			m.b.board.Violation("the CRC16 of a section for %s lies in two pieces", name)
		}
	}
	b = b[:max(end, 0)]
	code := b
	if m.b.cfg.Model.RC4 {
		code = rc4(b)
	}
	x := Section{Request: name, Bytes: len(b), CRC: right, Plug: right && isPlug(code)}
	m.b.board.Edit(func(*Report) {
		t, i := m.report, len(m.report.Sections)
		t.Sections = append(t.Sections, x)
		t.Sum(func(sum string) { t.Sections[i].SHA256 = sum }, b)
		t.Sum(func(sum string) { t.Sections[i].Code = sum }, code)
	})
	switch {
	case !right: // without a word
		m.refuses = fmt.Sprintf("the section for %s had a wrong CRC16", name)
		m.b.board.Stuck(m.refuses)
		return false
	case !m.b.cfg.AnyCode && !m.starts(code):
		m.silent.Store(true)
		m.b.board.Stuck(fmt.Sprintf("what %s loaded is no code for this SoC: it hangs", name))
		return false
	case name == At471 && m.b.cfg.Model.final471():
		return true
	case name == At471:
		m.called, m.until = true, time.Now().Add(m.b.cfg.Init)
		return false
	}
	m.plug = x.Plug
	return true
}

// started is what becomes of USB when the ROM has jumped. m.mu is held.
func (m *maskrom) started() {
	switch {
	case m.b.cfg.Ignored:
		m.b.board.Stuck("it did not start what 472 loaded")
	case m.b.cfg.Stays && !m.plug:
		m.silent.Store(true)
		m.b.board.Edit(func(r *Report) { r.Outcome, m.report.Complete = virtual.Booted, true })
		m.b.board.Settle()
	default:
		m.b.board.Edit(func(*Report) { m.report.Complete = true })
		m.finish(nil)
	}
}

// starts tells whether code begins with a tag of the SoC's, the header of a signed image, or a branch of its
// instruction set.
func (m *maskrom) starts(code []byte) bool {
	if len(code) < 8 {
		return false
	}
	branch := code[3] == 0xea
	if m.b.cfg.Model.ARM64 {
		branch = branch || code[3]>>2 == 0x05
	}
	tag := m.b.cfg.Model.Tag
	return branch || tag != "" && string(code[:4]) == tag || string(code[:4]) == "RSAK"
}

// final471 tells whether what 471 loads is all there is: the recipes of these have nothing for 472.
func (m *Model) final471() bool { return m.Name == "rksmart" || m.Name == "rknano" }

// isPlug knows Rockchip's USB plug by the header in front of its code.
func isPlug(code []byte) bool { return len(code) >= 12 && string(code[8:12]) == "RSAK" }

// crc16 is CRC-16/IBM-3740, which comes out as 0 with itself behind the data, high byte first, and with any zeros
// behind that.
func crc16(b []byte) uint16 {
	c := uint16(0xffff)
	for _, x := range b {
		c ^= uint16(x) << 8
		for range 8 {
			if c&0x8000 != 0 {
				c = c<<1 ^ 0x1021
			} else {
				c <<= 1
			}
		}
	}
	return c
}

// rc4 encrypts or decrypts with the ROMs' key.
func rc4(b []byte) []byte {
	key := [16]byte{124, 78, 3, 4, 85, 5, 9, 7, 45, 44, 123, 56, 23, 13, 23, 17}
	var s [256]byte
	for i := range s {
		s[i] = byte(i)
	}
	var j byte
	for i := range s {
		j += s[i] + key[i%len(key)]
		s[i], s[j] = s[j], s[i]
	}
	out := make([]byte, len(b))
	var x, y byte
	for i := range b {
		x++
		y += s[x]
		s[x], s[y] = s[y], s[x]
		out[i] = b[i] ^ s[s[x]+s[y]]
	}
	return out
}
