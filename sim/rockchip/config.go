package rockchip

import (
	"fmt"
	"time"

	"snag/sim/virtual"
	"snag/usb"
)

// The names of the stages.
const (
	StageROM    = virtual.StageROM
	StagePlug   = "plug" // Rockchip's USB plug, in DRAM
	StageGadget = virtual.StageGadget
)

// Config is a board and its faults. All but Model may be left out.
type Config struct {
	Model Model

	// Loader is a board that is not in its ROM but in the loader of its vendor's U-Boot, which shows the same ID and
	// bcdUSB 2.01.
	Loader bool
	// PlainPlug is a USB plug that shows bcdUSB 2.00, as the ROM does.
	PlainPlug bool
	// AnyCode has the ROM start whatever it received.
	AnyCode bool
	// EarlyLeave is a ROM that jumps before the host has the status of the last piece.
	EarlyLeave bool
	// Stays is U-Boot without USB: the device stays on the bus and answers nothing. Ignored is a ROM that does not
	// start its last section, and answers on.
	Stays, Ignored bool
	// NeverPlug is a USB plug that never shows on the bus.
	NeverPlug bool
	// PlugTwice is a USB plug that leaves the bus at once and comes back. BareROM is a ROM whose descriptors have no
	// endpoints.
	PlugTwice, BareROM bool
	// PlugFails has the plug answer that it is not ready so often.
	PlugFails int
	// Gadget is what U-Boot shows when it runs; zero: nothing.
	Gadget usb.ID

	// Piece is how long the ROM takes for each piece of 4096 bytes, Init how long what it calls for 471 runs. JumpDelay
	// is how long it stays on the bus after the last section, PlugDelay until the next stage is there. Zero: none, 1
	// ms, 10 ms and 300 ms; negative: none.
	Piece, Init, JumpDelay, PlugDelay time.Duration
	// SameAddress lets the next stage keep the USB address of the one before, on ports that can do so.
	SameAddress bool

	Faults []Fault
}

// What goes wrong with a board. [Fault].At counts the bytes of all sections.
type (
	Fault     = virtual.Fault
	FaultKind = virtual.FaultKind
)

// The kinds of faults.
const (
	Stall  FaultKind = "stall" // the request is refused, and all after it: the ROM is out of step until a power cycle
	CRC    FaultKind = "crc"   // a bit of the section is wrong when it arrives
	Fail   FaultKind = "fail"  // the plug's status is 1
	Cut    FaultKind = "cut"   // the plug's answer is short
	Wrong  FaultKind = "wrong" // the plug's answer has another tag
	Mute   FaultKind = "mute"  // the plug answers nothing
	NAK              = virtual.NAK
	Hang             = virtual.Hang
	Unplug           = virtual.Unplug
	Reset            = virtual.Reset
)

// The commands that faults are at: the end of a section for 471 and 472, the jump, and the plug's commands.
const (
	At471   = "0x471"
	At472   = "0x472"
	AtJump  = "jump"
	AtReady = "ready"
	AtChip  = "chip"
)

var faults = virtual.Faults{
	Kinds:    []FaultKind{Stall, CRC, Fail, Cut, Wrong, Mute, NAK, Hang, Unplug, Reset},
	Stages:   []string{StageROM, StagePlug},
	Commands: []string{At471, At472, AtJump, AtReady, AtChip},
}

// ParseFault reads KIND:STAGE:BYTES or KIND:STAGE:COMMAND, with NAK's time behind another colon: "stall:rom:4096",
// "nak:rom:0x472:2s".
func ParseFault(s string) (Fault, error) { return faults.Parse(s) }

func (c Config) withDefaults() (Config, error) {
	if c.Model.Name == "" {
		return c, fmt.Errorf("no model is given")
	}
	for _, d := range []struct {
		of *time.Duration
		to time.Duration
	}{{&c.Init, time.Millisecond}, {&c.JumpDelay, 10 * time.Millisecond}, {&c.PlugDelay, 300 * time.Millisecond}} {
		if *d.of == 0 {
			*d.of = d.to
		}
	}
	return c, faults.Check(c.Faults...)
}
