package amlogic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"snag/sim/virtual"
)

// The requests of ROM and BL2 (pyamlboot, PROTOCOL.md): bRequest, and whether it is to the host. An address is in
// wValue (its upper half) and wIndex.
const (
	reqWrite    = 0x01 // up to 64 bytes, which come with it
	reqRead     = 0x02 // up to 64 bytes
	reqRun      = 0x05 // four bytes: the address, with bit 4 set
	reqLarge    = 0x11 // wValue: size of a block, wIndex: their number; 16 bytes: address, length, two words; then bulk OUT
	reqIdentify = 0x20
	reqAMLC     = 0x50
	reqData     = 0x60
)

var requestNames = map[uint8]string{
	reqWrite: "write", reqRead: "read", reqRun: "run", reqLarge: "large-write", reqIdentify: "identify", reqAMLC: "amlc", reqData: "data",
}

// maxWrite is how much comes with a simple write.
const maxWrite = 64

// The commands of a parameter block (pyamlboot, optimus.py and files/usbbl2runpara_*.bin), at its third word.
const (
	blockMagic  = 0x3412cdab
	blockDRAM   = 0xc0df
	blockFIP    = 0xc0e1
	answerMagic = 0x7856efab // of the block that BL2 leaves in its place
)

// session is the board from power-on to U-Boot.
type session struct {
	b   *Board
	dev *device
	layout
	stage *Stage // that is written now
	mem   memory
	bytes int       // of files, in this stage
	fault FaultKind // of the request that is served

	minor uint8 // the stage, as IDENTIFY tells it: 0 ROM, 8 BL2, 16 U-Boot
	dram  bool
	fresh bool // a BL2 was written since one was started
	fetch *fetch
}

func (b *Board) session() *session {
	return &session{b: b, dev: newDevice(), layout: b.cfg.Model.Family.layout(), stage: newStage(), mem: memory{}, minor: b.cfg.At}
}

func (s *session) edit(f func(*Stage)) { s.b.board.Edit(func(*Report) { f(s.stage) }) }

func (s *session) violation(format string, args ...any) { s.b.board.Violation(format, args...) }

// due carries out the faults that are due at a command or, if that is empty, at the bytes received.
func (s *session) due(ctx context.Context, command string) error {
	for {
		f, err := s.b.board.Due(ctx, command, s.bytes)
		if err != nil || f.Kind == "" {
			return err
		}
		s.fault = f.Kind
	}
}

// received counts bytes of a file.
func (s *session) received(n int) {
	s.bytes += n
	s.edit(func(t *Stage) {
		t.Bytes = s.bytes
		t.Received()
	})
}

// silent is a board that hangs: it stays on the bus, and answers nothing.
func (s *session) silent(ctx context.Context, why error) error {
	s.b.board.Stuck(why.Error())
	s.edit(func(t *Stage) { t.Error = why.Error() })
	<-ctx.Done()
	return ctx.Err()
}

// errStarted says that U-Boot runs.
var errStarted = errors.New("U-Boot runs")

// leaveTime is how long the ROM's enumeration lasts after U-Boot was started.
const leaveTime = 50 * time.Millisecond

// serve answers the host's requests until U-Boot runs.
func (s *session) serve(ctx context.Context) error {
	for {
		err := s.due(ctx, "")
		if err == nil {
			var r *request
			if r, err = s.dev.next(ctx); err == nil {
				err = s.request(ctx, r)
			}
		}
		switch {
		case errors.Is(err, errStarted):
			s.edit(func(t *Stage) { t.Complete = true })
			return virtual.Sleep(ctx, leaveTime)
		case errors.Is(err, errRequest):
			s.violation("%v", err)
		case err != nil:
			return err
		}
	}
}

// request answers one.
func (s *session) request(ctx context.Context, r *request) error {
	s.edit(func(t *Stage) {
		if t.First.IsZero() {
			t.First = time.Now()
		}
	})
	name, known := requestNames[r.Request]
	refuse := func(format string, args ...any) error {
		s.violation(format, args...)
		r.refuse()
		return nil
	}
	toHost := r.Request == reqRead || r.Request == reqIdentify
	switch {
	case !known || r.Type&0x7f != 0x40 || toHost != r.ToHost():
		return refuse("request %02x %02x, which is not known", r.Type, r.Request)
	case s.b.cfg.Locked && r.Request != reqIdentify:
		return refuse("%s, of a ROM that wants a password", name)
	case (s.fetch != nil) != (r.Request == reqAMLC || r.Request == reqData) && r.Request != reqIdentify:
		return refuse("%s, which is not for this stage", name)
	}
	if r.Request == reqData && s.fetch.complete() {
		name = "amls"
	}
	s.edit(func(t *Stage) { t.Requests[name]++ })
	if err := s.due(ctx, name); err != nil {
		return err
	}
	fault := s.fault
	s.fault = ""
	if fault == Stall {
		r.refuse()
		return nil
	}
	addr := uint32(r.Value)<<16 | uint32(r.Index)
	switch r.Request {
	case reqIdentify:
		r.accept(s.identity(fault))
	case reqRead:
		if r.Length == 0 || r.Length > maxWrite {
			return refuse("read of %d bytes, expected 1 to %d", r.Length, maxWrite)
		}
		r.accept(s.mem.read(addr, int(r.Length)))
	case reqWrite:
		if n := len(r.data); n == 0 || n > maxWrite {
			return refuse("write of %d bytes, expected 1 to %d", n, maxWrite)
		}
		if err := s.place(addr, len(r.data)); err != nil {
			return refuse("write: %v", err)
		}
		s.store(addr, r.data)
		r.accept(nil)
	case reqRun:
		if len(r.data) != 4 || binary.LittleEndian.Uint32(r.data)&^0x10 != addr {
			return refuse("run %#08x with data % x, expected the address once more", addr, r.data)
		}
		r.accept(nil)
		return s.run(ctx, addr)
	case reqLarge:
		return s.large(ctx, r, fault, refuse)
	case reqAMLC:
		return s.fetch.ask(ctx, r, fault, refuse)
	case reqData:
		return s.fetch.data(ctx, r, fault, refuse)
	}
	return nil
}

// identity is the answer to IDENTIFY.
func (s *session) identity(fault FaultKind) []byte {
	b := []byte{2, 4, 0, s.minor, 0, 0, 0, 0}
	if s.b.cfg.Locked {
		b[4] = 1
	}
	switch {
	case fault == Wrong:
		b[3] = 0x55
	case fault == Cut:
		b = b[:2]
	case fault == Mute:
		b = nil
	case s.b.cfg.Short:
		b = b[:4]
	}
	return b
}

// place tells whether there is memory.
func (s *session) place(addr uint32, n int) error {
	end := uint64(addr) + uint64(n)
	switch {
	case addr >= s.sram && end <= uint64(s.sramEnd):
		return nil
	case end <= dramEnd && s.dram:
		return nil
	case end <= dramEnd:
		return fmt.Errorf("%d bytes to %#08x: there is no DRAM yet", n, addr)
	}
	return fmt.Errorf("%d bytes to %#08x: no memory of %s", n, addr, s.b.cfg.Model.Name)
}

// store writes to memory.
func (s *session) store(addr uint32, b []byte) {
	if addr == s.bl2 {
		s.fresh = true
	}
	s.mem.write(addr, b)
	s.received(len(b))
}

// large receives a large write. It ends with the length that was announced; the blocks are but how it comes.
func (s *session) large(ctx context.Context, r *request, fault FaultKind, refuse func(string, ...any) error) error {
	if len(r.data) != 16 {
		return refuse("large write announced by %d bytes, expected 16", len(r.data))
	}
	addr, total := binary.LittleEndian.Uint32(r.data), int(binary.LittleEndian.Uint32(r.data[4:]))
	block, blocks := int(r.Value), int(r.Index)
	if block == 0 || total == 0 || blocks != (total+block-1)/block {
		return refuse("large write of %d bytes announced as %d blocks of %d", total, blocks, block)
	}
	if err := s.place(addr, total); err != nil {
		return refuse("large write: %v", err)
	}
	if s.minor == 0 && !s.dram && s.bl2 != 0 && addr < s.parameters {
		// Snagboot, recoveries/amlogic.py: tested on an s905x.
		return refuse("large write to %#08x: this ROM takes BL2 by simple writes", addr)
	}
	r.accept(nil)
	return s.dev.bulk(ctx, func(ctx context.Context) error {
		for total > 0 {
			if err := s.due(ctx, ""); err != nil {
				return err
			}
			if fault == Stall || s.fault == Stall {
				s.fault = ""
				s.dev.halt()
				return nil
			}
			want := min(block, total)
			buf := make([]byte, (want+packet-1)/packet*packet)
			n, err := s.dev.OutPipe(epOut).Read(ctx, buf)
			if err != nil {
				return err
			}
			if n != want {
				s.violation("a transfer of %d bytes in a large write by blocks of %d", n, want)
			}
			n = min(n, total)
			s.store(addr, buf[:n])
			addr, total = addr+uint32(n), total-n
		}
		return nil
	})
}

// run starts what is at an address.
func (s *session) run(ctx context.Context, addr uint32) error {
	if s.minor == 8 && s.fetch == nil {
		if addr != s.parameters {
			return s.silent(ctx, fmt.Errorf("run %#08x: BL2 starts what its parameters at %#08x say", addr, s.parameters))
		}
		return s.command(ctx)
	}
	if s.bl2 != 0 && addr != s.bl2 {
		return s.silent(ctx, fmt.Errorf("run %#08x: BL2 belongs to %#08x", addr, s.bl2))
	}
	image, err := imageAML(s.mem.read(addr, int(s.sramEnd-addr)))
	if err != nil {
		return s.silent(ctx, fmt.Errorf("BL2 at %#08x does not start: %w", addr, err))
	}
	s.ran(addr, "BL2", image)
	if err := virtual.Sleep(ctx, s.b.cfg.BL2Delay); err != nil {
		return err
	}
	if s.b.cfg.Model.Returns {
		return s.command(ctx)
	}
	s.next()
	if s.b.cfg.Model.Family == G12 {
		s.fetch = newFetch(s)
	}
	return nil
}

// next begins the stage of BL2, on the ROM's enumeration.
func (s *session) next() {
	s.edit(func(t *Stage) { t.Complete = true })
	s.stage, s.bytes, s.minor, s.fresh = newStage(), 0, 8, false
	s.b.board.Begin(StageBL2, s.dev.Descriptors(), s.stage)
}

// ran notes what was started.
func (s *session) ran(addr uint32, what string, images ...[]byte) {
	all := slices.Concat(images...)
	s.edit(func(t *Stage) {
		i := len(t.Runs)
		t.Runs = append(t.Runs, Run{Addr: addr, What: what, Bytes: len(all)})
		t.Sum(func(sum string) { t.Runs[i].SHA256 = sum }, all)
	})
}

// command is the BL2 of GX and AXG, which does what the parameter block says. Little-endian words:
//
//	0  magic
//	1  version, 0x200
//	2  command
//	7  for a FIP: where it is
func (s *session) command(ctx context.Context) error {
	b := s.mem.read(s.parameters, 48)
	word := func(n int) uint32 { return binary.LittleEndian.Uint32(b[4*n:]) }
	if word(0) != blockMagic || word(1) != 0x200 {
		return s.silent(ctx, fmt.Errorf("BL2 finds no parameters at %#08x but % x", s.parameters, b[:8]))
	}
	switch word(2) {
	case blockDRAM:
		if err := virtual.Sleep(ctx, s.b.cfg.DRAMDelay); err != nil {
			return err
		}
		s.dram, s.fresh = true, false
		s.ran(s.parameters, "DRAM", b[:32])
		s.mem.write(s.parameters, binary.LittleEndian.AppendUint32(nil, answerMagic))
		return nil
	case blockFIP:
		addr := word(7)
		switch {
		case !s.dram:
			return s.silent(ctx, errors.New("BL2 was to start the FIP before it has set up the DRAM"))
		case !s.fresh:
			return s.silent(ctx, errors.New("BL2 was not written again before it was to start the FIP"))
		}
		bl2, err := imageAML(s.mem.read(s.bl2, int(s.parameters-s.bl2)))
		if err != nil {
			return s.silent(ctx, fmt.Errorf("BL2 at %#08x does not start for the second time: %w", s.bl2, err))
		}
		fip, err := imageFIP(s.mem.read(addr, maxFIP))
		if err != nil {
			return s.silent(ctx, fmt.Errorf("BL2 finds no FIP at %#08x: %w", addr, err))
		}
		s.ran(addr, "FIP", bl2, fip)
		return errStarted
	}
	return s.silent(ctx, fmt.Errorf("BL2 knows no command %#x", word(2)))
}
