package qcom

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// The commands (qdl, src/sahara.c). A packet is little-endian: command, length of the packet, fields.
const (
	cmdHello      = 0x01 // version, oldest compatible one, longest packet, mode, 6 reserved
	cmdHelloResp  = 0x02 // version, oldest compatible one, status, mode, 6 reserved
	cmdRead       = 0x03 // image id, offset, length
	cmdEnd        = 0x04 // image id, status
	cmdDone       = 0x05
	cmdDoneResp   = 0x06 // 0: more images are to come, 1: complete
	cmdReset      = 0x07
	cmdResetResp  = 0x08
	cmdDebug      = 0x09 // address and length of a table
	cmdMemRead    = 0x0a
	cmdReady      = 0x0b
	cmdSwitchMode = 0x0c // mode
	cmdExecute    = 0x0d // client command
	cmdDebug64    = 0x10 // the same as cmdDebug, of 64 bits
	cmdMemRead64  = 0x11
	cmdRead64     = 0x12 // image id, offset, length, of 64 bits
)

// The modes of HELLO and its answer.
const (
	modeImage   = 0
	modeDump    = 2
	modeCommand = 3
)

// The status codes that a board here gives (edl, sahara_defs.py).
const (
	statusCommand     = 0x01 // invalid command in this state
	statusHostVersion = 0x04
	statusPacketSize  = 0x05
	statusType        = 0x09 // invalid image type
	statusReceived    = 0x0b // invalid receive length
	statusHeaders     = 0x0e // unsupported number of program headers
	statusHeaderSize  = 0x0f
	statusELF         = 0x14
	statusMode        = 0x18
	statusNoDump      = 0x1b
	statusClient      = 0x1f // unsupported client command
	statusHash        = 0x22 // a segment's digest is wrong
	statusNoHash      = 0x23 // no hash segment
	statusHashSize    = 0x26
)

// The endpoints.
const (
	epIn  = 0x81
	epOut = 0x01
)

// longest is the longest packet that the ROM says it takes.
const longest = 1024

// device is EDL's interface.
type device struct {
	*usbdev.Gadget
	packet int
}

func newDevice(b *Board, mode Mode) *device {
	d := &device{packet: 512}
	switch b.cfg.Speed {
	case usbdev.FullSpeed:
		d.packet = 64
	case usbdev.SuperSpeed:
		d.packet = 1024
	}
	id := ID
	if mode == Dump {
		id = DumpID
	}
	d.Gadget = usbdev.NewGadget(&usbdev.Descriptors{
		Speed: b.cfg.Speed, ID: id, Manufacturer: "Qualcomm CDMA Technologies MSM", Product: "QUSB_BULK_CID:0457_SN:5A17C0DE",
		Configs: []usbdev.Config{{Value: 1, Attributes: 0x40, MaxPower: 1, Interfaces: []usbdev.Interface{{
			Class: 0xff, SubClass: 0xff, Protocol: b.cfg.Protocol, Endpoints: []usbdev.Endpoint{
				{Address: epIn, Type: usbdev.Bulk, MaxPacket: uint16(d.packet)}, {Address: epOut, Type: usbdev.Bulk, MaxPacket: uint16(d.packet)},
			},
		}}}},
	}, usbdev.Inert{})
	return d
}

// session is Sahara with one host.
type session struct {
	*device
	b       *Board
	report  *Stage
	eaten   bool
	mode    uint32 // that the next HELLO has
	id      uint32 // of the image that is asked for
	got     int    // bytes of files in this stage
	loading bool   // an image is in the report
	sum     hash.Hash
	fault   Fault // of the next packet
}

func (s *session) edit(f func(*Stage)) { s.b.board.Edit(func(*Report) { f(s.report) }) }

// transfer changes the image in the report, if the board has begun with it.
func (s *session) transfer(f func(*Transfer)) {
	if s.loading {
		s.edit(func(t *Stage) { f(&t.Images[len(t.Images)-1]) })
	}
}

func (s *session) violation(format string, args ...any) { s.b.board.Violation(format, args...) }

// due carries out the faults that are due at a packet or, if its name is empty, at the bytes received.
func (s *session) due(ctx context.Context, packet string) error {
	for {
		f, err := s.b.board.Due(ctx, packet, s.got)
		switch {
		case err != nil || f.Kind == "":
			return err
		case f.Kind == Stall:
			s.Halt(epIn)
			s.Halt(epOut)
		default:
			s.fault = f
		}
	}
}

// packet makes a packet of words.
func packet(cmd uint32, words ...uint32) []byte {
	b := make([]byte, 8, 8+4*len(words))
	binary.LittleEndian.PutUint32(b, cmd)
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	return b
}

// send sends a packet, or what a fault has in its place.
func (s *session) send(ctx context.Context, b []byte) error {
	f := s.fault
	s.fault = Fault{}
	le := binary.LittleEndian
	switch f.Kind {
	case Fail:
		return s.refuse(ctx, uint32(f.Status))
	case Early:
		return errEarly
	case Cut:
		b = b[:len(b)/2]
	case Short:
		b = b[:4]
	case Long:
		b = append(b, make([]byte, 16)...)
	case Lie:
		le.PutUint32(b[4:], uint32(len(b)+8))
	case Wrong:
		le.PutUint32(b, 0x99)
	case Other:
		if len(b) > 8 {
			le.PutUint32(b[8:], 99)
		}
	case Range:
		b = packet(cmdRead, s.id, 0xffffff00, 0x200)
	case Hello:
		return errAnew
	case Debug:
		b = packet(cmdDebug, 0x1000, 0x40)
	case Again:
		for {
			if err := s.write(ctx, packet(cmdRead, s.id, 0, 16)); err != nil {
				return err
			}
			if _, err := s.receive(ctx, 16); err != nil {
				return err
			}
		}
	}
	return s.write(ctx, b)
}

// The ways in which a fault ends an image: the board starts what it has without a word, or begins anew.
var (
	errEarly = errors.New("it left in the middle")
	errAnew  = errors.New("it begins anew")
)

func (s *session) write(ctx context.Context, b []byte) error {
	_, err := s.InPipe(epIn).Write(ctx, b)
	return err
}

func (s *session) hello() []byte {
	return packet(cmdHello, s.b.cfg.Version, 1, longest, s.mode, 0, 0, 0, 0, 0, 0)
}

// refuse ends an image with a status, and waits for the host to reset the board.
func (s *session) refuse(ctx context.Context, status uint32) error {
	s.transfer(func(t *Transfer) { t.Status = status })
	if err := s.write(ctx, packet(cmdEnd, s.id, status)); err != nil {
		return err
	}
	for {
		if _, err := s.command(ctx); err != nil {
			return err
		}
	}
}

// command receives a packet. RESET is its own end.
func (s *session) command(ctx context.Context) ([]byte, error) {
	b := make([]byte, 4096)
	n, err := s.OutPipe(epOut).Read(ctx, b)
	if err != nil {
		return nil, err
	}
	s.edit(func(t *Stage) {
		if t.First.IsZero() {
			t.First = time.Now()
		}
	})
	if b = b[:n]; isReset(b) {
		return nil, s.reset(ctx)
	}
	return b, nil
}

func isReset(b []byte) bool { return string(b) == string(packet(cmdReset)) }

// reset answers RESET: the board starts anew.
func (s *session) reset(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond) // the host may not want to hear it
	defer cancel()
	if err := s.write(short, packet(cmdResetResp)); err != nil && short.Err() == nil {
		return err
	}
	return virtual.ErrReset
}

// expect receives one of some commands, and refuses everything else.
func (s *session) expect(ctx context.Context, length int, cmds ...uint32) ([]byte, error) {
	b, err := s.command(ctx)
	if err != nil {
		return nil, err
	}
	if len(b) < 8 {
		s.violation("a packet of %d bytes", len(b))
		return nil, s.refuse(ctx, statusPacketSize)
	}
	cmd, size := binary.LittleEndian.Uint32(b), int(binary.LittleEndian.Uint32(b[4:]))
	for _, want := range cmds {
		if cmd != want {
			continue
		}
		if size != len(b) || length > 0 && len(b) != length {
			s.violation("command %#x in %d bytes that says it has %d, expected %d", cmd, len(b), size, length)
			return nil, s.refuse(ctx, statusPacketSize)
		}
		return b, nil
	}
	s.violation("command %#x, expected one of %#x", cmd, cmds)
	return nil, s.refuse(ctx, statusCommand)
}

// greet says HELLO, and goes to where the host wants it, until that is the image.
func (s *session) greet(ctx context.Context) error {
	for {
		if err := s.due(ctx, ""); err != nil {
			return err
		}
		if err := s.due(ctx, AtHello); err != nil {
			return err
		}
		if !s.eaten {
			if err := s.send(ctx, s.hello()); err != nil {
				return err
			}
		}
		s.eaten = false
		b, err := s.expect(ctx, 48, cmdHelloResp)
		if err != nil {
			return err
		}
		word := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
		version, oldest, status, mode := word(8), word(12), word(16), word(20)
		switch {
		case version < 1 || oldest > s.b.cfg.Version || oldest > version:
			s.violation("HELLO_RESP of version %d, compatible to %d; the board's is %d", version, oldest, s.b.cfg.Version)
			return s.refuse(ctx, statusHostVersion)
		case status != 0:
			s.violation("HELLO_RESP with status %d", status)
			return s.refuse(ctx, statusCommand)
		case s.mode == modeDump && mode == modeDump:
			return s.dump(ctx)
		case mode == modeDump:
			return s.refuse(ctx, statusNoDump)
		case mode == modeCommand:
			if err := s.commands(ctx); err != nil {
				return err
			}
		case s.mode == modeImage && mode <= 1:
			return nil
		default:
			s.violation("HELLO_RESP for mode %d, the board's is %d", mode, s.mode)
			return s.refuse(ctx, statusMode)
		}
	}
}

// dump offers the crash dump. What is read of it is zero.
func (s *session) dump(ctx context.Context) error {
	if err := s.write(ctx, packet(cmdDebug64, 0x10000, 0, 64, 0)); err != nil {
		return err
	}
	for {
		b, err := s.expect(ctx, 0, cmdMemRead, cmdMemRead64)
		if err != nil {
			return err
		}
		if len(b) != 24 {
			return s.refuse(ctx, statusPacketSize)
		}
		if err := s.write(ctx, make([]byte, min(binary.LittleEndian.Uint64(b[16:]), 1<<20))); err != nil {
			return err
		}
	}
}

// commands is the command mode, in which the board knows none.
func (s *session) commands(ctx context.Context) error {
	if err := s.write(ctx, packet(cmdReady)); err != nil {
		return err
	}
	b, err := s.expect(ctx, 12, cmdSwitchMode, cmdExecute)
	switch {
	case err != nil:
		return err
	case binary.LittleEndian.Uint32(b) == cmdExecute:
		return s.refuse(ctx, statusClient)
	case binary.LittleEndian.Uint32(b[8:]) != modeImage:
		return s.refuse(ctx, statusMode)
	}
	s.mode = modeImage
	return nil
}

// image asks for an image, and starts it.
func (s *session) image(ctx context.Context, id uint32) error {
	for {
		err := s.once(ctx, id)
		if errors.Is(err, errEarly) {
			return nil
		}
		if !errors.Is(err, errAnew) {
			return err
		}
	}
}

// once asks for an image until it is there, or a fault ends that.
func (s *session) once(ctx context.Context, id uint32) error {
	s.id, s.loading = id, false
	if err := s.greet(ctx); err != nil {
		return err
	}
	s.loading, s.sum = true, sha256.New()
	s.edit(func(t *Stage) { t.Images = append(t.Images, Transfer{ID: id}) })
	if err := s.load(ctx); err != nil {
		return err
	}
	b := s.b
	last := b.cfg.Single || id == b.cfg.IDs[1]
	if err := s.due(ctx, AtEnd); err != nil {
		return err
	}
	if err := s.send(ctx, packet(cmdEnd, id, 0)); err != nil {
		return err
	}
	if _, err := s.expect(ctx, 8, cmdDone); err != nil {
		return err
	}
	s.transfer(func(t *Transfer) { t.Complete = true })
	state := uint32(0)
	if last && !b.cfg.Pending {
		state = 1
	}
	if err := s.due(ctx, AtDone); err != nil {
		return err
	}
	if err := s.send(ctx, packet(cmdDoneResp, state)); err != nil {
		return err
	}
	s.edit(func(t *Stage) { t.Complete = true })
	return nil
}

// ask asks for bytes of the file, in pieces if need be, and returns them.
func (s *session) ask(ctx context.Context, offset uint64, length int) ([]byte, error) {
	all := make([]byte, 0, min(length, s.b.cfg.Piece))
	for length > 0 {
		n := min(length, s.b.cfg.Piece)
		if err := s.due(ctx, ""); err != nil {
			return nil, err
		}
		read := packet(cmdRead, s.id, uint32(offset), uint32(n))
		if s.b.cfg.Wide {
			read = packet(cmdRead64, s.id, 0, uint32(offset), uint32(offset>>32), uint32(n), 0)
		}
		if err := s.send(ctx, read); err != nil {
			return nil, err
		}
		b, err := s.receive(ctx, n)
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
		offset, length = offset+uint64(n), length-n
	}
	return all, nil
}

// emptyTime is how long the empty packet may take that ends data which fill their last packet.
const emptyTime = time.Second

// receive receives bytes that were asked for. Those that fill their last packet are ended by an empty one.
func (s *session) receive(ctx context.Context, length int) ([]byte, error) {
	b := make([]byte, length+s.packet)
	full := length%s.packet == 0
	n := 0
	for n < length {
		if err := s.due(ctx, ""); err != nil {
			return nil, err
		}
		most := s.b.board.Before(s.got, length-n)
		if most == length-n && !full {
			most += s.packet // what is too much shows
		}
		got, err := s.OutPipe(epOut).Read(ctx, b[n:n+most])
		if err != nil {
			return nil, err
		}
		if n == 0 && isReset(b[:got]) && length != 8 {
			return nil, s.reset(ctx)
		}
		n += got
		s.got += got
		s.edit((*Stage).Received)
		s.transfer(func(t *Transfer) { t.Bytes += got })
		if n > length || got < most && n < length {
			s.violation("%d bytes, where %d were asked for", n, length)
			return nil, s.refuse(ctx, statusReceived)
		}
	}
	if full {
		if err := s.empty(ctx); err != nil {
			return nil, err
		}
	}
	s.transfer(func(t *Transfer) {
		t.Requests++
		s.sum.Write(b[:length])
		t.SHA256 = fmt.Sprintf("%x", s.sum.Sum(nil))
	})
	return b[:length], nil
}

// empty receives the empty packet.
func (s *session) empty(ctx context.Context) error {
	late := time.AfterFunc(emptyTime, func() { s.violation("no empty packet behind data that fill their last packet") })
	defer late.Stop()
	b := make([]byte, s.packet)
	n, err := s.OutPipe(epOut).Read(ctx, b)
	switch {
	case err != nil:
		return err
	case isReset(b[:n]):
		return s.reset(ctx)
	case n > 0:
		s.violation("%d bytes more than were asked for", n)
		return s.refuse(ctx, statusReceived)
	}
	return nil
}
