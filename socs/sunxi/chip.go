package sunxi

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"snag/socs"
)

// chip is what must be known of an SoC to run SPL from its ROM's FEL. The boot ROMs differ in where they keep their
// stacks and data, which SPL, linked to where the ROM would load it, overlaps.
//
// The numbers are those of sunxi-tools (soc_info.c), with which Snagboot's (soc_info.yaml) agree.
type chip struct {
	id     uint16 // as the ROM tells it
	name   string // for people
	models string // socs' models that have it, by space
	trees  string // how the names of its boards' device trees begin, by space (U-Boot's and Linux's arch/*/boot/dts)

	spl     uint32 // where SPL goes
	scratch uint32 // for small programs; memory of SPL that the ROM does not use
	thunk   uint32 // for the program that runs SPL
	swaps   []swap
	sram    uint32 // bytes from spl on

	table uint32 // where a translation table may be made; 0: none is
	rvbar uint32 // register of the reset vector in AArch64; 0: there is none
	// otherDie is the register that tells a later die, by its low byte, whose reset vector is at otherRVBAR.
	otherDie, otherRVBAR uint32

	fused  uint32 // a word that reads 0 if the fuses have the ROM leave the secure state; 0: there is none
	l2     bool   // the second level cache is to be turned on
	icache bool   // the ROM runs with the instruction cache on, and does not flush it
	riscv  bool   // there are RISC-V parts with the same ID
}

// swap is an area of the ROM's that SPL overlaps, and where there is room for it.
type swap struct{ area, backup, size uint32 }

// Both sizes are those of areas that the host may use.
const (
	scratchSize = 0x400
	thunkSize   = 0x200
)

// Sets of areas. Which is the stack for interrupts, the stack, and the data is known of some: the three areas are these
// in turn.
var (
	swapsA10   = []swap{{0x1c00, 0xa400, 0x400}, {0x5c00, 0xa800, 0x1400}, {0x7c00, 0xbc00, 0x400}}
	swapsA31   = []swap{{0x1800, 0x20000, 0x800}, {0x5c00, 0x20800, 0x2400}} // SRAM B, with the MMU's table
	swapsA64   = []swap{{0x11c00, 0x31400, 0x400}, {0x15c00, 0x31800, 0x1400}, {0x17c00, 0x32c00, 0x400}}
	swapsAR100 = []swap{{0x1800, 0x44000, 0x800}, {0x5c00, 0x44800, 0x2400}} // memory of the OpenRISC core
	swapsA80   = []swap{{0x11800, 0x20000, 0x800}, {0x15400, 0x20800, 0x2c00}}
	swapsH6    = []swap{{0x21c00, 0x42400, 0x400}, {0x25c00, 0x42800, 0x1400}, {0x27c00, 0x43c00, 0x400}}
	swapsT7    = []swap{{0x21c00, 0x4e400, 0x400}, {0x25c00, 0x4e800, 0x1400}, {0x27c00, 0x4fc00, 0x400}}
	swapsV831  = []swap{{0x21000, 0x38000, 0x1000}}
	swapsH616  = []swap{{0x21000, 0x52a00, 0x1000}}
	swapsA133  = []swap{{0x21000, 0x40000, 0x400}}
	swapsR329  = []swap{{0x101000, 0x13bc00, 0x400}}
	swapsF1C   = []swap{{0x1c00, 0x9000, 0x400}, {0x5c00, 0x9400, 0x1400}, {0x7c00, 0xa800, 0x400}}
	swapsA523  = []swap{{0x45000, 0x40200, 0x400}}
)

const kib = 1 << 10

// chips is the table.
var chips = []chip{
	{id: 0x1623, name: "A10", models: "a10", trees: "sun4i-a10", scratch: 0x1000, thunk: 0xa200, swaps: swapsA10, sram: 48 * kib, l2: true},
	{id: 0x1625, name: "A10s, A13 or R8", models: "a10s a13 r8", trees: "sun5i-", scratch: 0x1000, thunk: 0xa200, swaps: swapsA10, sram: 48 * kib, l2: true},
	{id: 0x1651, name: "A20", models: "a20", trees: "sun7i-a20", scratch: 0x1000, thunk: 0xa200, swaps: swapsA10, sram: 48 * kib},
	{id: 0x1650, name: "A23", models: "a23", trees: "sun8i-a23", scratch: 0x1000, thunk: 0x46e00, swaps: swapsAR100, sram: 64 * kib},
	{id: 0x1633, name: "A31", models: "a31", trees: "sun6i-a31", scratch: 0x1000, thunk: 0x22e00, swaps: swapsA31, sram: 32 * kib},
	{id: 0x1667, name: "A33 or R16", models: "a33 r16", trees: "sun8i-a33 sun8i-r16", scratch: 0x1000, thunk: 0x46e00, swaps: swapsAR100, sram: 32 * kib},
	{id: 0x1689, name: "A64", models: "a64", trees: "sun50i-a64", spl: 0x10000, scratch: 0x11000, thunk: 0x31200, swaps: swapsA64, sram: 140 * kib,
		rvbar: 0x017000a0, fused: 0x40004},
	{id: 0x1639, name: "A80", models: "a80", trees: "sun9i-a80", spl: 0x10000, scratch: 0x11000, thunk: 0x23400, swaps: swapsA80, sram: 40 * kib},
	{id: 0x1663, name: "F1C100s", models: "af1c100s", trees: "suniv-f1c", scratch: 0x1000, thunk: 0xb400, swaps: swapsF1C, sram: 32 * kib},
	{id: 0x1673, name: "A83T", models: "a83t", trees: "sun8i-a83t", scratch: 0x1000, thunk: 0x46e00, swaps: swapsAR100, sram: 32 * kib, table: 0x44000},
	{id: 0x1680, name: "H3 or H2+", models: "h3 h2+", trees: "sun8i-h3 sun8i-h2", scratch: 0x1000, thunk: 0xa200, swaps: swapsA10, sram: 108 * kib,
		table: 0x8000, fused: 0x40004},
	{id: 0x1681, name: "V3s", models: "v3s", trees: "sun8i-v3 sun8i-s3", scratch: 0x1000, thunk: 0xa200, swaps: swapsA10, sram: 60 * kib, table: 0x8000},
	{id: 0x1708, name: "T7", models: "t7", trees: "sun8i-t7", spl: 0x20000, scratch: 0x21000, thunk: 0x4e200, swaps: swapsT7, sram: 184 * kib},
	{id: 0x1718, name: "H5", models: "h5", trees: "sun50i-h5", spl: 0x10000, scratch: 0x11000, thunk: 0x31200, swaps: swapsA64, sram: 140 * kib,
		rvbar: 0x017000a0, fused: 0x40004},
	{id: 0x1701, name: "R40", models: "r40", trees: "sun8i-r40 sun8i-v40 sun8i-t3 sun8i-a40i", scratch: 0x1000, thunk: 0xa200, swaps: swapsA10, sram: 48 * kib},
	{id: 0x1719, name: "A63", models: "a63", trees: "sun50i-a63", spl: 0x20000, scratch: 0x21000, thunk: 0x42200, swaps: swapsH6, sram: 144 * kib,
		rvbar: 0x09010040},
	{id: 0x1728, name: "H6", models: "h6", trees: "sun50i-h6-", spl: 0x20000, scratch: 0x21000, thunk: 0x42200, swaps: swapsH6, sram: 144 * kib,
		rvbar: 0x09010040, fused: 0x100004},
	{id: 0x1816, name: "V536", models: "v536", trees: "sun8i-v536", spl: 0x20000, scratch: 0x21000, thunk: 0x2a200, swaps: swapsV831, sram: 228 * kib},
	{id: 0x1817, name: "V831", models: "v831", trees: "sun8i-v831", spl: 0x20000, scratch: 0x21000, thunk: 0x2a200, swaps: swapsV831, sram: 228 * kib},
	{id: 0x1823, name: "H616", models: "h616", trees: "sun50i-h616 sun50i-h618 sun50i-h313 sun50i-h700 sun50i-t507", spl: 0x20000, scratch: 0x21000,
		thunk: 0x53a00, swaps: swapsH616, sram: 207 * kib, rvbar: 0x09010040, otherDie: 0x03000024, otherRVBAR: 0x08100040},
	{id: 0x1851, name: "R329", models: "r329", trees: "sun50i-r329", spl: 0x100000, scratch: 0x101000, thunk: 0x13ba00, swaps: swapsR329, sram: 1856 * kib,
		table: 0x130000, rvbar: 0x08100040},
	{id: 0x1886, name: "V853", models: "v853", trees: "sun8i-v853", spl: 0x20000, scratch: 0x21000, thunk: 0x3a200, swaps: swapsV831, sram: 132 * kib, icache: true},
	{id: 0x1859, name: "R528 or T113-S3", models: "r528 t113-s3", trees: "sun8i-r528 sun8i-t113", spl: 0x20000, scratch: 0x21000, thunk: 0x3a200, swaps: swapsV831,
		sram: 160 * kib, icache: true, riscv: true}, // D1, D1s
	{id: 0x1721, name: "V5", models: "v5s", trees: "sun8i-v5-", spl: 0x20000, scratch: 0x21000, thunk: 0x42200, swaps: swapsH6, sram: 136 * kib},
	{id: 0x1890, name: "A523", models: "a523", trees: "sun55i-", spl: 0x44000, scratch: 0x45000, thunk: 0x40000, swaps: swapsA523, sram: 96 * kib,
		rvbar: 0x08000040, icache: true},
	{id: 0x1855, name: "A133", models: "a133", trees: "sun50i-a133 sun50i-a100", spl: 0x20000, scratch: 0x21000, thunk: 0x40400, swaps: swapsA133, sram: 148 * kib,
		rvbar: 0x08100040, fused: 0x100004},
}

// known are the SoCs of which no more than the ROM's ID is known (xfel, chips/*.c).
var known = map[uint16]string{
	0x1755: "A50", 0x1903: "A733", 0x1921: "H135", 0x1883: "R128", 0x1922: "T153", 0x1882: "V821",
	0x1919: "A537 or A333", 0x1937: "F101", 0x1860: "H716", 0x1821: "R328", 0x1912: "T536", 0x1918: "V881",
}

// chipByID finds the chip of a ROM. The error says what is missing.
func chipByID(id uint16) (*chip, error) {
	if i := slices.IndexFunc(chips, func(c chip) bool { return c.id == id }); i >= 0 {
		return &chips[i], nil
	}
	name := "an SoC"
	if n, ok := known[id]; ok {
		name = "an Allwinner " + n
	}
	return nil, &socs.BoardError{
		Stage: stageROM,
		Err: fmt.Errorf("the boot ROM is that of %s with the ID %#04x, of which snag does not know enough to run SPL: "+
			"where SPL goes and how much memory it has there, which areas of it are the ROM's own, and where there is room for these and for a program meanwhile", name, id),
		Hint: "check the board; if sunxi-fel (sunxi-tools, soc_info.c) has the ID in its table, ask for it to be added to snag's",
	}
}

// chipOf finds a model's chip; nil for the family, whose ROM is asked.
func chipOf(m socs.Model) (*chip, error) {
	if m.Name == family {
		return nil, nil
	}
	for i := range chips {
		if slices.Contains(strings.Fields(chips[i].models), m.Name) {
			return &chips[i], nil
		}
	}
	return nil, fmt.Errorf("no boot ROM is known for the model %q", m.Name)
}

// chipOfTree finds the chip that a device tree, or what it says to be compatible with, is for; nil if that is not
// known. The longest beginning that fits counts. Trees that U-Boot takes from Linux have the vendor's directory in
// front (CONFIG_OF_UPSTREAM): "allwinner/sun50i-a64-pine64-plus".
func chipOfTree(name string) *chip {
	name = path.Base(name)
	var found *chip
	var most int
	for i := range chips {
		for begin := range strings.FieldsSeq(chips[i].trees) {
			if (strings.HasPrefix(name, begin) || name == strings.TrimSuffix(begin, "-")) && len(begin) > most {
				found, most = &chips[i], len(begin)
			}
		}
	}
	return found
}

// room is how long SPL may be.
func (c *chip) room() uint32 {
	room := c.sram
	for _, s := range c.swaps {
		if c.spl <= s.backup && s.backup < c.spl+c.sram {
			room = min(room, s.backup-c.spl)
		}
	}
	if c.thunk >= c.spl {
		room = min(room, c.thunk-c.spl)
	}
	return room
}

// piece is a part of SPL that is to be written somewhere.
type piece struct {
	addr uint32
	data []byte
}

// place cuts SPL into pieces: what belongs where the ROM's areas are goes into their backups, for the thunk to
// exchange.
func (c *chip) place(spl []byte) []piece {
	swaps := slices.SortedFunc(slices.Values(c.swaps), func(a, b swap) int { return cmp.Compare(a.area, b.area) })
	var pieces []piece
	at, end := c.spl, c.spl+uint32(len(spl))
	add := func(until, to uint32) {
		if until = min(until, end); until > at {
			pieces = append(pieces, piece{to, spl[at-c.spl : until-c.spl]})
			at = until
		}
	}
	for _, s := range swaps {
		add(s.area, at)
		add(s.area+s.size, s.backup)
	}
	add(end, at)
	return pieces
}
