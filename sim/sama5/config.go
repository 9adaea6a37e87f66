package sama5

import (
	"errors"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/usb"
)

// ID is the monitor's.
var ID = usb.ID{Vendor: 0x03eb, Product: 0x6124}

// The names of the stages.
const (
	StageROM    = virtual.StageROM
	StageGadget = virtual.StageGadget
)

// Config is a board and its faults. All but the model may be left out.
type Config struct {
	Model Model
	Speed usbdev.Speed // zero: high

	Preset int // the memory on the board, by the RAM applet's number; zero: 2, or 4 on SAMA5D2
	DRAM   int // its bytes; zero: 128 MiB

	Applet time.Duration // that each call of an applet takes; zero: 50 ms
	// Secure is a chip in secure mode, whose monitor takes other commands.
	Secure bool
	// Binary is a monitor that another program has left in binary mode.
	Binary bool
	// Unread is an answer that an earlier host has not taken. The monitor takes no command before somebody does.
	Unread string
	// Midway is what an earlier host has still to send of a file. A port reset makes the monitor forget that, unless it
	// is Deaf.
	Midway int
	Deaf   bool
	// Stays has U-Boot leave the USB controller as it is: the device stays, and answers nothing.
	Stays bool
	// Gadget is what U-Boot shows on the bus; zero: nothing. UBootDelay is how long that takes; zero: 300 ms.
	Gadget     usb.ID
	UBootDelay time.Duration

	Faults []Fault
}

// What goes wrong with a board.
type (
	Fault     = virtual.Fault
	FaultKind = virtual.FaultKind
)

// The kinds of faults.
const (
	Fail    FaultKind = "fail"    // the applet that is called ends with a status
	Ignore  FaultKind = "ignore"  // the applet is not called: nothing happens
	Mute    FaultKind = "mute"    // there is no answer
	Cut     FaultKind = "cut"     // the answer lacks its second half
	Wrong   FaultKind = "wrong"   // the answer has another value
	Long    FaultKind = "long"    // the answer has 100 bytes more
	Endless FaultKind = "endless" // the answer has no end
	Flip    FaultKind = "flip"    // a word of what comes next arrives wrong
	Stall   FaultKind = "stall"   // both endpoints halt until the host clears that
	NAK               = virtual.NAK
	Hang              = virtual.Hang
	Unplug            = virtual.Unplug
	Reset             = virtual.Reset
)

// FaultKinds are all.
var FaultKinds = []FaultKind{Fail, Ignore, Mute, Cut, Wrong, Long, Endless, Flip, Stall, NAK, Hang, Unplug, Reset}

// What a fault's Command may be besides a letter of the monitor's: the call of an applet, the start of U-Boot, and the
// answer to a read of the chip's ID.
const (
	CallLowlevel = "lowlevel"
	CallExtram   = "extram"
	StartUBoot   = "u-boot"
	ReadID       = "id"
)

var faults = virtual.Faults{
	Kinds:    FaultKinds,
	Stages:   []string{StageROM},
	Commands: []string{"#", "N", "T", "V", "o", "h", "w", "O", "H", "W", "S", "R", "G", ReadID, CallLowlevel, CallExtram, StartUBoot},
	Telling:  Fail,
}

// ParseFault reads KIND:STAGE:BYTES or KIND:STAGE:COMMAND, with a time (nak) or an applet's status (fail) behind
// another colon: "fail:rom:extram:0x0f", "unplug:rom:4096".
func ParseFault(s string) (Fault, error) { return faults.Parse(s) }

func (c Config) withDefaults() (Config, error) {
	if c.Model.Name == "" {
		return c, errors.New("it has no model")
	}
	if c.Speed == 0 {
		c.Speed = usbdev.HighSpeed
	}
	if c.Preset == 0 {
		if c.Preset = 2; c.Model.Name == "sama5d2" {
			c.Preset = 4
		}
	}
	if c.DRAM == 0 {
		c.DRAM = 128 << 20
	}
	if c.Applet == 0 {
		c.Applet = 50 * time.Millisecond
	}
	if c.UBootDelay == 0 {
		c.UBootDelay = 300 * time.Millisecond
	}
	return c, faults.Check(c.Faults...)
}
