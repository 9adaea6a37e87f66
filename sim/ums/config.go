package ums

import (
	"fmt"
	"slices"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/usb"
)

// ID is that of most U-Boots.
var ID = usb.ID{Vendor: 0x0525, Product: 0xa4a5}

// StageGadget is the name of the only stage.
const StageGadget = virtual.StageGadget

// maxUnits is how many logical units the gadget may have (f_mass_storage.c, FSG_MAX_LUNS).
const maxUnits = 8

// Config is a board and its faults. All may be left out.
type Config struct {
	ID    usb.ID // zero: ID
	Speed usbdev.Speed
	Units []Unit // none: one of 64 MiB

	// Rate is how many bytes a second are written at most; zero: as many as come.
	Rate int

	Faults []Fault
}

// Unit is a logical unit, with what is wrong with it.
type Unit struct {
	Storage   Storage // nil: a new *Memory
	Size      int64   // bytes; zero: 64 MiB
	BlockSize int64   // zero: 512

	ReadOnly bool
	Fixed    bool          // it says that its medium cannot be removed
	Absent   time.Duration // there is no medium for so long after the plug; negative: ever

	// Real is how many bytes there are; zero: Size. What is written beyond is lost or, with Wrap, is written from the
	// begin on.
	Real int64
	Wrap bool

	Bad  []int64 // blocks that can neither be written nor read
	Lost []int64 // blocks whose writes are lost
}

// What goes wrong with a board.
type (
	Fault     = virtual.Fault
	FaultKind = virtual.FaultKind
)

// The kinds of faults. A Fault's At counts the bytes that were written to all units.
const (
	Error  FaultKind = "error" // the command fails with MEDIUM ERROR
	Phase  FaultKind = "phase" // the status of the command is a phase error
	Cut    FaultKind = "cut"   // the status has 5 bytes
	Stall  FaultKind = "stall" // the status is not sent, but a stall
	NAK              = virtual.NAK
	Hang             = virtual.Hang
	Unplug           = virtual.Unplug
	Reset            = virtual.Reset
)

// FaultKinds are all.
var FaultKinds = []FaultKind{Error, Phase, Cut, Stall, NAK, Hang, Unplug, Reset}

var faults = virtual.Faults{Kinds: FaultKinds, Stages: []string{StageGadget}, Commands: commandNames()}

// ParseFault reads KIND:gadget:BYTES or KIND:gadget:COMMAND, with NAK's time behind another colon:
// "unplug:gadget:4096".
func ParseFault(s string) (Fault, error) { return faults.Parse(s) }

func (c Config) withDefaults() (Config, error) {
	if c.ID == (usb.ID{}) {
		c.ID = ID
	}
	if c.Speed == 0 {
		c.Speed = usbdev.HighSpeed
	}
	if c.Units = slices.Clone(c.Units); len(c.Units) == 0 {
		c.Units = []Unit{{}}
	}
	if len(c.Units) > maxUnits {
		return c, fmt.Errorf("%d logical units, at most %d are possible", len(c.Units), maxUnits)
	}
	for i := range c.Units {
		u := &c.Units[i]
		if u.Storage == nil {
			u.Storage = &Memory{}
		}
		if u.Size == 0 {
			u.Size = 64 << 20
		}
		if u.BlockSize == 0 {
			u.BlockSize = 512
		}
		if u.Real == 0 {
			u.Real = u.Size
		}
		if u.BlockSize < 512 || u.BlockSize > 64<<10 || u.BlockSize&(u.BlockSize-1) != 0 || u.Size <= 0 || u.Real <= 0 || u.Real > u.Size ||
			u.Size%u.BlockSize != 0 || u.Real%u.BlockSize != 0 {
			return c, fmt.Errorf("LUN %d: %d bytes in blocks of %d, of which %d are real", i, u.Size, u.BlockSize, u.Real)
		}
	}
	return c, faults.Check(c.Faults...)
}
