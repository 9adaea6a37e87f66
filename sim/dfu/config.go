package dfu

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config is a board and its faults. All but Model may be left out.
type Config struct {
	Model Model

	Serial string // empty: one that is fixed

	// SPL is which files the SPLs of K3 offer a place for.
	SPL SPLKind
	// Twice is a K3 whose ROM wants its file twice.
	Twice bool
	// OldTFA is a TF-A of ST's ecosystem 3 for MP15, which wants a flash layout before the FIP.
	OldTFA bool
	// STM32SPL is an STM32MP1 that starts with U-Boot's SPL, of a configuration with CONFIG_SPL_DFU.
	STM32SPL bool
	// OldFSBL is an FSBL of 2017.
	OldFSBL bool
	// EarlyLeave is a ROM that starts its file before the host has read the status. RZ/N1's does so when it has told that it
	// is in dfuMANIFEST (Snagboot, snagrecover/protocols/dfu.py).
	EarlyLeave bool
	// AnyFile has the stages take whatever they are sent for the right file.
	AnyFile bool

	// Block is how long each block keeps a stage busy, Manifest how long the end of a file does. ShortPoll has it
	// give a wait of 0 for that, instead of the time.
	Block, Manifest time.Duration
	ShortPoll       bool
	// LeaveDelay is how long a stage stays on the bus after its end. Zero: 50 ms; negative: none.
	LeaveDelay time.Duration
	// StageDelay is the time from one stage until the next shows on the bus. Zero: 300 ms; negative: none.
	StageDelay time.Duration
	// SameAddress lets the next stage keep the USB address of the one before, on ports that can do so.
	SameAddress bool
	// Never is a stage that never shows up. A stage whose USB session it would go on with stays as it is.
	Never string
	// Missing are the names of alternate settings that stages do not have.
	Missing []string

	Faults []Fault
}

// SPLKind is the age of a K3's SPL.
type SPLKind string

const (
	SPLCombined SPLKind = "combined" // both SPLs offer tispl.bin and u-boot.img: U-Boot 2024 to v2026.07
	SPLOld      SPLKind = "old"      // the same, and the second SPL finds in memory what the first was sent
	SPLNext     SPLKind = "next"     // each offers its next stage only: from v2026.10-rc1 on (commit 2b6d243be22)
)

// FaultKind is what happens at a byte.
type FaultKind string

const (
	Fail   FaultKind = "error"  // dfuERROR with Fault.Status
	Busy   FaultKind = "busy"   // dfuDNBUSY, or dfuMANIFEST, for Fault.For
	Lie    FaultKind = "lie"    // bwPollTimeout of 0xffffff
	Stall  FaultKind = "stall"  // the request is refused; nothing else changes
	NAK    FaultKind = "nak"    // the board says nothing for Fault.For
	Hang   FaultKind = "hang"   // the same for ever
	Refuse FaultKind = "refuse" // the same, and TF-A says so in its phase
	Unplug FaultKind = "unplug" // the cable is pulled for good
	Reset  FaultKind = "reset"  // the board is power-cycled and comes back in its ROM
)

var faultKinds = []FaultKind{Fail, Busy, Lie, Stall, NAK, Hang, Refuse, Unplug, Reset}

// Fault happens once in a stage: at the first block with which the stage has at least At bytes of files, or, with
// Manifest, at the end of a file.
type Fault struct {
	Kind     FaultKind
	Stage    string
	At       int
	Manifest bool
	Status   uint8         // of Fail; 0: errUNKNOWN
	For      time.Duration // of Busy and NAK; zero: 3 s
}

// ParseFault reads KIND:STAGE:BYTES or KIND:STAGE:manifest, with a status or a time behind another colon:
// "stall:rom:4096", "error:tfa:0:3", "busy:spl-r5:manifest:2s".
func ParseFault(s string) (Fault, error) {
	part := strings.Split(s, ":")
	if len(part) < 3 || len(part) > 4 {
		return Fault{}, fmt.Errorf("fault %q: expected KIND:STAGE:BYTES or KIND:STAGE:manifest, for instance stall:rom:4096", s)
	}
	f := Fault{Kind: FaultKind(part[0]), Stage: part[1]}
	if part[2] == "manifest" {
		f.Manifest = true
	} else {
		n, err := strconv.ParseUint(part[2], 10, 31)
		if err != nil {
			return f, fmt.Errorf("fault %q: %w", s, err)
		}
		f.At = int(n)
	}
	if len(part) == 4 && f.Kind == Fail {
		n, err := strconv.ParseUint(part[3], 0, 8)
		if err != nil {
			return f, fmt.Errorf("fault %q: %w", s, err)
		}
		f.Status = uint8(n)
	} else if len(part) == 4 {
		var err error
		if f.For, err = time.ParseDuration(part[3]); err != nil {
			return f, fmt.Errorf("fault %q: %w", s, err)
		}
	}
	return f, f.check()
}

func (f Fault) check() error {
	if !slices.Contains(faultKinds, f.Kind) {
		return fmt.Errorf("fault %q: expected one of %v", f.Kind, faultKinds)
	}
	if !slices.Contains(stageNames, f.Stage) {
		return fmt.Errorf("fault %q at stage %q: expected one of %v", f.Kind, f.Stage, stageNames)
	}
	return nil
}

func (c Config) withDefaults() (Config, error) {
	if c.Model.Name == "" {
		return c, fmt.Errorf("no model is given")
	}
	if c.LeaveDelay == 0 {
		c.LeaveDelay = 50 * time.Millisecond
	}
	if c.StageDelay == 0 {
		c.StageDelay = 300 * time.Millisecond
	}
	if c.Serial == "" {
		c.Serial = "003A00203338510D39383330" // STM32's 12 bytes
	}
	if c.SPL == "" {
		c.SPL = SPLCombined
	}
	if !slices.Contains([]SPLKind{SPLCombined, SPLOld, SPLNext}, c.SPL) {
		return c, fmt.Errorf("SPL kind %q: expected combined, old or next", c.SPL)
	}
	if c.Never != "" && !slices.Contains(stageNames, c.Never) {
		return c, fmt.Errorf("stage %q, which never shows up: expected one of %v", c.Never, stageNames)
	}
	for _, f := range c.Faults {
		if err := f.check(); err != nil {
			return c, err
		}
	}
	return c, nil
}
