package bcm

import (
	"errors"
	"time"

	"snag/sim/virtual"
	"snag/usb"
)

// The names of the stages.
const (
	StageROM      = virtual.StageROM
	StageBootcode = "bootcode"
	StageGadget   = virtual.StageGadget
)

// Config is a board and its faults. All but the model may be left out.
type Config struct {
	Model  Model
	Faults []Fault

	Started       bool // somebody has sent the second stage: it runs from the beginning
	TwoInterfaces bool // the first one is a disk's, as on a CM3
	EarlyLeave    bool // the ROM starts the second stage before it has told the status
	Signed        bool // boot.img is to have a signature, boot.sig
	Files         bool // no boot.img: the kernel and what it takes are asked for one by one
	Metadata      bool // the second stage tells of the board
	NoDone        bool // it leaves without saying that it is done

	BootcodeNever bool          // the second stage does not start
	Verify        time.Duration // how long the ROM looks at it; 0: 100 ms
	StageDelay    time.Duration // until it enumerates; 0: 300 ms

	Gadget      usb.ID // that U-Boot or the kernel shows on USB; zero: none
	GadgetDelay time.Duration
}

// Fault is something that goes wrong.
type (
	Fault     = virtual.Fault
	FaultKind = virtual.FaultKind
)

// The kinds of faults.
const (
	Status  FaultKind = "status"  // ROM: the second stage is refused with this status (0: 1)
	Stall   FaultKind = "stall"   // the next request is refused with a stall; at a number of bytes the bulk endpoint is halted
	Unknown FaultKind = "unknown" // second stage: a command that there is not
	Escape  FaultKind = "escape"  // second stage: it asks for files outside of the host's directory first
	Endless FaultKind = "endless" // second stage: a name without end
	Short   FaultKind = "short"   // a message, or the status, that is too short
	Early   FaultKind = "early"   // second stage: it says that it is done, and leaves
	Unnamed FaultKind = "unnamed" // second stage: a request for no name, which means the same
	NAK               = virtual.NAK
	Hang              = virtual.Hang
	Unplug            = virtual.Unplug
	Reset             = virtual.Reset
)

// The points at which a fault may happen, beside numbers of bytes.
const (
	atMessage  = "message"  // the ROM awaits the length of the second stage
	atBootcode = "bootcode" // the ROM awaits the second stage
	atStatus   = "status"
	atSize     = "size" // the second stage asks for a file's length
	atRead     = "read" // it asks for a file
	atDone     = "done"
)

var faults = virtual.Faults{
	Kinds:    []FaultKind{Status, Stall, Unknown, Escape, Endless, Short, Early, Unnamed, NAK, Hang, Unplug, Reset},
	Stages:   []string{StageROM, StageBootcode},
	Commands: []string{atMessage, atBootcode, atStatus, atSize, atRead, atDone},
	Telling:  Status,
}

// ParseFault reads KIND:STAGE:BYTES or KIND:STAGE:COMMAND, with a status or NAK's time behind another colon:
// "status:rom:status:2".
func ParseFault(s string) (Fault, error) { return faults.Parse(s) }

func (c Config) withDefaults() (Config, error) {
	if c.Model.Name == "" {
		return c, errors.New("no model")
	}
	if c.Verify == 0 {
		c.Verify = 100 * time.Millisecond
	}
	if c.StageDelay == 0 {
		c.StageDelay = 300 * time.Millisecond
	}
	if c.GadgetDelay == 0 {
		c.GadgetDelay = 300 * time.Millisecond
	}
	return c, faults.Check(c.Faults...)
}
