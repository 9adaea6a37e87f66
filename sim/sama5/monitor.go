package sama5

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"snag/sim/virtual"
)

// Version is what the monitor says of itself.
const Version = "v1.1 Jun 12 2026 10:00:00"

// monitor is the SAM-BA monitor. A command is a letter, arguments in hexadecimal with a comma between them, and '#'. A
// letter begins it anew whatever came before. In terminal mode, which is the first, values are answered as text, with a
// prompt behind; in binary mode ("normal") as they are, and nothing else is.
type monitor struct {
	b       *Board
	dev     *device
	machine *machine
	report  *Stage

	terminal bool

	// What came of the command.
	letter  byte
	first   uint32 // the argument before the comma
	number  uint32 // the argument behind it, or the only one
	address uint32 // where data go
	rest    int    // data that are to come
	fault   Fault  // of what comes next
}

// errStarted is the end of a stage that started U-Boot.
var errStarted = errors.New("U-Boot was started")

func (m *monitor) edit(f func(*Stage)) {
	m.b.board.Edit(func(*virtual.Report[*Stage]) { f(m.report) })
}

// serve takes commands until the stage ends.
func (m *monitor) serve(ctx context.Context) error {
	if m.b.cfg.Midway > 0 {
		m.rest, m.address, m.machine.cache = m.b.cfg.Midway, m.b.cfg.Model.sram, true
	}
	m.terminal = !m.b.cfg.Binary
	if m.b.cfg.Unread != "" {
		if err := m.dev.send(ctx, []byte(m.b.cfg.Unread)); err != nil && !errors.Is(err, errBegun) {
			return err
		}
	}
	buf := make([]byte, 16<<10)
	for {
		room := buf
		if m.rest > 0 {
			room = buf[:m.b.board.Before(m.report.Bytes, min(m.rest, len(buf)))]
		}
		n, err := m.dev.receive(ctx, room)
		if err == nil {
			err = m.take(ctx, room[:n])
		}
		var abort *abortError
		switch {
		case errors.Is(err, errBegun):
			if !m.b.cfg.Deaf {
				m.rest, m.letter = 0, 0
			}
		case errors.As(err, &abort):
			m.b.board.Violation("%v", abort)
			return m.crash(ctx, "data abort: "+abort.text)
		case err != nil:
			return err
		}
	}
}

// crash is the end of a processor that is lost.
func (m *monitor) crash(ctx context.Context, why string) error {
	m.b.board.Stuck(why)
	m.dev.dead.Store(true)
	<-ctx.Done()
	return ctx.Err()
}

// take takes what came in one transfer.
func (m *monitor) take(ctx context.Context, b []byte) error {
	for len(b) > 0 {
		if m.rest > 0 {
			n := min(m.rest, len(b))
			if err := m.data(ctx, b[:n]); err != nil {
				return err
			}
			b = b[n:]
			continue
		}
		c := b[0]
		b = b[1:]
		switch {
		case c == '#':
			if err := m.command(ctx); err != nil {
				return err
			}
			m.letter, m.first, m.number = 0, 0, 0
		case c == ',':
			m.first, m.number = m.number, 0
		case c >= '0' && c <= '9':
			m.number = m.number<<4 | uint32(c-'0')
		case c >= 'a' && c <= 'f' && m.letter != 0:
			m.number = m.number<<4 | uint32(c-'a'+10)
		case c >= 'A' && c <= 'F' && m.letter != 0:
			m.number = m.number<<4 | uint32(c-'A'+10)
		default:
			m.letter, m.first, m.number = c, 0, 0
		}
	}
	return nil
}

// due carries out the next fault that is due at a command or, if that is empty, at the bytes received.
func (m *monitor) due(ctx context.Context, command string) error {
	f, err := m.b.board.Due(ctx, command, m.report.Bytes)
	switch {
	case err != nil:
		return err
	case f.Kind == Stall:
		m.dev.halt()
	case f.Kind != "":
		m.fault = f
	}
	return nil
}

// faulty uses up the fault that is due, if it is of a kind.
func (m *monitor) faulty(kind FaultKind) bool {
	if m.fault.Kind != kind {
		return false
	}
	m.fault = Fault{}
	return true
}

// data stores a part of a file.
func (m *monitor) data(ctx context.Context, b []byte) error {
	if m.faulty(Flip) {
		b = bytes.Clone(b)
		b[len(b)-1] ^= 0x40
	}
	if err := m.machine.load(m.address, b); err != nil {
		return err
	}
	m.address, m.rest = m.address+uint32(len(b)), m.rest-len(b)
	m.edit(func(s *Stage) {
		s.Bytes += len(b)
		s.Received()
	})
	return m.due(ctx, "")
}

// command carries out a command.
func (m *monitor) command(ctx context.Context) error {
	letter := string(m.letter)
	if m.letter == 0 {
		letter = ""
	}
	m.note(letter)
	name := letter
	if name == "" {
		name = "#"
	}
	if err := m.due(ctx, name); err != nil {
		return err
	}
	if m.b.cfg.Secure {
		return m.say(ctx, "CACK,ffffffff,00000000#")
	}
	if err := m.carryOut(ctx); err != nil {
		return err
	}
	if m.terminal && m.rest == 0 {
		return m.say(ctx, ">")
	}
	return nil
}

// note records a command.
func (m *monitor) note(letter string) {
	switch letter {
	case "", "N", "T", "V":
	case "G":
		letter = fmt.Sprintf("G%x", m.number)
	case "o", "h", "w":
		letter = fmt.Sprintf("%s%x,", letter, m.first)
	default:
		letter = fmt.Sprintf("%s%x,%x", letter, m.first, m.number)
	}
	m.edit(func(s *Stage) {
		if s.First.IsZero() {
			s.First = time.Now()
		}
		if len(s.Commands) < 1000 {
			s.Commands = append(s.Commands, letter+"#")
		}
	})
}

func (m *monitor) carryOut(ctx context.Context) error {
	newline := func() error {
		if m.terminal {
			return m.say(ctx, "\n\r")
		}
		return nil
	}
	switch m.letter {
	case 0:
		return newline()
	case 'N':
		m.terminal = false
		return m.say(ctx, "\n\r")
	case 'T':
		m.terminal = true
		return m.say(ctx, "\n\r")
	case 'V':
		if err := newline(); err != nil {
			return err
		}
		return m.say(ctx, Version+"\n\r")
	case 'o', 'h', 'w':
		return m.read(ctx, map[byte]int{'o': 1, 'h': 2, 'w': 4}[m.letter])
	case 'O', 'H', 'W':
		if err := m.write(map[byte]int{'O': 1, 'H': 2, 'W': 4}[m.letter]); err != nil {
			return err
		}
		return newline()
	case 'S':
		m.address, m.rest = m.first, int(min(m.number, 1<<30))
		if m.rest == 0 {
			m.b.board.Violation("S of no bytes")
		}
		return nil
	case 'R':
		if err := newline(); err != nil {
			return err
		}
		b, err := m.machine.read(m.first, int(min(m.number, maxLoaded)))
		if err != nil {
			return err
		}
		return m.answer(ctx, b)
	case 'G':
		return m.call(ctx, m.number)
	}
	m.b.board.Violation("unknown command %q", m.letter)
	return newline()
}

// aligned says whether an access is, which with the MMU off it must be (ARM DDI 0406, A3.2.1).
func aligned(address uint32, n int) error {
	if address%uint32(n) != 0 {
		return &abortError{fmt.Sprintf("access to %d bytes at %#x, which is not aligned", n, address)}
	}
	return nil
}

// read answers o, h and w.
func (m *monitor) read(ctx context.Context, n int) error {
	if m.first == m.b.cfg.Model.cidrAt {
		if err := m.due(ctx, ReadID); err != nil {
			return err
		}
	}
	if err := aligned(m.first, n); err != nil {
		return err
	}
	b, err := m.machine.read(m.first, n)
	switch {
	case err != nil:
		return err
	case m.terminal:
		var wide [4]byte
		copy(wide[:], b)
		b = fmt.Appendf(nil, "\n\r0x%0*X\n\r", 2*n, binary.LittleEndian.Uint32(wide[:]))
	}
	return m.answer(ctx, b)
}

// write carries out O, H and W.
func (m *monitor) write(n int) error {
	if err := aligned(m.first, n); err != nil {
		return err
	}
	value := m.number
	if m.faulty(Flip) {
		value ^= 0x40
	}
	register, err := m.machine.store(m.first, n, value)
	if register {
		m.edit(func(s *Stage) {
			if len(s.Writes) < 100 {
				s.Writes = append(s.Writes, Write{m.first, value})
			}
		})
	}
	return err
}

func (m *monitor) say(ctx context.Context, text string) error { return m.answer(ctx, []byte(text)) }

// answer sends an answer, as the fault that is due wants it.
func (m *monitor) answer(ctx context.Context, b []byte) error {
	switch {
	case m.faulty(Mute):
		return nil
	case m.faulty(Cut):
		b = b[:len(b)/2]
	case m.faulty(Wrong):
		b = bytes.Clone(b)
		b[0] ^= 0x40
	case m.faulty(Long):
		b = append(bytes.Clone(b), make([]byte, 100)...)
	case m.faulty(Endless):
		for {
			if err := m.dev.send(ctx, make([]byte, 4096)); err != nil {
				return err
			}
		}
	}
	return m.dev.send(ctx, b)
}

// call carries out G.
func (m *monitor) call(ctx context.Context, address uint32) error {
	data := m.machine.file(address)
	if address != m.b.cfg.Model.sram {
		return m.uboot(ctx, address, data)
	}
	name, err := m.machine.applet(data)
	if err != nil {
		return m.crash(ctx, err.Error())
	}
	if err := m.due(ctx, name); err != nil {
		return err
	}
	if m.faulty(Ignore) {
		return nil
	}
	a := m.machine.run(name, data)
	if failed := m.fault; m.faulty(Fail) {
		a.Status = uint32(failed.Status)
	}
	if err := virtual.Sleep(ctx, m.b.cfg.Applet); err != nil {
		return err
	}
	m.machine.finish(a)
	m.edit(func(s *Stage) {
		if len(s.Applets) < 100 {
			i := len(s.Applets)
			s.Applets = append(s.Applets, a)
			s.Sum(func(sum string) { s.Applets[i].File.SHA256 = sum }, data)
		}
	})
	return nil
}

// uboot starts U-Boot, which does not come back.
func (m *monitor) uboot(ctx context.Context, address uint32, data []byte) error {
	if err := m.due(ctx, StartUBoot); err != nil {
		return err
	}
	if m.faulty(Ignore) {
		return nil
	}
	file := newFile(address, data)
	m.edit(func(s *Stage) {
		s.UBoot = &file
		s.Sum(func(sum string) { file.SHA256 = sum }, data)
	})
	if err := starts(address, data); err != nil {
		return m.crash(ctx, err.Error())
	}
	m.edit(func(s *Stage) { s.Complete = true })
	return errStarted
}
