// Package socs defines what a SoC family must provide to be recovered, and the table of models.
//
// A family is a [Backend] in a package of its own (socs/am335x, ...). It describes its boot ROM,
// checks firmware, and recovers a [Board] that it is handed: it never finds devices, makes
// namespaces or opens ports itself, never prints, and never sleeps without the context.
package socs

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"snag/event"
	"snag/netboot"
	"snag/usb"
)

// Backend recovers the boards of one SoC family. It is stateless: one value serves any number
// of boards at once.
type Backend interface {
	// Family describes the family. The result is the caller's to keep, not to change.
	Family() Family

	// Check looks at the firmware as a model's boot ROM would, before any board is touched.
	// It returns the images as they will be sent (an MLO without its header, say), and what the
	// user should know. The error, if any, is a *FirmwareError or joins several.
	Check(model Model, fw Firmware) (Firmware, []Finding, error)

	// Recover brings one board up with checked firmware, stage by stage. It returns nil only when
	// the board has received everything.
	Recover(ctx context.Context, job Job) error
}

// Family is what there is to know of a SoC family without having a board.
type Family struct {
	Name  string // as in the model table: "am335x"
	Title string // for people: "TI AM335x (Sitara)"

	Carriers []Carrier // what may carry a stage, the usual one first

	// ROM and Later are what the boot ROM and the stages that follow it show on the bus. They select
	// boards and go into the udev rules; those of families that boot over a network interface are also
	// all that the privileged helper moves by default.
	ROM, Later []Identity

	// Reenumerate is how long the next stage may take to appear on the port after a stage is done.
	Reenumerate time.Duration
	// ComeBack is how long a board that left in the middle of a stage may stay away; zero: 15 s.
	ComeBack time.Duration

	BootMode string // how a board of the family comes into its ROM's USB mode, for people: a general hint

	Slots []Slot // the firmware it takes, in the order of the stages

	// Unproven are the models whose virtual board only snag has recovered: no other program was seen to agree with the
	// sources that board and backend follow.
	Unproven []string
}

// IDs lists the USB IDs of all stages, each once.
func (f Family) IDs() []usb.ID {
	var ids []usb.ID
	for _, i := range slices.Concat(f.ROM, f.Later) {
		if !slices.Contains(ids, i.ID) {
			ids = append(ids, i.ID)
		}
	}
	return ids
}

// Identity is what a boot stage shows on the bus: its ID, or the class of an interface that it has.
type Identity struct {
	ID usb.ID
	// First and Last bound bcdDevice; if both are zero it does not matter.
	First, Last uint16
	Models      []string // whose it is; nil: of all models of the family
	Class       Class    // if ID is zero
}

// Class is that of an interface.
type Class struct{ Class, SubClass, Protocol uint8 }

func (c Class) String() string {
	s := fmt.Sprintf("class %02x/%02x/%02x", c.Class, c.SubClass, c.Protocol)
	switch {
	case c == MassStorage:
		s = "mass storage, " + s
	case c == Class{0xff, 0x42, 0x03}:
		s = "fastboot, " + s
	case c.Class == 0xfe && c.SubClass == 0x01:
		s = "DFU, " + s
	}
	return s
}

// Of reports whether a device has an interface of the class.
func (c Class) Of(d usb.Device) bool {
	return slices.ContainsFunc(d.Interfaces, func(i usb.Interface) bool { return c == Class{i.Class, i.SubClass, i.Protocol} })
}

// Is reports whether a device shows this identity.
func (i Identity) Is(d usb.Device) bool {
	if i.ID == (usb.ID{}) && i.Class != (Class{}) {
		return i.Class.Of(d)
	}
	return i.ID == d.ID && (i.First == 0 && i.Last == 0 || i.First <= d.Release && d.Release <= i.Last)
}

func (i Identity) String() string {
	if i.ID == (usb.ID{}) && i.Class != (Class{}) {
		return i.Class.String()
	}
	return i.ID.String()
}

// Of reports whether the identity is one of the model's.
func (i Identity) Of(m Model) bool { return i.Models == nil || slices.Contains(i.Models, m.Name) }

// Slot is one entry of the firmware configuration.
type Slot struct {
	Name     string // "spl"
	Required bool
	Doc      string   // one line for people
	Keys     []string // keys beyond "path" that the slot accepts, as in Snagboot's files
}

// Carrier is what a stage is reached through.
type Carrier int

const (
	Network Carrier = iota // a network interface that the board's USB function makes on the host
	USB                    // a USB device that the backend talks to itself
	Serial                 // a UART
	Disk                   // a disk that the kernel makes of a USB device, which the engine then does not open
)

func (c Carrier) String() string {
	return map[Carrier]string{Network: "usb network", USB: "usb", Serial: "uart", Disk: "usb disk"}[c]
}

// Model is one row of the model table.
type Model struct {
	Name    string
	Family  string
	Aliases []string
}

// Image is one firmware file.
type Image struct {
	Path   string         // where it was read from; for messages
	Data   []byte         // its contents, never nil
	Params map[string]any // the slot's other keys, values as the file had them: string, int (int64 if that is too short), bool
}

// Int is the value of a key that is a whole number.
func (i Image) Int(key string) (n int64, ok bool) {
	switch v := i.Params[key].(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	}
	return 0, false
}

// Firmware holds the images by slot name.
type Firmware map[string]Image

// Finding is a remark about an image that is accepted all the same.
type Finding struct {
	Slot    string
	Warning bool // else a mere note
	Text    string
}

// FirmwareError says why an image cannot be used.
type FirmwareError struct {
	Slot, Path string
	Err        error  // what is wrong: expected and found
	Hint       string // what to use instead
}

func (e *FirmwareError) Error() string {
	if e.Slot == "" { // an image to flash, whose error has its name
		return e.Err.Error()
	}
	if e.Path == "" {
		return fmt.Sprintf("firmware %q: %v", e.Slot, e.Err)
	}
	return fmt.Sprintf("firmware %q (%s): %v", e.Slot, e.Path, e.Err)
}

func (e *FirmwareError) Unwrap() error { return e.Err }

// BoardError is a board that did not go on as it should.
type BoardError struct {
	Stage string // where it stood
	Err   error  // what was expected, what came
	Hint  string // the likely cause, and what to do
}

func (e *BoardError) Error() string { return e.Err.Error() }
func (e *BoardError) Unwrap() error { return e.Err }

// Job is one board to recover.
type Job struct {
	Model    Model
	Firmware Firmware // as Check returned it
	Board    Board
}

// Board is one physical board, as the engine follows it over its stages.
type Board interface {
	// Next waits for the board's next stage: the next enumeration on its port, or the serial line.
	// Called while a stage is still there that was not handed out yet, it returns that one.
	// The deadline is the engine's; the error says what was awaited.
	Next(ctx context.Context) (*Stage, error)

	// Emit reports progress and remarks. A StageBegun names the stage for all that follows.
	Emit(stage string, body event.Body)
}

// MassStorage is the class of what Linux makes disks of (USB Mass Storage Class, Bulk-Only Transport 1.0, section 4.3).
var MassStorage = Class{0x08, 0x06, 0x50}

// Stage is what a board offers at one point of its way up. Exactly one carrier is set, none for a Disk.
type Stage struct {
	Port usb.Port // empty on a serial line
	ID   usb.ID   // zero on a serial line
	ROM  bool     // its ID is that of the boot ROM, as far as the engine knows

	Since time.Time // when it was seen first

	Device usb.Device // what sysfs says of it; zero on a serial line

	Link   *netboot.Link // Network
	USB    usb.Handle    // USB; the engine closes it when the next stage is asked for, and at the end
	Serial SerialPort    // Serial

	// Gone is closed when the stage left its port. Nil where that cannot be seen (Serial, Disk).
	Gone <-chan struct{}
}

// SerialPort is an open UART, raw and 8N1.
type SerialPort interface {
	io.ReadWriter
	// SetReadTimeout bounds every following Read; a Read that meets it returns 0, nil.
	SetReadTimeout(time.Duration) error
	// ResetInputBuffer drops what arrived and was not read.
	ResetInputBuffer() error
}
