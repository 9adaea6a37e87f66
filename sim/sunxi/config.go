package sunxi

import (
	"fmt"
	"time"

	"snag/sim/virtual"
	"snag/usb"
)

// The names of the stages.
const (
	StageROM    = virtual.StageROM // FEL, before SPL and after it
	StageGadget = virtual.StageGadget
)

// Config is a board and its faults. All but Model may be left out.
type Config struct {
	Model Model

	SoC uint16    // the ID that it tells; zero: the model's
	SID [4]uint32 // its fuses; zero: ones that are fixed

	Fused     bool // for secure boot: FEL is in non-secure state
	SecondDie bool // of a SoC that has two
	RISCV     bool // the core is none of Arm's (D1, which tells R528's ID)

	// Machine is memory and processor; nil: a [SoC], which is made anew at each power-on.
	Machine Machine

	// LateStatus has the ROM tell the status of an execution when that has come back, not before it.
	LateStatus bool
	// Command is how long the ROM takes for each command.
	Command time.Duration
	// SPLTime is how long SPL takes to set up DRAM. Zero: 50 ms; negative: none. SPLHangs is one that never returns. A
	// [SoC]'s.
	SPLTime  time.Duration
	SPLHangs bool

	// Lingers is a board whose U-Boot leaves the ROM's device on the bus, where nobody answers any more.
	Lingers bool
	// LeaveDelay is how long the ROM's device stays on the bus after it was left. Zero: 50 ms; negative: none.
	LeaveDelay time.Duration
	// Gadget is what U-Boot shows when it runs, after GadgetDelay (zero: 300 ms; negative: none). Zero: nothing.
	Gadget      usb.ID
	GadgetDelay time.Duration

	Faults []Fault
}

// What goes wrong with a board. [Fault].At counts the bytes that were written, SPL's among them.
type (
	Fault     = virtual.Fault
	FaultKind = virtual.FaultKind
)

// The kinds of faults.
const (
	Stall  FaultKind = "stall" // both endpoints halt until the host clears that
	State  FaultKind = "state" // the state of the command is Fault.Status, or 1
	Refuse FaultKind = "awus"  // the status of the next AWUSB round is 1
	Magic  FaultKind = "magic" // the next AWUS has another magic
	Cut    FaultKind = "cut"   // the next AWUS has 7 bytes
	Mute   FaultKind = "mute"  // the next AWUS is missing, and so is what comes after
	Flip   FaultKind = "flip"  // a bit of the byte is kept wrong
	NAK              = virtual.NAK
	Hang             = virtual.Hang
	Unplug           = virtual.Unplug
	Reset            = virtual.Reset
)

// faults are those that there are. Commands are as in [Command].Name.
var faults = virtual.Faults{
	Kinds:    []FaultKind{Stall, State, Refuse, Magic, Cut, Mute, Flip, NAK, Hang, Unplug, Reset},
	Stages:   []string{StageROM},
	Commands: []string{"version", "read", "write", "execute"},
	Telling:  State,
}

// ParseFault reads KIND:rom:BYTES or KIND:rom:COMMAND, with a time or a state behind another colon: "flip:rom:4096",
// "state:rom:write:3", "nak:rom:execute:2s".
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
	def(&c.SPLTime, 50*time.Millisecond)
	def(&c.LeaveDelay, 50*time.Millisecond)
	def(&c.GadgetDelay, 300*time.Millisecond)
	if c.SoC == 0 {
		c.SoC = m.SoC
	}
	if c.SID == [4]uint32{} {
		c.SID = [4]uint32{0x02c00081, uint32(m.SoC), 0x50a0d6f4, 0x1c3b5a79}
	}
	if c.Fused && m.secure == 0 {
		return c, fmt.Errorf("%s fused for secure boot: nobody told what that does", m.Name)
	}
	if c.SecondDie && m.rvbar2 == 0 {
		return c, fmt.Errorf("%s has no second die", m.Name)
	}
	if c.Gadget != (usb.ID{}) && c.Lingers {
		return c, fmt.Errorf("a gadget on a bus where the ROM's device lingers")
	}
	return c, faults.Check(c.Faults...)
}
