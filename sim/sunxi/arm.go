package sunxi

import (
	"errors"
	"fmt"
	"math/bits"
)

// Bits of the program status register (ARM DDI 0406C, B1.3.3).
const (
	flagN = 1 << 31
	flagZ = 1 << 30
	flagC = 1 << 29
	flagV = 1 << 28

	cpsrMode  = 0x1f
	cpsrThumb = 1 << 5
	cpsrState = 0x0700fc00 | cpsrThumb // of the instruction set, which MSR does not write

	modeFIQ        = 0x11
	modeIRQ        = 0x12
	modeSupervisor = 0x13
	modeAbort      = 0x17
	modeUndefined  = 0x1b
	modeSystem     = 0x1f
)

// Registers with a use of their own.
const (
	regSP = 13
	regLR = 14
	regPC = 15
)

// bus is what a processor sees of the rest of the chip. Sizes are 1, 2 or 4 bytes, addresses multiples of that.
type bus interface {
	load(addr uint32, size int) (uint32, error)
	store(addr uint32, size int, v uint32) error
	fetch(addr uint32) (uint32, error)

	// coprocessor reads or writes a register of CP15.
	coprocessor(reg cp15, write bool, v uint32) (uint32, error)
	// monitor is SMC.
	monitor() error
}

// cp15 is a register of the system control coprocessor: opc1, CRn, CRm, opc2.
type cp15 struct{ opc1, crn, crm, opc2 uint8 }

// cpu interprets A32 code as far as what hosts send needs it (ARM DDI 0406C, chapter A5): data processing, loads and
// stores, branches, status and CP15 registers, barriers. There are no interrupts, and an exception is an error.
// Addresses are physical.
type cpu struct {
	bus
	r    [16]uint32 // the program counter is that of the instruction
	cpsr uint32
	bank map[uint32][2]uint32 // SP and LR of the modes that are not current
	v5   bool                 // without what ARMv6 and 7 brought
}

var (
	errUndefined = errors.New("undefined instruction")
	errWait      = errors.New("it waits for an interrupt that never comes")
)

// reg is a register as an operand.
func (c *cpu) reg(n uint32) uint32 {
	if n == regPC {
		return c.r[regPC] + 8
	}
	return c.r[n]
}

// branch goes on elsewhere. Thumb code is not interpreted.
func (c *cpu) branch(to uint32) error {
	if to&3 != 0 {
		return fmt.Errorf("branch to %#x, which is not A32 code", to)
	}
	c.r[regPC] = to
	return nil
}

// set writes a register; that of the program counter is a branch.
func (c *cpu) set(n, v uint32) error {
	if n == regPC {
		return c.branch(v)
	}
	c.r[n] = v
	return nil
}

func (c *cpu) flag(f uint32, on bool) {
	c.cpsr &^= f
	if on {
		c.cpsr |= f
	}
}

func (c *cpu) is(f uint32) bool { return c.cpsr&f != 0 }

// mode brings in the stack pointer and the link register of another mode. System and user mode have the same.
func (c *cpu) mode(to uint32) error {
	switch to {
	case modeFIQ, modeIRQ, modeSupervisor, modeAbort, modeUndefined, modeSystem:
	default:
		return fmt.Errorf("mode %#x in the status register", to)
	}
	if from := c.cpsr & cpsrMode; from != to {
		c.bank[from] = [2]uint32{c.r[regSP], c.r[regLR]}
		c.r[regSP], c.r[regLR] = c.bank[to][0], c.bank[to][1]
	}
	c.cpsr = c.cpsr&^cpsrMode | to
	return nil
}

// holds says whether a condition does (A8.3).
func (c *cpu) holds(cond uint32) bool {
	var b bool
	switch cond >> 1 {
	case 0:
		b = c.is(flagZ)
	case 1:
		b = c.is(flagC)
	case 2:
		b = c.is(flagN)
	case 3:
		b = c.is(flagV)
	case 4:
		b = c.is(flagC) && !c.is(flagZ)
	case 5:
		b = c.is(flagN) == c.is(flagV)
	case 6:
		b = c.is(flagN) == c.is(flagV) && !c.is(flagZ)
	case 7:
		return true
	}
	return b == (cond&1 == 0)
}

// step executes one instruction.
func (c *cpu) step() error {
	pc := c.r[regPC]
	op, err := c.fetch(pc)
	if err != nil {
		return err
	}
	jumped, err := c.execute(op)
	if err != nil {
		return fmt.Errorf("at %#x, %08x: %w", pc, op, err)
	}
	if !jumped {
		c.r[regPC] = pc + 4
	}
	return nil
}

// execute carries out an instruction. jumped says that the program counter was set.
func (c *cpu) execute(op uint32) (jumped bool, err error) {
	cond := op >> 28
	if cond == 15 {
		return false, c.unconditional(op)
	}
	if !c.holds(cond) {
		return false, nil
	}
	switch op >> 25 & 7 {
	case 0:
		switch {
		case op&0x90 == 0x90:
			return c.extra(op)
		case op&0x01900000 == 0x01000000:
			return c.miscellaneous(op)
		}
		v, carry := c.shifted(op)
		return c.process(op, v, carry)
	case 1:
		v, carry := c.immediate(op)
		if op&0x01900000 == 0x01000000 {
			return false, c.special(op, v)
		}
		return c.process(op, v, carry)
	case 2:
		return c.transfer(op, op&0xfff)
	case 3:
		if op&0x10 != 0 {
			return false, errUndefined
		}
		v, _ := c.shifted(op)
		return c.transfer(op, v)
	case 4:
		return c.multiple(op)
	case 5:
		to := c.r[regPC] + 8 + uint32(int32(op<<8)>>6)
		if op&(1<<24) != 0 {
			c.r[regLR] = c.r[regPC] + 4
		}
		return true, c.branch(to)
	case 7:
		if op&0x01000010 == 0x00000010 {
			return c.system(op)
		}
	}
	return false, errUndefined
}

// unconditional are barriers and CPS (A5.7).
func (c *cpu) unconditional(op uint32) error {
	switch {
	case c.v5:
	case op&0xffffff00 == 0xf57ff000 && (op>>4&15 == 4 || op>>4&15 == 5 || op>>4&15 == 6): // DSB, DMB, ISB
		return nil
	case op&0xfff1fe20 == 0xf1000000: // CPS
		switch op >> 18 & 3 {
		case 2:
			c.cpsr &^= op & 0x1c0
		case 3:
			c.cpsr |= op & 0x1c0
		}
		if op&(1<<17) != 0 {
			return c.mode(op & cpsrMode)
		}
		return nil
	}
	return errUndefined
}

// immediate is a rotated byte (A5.2.4), with the shifter's carry.
func (c *cpu) immediate(op uint32) (v uint32, carry bool) {
	by := int(op>>8&15) * 2
	v = bits.RotateLeft32(op&0xff, -by)
	if by == 0 {
		return v, c.is(flagC)
	}
	return v, v>>31 != 0
}

// shifted is a register, shifted by a number or a register (A8.4), with the shifter's carry.
func (c *cpu) shifted(op uint32) (uint32, bool) {
	v, n := c.reg(op&15), op>>7&31
	kind := op >> 5 & 3
	if op&0x10 != 0 {
		n = c.reg(op>>8&15) & 0xff
		if n == 0 {
			return v, c.is(flagC)
		}
	} else if n == 0 {
		switch kind {
		case 0:
			return v, c.is(flagC)
		case 3: // RRX
			old := c.is(flagC)
			carry := v&1 != 0
			v >>= 1
			if old {
				v |= 1 << 31
			}
			return v, carry
		}
		n = 32
	}
	bit := func(i uint32) bool { return i < 32 && v>>i&1 != 0 }
	switch kind {
	case 0:
		return v << n, bit(32 - n)
	case 1:
		return v >> n, bit(n - 1)
	case 2:
		n = min(n, 32)
		return uint32(int64(int32(v)) >> n), bit(n - 1)
	}
	v = bits.RotateLeft32(v, -int(n&31))
	return v, v>>31 != 0
}

// add is AddWithCarry (A2.2.1).
func add(a, b, in uint32) (sum uint32, carry, overflow bool) {
	sum, out := bits.Add32(a, b, in)
	return sum, out != 0, (a^sum)&(b^sum)>>31 != 0
}

// process is data processing (A5.2.1).
func (c *cpu) process(op, b uint32, carry bool) (jumped bool, err error) {
	a, d := c.reg(op>>16&15), op>>12&15
	code := op >> 21 & 15
	in := uint32(0)
	if c.is(flagC) {
		in = 1
	}
	var v uint32
	overflow := c.is(flagV)
	switch code {
	case 0, 8: // AND, TST
		v = a & b
	case 1, 9: // EOR, TEQ
		v = a ^ b
	case 2, 10: // SUB, CMP
		v, carry, overflow = add(a, ^b, 1)
	case 3: // RSB
		v, carry, overflow = add(^a, b, 1)
	case 4, 11: // ADD, CMN
		v, carry, overflow = add(a, b, 0)
	case 5: // ADC
		v, carry, overflow = add(a, b, in)
	case 6: // SBC
		v, carry, overflow = add(a, ^b, in)
	case 7: // RSC
		v, carry, overflow = add(^a, b, in)
	case 12: // ORR
		v = a | b
	case 13: // MOV and shifts
		v = b
	case 14: // BIC
		v = a &^ b
	case 15: // MVN
		v = ^b
	}
	if op&(1<<20) != 0 {
		if d == regPC && code>>2 != 2 {
			return false, errUndefined // return from an exception
		}
		c.flag(flagN, v>>31 != 0)
		c.flag(flagZ, v == 0)
		c.flag(flagC, carry)
		c.flag(flagV, overflow)
	}
	if code>>2 == 2 { // comparisons
		return false, nil
	}
	return d == regPC, c.set(d, v)
}

// miscellaneous are MRS, MSR, BX, BLX, CLZ and SMC (A5.2.12).
func (c *cpu) miscellaneous(op uint32) (jumped bool, err error) {
	switch {
	case op&0x0fff0fff == 0x010f0000: // MRS
		c.r[op>>12&15] = c.cpsr
		return false, nil
	case op&0x0ff0fff0 == 0x0120f000: // MSR
		return false, c.status(op, c.reg(op&15))
	case op&0x0ffffff0 == 0x012fff10: // BX
		return true, c.branch(c.reg(op & 15))
	case op&0x0ffffff0 == 0x012fff30: // BLX
		to := c.reg(op & 15)
		c.r[regLR] = c.r[regPC] + 4
		return true, c.branch(to)
	case op&0x0fff0ff0 == 0x016f0f10: // CLZ
		c.r[op>>12&15] = uint32(bits.LeadingZeros32(c.reg(op & 15)))
		return false, nil
	case op&0x0ffffff0 == 0x01600070 && !c.v5: // SMC
		return false, c.monitor()
	}
	return false, errUndefined
}

// special are MOVW, MOVT, MSR with a number, and hints (A5.2.11).
func (c *cpu) special(op, v uint32) error {
	half, d := op>>4&0xf000|op&0xfff, op>>12&15
	switch op >> 20 & 15 {
	case 0:
		if !c.v5 {
			c.r[d] = half
			return nil
		}
	case 4:
		if !c.v5 {
			c.r[d] = c.r[d]&0xffff | half<<16
			return nil
		}
	case 2:
		switch {
		case op&0x000f0000 != 0:
			return c.status(op, v)
		case op&0xff == 0 && !c.v5: // NOP
			return nil
		case op&0xff == 3 && !c.v5: // WFI
			return errWait
		}
	}
	return errUndefined
}

// status writes fields of the status register. The state of the instruction set is not written by that.
func (c *cpu) status(op, v uint32) error {
	mask := uint32(0)
	for i, m := range []uint32{0xff, 0xff00, 0xff0000, 0xff000000} {
		if op&(1<<(16+i)) != 0 {
			mask |= m
		}
	}
	mask &^= cpsrState
	v = c.cpsr&^mask | v&mask
	if err := c.mode(v & cpsrMode); err != nil {
		return err
	}
	c.cpsr = v
	return nil
}

// address is that of a load or store, and what is written back (A8.5). offset is that of the instruction.
func (c *cpu) address(op, offset uint32) (addr uint32, back func()) {
	n := op >> 16 & 15
	base := c.reg(n)
	to := base - offset
	if op&(1<<23) != 0 {
		to = base + offset
	}
	if op&(1<<24) == 0 {
		return base, func() { c.r[n] = to }
	}
	return to, func() {
		if op&(1<<21) != 0 {
			c.r[n] = to
		}
	}
}

// transfer is LDR, STR, LDRB, STRB (A5.3).
func (c *cpu) transfer(op, offset uint32) (jumped bool, err error) {
	if op&(1<<24) == 0 && op&(1<<21) != 0 { // as if in user mode
		return false, errUndefined
	}
	addr, back := c.address(op, offset)
	size := 4
	if op&(1<<22) != 0 {
		size = 1
	}
	return c.move(op, addr, size, back, func(v uint32) uint32 { return v })
}

// extra are LDRH, STRH, LDRSB, LDRSH and MUL (A5.2.5, A5.2.8).
func (c *cpu) extra(op uint32) (jumped bool, err error) {
	if op&0x60 == 0 {
		d, a, b := op>>16&15, op>>12&15, c.reg(op&15)*c.reg(op>>8&15)
		switch op >> 21 & 0x7f {
		case 1: // MLA
			b += c.reg(a)
		case 0: // MUL
		default:
			return false, errUndefined
		}
		c.r[d] = b
		if op&(1<<20) != 0 {
			c.flag(flagN, b>>31 != 0)
			c.flag(flagZ, b == 0)
		}
		return false, nil
	}
	offset := op>>4&0xf0 | op&15
	if op&(1<<22) == 0 {
		offset = c.reg(op & 15)
	}
	addr, back := c.address(op, offset)
	load := op&(1<<20) != 0
	switch op >> 5 & 3 {
	case 1:
		return c.move(op, addr, 2, back, func(v uint32) uint32 { return v })
	case 2:
		if load {
			return c.move(op, addr, 1, back, func(v uint32) uint32 { return uint32(int8(v)) })
		}
	case 3:
		if load {
			return c.move(op, addr, 2, back, func(v uint32) uint32 { return uint32(int16(v)) })
		}
	}
	return false, errUndefined // LDRD, STRD
}

// move is the access of a load or store.
func (c *cpu) move(op, addr uint32, size int, back func(), as func(uint32) uint32) (jumped bool, err error) {
	d := op >> 12 & 15
	if addr&uint32(size-1) != 0 {
		return false, fmt.Errorf("%d bytes at %#x, which is not aligned", size, addr)
	}
	if op&(1<<20) == 0 {
		if err := c.store(addr, size, c.reg(d)); err != nil {
			return false, err
		}
		back()
		return false, nil
	}
	v, err := c.load(addr, size)
	if err != nil {
		return false, err
	}
	back()
	return d == regPC, c.set(d, as(v))
}

// multiple is LDM and STM (A5.5).
func (c *cpu) multiple(op uint32) (jumped bool, err error) {
	n, list := op>>16&15, op&0xffff
	if op&(1<<22) != 0 || n == regPC || list == 0 {
		return false, errUndefined
	}
	size := uint32(4 * bits.OnesCount32(list))
	base := c.r[n]
	up, before := op&(1<<23) != 0, op&(1<<24) != 0
	addr, end := base, base+size
	if !up {
		addr, end = base-size, base-size
	}
	if up == before {
		addr += 4
	}
	load, back := op&(1<<20) != 0, op&(1<<21) != 0
	if addr&3 != 0 {
		return false, fmt.Errorf("words at %#x, which is not aligned", addr)
	}
	loaded := c.r
	for i := range uint32(16) {
		if list&(1<<i) == 0 {
			continue
		}
		if load {
			v, err := c.load(addr, 4)
			if err != nil {
				return false, err
			}
			loaded[i] = v
		} else if err := c.store(addr, 4, c.reg(i)); err != nil {
			return false, err
		}
		addr += 4
	}
	if back {
		c.r[n] = end
	}
	if !load {
		return false, nil
	}
	for i := range uint32(15) {
		if list&(1<<i) != 0 {
			c.r[i] = loaded[i]
		}
	}
	if list&(1<<regPC) != 0 {
		return true, c.branch(loaded[regPC])
	}
	return false, nil
}

// system is MRC and MCR (A5.6).
func (c *cpu) system(op uint32) (jumped bool, err error) {
	if op>>8&15 != 15 {
		return false, errUndefined
	}
	reg := cp15{uint8(op >> 21 & 7), uint8(op >> 16 & 15), uint8(op & 15), uint8(op >> 5 & 7)}
	write, d := op&(1<<20) == 0, op>>12&15
	v, err := c.coprocessor(reg, write, c.reg(d))
	if err != nil || write {
		return false, err
	}
	if d == regPC { // to the flags
		c.cpsr = c.cpsr&0x0fffffff | v&0xf0000000
		return false, nil
	}
	c.r[d] = v
	return false, nil
}
