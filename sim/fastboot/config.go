package fastboot

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"snag/sim/usbdev"
	"snag/usb"
)

// The IDs: that of most U-Boots, of Keem Bay's ROM, and of U-Boot on it.
var (
	ID           = usb.ID{Vendor: 0x0525, Product: 0xa4a5}
	KeemBayROM   = usb.ID{Vendor: 0x8087, Product: 0x0b39}
	KeemBayUBoot = usb.ID{Vendor: 0x8087, Product: 0xda00}
)

// KeemBayProvenBy is the program, which nobody here wrote, that has recovered the virtual Keem Bay, as internal/e2e's TestFastboot
// has it.
const KeemBayProvenBy = "fastboot"

// The names of the stages.
const (
	StageROM    = "rom"
	StageGadget = "gadget"
)

// Config is a board and its faults. All may be left out.
type Config struct {
	KeemBay bool // the ROM comes first

	ID         usb.ID // of U-Boot's gadget; zero: ID, or KeemBayUBoot
	Speed      usbdev.Speed
	OtherClass bool // the interfaces' class is ff/ff/ff

	Variables  map[string]string // beside and before the built-in ones
	Buffer     int               // max-download-size; zero: 32 MiB
	Partitions map[string]int    // their sizes in bytes; nil: boot, 8 MiB, and rootfs, 64 MiB
	// NoUUU leaves out UCmd and ACmd, OEMRun builds in "oem run", Old leaves out "getvar:all".
	NoUUU, OEMRun, Old bool
	// Command is what runs the command lines of UCmd and "oem run"; it says whether that went well. Nil: all does.
	Command func(line string) bool
	// Console is what "oem console" shows; nil: it is not built in.
	Console []string

	// Work is how long flash and erase take.
	Work time.Duration
	// UBootDelay is the time from the ROM's last answer until the gadget shows on the bus. Zero: 300 ms; negative: none.
	UBootDelay time.Duration
	// UBootNever is a FIP that does not start, or has no gadget.
	UBootNever bool

	Faults []Fault
}

// FaultKind is what happens at a command or a byte.
type FaultKind string

const (
	Fail   FaultKind = "fail"   // FAIL, with a reason
	Empty  FaultKind = "empty"  // FAIL, without one
	Cut    FaultKind = "cut"    // the answer has 2 bytes
	Wrong  FaultKind = "wrong"  // the answer has a status that does not exist
	Size   FaultKind = "size"   // the answer is DATA with another number
	Long   FaultKind = "long"   // the answer has 5000 bytes
	Infos  FaultKind = "infos"  // INFO without end
	Mute   FaultKind = "mute"   // there is no answer
	NAK    FaultKind = "nak"    // the board takes and says nothing for Fault.For, then goes on
	Hang   FaultKind = "hang"   // the same for ever
	Stall  FaultKind = "stall"  // every endpoint halts until the host clears that
	Unplug FaultKind = "unplug" // the cable is pulled for good
	Reset  FaultKind = "reset"  // the board is power-cycled and comes back
)

// FaultKinds are all.
var FaultKinds = []FaultKind{Fail, Empty, Cut, Wrong, Size, Long, Infos, Mute, NAK, Hang, Stall, Unplug, Reset}

// AfterData is where the status behind the data of a download is.
const AfterData = "data"

// Fault happens once in a stage: at the first command whose first word Command is (AfterData: before the answer to the
// data), or, if that is empty, when At bytes of data were received.
type Fault struct {
	Kind    FaultKind
	Stage   string
	Command string // "getvar", "download", "data", "flash", "oem", "UCmd", ...
	At      int
	For     time.Duration // of NAK; zero: 3 s
}

// ParseFault reads KIND:STAGE:BYTES or KIND:STAGE:COMMAND, with NAK's time behind another colon: "hang:rom:4096".
func ParseFault(s string) (Fault, error) {
	part := strings.Split(s, ":")
	if len(part) < 3 || len(part) > 4 {
		return Fault{}, fmt.Errorf("fault %q: expected KIND:STAGE:BYTES or KIND:STAGE:COMMAND, for instance hang:rom:4096", s)
	}
	f := Fault{Kind: FaultKind(part[0]), Stage: part[1]}
	if n, err := strconv.ParseUint(part[2], 10, 31); err == nil {
		f.At = int(n)
	} else {
		f.Command = part[2]
	}
	if len(part) == 4 {
		var err error
		if f.For, err = time.ParseDuration(part[3]); err != nil {
			return f, fmt.Errorf("fault %q: %w", s, err)
		}
	}
	return f, f.check()
}

func (f Fault) check() error {
	if !slices.Contains(FaultKinds, f.Kind) {
		return fmt.Errorf("fault %q: expected one of %v", f.Kind, FaultKinds)
	}
	if f.Stage != StageROM && f.Stage != StageGadget {
		return fmt.Errorf("fault %q at stage %q: expected rom or gadget", f.Kind, f.Stage)
	}
	return nil
}

func (c Config) withDefaults() (Config, error) {
	if c.ID == (usb.ID{}) {
		c.ID = ID
		if c.KeemBay {
			c.ID = KeemBayUBoot
		}
	}
	if c.Speed == 0 {
		c.Speed = usbdev.HighSpeed
	}
	if c.Buffer == 0 {
		c.Buffer = 32 << 20
	}
	if c.Partitions == nil {
		c.Partitions = map[string]int{"boot": 8 << 20, "rootfs": 64 << 20}
	}
	if c.UBootDelay == 0 {
		c.UBootDelay = 300 * time.Millisecond
	}
	for _, f := range c.Faults {
		if err := f.check(); err != nil {
			return c, err
		}
	}
	return c, nil
}
