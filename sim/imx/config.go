package imx

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"snag/sim/virtual"
	"snag/usb"
)

// SPLID is what mainline U-Boot's SPL calls itself by default: Linux's gadget plus 0x0fff.
var SPLID = usb.ID{Vendor: 0x0525, Product: 0xb4a4}

// Gadget is U-Boot's fastboot on most boards.
var Gadget = usb.ID{Vendor: 0x0525, Product: 0xa4a5}

// The names of the stages.
const (
	StageROM    = virtual.StageROM // receives the first image
	StageROMAPI = "romapi"         // the ROM's stream goes on, for SPL
	StageSPL    = "spl"            // receives U-Boot
	StageGadget = virtual.StageGadget
)

// The searches of SPL (f_sdp.c): what an SPL looks for behind the address of a jump depends on how it was
// built, and each excludes the others.
const (
	FindFIT       = "fit"       // CONFIG_SPL_LOAD_FIT
	FindContainer = "container" // CONFIG_SPL_LOAD_IMX_CONTAINER
	FindNothing   = "none"      // neither: a legacy image at the address itself
)

// Config is a board and its faults. All but Model may be left out.
type Config struct {
	Model Model

	ROM     usb.ID // zero: the model's
	Release uint16 // bcdDevice of the ROM; zero: the model's
	Closed  bool   // the part runs signed images only; of ROMs that speak SDP, since a stream tells the host nothing
	// OutEP gives the ROM an interrupt OUT endpoint, NoOutEP takes it away.
	OutEP, NoOutEP bool

	SPL        SPLKind // empty: the model's
	SPLID      usb.ID  // zero: SPLID
	SPLRelease uint16  // bcdDevice; zero: 0x0500 for SDPV, 0x0200 for SDPU
	SPLFinds   string  // FindFIT, FindContainer or FindNothing; empty: containers where the first image is one, else FIT
	SPLAddr    uint32  // CONFIG_SDP_LOADADDR, where a file goes that is written to address 0; zero: 16 MiB into DRAM
	Gadget     usb.ID  // what U-Boot shows when it runs; zero: nothing

	// Machine is memory and processor; nil: a [Memory] for each power cycle.
	Machine Machine
	// Serial is the unique ID of the chip, in models that tell it. Empty: one that is fixed.
	Serial string

	// JumpDelay is how long a stage stays on the bus after its last answer. Zero: 50 ms; negative: none.
	JumpDelay time.Duration
	// SPLDelay is the time from the ROM's jump until SPL shows on the bus, GadgetDelay that from the end of
	// SPL until U-Boot's gadget does. Zero: 300 ms; negative: none.
	SPLDelay, GadgetDelay time.Duration
	// StreamPause is how long SPL takes before it asks the ROM for more of the stream: it sets up memory.
	StreamPause time.Duration
	// NoMore is a ROM that takes nothing of the stream behind U-Boot, but what comes in the same report.
	NoMore bool
	// Command is how long the ROM takes for each command, Report for each data report.
	Command, Report time.Duration
	// SameAddress lets the next stage keep the USB address of the one before, on ports that can do so.
	SameAddress bool
	// SPLNever is an SPL that never shows up.
	SPLNever bool

	Faults []Fault
}

// What goes wrong with a board.
type (
	Fault     = virtual.Fault
	FaultKind = virtual.FaultKind
)

// The kinds of faults.
const (
	Stall  FaultKind = "stall"  // every endpoint halts until the host clears that
	HAB    FaultKind = "hab"    // the security word is none of the two
	Status FaultKind = "status" // the status word is another one
	Cut    FaultKind = "cut"    // the last report of the answer has 2 bytes
	Wrong  FaultKind = "id"     // the last report of the answer has report ID 7
	Mute   FaultKind = "mute"   // the last report of the answer is missing
	NAK              = virtual.NAK
	Hang             = virtual.Hang
	Unplug           = virtual.Unplug
	Reset            = virtual.Reset
)

// faults are those that there are. Commands are as in [Command].Name.
var faults = virtual.Faults{
	Kinds:    []FaultKind{Stall, NAK, Hang, HAB, Status, Cut, Wrong, Mute, Unplug, Reset},
	Stages:   []string{StageROM, StageROMAPI, StageSPL},
	Commands: slices.Sorted(maps.Keys(commandCodes)),
}

// ParseFault reads KIND:STAGE:BYTES or KIND:STAGE:COMMAND, with NAK's time behind another colon: "stall:rom:4096",
// "nak:spl:jump:2s".
func ParseFault(s string) (Fault, error) { return faults.Parse(s) }

func (c Config) withDefaults() (Config, error) {
	m := &c.Model
	if m.Name == "" {
		return c, fmt.Errorf("no model is given")
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.JumpDelay, 50*time.Millisecond)
	def(&c.SPLDelay, 300*time.Millisecond)
	def(&c.GadgetDelay, 300*time.Millisecond)
	if c.ROM == (usb.ID{}) {
		c.ROM = m.ID
	}
	if c.Release == 0 {
		c.Release = m.Release
	}
	if c.OutEP && c.NoOutEP {
		return c, fmt.Errorf("an interrupt OUT endpoint is asked for and asked away")
	}
	m.OutEP = (m.OutEP || c.OutEP) && !c.NoOutEP
	m.NeedOut = m.NeedOut && m.OutEP
	if c.SPL == "" {
		c.SPL = m.SPL
	}
	if c.SPL == ROMAPI != (m.SPL == ROMAPI) || !slices.Contains([]SPLKind{SPLNone, SDPU, SDPV, ROMAPI}, c.SPL) {
		return c, fmt.Errorf("%s with SPL kind %q: expected %s, or one of none, sdpu, sdpv where the ROM does not give SPL its stream", m.Name, c.SPL, m.SPL)
	}
	if c.SPLID == (usb.ID{}) {
		c.SPLID = SPLID
	}
	if c.SPLRelease == 0 {
		c.SPLRelease = 0x0500
		if c.SPL == SDPU {
			c.SPLRelease = 0x0200
		}
	}
	if c.SPLFinds == "" {
		c.SPLFinds = FindFIT
		if m.Header == "container" {
			c.SPLFinds = FindContainer
		}
	}
	if !slices.Contains([]string{FindFIT, FindContainer, FindNothing}, c.SPLFinds) {
		return c, fmt.Errorf("SPL that finds %q: expected fit, container or none", c.SPLFinds)
	}
	if c.SPLAddr == 0 {
		c.SPLAddr = m.DRAM + 16<<20
	}
	if c.Serial == "" {
		c.Serial = "211BB800CA7EFD69"
	}
	return c, faults.Check(c.Faults...)
}
