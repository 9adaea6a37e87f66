package sama5

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// chip is what differs between the SoCs (SAM-BA 3.3.1, src/plugins/device; the remap's address is Snagboot's,
// recoveries/sama5.py).
type chip struct {
	model string

	// The chip ID: where it is, which bits count (the lowest are the silicon's revision), and what they are. exids are
	// those of the extension behind it; none: any.
	cidrAt, cidrMask, cidr uint32
	exids                  []uint32

	sram, size uint32 // where applets are loaded and called, and how much memory there is
	cache      bool   // that memory is the L2 cache, until it is made memory
	remap      uint32 // AXIMX_REMAP: 1 shows the internal SRAM at address 0

	consoles []console // by the applets' instance numbers
}

// console is a serial port that applets can write to.
type console struct {
	name string
	sets int // its I/O sets: 1 to sets
}

// cacheControl is SFR_L2CC_HRAMC of SAMA5D2 (DS60001476, "Special Function Registers"): 0 makes the L2 cache memory.
const cacheControl = 0xf8030058

// DRAM, on all of them.
const (
	dram    = 0x20000000
	dramEnd = 0x40000000
)

// The consoles are those of the applets (atmel-software-package, samba_applets/common/console_pin_defs_*.c).
var chips = []chip{
	{
		model: "sama5d2", cidrAt: 0xfc069000, cidrMask: 0xffffffe0, cidr: 0x8a5c08c0,
		sram: 0x220000, size: 128 << 10, cache: true, remap: 0x600000,
		consoles: []console{{"UART0", 1}, {"UART1", 2}, {"UART2", 3}, {"UART3", 3}, {"UART4", 1},
			{"FLEXCOM0", 1}, {"FLEXCOM1", 1}, {"FLEXCOM2", 2}, {"FLEXCOM3", 3}, {"FLEXCOM4", 3}},
	},
	{
		model: "sama5d3", cidrAt: 0xffffee40, cidrMask: 0xfffffffe, cidr: 0x8a5c07c2,
		exids: []uint32{0x00444300, 0x00414300, 0x00414301, 0x00584300, 0x00004301},
		sram:  0x300000, size: 64 << 10, remap: 0x800000,
		consoles: []console{{"DBGU", 1}, {"UART0", 1}, {"UART1", 1}, {"USART0", 1}, {"USART1", 1}, {"USART2", 1}, {"USART3", 1}},
	},
	{
		model: "sama5d4", cidrAt: 0xfc069040, cidrMask: 0xffffffe0, cidr: 0x8a5c07c0,
		sram: 0x200000, size: 64 << 10, remap: 0x700000,
		consoles: []console{{"DBGU", 1}, {"UART0", 1}, {"UART1", 1}, {"USART0", 1}, {"USART1", 1}, {"USART2", 1}, {"USART3", 1}, {"USART4", 1}},
	},
}

// find is the model's chip; nil if it is none of these.
func find(model string) *chip {
	i := slices.IndexFunc(chips, func(c chip) bool { return c.model == model })
	if i < 0 {
		return nil
	}
	return &chips[i]
}

// ports lists the consoles for people.
func (c *chip) ports() string {
	var s []string
	for i, p := range c.consoles {
		sets := "1"
		if p.sets > 1 {
			sets = fmt.Sprintf("1 to %d", p.sets)
		}
		s = append(s, fmt.Sprintf("%d (%s, I/O set %s)", i, p.name, sets))
	}
	return strings.Join(s, ", ")
}

// preset is a memory that the RAM applet can set up.
type preset struct {
	kind, chip string
	text       string // as the applet has it
}

// presets are by their numbers (atmel-software-package, samba_applets/extram/main.c). An applet has only some of them.
var presets = []preset{
	{"DDR2", "MT47H128M8", "4 x MT47H128M8"},
	{"DDR2", "MT47H64M16", "1 x MT47H64M16"},
	{"DDR2", "MT47H128M16", "2 x MT47H128M16"},
	{"LPDDR2", "MT42L128M16", "2 x MT42L128M16"},
	{"DDR3", "MT41K128M16", "2 x MT41K128M16"},
	{"LPDDR3", "EDF8164A3MA", "EDF8164A3MA"},
	{"SDRAM", "IS42S16100E", "IS42S16100E"},
	{"SDRAM", "W981216BH", "W981216BH"},
	{"DDR2", "W971GG6SB", "W971GG6SB"},
	{"DDR2", "W972GG6KB", "W972GG6KB"},
	{"SDRAM", "AS4C16M16SA", "AS4C16M16SA"},
	{"DDR3", "MT41K128M16", "1 x MT41K128M16"},
	{"DDR2", "W972GG6KB", "W972GG6KB_16"},
	{"LPDDR2", "AD220032D", "AD220032D"},
	{"LPDDR2", "AD210032D", "AD210032D"},
	{"DDR2", "W9712G6KB", "W9712G6KB"},
	{"DDR2", "W9751G6KB", "W9751G6KB"},
	{"DDR2", "MT47H64M16", "2 x MT47H64M16"},
	{"DDR2", "MT47H128M16", "1 x MT47H128M16"},
}

// presetName is a preset as Snagboot's files have it.
func presetName(n int) string {
	p := presets[n]
	return fmt.Sprintf("%s_%s:Preset %d (%s)", p.kind, p.chip, n, p.text)
}

// findPreset finds a preset by its name in Snagboot's files, its number, or its memory. There may be several, or none.
func findPreset(v any) (found []int) {
	want := strings.TrimSpace(fmt.Sprint(v))
	if n, err := strconv.Atoi(want); err == nil {
		if n >= 0 && n < len(presets) {
			found = append(found, n)
		}
		return found
	}
	for n, p := range presets {
		if strings.EqualFold(want, presetName(n)) {
			return []int{n}
		}
		if strings.EqualFold(want, p.chip) || strings.EqualFold(want, p.text) || strings.EqualFold(want, p.kind+"_"+p.chip) {
			found = append(found, n)
		}
	}
	return found
}

// presetNames lists presets for people.
func presetNames(numbers []int) string {
	var s []string
	for _, n := range numbers {
		s = append(s, strconv.Quote(presetName(n)))
	}
	return strings.Join(s, ", ")
}
