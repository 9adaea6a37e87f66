package sunxi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// Every transfer of FEL is an AWUSB round of three phases: a request of 32 bytes to the device, data in the direction
// that it tells, and 13 bytes from the device (sunxi-tools, fel_lib.c; Snagboot, protocols/fel.py), little-endian:
//
//	off size                             off size
//	0   4    "AWUC"                      0   4    "AWUS"
//	4   4    tag                         4   4    tag
//	8   4    bytes of data               8   4    residue
//	12  3    0                           12  1    status
//	15  1    bytes of the command, 12
//	16  1    0x11 to the host, 0x12 to the device
//	17  1    0
//	18  4    bytes of data
//	22  10   0
const (
	requestSize = 32
	answerSize  = 13
	toHost      = 0x11
	toDevice    = 0x12
)

// A command is a round with its 16 bytes to the device, a round with its data, and a round with 8 bytes of status to
// the host:
//
//	off size                off size
//	0   2    command        0   2    0xffff
//	2   2    tag            2   2    tag
//	4   4    address        4   1    state
//	8   4    bytes          5   3    0
//	12  4    flags
const (
	commandSize = 16
	statusSize  = 8
	versionSize = 32

	cmdVersion = 0x001
	cmdWrite   = 0x101
	cmdExecute = 0x102
	cmdRead    = 0x103
)

// session is one run of the ROM. It belongs to the stage's goroutine.
type session struct {
	b       *Board
	dev     *usbdev.Gadget
	resets  *resets
	stage   *Stage
	machine Machine

	bytes  int // written
	spans  []span
	state  uint8     // of the command
	answer FaultKind // what goes wrong with the next AWUS
	kept   [][]byte  // the ROM's stacks and data
}

func (b *Board) session() *session {
	m := &b.cfg.Model
	s := &session{b: b, stage: newStage(), resets: new(resets), machine: b.cfg.Machine}
	s.dev = usbdev.NewGadget(&usbdev.Descriptors{
		Speed: usbdev.HighSpeed, ID: ID, Release: 0x02b3,
		Configs: []usbdev.Config{{Value: 1, MaxPower: 75, Interfaces: []usbdev.Interface{{
			Class: 0xff, SubClass: 0xff, Protocol: 0xff,
			Endpoints: []usbdev.Endpoint{
				{Address: m.in, Type: usbdev.Bulk, MaxPacket: 512},
				{Address: m.out, Type: usbdev.Bulk, MaxPacket: 512},
			},
		}}}},
	}, s.resets)
	if s.machine == nil {
		s.machine = newSoC(&b.cfg, b.board.Violation)
	}
	return s
}

func (s *session) edit(f func(*Stage)) { s.b.board.Edit(func(*Report) { f(s.stage) }) }

func (s *session) violation(format string, args ...any) { s.b.board.Violation(format, args...) }

// errConfigured says that the host selected a configuration: the ROM waits for a request again.
var errConfigured = errors.New("the host configured the device anew")

// resets is the function of the ROM's device: it ends what goes on before the host's selection of a configuration is
// answered.
type resets struct {
	usbdev.Inert

	mu     sync.Mutex
	cancel context.CancelCauseFunc // of what goes on
}

// watch returns a context for what errConfigured ends.
func (r *resets) watch(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel = cancel
	return ctx, func() { cancel(nil) }
}

// Configured implements [usbdev.Function].
func (r *resets) Configured(uint8) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		r.cancel(errConfigured)
	}
}

// serve carries out commands until the ROM is left.
func (s *session) serve(ctx context.Context) error {
	if config, changed := s.dev.Configured(); config == 0 {
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := s.settleIn(ctx); err != nil {
		return err
	}
	for {
		s.state, s.answer = 0, ""
		watched, stop := s.resets.watch(ctx)
		left, err := s.command(watched)
		again := errors.Is(err, context.Canceled) && errors.Is(context.Cause(watched), errConfigured)
		stop()
		if stuck, ok := errors.AsType[*stuckError](err); ok && ctx.Err() == nil {
			s.b.board.Stuck(stuck.Error())
			<-ctx.Done()
			return ctx.Err()
		}
		if left || err != nil && !again {
			return err
		}
	}
}

// stuckError is why the processor does nothing more. A reset of the bus does not help it.
type stuckError struct{ error }

// due carries out the faults that are due: at a command or, if that is empty, at the bytes that were written.
func (s *session) due(ctx context.Context, command string) (flip bool, err error) {
	for {
		f, err := s.b.board.Due(ctx, command, s.bytes)
		switch {
		case err != nil || f.Kind == "":
			return flip, err
		case f.Kind == Stall:
			s.dev.Halt(s.b.cfg.Model.in)
			s.dev.Halt(s.b.cfg.Model.out)
		case f.Kind == State:
			s.state = max(f.Status, 1)
		case f.Kind == Flip:
			flip = true
		default:
			s.answer = f.Kind
		}
	}
}

// command carries out one command.
func (s *session) command(ctx context.Context) (left bool, err error) {
	var b [commandSize]byte
	if _, err := s.due(ctx, ""); err != nil {
		return false, err
	}
	if err := s.receive(ctx, commandSize, func(piece []byte, off int) error {
		copy(b[off:], piece)
		return nil
	}); err != nil {
		return false, err
	}
	s.edit(func(t *Stage) {
		if t.First.IsZero() {
			t.First = time.Now()
		}
	})
	le := binary.LittleEndian
	code, addr, size := le.Uint16(b[:]), le.Uint32(b[4:]), le.Uint32(b[8:])
	name := map[uint16]string{cmdVersion: "version", cmdWrite: "write", cmdExecute: "execute", cmdRead: "read"}[code]
	if name == "" {
		s.violation("command %#04x, which this ROM does not know", code)
		s.state = 1
		return false, s.status(ctx)
	}
	if _, err := s.due(ctx, name); err != nil {
		return false, err
	}
	if err := virtual.Sleep(ctx, s.b.cfg.Command); err != nil {
		return false, err
	}
	log := func(end string) {
		s.edit(func(t *Stage) { t.log(Command{Name: name, Addr: addr, Bytes: size, End: end}) })
	}
	switch code {
	case cmdVersion:
		log("")
		err = s.send(ctx, s.versionAnswer())
	case cmdRead:
		log("")
		err = s.read(ctx, addr, size)
	case cmdWrite:
		log("")
		err = s.write(ctx, addr, size)
	case cmdExecute:
		if size != 0 {
			s.violation("execute with a length of %d", size)
		}
		return s.execute(ctx, addr, log)
	}
	if err != nil {
		return false, err
	}
	return false, s.status(ctx)
}

// versionAnswer tells what the ROM is:
//
//	off size                        off size
//	0   8    "AWUSBFEX"             18  1    data flag, 0x44
//	8   4    SoC ID << 8            19  1    data length, 8
//	12  4    firmware, 1            20  4    scratch pad
//	16  2    mode, 1                24  8    0
func (s *session) versionAnswer() []byte {
	b := make([]byte, versionSize)
	copy(b, "AWUSBFEX")
	le := binary.LittleEndian
	le.PutUint32(b[8:], uint32(s.b.cfg.SoC)<<8)
	le.PutUint32(b[12:], 1)
	le.PutUint16(b[16:], 1)
	b[18], b[19] = 0x44, 8
	le.PutUint32(b[20:], s.b.cfg.Model.SPL+0x7e00)
	return b
}

// maxTransfer bounds what a command moves.
const maxTransfer = 256 << 20

func (s *session) read(ctx context.Context, addr, size uint32) error {
	if size == 0 || size > maxTransfer {
		s.violation("read of %d bytes", size)
		s.state = 1
		return nil
	}
	b := make([]byte, size)
	if err := s.machine.ReadMemory(ctx, addr, b); err != nil {
		return &stuckError{err}
	}
	return s.send(ctx, b)
}

func (s *session) write(ctx context.Context, addr, size uint32) error {
	if size == 0 || size > maxTransfer {
		s.violation("write of %d bytes", size)
		s.state = 1
		return nil
	}
	if s.stage.SPL != nil {
		s.spans = merge(s.spans, span{uint64(addr), uint64(addr) + uint64(size)})
	}
	err := s.receive(ctx, size, func(b []byte, off int) error {
		s.bytes += len(b)
		flip, err := s.due(ctx, "")
		if err != nil {
			return err
		}
		if flip {
			b[len(b)-1] ^= 0x10
		}
		if err := s.machine.WriteMemory(ctx, addr+uint32(off), b); err != nil {
			return &stuckError{err}
		}
		s.edit(func(t *Stage) {
			t.Received()
			t.Bytes = s.bytes
		})
		return nil
	})
	if err != nil {
		return err
	}
	return s.intact(ctx)
}

// status ends a command.
func (s *session) status(ctx context.Context) error {
	return s.send(ctx, []byte{0xff, 0xff, 0, 0, s.state, 0, 0, 0})
}

// round receives a request for data of a size in a direction. What is none is left out.
func (s *session) round(ctx context.Context, kind byte, size uint32) (tag uint32, err error) {
	out := s.dev.OutPipe(s.b.cfg.Model.out)
	for {
		var b [512]byte
		n, err := out.Read(ctx, b[:])
		if err != nil {
			return 0, err
		}
		le := binary.LittleEndian
		switch got := le.Uint32(b[8:]); {
		case n != requestSize || string(b[:4]) != "AWUC":
			s.violation("%d bytes beginning with %q where AWUC was due", n, b[:min(n, 4)])
		case b[15] != 12 || le.Uint32(b[18:]) != got || b[17] != 0 || b[12]|b[13]|b[14] != 0:
			s.violation("AWUC of % x", b[:requestSize])
		case b[16] != kind || got != size:
			s.violation("AWUC for %d bytes of kind %#x, where %d of kind %#x were due", got, b[16], size, kind)
		default:
			return le.Uint32(b[4:]), nil
		}
	}
}

// receive is a round with data to the device, which take is given by the pieces.
func (s *session) receive(ctx context.Context, size uint32, take func(b []byte, off int) error) error {
	tag, err := s.round(ctx, toDevice, size)
	if err != nil {
		return err
	}
	out := s.dev.OutPipe(s.b.cfg.Model.out)
	buf := make([]byte, min(size, 64<<10))
	for off := 0; off < int(size); {
		n, err := out.Read(ctx, buf[:s.b.board.Before(s.bytes, min(len(buf), int(size)-off))])
		if err != nil {
			return err
		}
		if n == 0 {
			s.violation("a transfer of no bytes")
			continue
		}
		if err := take(buf[:n], off); err != nil {
			return err
		}
		off += n
	}
	return s.acknowledge(ctx, tag)
}

// send is a round with data to the host.
func (s *session) send(ctx context.Context, b []byte) error {
	tag, err := s.round(ctx, toHost, uint32(len(b)))
	if err != nil {
		return err
	}
	if _, err := s.dev.InPipe(s.b.cfg.Model.in).Write(ctx, b); err != nil {
		return err
	}
	return s.acknowledge(ctx, tag)
}

// acknowledge ends a round.
func (s *session) acknowledge(ctx context.Context, tag uint32) error {
	b := make([]byte, answerSize)
	copy(b, "AWUS")
	binary.LittleEndian.PutUint32(b[4:], tag)
	switch s.answer {
	case Refuse:
		b[12] = 1
	case Magic:
		copy(b, "AWUX")
	case Cut:
		b = b[:7]
	case Mute:
		<-ctx.Done()
		return ctx.Err()
	}
	s.answer = ""
	_, err := s.dev.InPipe(s.b.cfg.Model.in).Write(ctx, b)
	return err
}

// execute calls what is at an address.
func (s *session) execute(ctx context.Context, addr uint32, log func(end string)) (left bool, err error) {
	if !s.b.cfg.LateStatus {
		if err := s.status(ctx); err != nil {
			return false, err
		}
	}
	// The processor does not care for what happens on the bus.
	called, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if !errors.Is(context.Cause(ctx), errConfigured) {
			cancel()
		}
	})()
	back, err := s.machine.Call(called, addr)
	switch {
	case called.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, virtual.ErrReset):
		log("reset")
		return false, err
	case err != nil:
		log(err.Error())
		return false, &stuckError{fmt.Errorf("executing at %#x: %w", addr, err)}
	case !back:
		log("left")
		return true, s.left(called, addr)
	}
	log("")
	if err := s.returned(called); err != nil {
		return false, err
	}
	if s.b.cfg.LateStatus {
		return false, s.status(ctx)
	}
	return false, nil
}
