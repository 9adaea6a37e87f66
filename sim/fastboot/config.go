package fastboot

import (
	"context"
	"time"

	"snag/sim/uboot"
	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/usb"
)

// The IDs: that of most U-Boots, of Keem Bay's ROM, and of U-Boot on it.
var (
	ID           = usb.ID{Vendor: 0x0525, Product: 0xa4a5}
	KeemBayROM   = usb.ID{Vendor: 0x8087, Product: 0x0b39}
	KeemBayUBoot = usb.ID{Vendor: 0x8087, Product: 0xda00}
)

// KeemBayProvenBy is the program, which nobody here wrote, that has recovered the virtual Keem Bay, as internal/e2e's
// TestFastboot has it.
const KeemBayProvenBy = "fastboot"

// The names of the stages.
const (
	StageROM    = virtual.StageROM
	StageGadget = virtual.StageGadget
)

// Config is a board and its faults. All may be left out.
type Config struct {
	KeemBay bool // the ROM comes first
	// Before is what comes before U-Boot at each power-on, on the same port: other models' stages, such as those of an
	// i.MX (imx.Board.Start). Nil: nothing does.
	Before func(ctx context.Context, port usbdev.Port) error

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

	// UBoot has storage, and a shell for UCmd, ACmd and "oem run"; Partitions and Command do not count then. What is
	// downloaded is in its memory, from Address on (0: where memory begins), and "oem console" shows what it printed if
	// HasConsole.
	UBoot      *uboot.Machine
	Address    uint64
	HasConsole bool
	// NXP has UBoot be NXP's; nil: the mainline's.
	NXP *NXP
	// FlashMMC is the device whose partitions flash and erase know (FASTBOOT_FLASH_MMC_DEV); FlashMTD has them know MTD
	// partitions.
	FlashMMC int
	FlashMTD bool
	// Unhashed leaves the SHA-256 of downloads out of the report, which take time.
	Unhashed bool
	// Full is the largest download that is taken, though max-download-size says more. Zero: they agree.
	Full int
	// Refuse has FAIL texts for commands, by their begin: "flash:rootfs".
	Refuse map[string]string

	// Work is how long flash and erase take; Alive is how often INFO tells the host meanwhile, zero: never. (U-Boot
	// does that over UDP, every 30 s.) It goes for UBoot's commands too.
	Work  time.Duration
	Alive time.Duration
	// UBootDelay is the time from the ROM's last answer until the gadget shows on the bus. Zero: 300 ms; negative:
	// none.
	UBootDelay time.Duration
	// UBootNever is a FIP that does not start, or has no gadget.
	UBootNever bool

	Faults []Fault
}

// What goes wrong with a board.
type (
	Fault     = virtual.Fault
	FaultKind = virtual.FaultKind
)

// The kinds of faults.
const (
	Fail   FaultKind = "fail"  // FAIL, with a reason
	Empty  FaultKind = "empty" // FAIL, without one
	Cut    FaultKind = "cut"   // the answer has 2 bytes
	Wrong  FaultKind = "wrong" // the answer has a status that does not exist
	Size   FaultKind = "size"  // the answer is DATA with another number
	Long   FaultKind = "long"  // the answer has 5000 bytes
	Infos  FaultKind = "infos" // INFO without end
	Mute   FaultKind = "mute"  // there is no answer
	Stall  FaultKind = "stall" // every endpoint halts until the host clears that
	NAK              = virtual.NAK
	Hang             = virtual.Hang
	Unplug           = virtual.Unplug
	Reset            = virtual.Reset
)

// FaultKinds are all.
var FaultKinds = []FaultKind{Fail, Empty, Cut, Wrong, Size, Long, Infos, Mute, NAK, Hang, Stall, Unplug, Reset}

// AfterData is, as a fault's Command, where the status behind the data of a download is. The others are the first words
// of commands.
const AfterData = "data"

var faults = virtual.Faults{
	Kinds:  FaultKinds,
	Stages: []string{StageROM, StageGadget},
	Commands: []string{
		AfterData, "getvar", "download", "flash", "erase", "set_active", "boot", "continue", "reboot", "reboot-bootloader",
		"reboot-fastboot", "reboot-recovery", "oem", "UCmd", "ACmd",
	},
}

// ParseFault reads KIND:STAGE:BYTES or KIND:STAGE:COMMAND, with NAK's time behind another colon: "hang:rom:4096".
func ParseFault(s string) (Fault, error) { return faults.Parse(s) }

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
	if c.UBoot != nil && c.Address == 0 {
		c.Address = c.UBoot.Base()
	}
	if c.UBootDelay == 0 {
		c.UBootDelay = 300 * time.Millisecond
	}
	return c, faults.Check(c.Faults...)
}
