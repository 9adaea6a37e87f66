package sunxi

import (
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

// midr is the main ID register of a core. Bits 19 to 16 are 6 for ARMv5TEJ, 15 for later ones (ARM DDI 0406C, B4.1.105).
var midr = map[core]uint32{
	cortexA7: 0x410fc075, cortexA8: 0x413fc082, cortexA53: 0x410fd034, cortexA55: 0x412fd050, arm926: 0x41069265,
}

// Model is a SoC: its ROM and its memory, as sunxi-tools' soc_info.c tells of them.
type Model struct {
	Name string
	SoC  uint16 // the ID in the answer to the version request
	SPL  uint32 // where an SPL is loaded to, and the start of the SRAM

	// ProvenBy is the program, which nobody here wrote, that has recovered the virtual board, as internal/e2e's TestROMs has it: Debian's
	// sunxi-fel or, "(by hand)", one that is newer. Empty: none; the model is what the sources say and no more.
	ProvenBy string

	core    core
	sram    []Area
	rom     Area   // of which the ROM keeps what is in kept
	kept    []Area // the ROM's stacks and data
	sp, irq uint32 // the ROM's stack pointers
	dram    Area   // that works when SPL has run
	table   uint32 // of the MMU, which the ROM has switched on; 0: it has not
	in, out uint8  // endpoints

	rvbar, rvbar2 uint32 // reset vector; of a second die
	version       uint32 // the register that tells which die it is
	sid, sidWords uint32 // fuses: registers, and the window to read them by; 0: none
	sidLazy       bool   // the window is wrong until a register read
	watchdog      uint32
	watchdogValue uint32
	secure        uint32 // a word that reads 0 in non-secure state; 0: unknown
	staleCode     bool   // the ROM leaves its instruction cache on and stale
	needsL2       bool   // SPL wants bit 1 of ACTLR set
}

// AArch64 says whether the SoC's U-Boot is started by a warm reset to AArch64.
func (m *Model) AArch64() bool { return m.rvbar != 0 }

// Kept are the places where the ROM keeps stacks and data.
func (m *Model) Kept() []Area { return slices.Clone(m.kept) }

// scratch is where hosts put small pieces of code: the 1 KiB behind the first 4 KiB.
func (m *Model) scratch() Area { return Area{m.SPL + 0x1000, 0x400} }

// The sets of registers that SoCs have in common.
func (m Model) dog(addr, value uint32) Model {
	m.watchdog, m.watchdogValue = addr, value
	return m
}

var (
	dram1G   = Area{0x40000000, 0x80000000}
	highROM  = Area{0xffff0000, 0x8000}
	lowROM   = Area{0, 0x10000}
	sramB    = Area{0x20000, 0x10000}
	sramA2   = Area{0x40000, 0x14000} // the OpenRISC core's
	sramA2H6 = Area{0x100000, 0x20000}
)

// old makes a SoC whose ROM keeps an interrupt stack, a stack and data at the offsets of A10's.
func old(name string, id uint16, base uint32, c core, sram ...Area) Model {
	m := Model{
		Name: name, SoC: id, SPL: base, ProvenBy: sunxiFEL, core: c, sram: sram, dram: dram1G, rom: highROM, in: 0x82, out: 0x01,
		kept: []Area{{base + 0x1c00, 0x400}, {base + 0x5c00, 0x1400}, {base + 0x7c00, 0x400}},
		sp:   base + 0x6f00, irq: base + 0x2000,
	}
	if base != 0 {
		m.rom, m.in, m.out = lowROM, 0x81, 0x02
	}
	return m
}

// wide makes a SoC whose ROM keeps data in the whole of what others' swap tables hold.
func (m Model) keeps(kept ...Area) Model {
	m.kept = kept
	return m
}

// late makes a SoC whose ROM has its stack at the end of a large SRAM, and at its start what is in kept, if that is more than the
// scratch area.
func late(name string, id uint16, base uint32, c core, stack uint32, sram ...Area) Model {
	m := old(name, id, base, c, sram...)
	m.sp, m.irq = stack, base+0x1400
	m.kept = []Area{{stack &^ 0xff, 0x100}}
	return m
}

// also adds to what the ROM keeps.
func (m Model) also(kept ...Area) Model {
	m.kept = append(kept, m.kept...)
	return m
}

func (m Model) fuses(base, window uint32) Model {
	m.sid, m.sidWords = base, base+window
	return m
}

func (m Model) mmu(table uint32) Model {
	m.table = table
	return m
}

func (m Model) reset(rvbar, rvbar2 uint32) Model {
	m.rvbar, m.rvbar2 = rvbar, rvbar2
	return m
}

func (m Model) smc(word uint32) Model {
	m.secure = word
	return m
}

func (m Model) stale() Model {
	m.staleCode = true
	return m
}

func (m Model) newer() Model {
	m.ProvenBy = newerSunxiFEL
	return m
}

func (m Model) l2() Model {
	m.needsL2 = true
	return m
}

func (m Model) with(f func(*Model)) Model {
	f(&m)
	return m
}

// Watchdogs.
func (m Model) dogA10() Model  { return m.dog(0x01c20c94, 3) }
func (m Model) dogH3() Model   { return m.dog(0x01c20cb8, 1) }
func (m Model) dogH6() Model   { return m.dog(0x030090b8, 1) }
func (m Model) dogV853() Model { return m.dog(0x020500b8, 0x16aa0001) }

var (
	irqStack = Area{0x21400, 0xc00} // of V831 and H616, behind the scratch area
	ar100    = []Area{{0x1800, 0x800}, {0x5c00, 0x2400}}
)

var models = []Model{
	old("a10", 0x1623, 0, cortexA8, Area{0, 0xc000}, sramB).fuses(0x01c23800, 0).mmu(0x8000).dogA10().l2(),
	old("a13", 0x1625, 0, cortexA8, Area{0, 0xc000}, sramB).fuses(0x01c23800, 0).mmu(0x8000).dogA10().l2(),
	old("a20", 0x1651, 0, cortexA7, Area{0, 0xc000}, sramB).fuses(0x01c23800, 0).mmu(0x8000).dogA10(),
	old("a23", 0x1650, 0, cortexA7, Area{0, 0x10000}, sramA2).keeps(ar100...).fuses(0x01c23800, 0).mmu(0x44000).dogH3(),
	old("a31", 0x1633, 0, cortexA7, Area{0, 0x8000}, sramB).keeps(ar100...).mmu(0x20000).dogH3(),
	old("a33", 0x1667, 0, cortexA7, Area{0, 0x8000}, sramA2).keeps(ar100...).fuses(0x01c23800, 0).dogH3(),
	old("a64", 0x1689, 0x10000, cortexA53, Area{0x10000, 0x23000}, sramA2).fuses(0x01c14000, 0x200).reset(0x017000a0, 0).smc(0x40004).dogH3(),
	old("a80", 0x1639, 0x10000, cortexA7, Area{0x10000, 0xa000}, Area{0x20000, 0x40000}).keeps(Area{0x11800, 0x800}, Area{0x15400, 0x2c00}).
		fuses(0x01c0e000, 0x200).dog(0x06000cb8, 1).with(func(m *Model) { m.rom, m.dram = highROM, Area{0x20000000, 0x80000000} }),
	old("f1c100s", 0x1663, 0, arm926, Area{0, 0x8000}, Area{0x8800, 0x2e00}).dogH3().with(func(m *Model) { m.dram = Area{0x80000000, 0x4000000} }),
	old("a83t", 0x1673, 0, cortexA7, Area{0, 0x8000}, sramA2).keeps(ar100...).fuses(0x01c14000, 0x200).dogH3(),
	old("h3", 0x1680, 0, cortexA7, Area{0, 0x1b000}, sramA2).fuses(0x01c14000, 0x200).smc(0x40004).dogH3().with(func(m *Model) { m.sidLazy = true }),
	old("v3s", 0x1681, 0, cortexA7, Area{0, 0xf000}).fuses(0x01c23800, 0).dogH3(),
	old("t7", 0x1708, 0x20000, cortexA7, Area{0x20000, 0x30000}, sramA2H6).fuses(0x03006000, 0x200).newer().dogH6(),
	old("h5", 0x1718, 0x10000, cortexA53, Area{0x10000, 0x23000}, sramA2).fuses(0x01c14000, 0x200).reset(0x017000a0, 0).smc(0x40004).dogH3(),
	old("r40", 0x1701, 0, cortexA7, Area{0, 0xc000}, sramB).fuses(0x01c1b000, 0x200).dogA10(),
	old("a63", 0x1719, 0x20000, cortexA53, Area{0x20000, 0x24000}, sramA2H6).fuses(0x03006000, 0x200).reset(0x09010040, 0).dogH6(),
	old("h6", 0x1728, 0x20000, cortexA53, Area{0x20000, 0x24000}, sramA2H6).fuses(0x03006000, 0x200).reset(0x09010040, 0).smc(0x100004).dogH6(),
	late("v536", 0x1816, 0x20000, cortexA7, 0x59f00, Area{0x20000, 0x3a000}).also(irqStack).fuses(0x03006000, 0x200).dogH6(),
	late("v831", 0x1817, 0x20000, cortexA7, 0x59f00, Area{0x20000, 0x3a000}).also(irqStack).fuses(0x03006000, 0x200).dogH6(),
	late("h616", 0x1823, 0x20000, cortexA53, 0x57f00, Area{0x20000, 0x38000}).also(irqStack).fuses(0x03006000, 0x200).reset(0x09010040, 0x08100040).dogH6().
		with(func(m *Model) { m.version = 0x03000024 }),
	late("r329", 0x1851, 0x100000, cortexA53, 0x13c2c8, Area{0x100000, 0x1d0000}).fuses(0x03006000, 0x200).reset(0x08100040, 0).dogH6(),
	late("v853", 0x1886, 0x20000, cortexA7, 0x41f00, Area{0x20000, 0x22000}).also(irqStack).fuses(0x03006000, 0x200).dogV853().stale(),
	late("r528", 0x1859, 0x20000, cortexA7, 0x48f00, Area{0x20000, 0x29000}).also(irqStack).fuses(0x03006000, 0x200).dogV853().stale(),
	old("v5", 0x1721, 0x20000, cortexA7, Area{0x20000, 0x24000}).fuses(0x03006000, 0x200).dogH6(),
	late("a523", 0x1890, 0x44000, cortexA55, 0x5cf00, Area{0x40000, 0x1d000}).fuses(0x03006000, 0x200).reset(0x08000040, 0).newer().dog(0x02050008, 0x16aa0001).stale(),
	late("a133", 0x1855, 0x20000, cortexA53, 0x45f00, Area{0x20000, 0x26000}, sramA2H6).fuses(0x03006000, 0x200).reset(0x08100040, 0).smc(0x100004).newer().dogH6(),
}

// aliases are other names of SoCs: of those that tell the same ID.
var aliases = map[string]string{
	"a10s": "a13", "r8": "a13", "r16": "a33", "h2+": "h3", "af1c100s": "f1c100s", "v5s": "v5", "t113-s3": "r528",
	"a100": "a133", "r818": "a133", "h313": "h616", "h618": "h616", "t507": "h616", "a527": "a523", "t527": "a523",
}

// Models lists all SoCs.
func Models() []Model { return slices.Clone(models) }

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
	return models[i], nil
}
