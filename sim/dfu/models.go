package dfu

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"snag/sim/virtual"
	"snag/usb"
)

// Family is how a chip starts.
type Family string

const (
	STM32MP1 Family = "stm32mp1"
	STM32MP2 Family = "stm32mp2"
	K3       Family = "k3"
	ZynqMP   Family = "zynqmp"
	Gadget   Family = "gadget" // no chip: U-Boot's dfu command, or what is like it, with storage behind it
	RZN1     Family = "rzn1"
)

// Model is a chip.
type Model struct {
	Name   string
	Family Family
	ID     usb.ID
	Split  bool // K3: system firmware is a file of its own

	// ProvenBy is the program, which nobody here wrote, that has recovered the virtual board stage by stage, or in
	// brackets one that is alike but for its USB ID, as internal/e2e's TestDFU has it. Empty: none; the model is what the
	// sources say and no more.
	ProvenBy string
}

// dfuUtil is Debian's dfu-util 0.11.
const dfuUtil = "dfu-util"

var models = []Model{
	{Name: "stm32mp13", Family: STM32MP1, ID: usb.ID{Vendor: 0x0483, Product: 0xdf11}, ProvenBy: dfuUtil},
	{Name: "stm32mp15", Family: STM32MP1, ID: usb.ID{Vendor: 0x0483, Product: 0xdf11}, ProvenBy: dfuUtil},
	{Name: "stm32mp21", Family: STM32MP2, ID: usb.ID{Vendor: 0x0483, Product: 0xdf11}, ProvenBy: dfuUtil + " (stm32mp25)"},
	{Name: "stm32mp23", Family: STM32MP2, ID: usb.ID{Vendor: 0x0483, Product: 0xdf11}, ProvenBy: dfuUtil + " (stm32mp25)"},
	{Name: "stm32mp25", Family: STM32MP2, ID: usb.ID{Vendor: 0x0483, Product: 0xdf11}, ProvenBy: dfuUtil},
	{Name: "am62x", Family: K3, ID: usb.ID{Vendor: 0x0451, Product: 0x6165}, ProvenBy: dfuUtil},
	{Name: "am62ax", Family: K3, ID: usb.ID{Vendor: 0x0451, Product: 0x6165}, ProvenBy: dfuUtil + " (am62x)"},
	{Name: "am62dx", Family: K3, ID: usb.ID{Vendor: 0x0451, Product: 0x6165}, ProvenBy: dfuUtil + " (am62x)"},
	{Name: "am62px", Family: K3, ID: usb.ID{Vendor: 0x0451, Product: 0x6165}, ProvenBy: dfuUtil + " (am62x)"},
	{Name: "am62lx", Family: K3, ID: usb.ID{Vendor: 0x0451, Product: 0x6165}, ProvenBy: dfuUtil},
	{Name: "am64x", Family: K3, ID: usb.ID{Vendor: 0x0451, Product: 0x6165}, ProvenBy: dfuUtil},
	{Name: "am65x", Family: K3, ID: usb.ID{Vendor: 0x0451, Product: 0x6162}, Split: true, ProvenBy: dfuUtil},
	{Name: "j721e", Family: K3, ID: usb.ID{Vendor: 0x0451, Product: 0x6163}, Split: true, ProvenBy: dfuUtil + " (am65x)"},
	{Name: "j7200", Family: K3, ID: usb.ID{Vendor: 0x0451, Product: 0x6164}, ProvenBy: dfuUtil + " (am62x)"},
	{Name: "j721s2", Family: K3, ID: usb.ID{Vendor: 0x0451, Product: 0x6168}, ProvenBy: dfuUtil + " (am62x)"},
	{Name: "j722s", Family: K3, ID: usb.ID{Vendor: 0x0451, Product: 0x6165}, ProvenBy: dfuUtil + " (am62x)"},
	{Name: "j784s4", Family: K3, ID: usb.ID{Vendor: 0x0451, Product: 0x6168}, ProvenBy: dfuUtil + " (am62x)"},
	{Name: "rzn1", Family: RZN1, ID: usb.ID{Vendor: 0x045b, Product: 0x0239}, ProvenBy: dfuUtil},
	{Name: "zynqmp", Family: ZynqMP, ID: usb.ID{Vendor: 0x03fd, Product: 0x0050}, ProvenBy: dfuUtil},
	{Name: "dfu", Family: Gadget, ID: usb.ID{Vendor: 0x0525, Product: 0xa4a5}, ProvenBy: dfuUtil},
}

// Models lists all chips.
func Models() []Model { return slices.Clone(models) }

// aliases are other names of chips: of those that have a ROM in common.
var aliases = map[string]string{
	"am623": "am62x", "am625": "am62x", "am62a7": "am62ax", "am62d2": "am62dx", "am62p": "am62px", "am62l3": "am62lx",
	"am6411": "am64x", "am6412": "am64x", "am6421": "am64x", "am6422": "am64x", "am6441": "am64x", "am6442": "am64x",
	"dra821": "j7200", "dra829": "j721e", "tda4vm": "j721e", "am68": "j721s2", "tda4al": "j721s2", "tda4ve": "j721s2", "tda4vl": "j721s2",
	"am67": "j722s", "tda4aen": "j722s", "tda4ven": "j722s",
	"am69": "j784s4", "tda4ah": "j784s4", "tda4ap": "j784s4", "tda4vh": "j784s4", "tda4vp": "j784s4",
	"am6546": "am65x", "am6548": "am65x", "rzn1d": "rzn1", "rzn1s": "rzn1", "rzn1l": "rzn1",
}

// Names are all names that [FindModel] knows.
func Names() []string {
	var all []string
	for _, m := range models {
		all = append(all, m.Name)
	}
	return append(all, slices.Sorted(maps.Keys(aliases))...)
}

// FindModel finds a chip by one of its names.
func FindModel(name string) (Model, error) {
	name = strings.ToLower(name)
	if other, ok := aliases[name]; ok {
		name = other
	}
	i := slices.IndexFunc(models, func(m Model) bool { return m.Name == name })
	if i < 0 {
		return Model{}, fmt.Errorf("virtual DFU board %q: there are %s", name, strings.Join(Names(), ", "))
	}
	return models[i], nil
}

// The names of the stages.
const (
	StageROM    = "rom"
	StageROM2   = "rom2"    // AM62L: the ROM, for the second file; K3 that wants the first one twice
	StageTFA    = "tfa"     // STM32MP
	StageUBoot  = "u-boot"  // STM32MP: stm32prog
	StageSPL    = "spl"     // STM32MP with U-Boot's SPL instead of TF-A
	StageSysfw  = "sysfw"   // K3: SPL without system firmware
	StageSPLR5  = "spl-r5"  // K3
	StageSPLA53 = "spl-a53" // K3
	StageFSBL   = "fsbl"    // ZynqMP
	StageApp    = "app"     // gadget in run-time mode
	StageGadget = virtual.StageGadget
)

var stageNames = []string{StageROM, StageROM2, StageTFA, StageUBoot, StageSPL, StageSysfw, StageSPLR5, StageSPLA53, StageFSBL, StageApp, StageGadget}

// kind is whose state machine a stage has.
type kind int

const (
	kindROM kind = iota
	kindTFA
	kindUBoot
	kindFSBL
	kindApp
	kindDfuSe
)

// alt is an alternate setting of a stage.
type alt struct {
	name   string
	phase  int // STM32MP
	limit  int // bytes of a file; 0: none
	check  func([]byte) error
	vendor bool // it is not DFU's
	medium *medium
}

// stage is what a stage shows and how it ends.
type stage struct {
	name           string
	kind           kind
	release        uint16
	maker, product string
	label          string // the name of all settings
	alts           []alt
	attributes     byte
	detach         uint16
	transfer       uint16
	version        uint16 // bcdDFUVersion; zero: 1.1

	phases  []int // STM32MP: files that are wanted, one after the other
	needs   []string
	detachs bool // it goes on at DETACH, not when it has its file
	keeps   bool // the next stage goes on with its USB session
	last    bool // U-Boot is what comes after it
	stays   bool // nothing comes after it
	media   bool // its settings have media
	runTime bool
}

// phaseVirtual is STM32MP's command partition.
const phaseVirtual = 0xf1

// stages is the way of a board.
func (c *Config) stages() []stage {
	switch c.Model.Family {
	case STM32MP1, STM32MP2:
		return c.stm32()
	case K3:
		return c.k3()
	case ZynqMP:
		return c.zynqmp()
	case Gadget:
		return c.gadget()
	}
	return []stage{{
		name: StageROM, release: 0x0100, maker: "Renesas", product: "RZ/N1 USB DFU",
		alts:       []alt{{limit: 2 << 20, check: checkSPKG}},
		attributes: 0x01, detach: 1000, transfer: 1024, needs: []string{""}, last: true,
	}}
}

func (c *Config) stm32() []stage {
	device := "@Device ID /" + map[string]string{"stm32mp13": "0x501", "stm32mp15": "0x500", "stm32mp21": "0x503"}[c.Model.Name]
	if strings.HasSuffix(device, "/") { // STM32MP23 is the same die as STM32MP25
		device += "0x505"
	}
	product := "DFU " + device + ", @Revision ID /0x0000, @Name /STM32MP,"
	commands := alt{name: "@virtual /0xF1/1*512Ba", phase: phaseVirtual}
	rom := stage{
		name: StageROM, release: 0x0200, maker: "STMicroelectronics", product: product,
		attributes: 0x0f, detach: 255, transfer: 1024, phases: []int{1}, detachs: true, keeps: true,
		alts: []alt{{name: "@FSBL /0x01/1*1Me", phase: 1, limit: 1 << 20, check: checkSTM32}, commands},
	}
	tfa := rom
	tfa.name, tfa.kind, tfa.phases, tfa.keeps, tfa.last = StageTFA, kindTFA, []int{3}, false, true
	fip := alt{name: "@FIP /0x03/1*16Me", phase: 3, limit: 16 << 20, check: checkFIP}
	switch c.Model.Name {
	case "stm32mp15":
		rom.detachs = false
		rom.alts = []alt{
			{name: "@Partition0 /0x00/1*256Ke", phase: 0, limit: 256 << 10, check: checkSTM32},
			rom.alts[0],
			{name: "@Partition2 /0x02/1*1Me", phase: 2},
			{name: "@Partition3 /0x03/1*16Me", phase: 3, limit: 16 << 20, check: checkFIP},
			{name: "@Partition4 /0x04/1*16Me", phase: 4},
			{name: "@virtual /0xF1/1*512Ba", phase: phaseVirtual},
		}
		rom.alts[1].name = "@FSBL /0x01/1*1Me"
		tfa.alts = rom.alts
		if c.OldTFA {
			tfa.phases = []int{0, 3}
		}
	case "stm32mp13":
		rom.keeps = false
		fip.name = "@SSBL /0x03/1*16Me"
		tfa.alts = []alt{fip, commands}
	default:
		tfa.phases = []int{2, 3}
		tfa.alts = []alt{{name: "@DDR FIP /0x02/1*32Ke", phase: 2, limit: 0xa000, check: checkFIP}, fip, commands}
	}
	if c.STM32SPL {
		rom.detachs, rom.keeps = false, false
		return []stage{rom, {
			name: StageSPL, kind: kindUBoot, release: 0x0201, maker: "STMicroelectronics", product: "USB download gadget",
			attributes: 0x0f, transfer: 4096, detachs: true, last: true,
			alts: []alt{{name: "u-boot.itb", limit: 0x800000}}, needs: []string{"u-boot.itb"},
		}}
	}
	return []stage{rom, tfa, {
		name: StageUBoot, kind: kindUBoot, release: 0x0200, maker: "STMicroelectronics", product: "USB download gadget" + device,
		attributes: 0x0f, transfer: 4096, stays: true,
		alts: []alt{
			{name: "@FlashLayout/0x00/1*256Ke", phase: 0, limit: 256 << 10, check: checkSTM32},
			{name: "@virtual/0xF1/1*512Be", phase: phaseVirtual, limit: 512},
			{name: "@OTP/0xF2/1*1024Be", phase: 0xf2, limit: 1024},
			{name: "@PMIC/0xF4/1*8Be", phase: 0xf4, limit: 8},
		},
	}}
}

func (c *Config) k3() []stage {
	rom := stage{
		name: StageROM, release: 0x0200, maker: "Texas Instruments, Inc", product: "AM6xxx DFU",
		attributes: 0x03, detach: 1000, transfer: 512, needs: []string{"bootloader"},
		alts: []alt{{name: "bootloader", limit: 1 << 20, check: checkX509}, {name: "SocId"}},
	}
	if c.Model.Name == "am65x" {
		rom.release = 0
	}
	tispl := alt{name: "tispl.bin", limit: 0x200000, check: checkFIT}
	uboot := alt{name: "u-boot.img", limit: 0x400000, check: checkFIT}
	spl := stage{
		kind: kindUBoot, release: 0x0224, maker: "Texas Instruments", product: "USB download gadget",
		attributes: 0x0f, transfer: 4096, detachs: true,
	}
	sysfw, r5, a53 := spl, spl, spl
	sysfw.name, sysfw.alts, sysfw.needs = StageSysfw, []alt{{name: "sysfw.itb", limit: 0x100000, check: checkFIT}}, []string{"sysfw.itb"}
	r5.name, r5.alts, r5.needs = StageSPLR5, []alt{tispl, uboot}, []string{"tispl.bin"}
	a53.name, a53.alts, a53.needs, a53.last = StageSPLA53, []alt{tispl, uboot}, []string{"u-boot.img"}, true
	if c.SPL == SPLNext {
		r5.alts, a53.alts = []alt{tispl}, []alt{uboot}
	}
	if c.Model.Name == "am62lx" || c.Twice {
		rom.keeps = c.SameSession
	}
	all := []stage{rom}
	rom.keeps = false
	if c.Model.Name == "am62lx" {
		second := rom
		second.name = StageROM2
		second.alts = []alt{{name: "bootloader", limit: 0x200000}, {name: "SocId"}}
		a53.alts = []alt{uboot}
		return append(all, second, a53)
	}
	if c.Twice {
		second := rom
		second.name = StageROM2
		all = append(all, second)
	}
	if c.Model.Split {
		all = append(all, sysfw)
	}
	if c.SPL == SPLOld {
		r5.needs, r5.last = []string{"tispl.bin", "u-boot.img"}, true
		return append(all, r5)
	}
	return append(all, r5, a53)
}

func (c *Config) zynqmp() []stage {
	return []stage{{
		name: StageROM, release: 0x0100, maker: "Xilinx Inc.", product: "Xilinx Boot ROM DFU",
		alts:       []alt{{limit: 256 << 10, check: checkZynqMP}},
		attributes: 0x03, detach: 8192, transfer: 1024, needs: []string{""},
	}, {
		name: StageFSBL, kind: kindFSBL, release: 0x0100, maker: "Xilinx", product: "DFU 2.0 emulation v 1.1",
		label:      "Xilinx DFU Downloader",
		alts:       []alt{{vendor: true}, {check: checkZynqMPFull}},
		attributes: 0x03, detach: 8192, transfer: 1024, needs: []string{"Xilinx DFU Downloader"}, last: true,
	}}
}
