package sunxi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"snag/sim/virtual"
)

// Machine is the memory and the processor behind a ROM. A ROM calls it from one goroutine at a time. Addresses are
// physical.
type Machine interface {
	// ReadMemory fills b from the address on, as the ROM does it: byte by byte.
	ReadMemory(ctx context.Context, addr uint32, b []byte) error

	// WriteMemory stores b from the address on, byte by byte.
	WriteMemory(ctx context.Context, addr uint32, b []byte) error

	// Call calls a function in A32 state, with the ROM's stack. It returns when that is back in the ROM, or has left it
	// for good. An error says that the processor is stuck, or, if it is virtual.ErrReset, that the board is to be
	// reset.
	Call(ctx context.Context, entry uint32) (back bool, err error)
}

// SoC is a [Machine] that interprets. It is made by [Board] at each power-on.
type SoC struct {
	cfg       *Config
	m         *Model
	violation func(format string, args ...any)

	ram, regs memory
	rom       []byte // what it holds
	cpu       cpu
	cp        map[cp15]uint32
	cache     map[uint32]uint32 // of instructions, while it is on
	secure    bool
	dram      bool   // SPL has set it up
	sidRead   bool   // a register read has happened
	start     *Start // that an instruction asked for, or that the last call led to
	reset     bool   // by the watchdog

	spl   *SPL // the last one that ran
	steps int  // a call may take
}

// CP15's registers.
var (
	midrReg = cp15{0, 0, 0, 0}
	sctlr   = cp15{0, 1, 0, 0}
	actlr   = cp15{0, 1, 0, 1}
	ttbr0   = cp15{0, 2, 0, 0}
	ttbcr   = cp15{0, 2, 0, 2}
	dacr    = cp15{0, 3, 0, 0}
	iciallu = cp15{0, 7, 5, 0}
	isb     = cp15{0, 7, 5, 4}
	bpiall  = cp15{0, 7, 5, 6}
	dsb     = cp15{0, 7, 10, 4}
	dmb     = cp15{0, 7, 10, 5}
	tlbiall = cp15{0, 8, 7, 0}
	vbar    = cp15{0, 12, 0, 0}
	rmr     = cp15{0, 12, 0, 2}
)

// Their bits (ARM DDI 0406C, B4.1).
const (
	sctlrM = 1       // MMU
	sctlrC = 1 << 2  // data cache
	sctlrZ = 1 << 11 // branch prediction
	sctlrI = 1 << 12 // instruction cache
	sctlrV = 1 << 13 // high vectors

	sctlrROM = 0x00c50078 // the bits that are always set
	l2Enable = 1 << 1     // of ACTLR
)

// romReturn is where the ROM goes on after a call, from its start.
const romReturn = 0x20

// nop is an instruction of the OpenRISC core's: the second at its reset vector.
const nop = 0x15000000

func newSoC(cfg *Config, violation func(string, ...any)) *SoC {
	m := &cfg.Model
	s := &SoC{cfg: cfg, m: m, violation: violation, secure: !cfg.Fused, steps: maxSteps, cache: map[uint32]uint32{}}
	r := rand.New(rand.NewPCG(uint64(m.SoC), 1))
	noise := func(n uint32) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	s.rom = noise(m.rom.Size)
	for _, a := range m.sram {
		s.ram.write(a.Addr, noise(a.Size))
	}
	s.cp = map[cp15]uint32{midrReg: midr[m.core], sctlr: sctlrROM}
	if m.rom == highROM {
		s.cp[sctlr] |= sctlrV
	}
	if m.table != 0 {
		s.cp[sctlr] |= sctlrM | sctlrZ | sctlrI
		s.cp[dacr], s.cp[ttbr0] = 0x55555555, m.table
		s.ram.write(m.table, table())
	}
	if m.staleCode {
		s.cp[sctlr] |= sctlrI
	}
	if m.secure != 0 {
		s.put(m.secure, nop)
	}
	if m.version != 0 && cfg.SecondDie {
		s.regs.write(m.version, []byte{2, 0, 0, 0})
	}
	s.cpu = cpu{bus: s, cpsr: modeSupervisor | 0x1c0, bank: map[uint32][2]uint32{modeIRQ: {m.irq, 0}}, v5: m.core == arm926}
	return s
}

// table is the translation table of the ROMs that have one: 1 MiB sections, each mapped to itself, of domain 15 with
// full access (ARM DDI 0406C, B3.5.1); strongly ordered memory, but normal uncached in the first and the last.
func table() []byte {
	var b []byte
	for i := range uint32(4096) {
		e := i<<20 | 0xde2
		if i == 0 || i == 4095 {
			e |= 0x1000
		}
		b = binary.LittleEndian.AppendUint32(b, e)
	}
	return b
}

func (s *SoC) put(addr, v uint32) { s.ram.write(addr, binary.LittleEndian.AppendUint32(nil, v)) }

func (s *SoC) get(addr uint32) uint32 {
	var b [4]byte
	s.ram.read(addr, b[:])
	return binary.LittleEndian.Uint32(b[:])
}

// place is what is at an address.
type place int

const (
	nowhere place = iota
	inROM
	inSRAM
	inDRAM
	inRegisters
)

func (s *SoC) at(addr uint32) place {
	if s.m.rom.contains(addr) {
		return inROM
	}
	for _, a := range s.m.sram {
		if a.contains(addr) {
			return inSRAM
		}
	}
	switch {
	case s.m.dram.contains(addr):
		return inDRAM
	case addr >= 0x01000000 && addr < 0x10000000:
		return inRegisters
	}
	return nowhere
}

// hidden says that non-secure state has no access: to the OpenRISC core's memory, to fuses and to the reset vector.
func (s *SoC) hidden(addr uint32) bool {
	if s.secure || s.m.secure == 0 {
		return false
	}
	return addr>>12 == s.m.secure>>12 || s.m.sid != 0 && addr>>12 == s.m.sid>>12 || addr == s.m.rvbar
}

// pieces calls f for the pieces of an access that are in one place each.
func (s *SoC) pieces(addr uint32, b []byte, f func(at place, addr uint32, b []byte) error) error {
	if uint64(addr)+uint64(len(b)) > 1<<32 {
		return fmt.Errorf("%d bytes at %#x reach beyond 4 GiB", len(b), addr)
	}
	for len(b) > 0 {
		at, n := s.at(addr), min(len(b), 256-int(addr&255))
		if err := f(at, addr, b[:n]); err != nil {
			return err
		}
		addr, b = addr+uint32(n), b[n:]
	}
	return nil
}

// ReadMemory implements [Machine].
func (s *SoC) ReadMemory(_ context.Context, addr uint32, b []byte) error {
	return s.pieces(addr, b, func(at place, addr uint32, b []byte) error {
		switch {
		case s.hidden(addr):
			clear(b)
		case at == inROM:
			copy(b, s.rom[addr-s.m.rom.Addr:])
		case at == inSRAM, at == inDRAM && s.dram:
			s.ram.read(addr, b)
		case at == inDRAM:
			s.violation("DRAM is read at %#x before SPL has set it up", addr&^0xfffff)
			clear(b)
		case at == inRegisters:
			s.violation("registers at %#x are read by bytes", addr)
			for i := range b {
				v, err := s.register(addr+uint32(i)&^3, false, 0)
				if err != nil {
					return err
				}
				b[i] = byte(v >> (8 * (addr + uint32(i)&3)))
			}
		default:
			s.violation("%#x is read, where there is nothing", addr)
			clear(b)
		}
		return nil
	})
}

// WriteMemory implements [Machine].
func (s *SoC) WriteMemory(_ context.Context, addr uint32, b []byte) error {
	return s.pieces(addr, b, func(at place, addr uint32, b []byte) error {
		switch {
		case s.hidden(addr):
			s.violation("%#x is written in non-secure state", addr)
		case at == inROM:
			s.violation("the ROM is written at %#x", addr)
		case at == inSRAM, at == inDRAM && s.dram:
			return s.ram.write(addr, b)
		case at == inDRAM:
			s.violation("DRAM is written at %#x before SPL has set it up", addr&^0xfffff)
		case at == inRegisters:
			s.violation("registers at %#x are written by bytes", addr)
		default:
			s.violation("%#x is written, where there is nothing", addr)
		}
		return nil
	})
}

// The fuses' registers, from their base (sunxi-tools, fel_lib.c).
const (
	sidControl = 0x40
	sidValue   = 0x60
	sidKey     = 0xac
)

// register reads or writes a register by a word.
func (s *SoC) register(addr uint32, write bool, v uint32) (uint32, error) {
	m := s.m
	if s.hidden(addr) {
		return 0, nil
	}
	stored := func(addr uint32) uint32 {
		var b [4]byte
		s.regs.read(addr, b[:])
		return binary.LittleEndian.Uint32(b[:])
	}
	store := func(addr, v uint32) error { return s.regs.write(addr, binary.LittleEndian.AppendUint32(nil, v)) }
	fuse := func(off uint32) uint32 {
		if off > 12 {
			return 0
		}
		return s.cfg.SID[off/4]
	}
	switch {
	case write && (watchdog{addr, v}) == m.watchdog:
		s.reset = true
		return 0, nil
	case m.sid != 0 && write && addr == m.sid+sidControl:
		if v&2 != 0 && v>>8&0xff != sidKey {
			s.violation("fuses are read with the key %#x", v>>8&0xff)
			v &^= 2
		}
		if v&2 != 0 {
			s.sidRead = true
			if err := store(m.sid+sidValue, fuse(v>>16)); err != nil {
				return 0, err
			}
		}
		return 0, store(addr, v)
	case m.sid != 0 && addr == m.sid+sidControl:
		v := stored(addr)
		return v, store(addr, v&^2) // done at the second look
	case m.sid != 0 && !write && addr-m.sid-m.sidWindow < 16:
		v := fuse(addr - m.sid - m.sidWindow)
		if m.sidLazy && !s.sidRead {
			v = ^v
		}
		return v, nil
	case write:
		return 0, store(addr, v)
	}
	return stored(addr), nil
}

// errAbort is an access to nothing.
var errAbort = errors.New("data abort")

// access is the processor's.
func (s *SoC) access(addr uint32) (place, error) {
	at := s.at(addr)
	if at == nowhere || at == inDRAM && !s.dram {
		return at, fmt.Errorf("%w: there is nothing at %#x", errAbort, addr)
	}
	return at, nil
}

func (s *SoC) load(addr uint32, size int) (uint32, error) {
	at, err := s.access(addr)
	if err != nil {
		return 0, err
	}
	if at == inRegisters {
		v, err := s.register(addr&^3, false, 0)
		return v >> (8 * (addr & 3)) & (1<<(8*size) - 1), err
	}
	var b [4]byte
	switch {
	case s.hidden(addr):
	case at == inROM:
		copy(b[:size], s.rom[addr-s.m.rom.Addr:])
	default:
		s.ram.read(addr, b[:size])
	}
	return binary.LittleEndian.Uint32(b[:]), nil
}

func (s *SoC) store(addr uint32, size int, v uint32) error {
	at, err := s.access(addr)
	if err != nil {
		return err
	}
	switch {
	case at == inRegisters && size == 4:
		_, err := s.register(addr, true, v)
		return err
	case at == inRegisters:
		return fmt.Errorf("%d bytes are written to a register at %#x", size, addr)
	case at == inROM || s.hidden(addr):
		return nil
	}
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	return s.ram.write(addr, b[:size])
}

// fetch reads an instruction. Where the cache is on, it is what was there when it was fetched first.
func (s *SoC) fetch(addr uint32) (uint32, error) {
	if s.cp[sctlr]&sctlrI == 0 {
		return s.load(addr, 4)
	}
	if op, ok := s.cache[addr]; ok {
		return op, nil
	}
	op, err := s.load(addr, 4)
	if err == nil {
		s.cache[addr] = op
	}
	return op, err
}

// coprocessor implements bus.
func (s *SoC) coprocessor(reg cp15, write bool, v uint32) (uint32, error) {
	if !write {
		switch reg {
		case midrReg, sctlr, actlr, ttbr0, ttbcr, dacr, vbar:
			return s.cp[reg], nil
		case rmr:
			if s.m.rvbar != 0 && s.secure {
				return s.cp[reg], nil
			}
		}
		return 0, fmt.Errorf("%w: CP15 register %+v", errUndefined, reg)
	}
	switch reg {
	case iciallu:
		clear(s.cache)
		return 0, nil
	case bpiall, dsb, tlbiall, dmb:
		return 0, nil
	case isb:
		if s.m.core == arm926 {
			return 0, fmt.Errorf("%w: CP15ISB, which ARM926 lacks", errUndefined)
		}
		return 0, nil
	case sctlr:
		if v&sctlrM != 0 && s.cp[sctlr]&sctlrM == 0 {
			if err := s.translation(); err != nil {
				return 0, err
			}
		}
		if v&sctlrC != 0 {
			s.violation("the data cache is switched on")
		}
	case actlr, ttbr0, ttbcr, dacr, vbar:
	case rmr:
		if s.m.rvbar == 0 || !s.secure {
			return 0, fmt.Errorf("%w: RMR", errUndefined)
		}
		if v&2 != 0 {
			return 0, s.warmReset(v&1 != 0)
		}
	default:
		return 0, fmt.Errorf("%w: CP15 register %+v", errUndefined, reg)
	}
	s.cp[reg] = v
	return 0, nil
}

// warmReset restarts the core at its reset vector.
func (s *SoC) warmReset(aarch64 bool) error {
	at := s.m.rvbar
	if s.cfg.SecondDie && s.m.rvbar2 != 0 {
		at = s.m.rvbar2
	}
	entry, err := s.register(at, false, 0)
	if err != nil {
		return err
	}
	if entry == 0 {
		return fmt.Errorf("warm reset while the reset vector at %#x is 0", at)
	}
	s.start = &Start{entry, aarch64}
	return nil
}

// translation checks what the MMU is switched on with: the ROM goes on with it.
func (s *SoC) translation() error {
	if s.cp[dacr] != 0x55555555 && s.cp[dacr] != 0xffffffff || s.cp[ttbcr] != 0 || s.cp[ttbr0]&0x3fff != 0 {
		return fmt.Errorf("the MMU is switched on with DACR %#x, TTBCR %#x and TTBR0 %#x", s.cp[dacr], s.cp[ttbcr], s.cp[ttbr0])
	}
	at := s.cp[ttbr0]
	if s.at(at) != inSRAM || s.at(at+0x3fff) != inSRAM {
		return fmt.Errorf("the MMU is switched on with a table at %#x", at)
	}
	for i := range uint32(4096) {
		if e := s.get(at + 4*i); e&0x40003 != 2 || e>>20 != i || e>>10&3 != 3 {
			return fmt.Errorf("the MMU is switched on with %#08x for %#x", e, i<<20)
		}
	}
	return nil
}

// monitor implements bus. Non-secure state is left by it; in secure state nobody has set up where it leads to.
func (s *SoC) monitor() error {
	if s.secure {
		return errors.New("SMC on a board that is not fused for secure boot")
	}
	s.secure = true
	return nil
}

// maxSteps is how many instructions may be executed until the ROM is waited for in vain. To sum up an SPL of 200 KiB
// takes a quarter of that.
const maxSteps = 1_000_000

// Call implements [Machine].
func (s *SoC) Call(ctx context.Context, entry uint32) (back bool, err error) {
	c, m := &s.cpu, s.m
	if s.cfg.RISCV {
		return false, errors.New("A32 code on a RISC-V core")
	}
	if !m.staleCode {
		clear(s.cache)
	}
	for i := range 13 {
		c.r[i] = 0xdead0000 + uint32(i)
	}
	rom := m.rom.Addr + romReturn
	c.r[regSP], c.r[regLR] = m.sp, rom
	status := c.cpsr
	if err := c.branch(entry); err != nil {
		return false, err
	}
	for n := range s.steps {
		if n%4096 == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		switch pc := c.r[regPC]; {
		case pc == rom:
			return true, s.returned(status)
		case s.at(pc) == inDRAM && s.dram:
			s.start = &Start{Entry: pc}
			return false, nil
		case pc == m.SPL && s.isSPL():
			if err := s.runSPL(ctx); err != nil {
				return false, err
			}
			continue
		}
		if err := c.step(); err != nil {
			return false, err
		}
		switch {
		case s.reset:
			return false, virtual.ErrReset
		case s.start != nil:
			return false, nil
		}
	}
	return false, errors.New("it does not return")
}

// returned looks at what the ROM goes on with.
func (s *SoC) returned(status uint32) error {
	const held = cpsrMode | cpsrThumb | 0x1c0
	switch c := &s.cpu; {
	case (c.cpsr^status)&held != 0:
		return fmt.Errorf("back in the ROM with the status register %#x, not %#x", c.cpsr, status)
	case c.r[regSP] != s.m.sp:
		return fmt.Errorf("back in the ROM with the stack pointer %#x, not %#x", c.r[regSP], s.m.sp)
	}
	return nil
}

// MMU says how the processor goes on.
func (s *SoC) MMU() string {
	if s.cp[sctlr]&sctlrM == 0 {
		return "off"
	}
	switch e := s.get(s.cp[ttbr0] + s.m.dram.Addr>>20*4); e & 0x700c { // TEX, C and B
	case 0:
		return "on, DRAM strongly ordered"
	case 0x1000:
		return "on, DRAM uncached"
	default:
		return fmt.Sprintf("on, DRAM as in %#08x", e)
	}
}
