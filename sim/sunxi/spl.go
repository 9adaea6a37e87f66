package sunxi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"snag/sim/virtual"
)

// An SPL's header (arch/arm/include/asm/arch-sunxi/spl.h), little-endian:
//
//	off size                           off size
//	0   4    branch to the code        23  1    version: 3 bits, 5 bits
//	4   8    "eGON.BT0"                24  4    address of the script
//	12  4    checksum                  28  4    length of the script
//	16  4    length of all             32  4    where the device tree's name is
//	20  3    "SPL"                     36  4    size of DRAM in MiB, from version 0.3 on
const (
	egon       = "eGON"
	fromROM    = ".BT0" // SPL was loaded from storage
	fromFEL    = ".FEL" // anything else, but this is what hosts write
	egonSeed   = 0x5f0a6c39
	egonHeader = 96
)

// SPL is an SPL that ran.
type SPL struct {
	Addr   uint32 `json:"addr"`
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"` // as it was in the file
	L2     bool   `json:"l2,omitempty"`

	data []byte
}

// isSPL says whether the start of the SRAM has an image with an eGON header.
func (s *SoC) isSPL() bool {
	var b [4]byte
	s.ram.read(s.m.SPL+4, b[:])
	return string(b[:]) == egon
}

// egonSum is the checksum of an image: all words but the one at 12, with a constant for that.
func egonSum(b []byte) uint32 {
	sum := uint32(egonSeed)
	for i := 0; i+4 <= len(b); i += 4 {
		if i != 12 {
			sum += binary.LittleEndian.Uint32(b[i:])
		}
	}
	return sum
}

// runSPL is what SPL does: it sets up DRAM, uses the memory that the ROM keeps its own in, and returns to who called
// it, with stack pointer, link register and status restored and nothing else (arch/arm/mach-sunxi/board.c,
// return_to_fel).
func (s *SoC) runSPL(ctx context.Context) error {
	c, at := &s.cpu, s.m.SPL
	var h [egonHeader]byte
	s.ram.read(at, h[:])
	le := binary.LittleEndian
	size := le.Uint32(h[16:])
	if size < egonHeader || size%4 != 0 || size > 1<<20 {
		return fmt.Errorf("SPL with a length of %#x", size)
	}
	b := make([]byte, size)
	s.ram.read(at, b)
	if string(b[8:12]) == fromROM {
		return errors.New("SPL looks for U-Boot in storage: its header says that it was loaded from there")
	}
	copy(b[8:], fromROM)
	if sum := egonSum(b); sum != le.Uint32(b[12:]) {
		return fmt.Errorf("SPL crashes: its checksum is %#x, expected %#x", le.Uint32(b[12:]), sum)
	}
	s.spl = &SPL{Addr: at, Bytes: len(b), L2: s.cp[actlr]&l2Enable != 0, data: b}
	if s.cp[sctlr]&(sctlrM|sctlrC|sctlrI) != 0 {
		s.violation("SPL is started with MMU or caches on: SCTLR is %#x", s.cp[sctlr])
	}
	if c.cpsr&0xc0 != 0xc0 {
		s.violation("SPL is started with interrupts on")
	}
	if s.m.needsL2 && !s.spl.L2 {
		s.violation("SPL is started without the L2 cache")
	}
	if s.m.secure != 0 && !s.secure {
		return errors.New("SPL hangs in non-secure state")
	}
	if err := virtual.Sleep(ctx, s.cfg.SPLTime); err != nil {
		return err
	}
	if s.cfg.SPLHangs {
		return errors.New("SPL hangs")
	}
	s.dram = true
	r := rand.New(rand.NewPCG(uint64(size), 2))
	for _, a := range s.m.kept {
		if a.Addr >= at+egonHeader && a.Addr < at+0x8000 {
			for i := uint32(0); i < a.Size; i += 4 {
				s.put(a.Addr+i, r.Uint32())
			}
		}
	}
	if string(h[20:23]) == "SPL" && h[23]&31 >= 3 {
		s.put(at+36, 1024)
	}
	for i := range 13 {
		c.r[i] = r.Uint32()
	}
	return c.branch(c.r[regLR])
}
