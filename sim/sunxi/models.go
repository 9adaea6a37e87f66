package sunxi

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"snag/usb"
)

// sunxiFEL is Debian's sunxi-fel 1.4.2, which knows all but the SoCs that have sunxi-tools of 2025 (d7bbd17).
const (
	sunxiFEL      = "sunxi-fel"
	newerSunxiFEL = "sunxi-fel of d7bbd17 (by hand)"
)

// ID is what every SoC shows in FEL mode.
var ID = usb.ID{Vendor: 0x1f3a, Product: 0xefe8}

// Area is a piece of memory.
type Area struct{ Addr, Size uint32 }

func (a Area) contains(addr uint32) bool { return addr-a.Addr < a.Size }

// core is the processor that the ROM runs on.
type core int

const (
	cortexA7 core = iota
	cortexA8
	cortexA53
	cortexA55
	arm926 // ARMv5: without barrier instructions
)

// midr is the main ID register of a core. Bits 19 to 16 are 6 for ARMv5TEJ, 15 for later ones (ARM DDI 0406C,
// B4.1.105).
var midr = map[core]uint32{
	cortexA7: 0x410fc075, cortexA8: 0x413fc082, cortexA53: 0x410fd034, cortexA55: 0x412fd050, arm926: 0x41069265,
}

// Model is a SoC: its ROM and its memory, as sunxi-tools' soc_info.c tells of them.
type Model struct {
	Name string
	SoC  uint16 // the ID in the answer to the version request
	SPL  uint32 // where an SPL is loaded to, and the start of the SRAM

	// ProvenBy is the program, which nobody here wrote, that has recovered the virtual board, as internal/e2e's
	// TestROMs has it: Debian's sunxi-fel or, "(by hand)", one that is newer.
	ProvenBy string

	core    core
	sram    []Area
	dram    Area   // that works when SPL has run
	rom     Area   // with noise in it
	kept    []Area // the ROM's stacks and data
	sp, irq uint32 // the ROM's stack pointers
	table   uint32 // of the MMU, which the ROM has switched on; 0: it has not
	in, out uint8  // endpoints

	sid, sidWindow uint32   // fuses: registers, and from there the window to read them by; 0: none
	sidLazy        bool     // the window is wrong until a register read
	rvbar, rvbar2  uint32   // reset vector; of a second die
	version        uint32   // the register that tells which die it is
	watchdog       watchdog // that resets
	secure         uint32   // a word that reads 0 in non-secure state; 0: unknown
	staleCode      bool     // the ROM leaves its instruction cache on and stale
	needsL2        bool     // SPL wants bit 1 of ACTLR set
}

// watchdog is a register, and what resets the board there.
type watchdog struct{ addr, value uint32 }

var (
	dogA10  = watchdog{0x01c20c94, 3}
	dogH3   = watchdog{0x01c20cb8, 1}
	dogH6   = watchdog{0x030090b8, 1}
	dogV853 = watchdog{0x020500b8, 0x16aa0001}
)

// AArch64 says whether the SoC's U-Boot is started by a warm reset to AArch64.
func (m *Model) AArch64() bool { return m.rvbar != 0 }

// scratch is where hosts put small pieces of code: the 1 KiB behind the first 4 KiB.
func (m *Model) scratch() Area { return Area{m.SPL + 0x1000, 0x400} }

var (
	dram1G   = Area{0x40000000, 0x80000000}
	highROM  = Area{0xffff0000, 0x8000}
	lowROM   = Area{0, 0x10000}
	sramB    = Area{0x20000, 0x10000}
	sramA2   = Area{0x40000, 0x14000} // the OpenRISC core's
	sramA2H6 = Area{0x100000, 0x20000}

	// What ROMs keep: A23's and its like; V831's and its like, behind the scratch area, beside a stack at the end of
	// the SRAM.
	keptA23  = []Area{{0x1800, 0x800}, {0x5c00, 0x2400}}
	keptV831 = Area{0x21400, 0xc00}
)

// keptA10 is what A10's ROM keeps, and those that are like it but for where the SRAM starts: interrupt stack, stack,
// data.
func keptA10(base uint32) []Area {
	return []Area{{base + 0x1c00, 0x400}, {base + 0x5c00, 0x1400}, {base + 0x7c00, 0x400}}
}

// stackAt is what a ROM keeps of a stack that is in nobody's way.
func stackAt(sp uint32) Area { return Area{sp &^ 0xff, 0x100} }

// models are without what [Models] adds.
var models = []Model{
	{Name: "a10", SoC: 0x1623, core: cortexA8, sram: []Area{{0, 0xc000}, sramB}, kept: keptA10(0), table: 0x8000, sid: 0x01c23800, watchdog: dogA10, needsL2: true},
	{Name: "a13", SoC: 0x1625, core: cortexA8, sram: []Area{{0, 0xc000}, sramB}, kept: keptA10(0), table: 0x8000, sid: 0x01c23800, watchdog: dogA10, needsL2: true},
	{Name: "a20", SoC: 0x1651, sram: []Area{{0, 0xc000}, sramB}, kept: keptA10(0), table: 0x8000, sid: 0x01c23800, watchdog: dogA10},
	{Name: "a23", SoC: 0x1650, sram: []Area{{0, 0x10000}, sramA2}, kept: keptA23, table: 0x44000, sid: 0x01c23800, watchdog: dogH3},
	{Name: "a31", SoC: 0x1633, sram: []Area{{0, 0x8000}, sramB}, kept: keptA23, table: 0x20000, watchdog: dogH3},
	{Name: "a33", SoC: 0x1667, sram: []Area{{0, 0x8000}, sramA2}, kept: keptA23, sid: 0x01c23800, watchdog: dogH3},
	{Name: "a64", SoC: 0x1689, SPL: 0x10000, core: cortexA53, sram: []Area{{0x10000, 0x23000}, sramA2}, kept: keptA10(0x10000),
		sid: 0x01c14000, sidWindow: 0x200, rvbar: 0x017000a0, secure: 0x40004, watchdog: dogH3},
	{Name: "a80", SoC: 0x1639, SPL: 0x10000, sram: []Area{{0x10000, 0xa000}, {0x20000, 0x40000}}, kept: []Area{{0x11800, 0x800}, {0x15400, 0x2c00}},
		rom: highROM, dram: Area{0x20000000, 0x80000000}, sid: 0x01c0e000, sidWindow: 0x200, watchdog: watchdog{0x06000cb8, 1}},
	{Name: "f1c100s", SoC: 0x1663, core: arm926, sram: []Area{{0, 0x8000}, {0x8800, 0x2e00}}, kept: keptA10(0), dram: Area{0x80000000, 0x4000000}, watchdog: dogH3},
	{Name: "a83t", SoC: 0x1673, sram: []Area{{0, 0x8000}, sramA2}, kept: keptA23, sid: 0x01c14000, sidWindow: 0x200, watchdog: dogH3},
	{Name: "h3", SoC: 0x1680, sram: []Area{{0, 0x1b000}, sramA2}, kept: keptA10(0), sid: 0x01c14000, sidWindow: 0x200, sidLazy: true, secure: 0x40004, watchdog: dogH3},
	{Name: "v3s", SoC: 0x1681, sram: []Area{{0, 0xf000}}, kept: keptA10(0), sid: 0x01c23800, watchdog: dogH3},
	{Name: "t7", SoC: 0x1708, SPL: 0x20000, ProvenBy: newerSunxiFEL, sram: []Area{{0x20000, 0x30000}, sramA2H6}, kept: keptA10(0x20000),
		sid: 0x03006000, sidWindow: 0x200, watchdog: dogH6},
	{Name: "h5", SoC: 0x1718, SPL: 0x10000, core: cortexA53, sram: []Area{{0x10000, 0x23000}, sramA2}, kept: keptA10(0x10000),
		sid: 0x01c14000, sidWindow: 0x200, rvbar: 0x017000a0, secure: 0x40004, watchdog: dogH3},
	{Name: "r40", SoC: 0x1701, sram: []Area{{0, 0xc000}, sramB}, kept: keptA10(0), sid: 0x01c1b000, sidWindow: 0x200, watchdog: dogA10},
	{Name: "a63", SoC: 0x1719, SPL: 0x20000, core: cortexA53, sram: []Area{{0x20000, 0x24000}, sramA2H6}, kept: keptA10(0x20000),
		sid: 0x03006000, sidWindow: 0x200, rvbar: 0x09010040, watchdog: dogH6},
	{Name: "h6", SoC: 0x1728, SPL: 0x20000, core: cortexA53, sram: []Area{{0x20000, 0x24000}, sramA2H6}, kept: keptA10(0x20000),
		sid: 0x03006000, sidWindow: 0x200, rvbar: 0x09010040, secure: 0x100004, watchdog: dogH6},
	{Name: "v536", SoC: 0x1816, SPL: 0x20000, sram: []Area{{0x20000, 0x3a000}}, kept: []Area{keptV831, stackAt(0x59f00)}, sp: 0x59f00, irq: 0x21400,
		sid: 0x03006000, sidWindow: 0x200, watchdog: dogH6},
	{Name: "v831", SoC: 0x1817, SPL: 0x20000, sram: []Area{{0x20000, 0x3a000}}, kept: []Area{keptV831, stackAt(0x59f00)}, sp: 0x59f00, irq: 0x21400,
		sid: 0x03006000, sidWindow: 0x200, watchdog: dogH6},
	{Name: "h616", SoC: 0x1823, SPL: 0x20000, core: cortexA53, sram: []Area{{0x20000, 0x38000}}, kept: []Area{keptV831, stackAt(0x57f00)}, sp: 0x57f00, irq: 0x21400,
		sid: 0x03006000, sidWindow: 0x200, rvbar: 0x09010040, rvbar2: 0x08100040, version: 0x03000024, watchdog: dogH6},
	{Name: "r329", SoC: 0x1851, SPL: 0x100000, core: cortexA53, sram: []Area{{0x100000, 0x1d0000}}, kept: []Area{stackAt(0x13c2c8)}, sp: 0x13c2c8, irq: 0x101400,
		sid: 0x03006000, sidWindow: 0x200, rvbar: 0x08100040, watchdog: dogH6},
	{Name: "v853", SoC: 0x1886, SPL: 0x20000, sram: []Area{{0x20000, 0x22000}}, kept: []Area{keptV831, stackAt(0x41f00)}, sp: 0x41f00, irq: 0x21400,
		sid: 0x03006000, sidWindow: 0x200, watchdog: dogV853, staleCode: true},
	{Name: "r528", SoC: 0x1859, SPL: 0x20000, sram: []Area{{0x20000, 0x29000}}, kept: []Area{keptV831, stackAt(0x48f00)}, sp: 0x48f00, irq: 0x21400,
		sid: 0x03006000, sidWindow: 0x200, watchdog: dogV853, staleCode: true},
	{Name: "v5", SoC: 0x1721, SPL: 0x20000, sram: []Area{{0x20000, 0x24000}}, kept: keptA10(0x20000), sid: 0x03006000, sidWindow: 0x200, watchdog: dogH6},
	{Name: "a523", SoC: 0x1890, SPL: 0x44000, ProvenBy: newerSunxiFEL, core: cortexA55, sram: []Area{{0x40000, 0x1d000}}, kept: []Area{stackAt(0x5cf00)}, sp: 0x5cf00, irq: 0x45400,
		sid: 0x03006000, sidWindow: 0x200, rvbar: 0x08000040, watchdog: watchdog{0x02050008, 0x16aa0001}, staleCode: true},
	{Name: "a133", SoC: 0x1855, SPL: 0x20000, ProvenBy: newerSunxiFEL, core: cortexA53, sram: []Area{{0x20000, 0x26000}, sramA2H6}, kept: []Area{stackAt(0x45f00)}, sp: 0x45f00, irq: 0x21400,
		sid: 0x03006000, sidWindow: 0x200, rvbar: 0x08100040, secure: 0x100004, watchdog: dogH6},
}

// complete adds what most have in common.
func (m Model) complete() Model {
	m.ProvenBy = cmp.Or(m.ProvenBy, sunxiFEL)
	m.sp, m.irq = cmp.Or(m.sp, m.SPL+0x6f00), cmp.Or(m.irq, m.SPL+0x2000)
	m.dram = cmp.Or(m.dram, dram1G)
	m.in, m.out = 0x82, 0x01
	if m.SPL == 0 {
		m.rom = highROM
	} else {
		m.rom = cmp.Or(m.rom, lowROM)
		m.in, m.out = 0x81, 0x02
	}
	return m
}

// aliases are other names of SoCs: of those that tell the same ID.
var aliases = map[string]string{
	"a10s": "a13", "r8": "a13", "r16": "a33", "h2+": "h3", "af1c100s": "f1c100s", "v5s": "v5", "t113-s3": "r528",
	"a100": "a133", "r818": "a133", "h313": "h616", "h618": "h616", "t507": "h616", "a527": "a523", "t527": "a523",
}

// Models lists all SoCs.
func Models() []Model {
	var all []Model
	for _, m := range models {
		all = append(all, m.complete())
	}
	return all
}

// Names are all names that [FindModel] knows.
func Names() []string {
	var all []string
	for _, m := range models {
		all = append(all, m.Name)
	}
	return append(all, slices.Sorted(maps.Keys(aliases))...)
}

// FindModel finds a SoC by one of its names.
func FindModel(name string) (Model, error) {
	name = strings.ToLower(name)
	if other, ok := aliases[name]; ok {
		name = other
	}
	i := slices.IndexFunc(models, func(m Model) bool { return m.Name == name })
	if i < 0 {
		return Model{}, fmt.Errorf("virtual Allwinner board %q: there are %s", name, strings.Join(Names(), ", "))
	}
	return models[i].complete(), nil
}
