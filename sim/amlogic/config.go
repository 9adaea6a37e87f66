package amlogic

import (
	"time"

	"snag/sim/virtual"
	"snag/usb"
)

// Config is a board and its faults. All but Model may be left out.
type Config struct {
	Model Model

	Locked bool   // USB boot is protected by a password
	Short  bool   // IDENTIFY has four bytes, as in old ROMs
	At     uint8  // the stage that IDENTIFY tells at first; 0: the ROM
	Gadget usb.ID // what U-Boot shows when it runs; zero: nothing

	// Asks are the pieces of u-boot.bin that the BL2 of G12 asks for. Nil: those that its FIP suggests, as PROTOCOL.md
	// has them.
	Asks []Ask
	// Leaves has the BL2 of G12 start U-Boot as soon as it has everything, without asking for the last piece again.
	Leaves bool

	// BL2Delay is the time from a BL2's start until it listens, DRAMDelay that which it takes to set up the DRAM.
	// Nothing is answered meanwhile. Zero: 400 ms; negative: none.
	BL2Delay, DRAMDelay time.Duration
	// GadgetDelay is the time from the start of U-Boot until its gadget shows on the bus. Zero: 300 ms; negative: none.
	GadgetDelay time.Duration

	Faults []Fault
}

// Ask is a piece of u-boot.bin.
type Ask struct{ Length, Offset uint32 }

// What goes wrong with a board.
type (
	Fault     = virtual.Fault
	FaultKind = virtual.FaultKind
)

// The kinds of faults.
const (
	Stall   FaultKind = "stall"   // the request, or the bulk transfers behind it, are refused
	Cut     FaultKind = "cut"     // the answer has 2 bytes
	Wrong   FaultKind = "wrong"   // the answer is another
	Mute    FaultKind = "mute"    // there is no answer
	Beyond  FaultKind = "beyond"  // BL2 asks for what is not in the file
	Nothing FaultKind = "nothing" // BL2 asks for no bytes
	Endless FaultKind = "endless" // BL2 never stops asking
	NAK               = virtual.NAK
	Hang              = virtual.Hang
	Unplug            = virtual.Unplug
	Reset             = virtual.Reset
)

// FaultKinds are all.
var FaultKinds = []FaultKind{Stall, Cut, Wrong, Mute, Beyond, Nothing, Endless, NAK, Hang, Unplug, Reset}

var faults = virtual.Faults{
	Kinds:    FaultKinds,
	Stages:   []string{StageROM, StageBL2},
	Commands: []string{"identify", "write", "read", "run", "large-write", "amlc", "data", "amls"},
}

// ParseFault reads KIND:STAGE:BYTES or KIND:STAGE:COMMAND, with NAK's time behind another colon: "hang:bl2:amlc".
func ParseFault(s string) (Fault, error) { return faults.Parse(s) }

func (c Config) withDefaults() (Config, error) {
	if c.Model == (Model{}) {
		c.Model = models[0]
	}
	for d, usual := range map[*time.Duration]time.Duration{&c.BL2Delay: 400 * time.Millisecond, &c.DRAMDelay: 400 * time.Millisecond, &c.GadgetDelay: 300 * time.Millisecond} {
		if *d == 0 {
			*d = usual
		}
	}
	return c, faults.Check(c.Faults...)
}
