package qcom

import (
	"fmt"
	"slices"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/usb"
)

// The IDs of EDL, and of a board that holds a crash dump.
var (
	ID     = usb.ID{Vendor: 0x05c6, Product: 0x9008}
	DumpID = usb.ID{Vendor: 0x05c6, Product: 0x900e}
)

// ProvenBy is the program, which nobody here wrote, that has recovered the virtual board, as internal/e2e's TestROMs
// has it.
const ProvenBy = "qdl"

// The names of the stages.
const (
	StageROM        = virtual.StageROM
	StageXBL        = "xbl"
	StageProgrammer = "programmer"
	StageGadget     = virtual.StageGadget
)

// Mode is what a board is doing when it is plugged in.
type Mode string

// The modes.
const (
	Image    Mode = ""             // it waits for an image
	Dump     Mode = "memory-debug" // it holds a crash dump, for a host that wants it
	Command  Mode = "command"      // it waits for commands, as a host before has asked for
	Firehose Mode = "firehose"     // a programmer runs that was loaded before
)

// Modes are all.
var Modes = []Mode{Image, Dump, Command, Firehose}

// Config is a board and its faults. All may be left out.
type Config struct {
	// Single has the first image be a programmer: the ROM wants no other one, and the programmer speaks Firehose.
	// Pending has the ROM say all the same that it does, as MSM8916's.
	Single, Pending bool

	Mode     Mode
	Eaten    bool // the first HELLO is gone: another program has read it
	Wide     bool // it asks by READ_DATA64
	Signed   bool // it takes no ELF file without a hash segment
	Version  uint32
	Speed    usbdev.Speed
	Protocol uint8         // of the interface; zero: 0x10
	IDs      [2]uint32     // of xbl and u-boot; zero: 13 and 5
	Piece    int           // the most that it asks for at once; zero: 1 MiB
	Gadget   usb.ID        // what U-Boot shows on the bus; zero: nothing
	Delay    time.Duration // from an image's end until it shows that it runs. Zero: 300 ms; negative: none

	// Reenumerate has xbl leave the bus, and come back, before it asks for more; Never is an image that does not start:
	// xbl.
	Reenumerate bool
	Never       string

	Faults []Fault
}

// What goes wrong with a board.
type (
	Fault     = virtual.Fault
	FaultKind = virtual.FaultKind
)

// The kinds of faults. All but the last four are about what the board says next.
const (
	Fail   FaultKind = "error" // END_IMAGE_TX with Fault.Status
	Cut    FaultKind = "cut"   // half of the packet
	Short  FaultKind = "short" // 4 bytes of it
	Long   FaultKind = "long"  // 16 bytes more than it says
	Lie    FaultKind = "lie"   // its length says 8 bytes more
	Wrong  FaultKind = "wrong" // a command that does not exist
	Other  FaultKind = "other" // another image id
	Range  FaultKind = "range" // READ_DATA behind the end of every file
	Again  FaultKind = "again" // READ_DATA of the same bytes without end
	Hello  FaultKind = "hello" // HELLO, again
	Debug  FaultKind = "debug" // MEM_DEBUG
	Early  FaultKind = "early" // it leaves the bus as if what it has were started
	Stall  FaultKind = "stall" // every endpoint halts until the host clears that
	NAK              = virtual.NAK
	Hang             = virtual.Hang
	Unplug           = virtual.Unplug
	Reset            = virtual.Reset
)

// FaultKinds are all.
var FaultKinds = []FaultKind{Fail, Cut, Short, Long, Lie, Wrong, Other, Range, Again, Hello, Debug, Early, Stall, NAK, Hang, Unplug, Reset}

// As a fault's Command: the packets of these names.
const (
	AtHello = "hello"
	AtEnd   = "end"  // END_IMAGE_TX
	AtDone  = "done" // DONE_RESP
)

var faults = virtual.Faults{
	Kinds:    FaultKinds,
	Stages:   []string{StageROM, StageXBL},
	Commands: []string{AtHello, AtEnd, AtDone},
	Telling:  Fail,
}

// ParseFault reads KIND:STAGE:BYTES or KIND:STAGE:PACKET, with a status or a time behind another colon:
// "hang:rom:4096", "error:xbl:end:0x21".
func ParseFault(s string) (Fault, error) { return faults.Parse(s) }

// maxPiece bounds what is asked for at once, and so what the model keeps.
const maxPiece = 16 << 20

func (c Config) withDefaults() (Config, error) {
	if c.Version == 0 {
		c.Version = 2
	}
	if c.Speed == 0 {
		c.Speed = usbdev.HighSpeed
	}
	if c.Protocol == 0 {
		c.Protocol = 0x10
	}
	if c.IDs == [2]uint32{} {
		c.IDs = [2]uint32{13, 5}
	}
	if c.Piece == 0 {
		c.Piece = 1 << 20
	}
	if c.Delay == 0 {
		c.Delay = 300 * time.Millisecond
	}
	switch {
	case c.Piece < 0 || c.Piece > maxPiece:
		return c, fmt.Errorf("pieces of %d bytes: expected %d at most", c.Piece, maxPiece)
	case !slices.Contains(Modes, c.Mode):
		return c, fmt.Errorf("mode %q: expected one of %q", c.Mode, Modes[1:])
	case c.Never != "" && c.Never != StageXBL:
		return c, fmt.Errorf("stage %q, which never starts: expected %s", c.Never, StageXBL)
	}
	return c, faults.Check(c.Faults...)
}
