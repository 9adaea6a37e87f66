package dfu

import (
	"fmt"
	"slices"
	"time"

	"snag/sim/virtual"
)

// Config is a board and its faults. All but Model may be left out.
type Config struct {
	Model Model

	Serial string // empty: one that is fixed

	// SPL is which files the SPLs of K3 offer a place for.
	SPL SPLKind
	// Twice is a K3 whose ROM wants its file twice.
	Twice bool
	// SameSession is a K3's ROM that takes the second of two files (of AM62L, or Twice) on the USB session of the first.
	SameSession bool
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
	// Linger is how long a ROM answers as before whose USB session the next stage goes on with.
	Linger time.Duration
	// StageDelay is the time from one stage until the next shows on the bus. Zero: 300 ms; negative: none.
	StageDelay time.Duration
	// SameAddress lets the next stage keep the USB address of the one before, on ports that can do so.
	SameAddress bool
	// Never is a stage that never shows up. A stage whose USB session it would go on with stays as it is.
	Never string
	// Missing are the names of alternate settings that stages do not have.
	Missing []string

	// Of a gadget: its settings (nil: boot, rootfs and a file, uImage), what is before DFU mode (empty: nothing), whether it has
	// DfuSe, gives no uploads, or is not manifestation tolerant and waits for a reset at the end.
	Alts                        []Alt
	RunTime                     RunTime
	DfuSe, NoUpload, Intolerant bool
	// Buffer is how many bytes U-Boot collects before it writes them (CONFIG_SYS_DFU_DATA_BUF_SIZE), a multiple of 4096. Zero: 8 MiB.
	// Drain is how long it takes to write them, and to erase a page of DfuSe.
	Buffer int
	Drain  time.Duration

	Faults []Fault
}

// SPLKind is the age of a K3's SPL.
type SPLKind string

const (
	SPLCombined SPLKind = "combined" // both SPLs offer tispl.bin and u-boot.img: U-Boot 2024 to v2026.07
	SPLOld      SPLKind = "old"      // the same, and the second SPL finds in memory what the first was sent
	SPLNext     SPLKind = "next"     // each offers its next stage only: from v2026.10-rc1 on (commit 2b6d243be22)
)

// What goes wrong with a board. [Fault].At counts what the stage has with the block that comes.
type (
	Fault     = virtual.Fault
	FaultKind = virtual.FaultKind
)

// The kinds of faults.
const (
	// dfuERROR with Fault.Status; 0: errUNKNOWN, but a gadget vanishes at the end of a file, as U-Boot's does
	Fail   FaultKind = "error"
	Busy   FaultKind = "busy"   // dfuDNBUSY, or dfuMANIFEST, for Fault.For
	Lie    FaultKind = "lie"    // bwPollTimeout of 0xffffff
	Flip   FaultKind = "flip"   // the medium of a gadget keeps a bit of the block wrong
	Stall  FaultKind = "stall"  // the request is refused; nothing else changes
	Refuse FaultKind = "refuse" // the same, and TF-A says so in its phase
	NAK              = virtual.NAK
	Hang             = virtual.Hang
	Unplug           = virtual.Unplug
	Reset            = virtual.Reset
)

// Manifest is, as a fault's Command, the end of a file.
const Manifest = "manifest"

var faults = virtual.Faults{
	Kinds:    []FaultKind{Fail, Busy, Lie, Flip, Stall, NAK, Hang, Refuse, Unplug, Reset},
	Stages:   stageNames,
	Commands: []string{Manifest},
	Telling:  Fail,
}

// ParseFault reads KIND:STAGE:BYTES or KIND:STAGE:manifest, with a status or a time behind another colon:
// "stall:rom:4096", "error:tfa:0:3", "busy:spl-r5:manifest:2s".
func ParseFault(s string) (Fault, error) { return faults.Parse(s) }

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
	if c.Alts == nil {
		c.Alts = defaultAlts
	}
	if c.Buffer == 0 {
		c.Buffer = 8 << 20
	}
	if c.Buffer%4096 != 0 {
		return c, fmt.Errorf("buffer of %d bytes: expected a multiple of 4096", c.Buffer)
	}
	if !slices.Contains([]RunTime{"", Detaches, DetachesQ, WantsBus}, c.RunTime) {
		return c, fmt.Errorf("run-time mode %q: expected one of %q", c.RunTime, []RunTime{Detaches, DetachesQ, WantsBus})
	}
	for _, a := range c.Alts {
		if a.Size < 1 || len(a.Data) > a.Size || a.File && a.Size > c.Buffer || c.DfuSe != (a.Page > 0) {
			return c, fmt.Errorf("alternate setting %q: it needs a size, no more data than that, as a file none larger than the buffer, and with DfuSe pages", a.Name)
		}
	}
	if c.Never != "" && !slices.Contains(stageNames, c.Never) {
		return c, fmt.Errorf("stage %q, which never shows up: expected one of %v", c.Never, stageNames)
	}
	return c, faults.Check(c.Faults...)
}
