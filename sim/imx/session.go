package imx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// commandCodes are the commands of SDP by name (IMX6DQRM, section 8.9.3; U-Boot, f_sdp.c).
var commandCodes = map[string]uint16{
	"read-register":  0x0101,
	"write-register": 0x0202,
	"write-file":     0x0404,
	"error-status":   0x0505,
	"dcd":            0x0a0a,
	"jump":           0x0b0b,
	"skip-dcd":       0x0c0c,
}

// command is a command as it is in report 1, big-endian:
//
//	off size
//	0   2    code
//	2   4    address
//	6   1    width in bits
//	7   4    number of bytes
//	11  4    value
//	15  1    type of file
type command struct {
	name              string
	addr, count, data uint32
	width, file       uint8
}

const commandSize = 16

func parseCommand(b []byte) (command, error) {
	if len(b) != commandSize {
		return command{}, fmt.Errorf("command of %d bytes, expected %d", len(b), commandSize)
	}
	be := binary.BigEndian
	c := command{addr: be.Uint32(b[2:]), width: b[6], count: be.Uint32(b[7:]), data: be.Uint32(b[11:]), file: b[15]}
	code := be.Uint16(b)
	for name, known := range commandCodes {
		if code == known {
			c.name = name
			return c, nil
		}
	}
	return c, fmt.Errorf("unknown command %#04x", code)
}

// session is one run of a stage. All but violation and edit belongs to the stage's goroutine.
type session struct {
	b       *Board
	stage   *Stage // that is written now
	dev     *device
	machine Machine

	bytes  int       // of files, in this stage
	spans  []span    // where they are
	answer FaultKind // what goes wrong with the next answer

	unserved atomic.Bool // the OUT endpoint is not looked at any more
}

// served tells whether the OUT endpoint is.
func (s *session) served() bool { return !s.unserved.Load() }

func (s *session) edit(f func(*Stage)) { s.b.board.Edit(func(*Report) { f(s.stage) }) }

// violation records something that the host did wrong.
func (s *session) violation(format string, args ...any) { s.b.board.Violation(format, args...) }

// log notes a command with the status word that answers it.
func (s *session) log(c command, answer string) {
	s.edit(func(t *Stage) {
		l := Command{Name: c.name, Addr: c.addr, Bytes: c.count, Answer: answer}
		switch c.name {
		case "read-register":
			l.Width = c.width
		case "write-register":
			l.Width, l.Value = c.width, c.data
		case "write-file":
			l.Type = c.file
		}
		t.log(l)
	})
}

// due carries out the faults that are due at a command or, if that is empty, at the bytes received.
func (s *session) due(ctx context.Context, command string) error {
	for {
		f, err := s.b.board.Due(ctx, command, s.bytes)
		switch {
		case err != nil || f.Kind == "":
			return err
		case f.Kind == Stall:
			s.dev.halt()
		default:
			s.answer = f.Kind
		}
	}
}

// next waits for a command.
func (s *session) next(ctx context.Context) (report, error) {
	if err := s.due(ctx, ""); err != nil {
		return report{}, err
	}
	r, err := s.dev.receive(ctx)
	if err == nil {
		s.edit(func(t *Stage) {
			if t.First.IsZero() {
				t.First = time.Now()
			}
		})
	}
	return r, err
}

// received counts bytes of a file.
func (s *session) received(n int) {
	s.bytes += n
	s.edit(func(t *Stage) {
		t.Bytes = s.bytes
		t.Received()
	})
}

// respond sends reports of an answer, as the fault that is due wants the last of them. Each begins with its ID.
func (s *session) respond(ctx context.Context, reports ...[]byte) error {
	fault := s.answer
	s.answer = ""
	for i, r := range reports {
		r = append([]byte(nil), r...)
		last := i == len(reports)-1
		switch {
		case fault == HAB && r[0] == 3:
			copy(r[1:], habBroken[:])
		case fault == Status && r[0] == 4 && last:
			copy(r[1:], []byte{0x11, 0x22, 0x33, 0x44})
		case fault == Cut && last:
			r = r[:2]
		case fault == Wrong && last:
			r[0] = 7
		case fault == Mute && last:
			return nil
		}
		if !s.dev.hid {
			r = r[1:]
		}
		if err := s.dev.send(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// hab is report 3.
func (s *session) hab() []byte {
	w := habOpen
	if s.b.cfg.Closed && s.stage.Name == StageROM {
		w = habClosed
	}
	return append([]byte{3}, w[:]...)
}

// status is report 4 with a status word, 64 bytes long over HID.
func (s *session) status(w word) []byte {
	b := append([]byte{4}, w[:]...)
	if s.dev.hid {
		b = append(b, make([]byte, 60)...)
	}
	return b
}

// execute has the processor execute an image. What memory holds of files is noted first: the image may change it. An
// image without an entry is one whose parts SPL would still have to load.
func (s *session) execute(ctx context.Context, j Jump) error {
	if all := regions(ctx, s.machine, s.spans); len(all) > 0 {
		s.edit(func(t *Stage) { t.hold(all) })
	}
	if j.Entry == 0 {
		return nil
	}
	return s.machine.Jump(ctx, j.Entry)
}

// left ends a stage that is left for good.
func (s *session) left(j Jump) {
	s.edit(func(t *Stage) { t.Jumps, t.Complete = append(t.Jumps, j), true })
}

// errCommand is a command where data was due: what was going on is given up for it.
var errCommand = errors.New("a command instead of data")

// register answers READ_REGISTER. Report 4 has 64 bytes; more come in several. Width and address are those of
// the first access.
func (s *session) register(ctx context.Context, c command) error {
	if c.count > 1<<20 {
		s.violation("READ_REGISTER of %d bytes", c.count)
		c.count = 1 << 20
	}
	all := [][]byte{s.hab()}
	b := make([]byte, c.count)
	if err := s.machine.ReadMemory(ctx, c.addr, b); err != nil {
		s.violation("READ_REGISTER: %v", err)
	}
	for len(b) > 0 {
		part := make([]byte, 65)
		part[0] = 4
		n := copy(part[1:], b)
		b = b[n:]
		if !s.dev.hid {
			part = part[:1+n]
		}
		all = append(all, part)
	}
	s.log(c, "")
	return s.respond(ctx, all...)
}
