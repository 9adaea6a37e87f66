package am335x

import (
	"fmt"
	"net"
	"time"

	"snag/sim/virtual"
	"snag/usb"
)

// The USB IDs of the two stages (the SPL's is the one of mainline am335x_evm).
var (
	ROMID = usb.ID{Vendor: 0x0451, Product: 0x6141}
	SPLID = usb.ID{Vendor: 0x0451, Product: 0xd022}
)

// MaxSPL is the ROM's download area, 0x402f0400 to 0x4030b800, in bytes.
const MaxSPL = 0x4030b800 - 0x402f0400

// The names of the stages.
const (
	StageROM    = virtual.StageROM // receives the SPL
	StageSPL    = "spl"            // receives U-Boot
	StageGadget = virtual.StageGadget
)

// Config is a board and its faults. The zero value is a healthy one with Default's times.
type Config struct {
	ROM    usb.ID // zero: ROMID
	SPL    usb.ID // zero: SPLID
	Gadget usb.ID // what U-Boot shows when it runs; zero: nothing

	ROMVendorClass string // empty: "AM335x ROM"
	SPLVendorClass string // empty: "AM335x U-Boot SPL"; "-": the option is left out

	// MACs. ROMMAC and SPLMAC are the board's; the host's interface gets the others. Nil: the ROM's
	// made from Seed, the SPL's de:ad:be:ef:00:01 and :00 as U-Boot has them on every board.
	ROMMAC, ROMHostMAC, SPLMAC, SPLHostMAC net.HardwareAddr

	Seed uint64 // of everything random

	// ROMRetries are the ROM's waits for a BOOTP reply, each after a request; then it pauses for
	// ROMPause and begins again. Nil: 4, 8, 16, 32, 64 s and 20 s.
	ROMRetries []time.Duration
	ROMPause   time.Duration
	// ROMDeadline bounds the ROM's whole transfer. Zero: 60 s.
	ROMDeadline time.Duration

	// JumpDelay is how long a stage stays on the bus after its last byte: the next one takes the USB
	// controller over only after it has set up memory and clocks. Zero: 50 ms; negative: none, so that
	// the last ACK may be lost with the device.
	JumpDelay time.Duration
	// SPLDelay is the time from the ROM's jump until SPL shows on the bus, GadgetDelay that from the
	// end of SPL until U-Boot's gadget does. Zero: 1 s; negative: none.
	SPLDelay, GadgetDelay time.Duration
	// SPLWindow is how long SPL waits for the host to bring its link up. Zero: 3 s.
	SPLWindow time.Duration
	// SPLGiveUp is how long SPL asks for an address. Zero: 53 s.
	SPLGiveUp time.Duration

	ECM       bool // SPL offers CDC-ECM alone, no RNDIS
	BOOTP     bool // SPL speaks plain BOOTP instead of DHCP
	NoOptions bool // SPL asks for no TFTP options
	BlockSize int  // SPL's blksize option; zero: 1468
	Window    int  // SPL's windowsize option; below 2: not asked for

	// SPLNever is an SPL that never shows up.
	SPLNever bool
	// Watchdog power-cycles a board that is stuck, after this time. Zero: it stays stuck.
	Watchdog time.Duration

	// LossIn and LossOut are the chances, from 0 to 1, that a frame to or from the board is lost.
	LossIn, LossOut float64
	// DuplicateIn is the chance that a frame to the board arrives twice.
	DuplicateIn float64
	// DelayIn and DelayOut delay each frame.
	DelayIn, DelayOut time.Duration

	Faults []Fault
}

// What goes wrong with a board.
type (
	Fault     = virtual.Fault
	FaultKind = virtual.FaultKind
)

// The kinds of faults.
const (
	TFTPError FaultKind = "error" // the client sends a TFTP ERROR and starts over
	LoseACK   FaultKind = "lose"  // the ACK of the block that reaches At is lost
	Hang                = virtual.Hang
	Unplug              = virtual.Unplug
	Reset               = virtual.Reset
)

var faults = virtual.Faults{Kinds: []FaultKind{Reset, Unplug, TFTPError, LoseACK, Hang}, Stages: []string{StageROM, StageSPL}}

// ParseFault reads KIND:STAGE:BYTES, for instance "reset:spl:50000".
func ParseFault(s string) (Fault, error) { return faults.Parse(s) }

func (c Config) withDefaults() (Config, error) {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	defID := func(d *usb.ID, v usb.ID) {
		if *d == (usb.ID{}) {
			*d = v
		}
	}
	defID(&c.ROM, ROMID)
	defID(&c.SPL, SPLID)
	def(&c.ROMDeadline, time.Minute)
	def(&c.JumpDelay, 50*time.Millisecond)
	def(&c.SPLDelay, time.Second)
	def(&c.GadgetDelay, time.Second)
	def(&c.SPLWindow, 3*time.Second)
	def(&c.SPLGiveUp, 53*time.Second)
	if c.ROMRetries == nil {
		for d := 4 * time.Second; d <= 64*time.Second; d *= 2 {
			c.ROMRetries = append(c.ROMRetries, d)
		}
		def(&c.ROMPause, 20*time.Second)
	}
	if c.ROMVendorClass == "" {
		c.ROMVendorClass = "AM335x ROM"
	}
	switch c.SPLVendorClass {
	case "":
		c.SPLVendorClass = "AM335x U-Boot SPL"
	case "-":
		c.SPLVendorClass = ""
	}
	if c.BlockSize == 0 {
		c.BlockSize = 1468
	}
	s := c.Seed
	for _, m := range []struct {
		mac *net.HardwareAddr
		def net.HardwareAddr
	}{
		{&c.ROMMAC, net.HardwareAddr{0x00, 0x18, 0x31, byte(s >> 8), byte(s), 0x01}}, // a block of TI's
		{&c.ROMHostMAC, net.HardwareAddr{0x00, 0x18, 0x31, byte(s >> 8), byte(s), 0x02}},
		{&c.SPLMAC, net.HardwareAddr{0xde, 0xad, 0xbe, 0xef, 0x00, 0x01}},
		{&c.SPLHostMAC, net.HardwareAddr{0xde, 0xad, 0xbe, 0xef, 0x00, 0x00}},
	} {
		if *m.mac == nil {
			*m.mac = m.def
		}
		if len(*m.mac) != 6 {
			return c, fmt.Errorf("MAC address %v: expected six bytes", *m.mac)
		}
	}
	for _, p := range []float64{c.LossIn, c.LossOut, c.DuplicateIn} {
		if !(p >= 0 && p <= 1) {
			return c, fmt.Errorf("chance %v of losing or doubling a frame: expected 0 to 1", p)
		}
	}
	if len(c.ROMRetries) == 0 {
		return c, fmt.Errorf("the ROM's retry times: expected one at least")
	}
	for _, d := range append(c.ROMRetries, c.ROMDeadline, c.SPLWindow, c.SPLGiveUp) {
		if d <= 0 {
			return c, fmt.Errorf("time %v: expected more than 0", d)
		}
	}
	if c.BlockSize < 8 || c.BlockSize > 1468 {
		return c, fmt.Errorf("TFTP block size %d: expected 8 to 1468", c.BlockSize)
	}
	return c, faults.Check(c.Faults...)
}
