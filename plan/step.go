package plan

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"snag/event"
	"snag/flash/image"
	"snag/socs"
	"snag/usb"
)

// Plan is what is to be done with one board.
type Plan struct {
	Name  string // its file's, for messages; empty: a command line's
	Steps []Step

	// Port or ID is the board, if the plan says which; the command line may say otherwise.
	Port usb.Port
	ID   usb.ID
}

// Step is one thing to do.
type Step struct {
	Line   int // in the plan's file; 0: in none
	Action Action
}

// Action is what a step does: one of the types of this package.
type Action interface {
	// String says it in few words: "flash disk.img to mmc 0".
	String() string

	// gadget is what the board must show for it.
	gadget() Gadget
	// check looks for what the action needs on this machine.
	check(ctx context.Context) error
	// does says for people what would be done, line by line.
	does() []string
	// run does it. A recover step is not run, but a leg of its own.
	run(ctx context.Context, x *session) error
}

// Recover brings the board up from its boot ROM.
type Recover struct {
	SoC      string   // model or alias
	Firmware []string // files

	backend  socs.Backend
	model    socs.Model
	firmware socs.Firmware // once checked
}

func (a *Recover) String() string { return "recover " + a.SoC }
func (*Recover) gadget() Gadget   { return None }

// Wait waits until the board shows something.
type Wait struct {
	For     Gadget
	ID      usb.ID // if not zero, only of this ID
	Timeout time.Duration
}

func (a *Wait) String() string {
	s := "wait for " + a.For.String()
	if a.ID != (usb.ID{}) {
		s += " " + a.ID.String()
	}
	return s
}
func (*Wait) gadget() Gadget              { return None }
func (*Wait) check(context.Context) error { return nil }
func (a *Wait) does() []string {
	return []string{fmt.Sprintf("nothing, until it is there, %s at most", a.Timeout)}
}

// Source is an image, and how it is read.
type Source struct {
	Image string // file, "-", or URL
	image.Options
}

// Flash writes an image.
type Flash struct {
	Source
	To     Target
	Verify bool // read back and compare
}

// Check finds what does not go together. The error begins with what is at fault.
func (a *Flash) Check() error {
	if a.Verify && a.To.Kind == ToFastboot {
		return errors.New("verify: what fastboot's flash has written cannot be read back; as mmc, mtd or sf it can")
	}
	return errors.Join(a.Source.Check(), a.To.Check())
}

func (a *Flash) String() string { return fmt.Sprintf("flash %s to %s", a.Image, a.To) }
func (a *Flash) gadget() Gadget { return a.To.gadget() }

// Verify compares what is on a target with an image.
type Verify struct {
	Source
	On Target
}

// able refuses targets that nobody gives back later.
func (a *Verify) able() error {
	switch {
	case a.On.Kind == ToFastboot:
		return errors.New("what fastboot's flash has written cannot be read back; as mmc, mtd or sf it can")
	case a.On.Kind == ToFile, a.On.File != "":
		return errors.New("a file is not compared later: say verify: true when it is flashed")
	}
	return nil
}

func (a *Verify) String() string { return fmt.Sprintf("verify %s on %s", a.Image, a.On) }
func (a *Verify) gadget() Gadget { return a.On.gadget() }

// UBoot runs a command line of U-Boot.
type UBoot struct {
	Command string
	Timeout time.Duration // of its silence; 0: 20 s
	// Leave says that the command does not come back: the board shows something else afterwards.
	Leave bool
}

func (a *UBoot) String() string            { return "uboot " + a.Command }
func (*UBoot) gadget() Gadget              { return Fastboot }
func (*UBoot) check(context.Context) error { return nil }
func (a *UBoot) does() []string {
	if a.Leave {
		return []string{"ACmd:" + a.Command}
	}
	return []string{"UCmd:" + a.Command}
}

// Command sends one command of fastboot's.
type Command struct {
	Text    string // as it is sent
	Timeout time.Duration
}

func (a *Command) String() string            { return "fastboot " + a.Text }
func (*Command) gadget() Gadget              { return Fastboot }
func (*Command) check(context.Context) error { return nil }
func (a *Command) does() []string            { return []string{a.Text} }

// Download sends a file, as it is, to U-Boot's buffer.
type Download struct{ File string }

func (a *Download) String() string { return "download " + a.File }
func (*Download) gadget() Gadget   { return Fastboot }

// Reset resets the board, or has it leave fastboot or DFU.
type Reset struct {
	// How is empty, "bootloader", "fastboot" or "recovery", or one of the constants below.
	How string
}

// What a Reset may be instead of one.
const (
	Continue = "continue" // fastboot ends, and U-Boot goes on
	Detach   = "detach"   // DFU or mass storage ends, and U-Boot goes on
)

func (a *Reset) String() string {
	if a.How == Continue || a.How == Detach {
		return a.How
	}
	return strings.TrimSpace("reset " + a.How)
}

// gadget is what a reset needs if the board shows nothing that it could do with.
func (a *Reset) gadget() Gadget {
	if a.How == Detach {
		return DFU
	}
	return Fastboot
}
func (*Reset) check(context.Context) error { return nil }
func (a *Reset) does() []string {
	switch a.How {
	case "":
		return []string{"by fastboot: reboot; by DFU: DETACH and a USB reset"}
	case Continue:
		return []string{"continue"}
	case Detach:
		return []string{"DETACH"}
	}
	return []string{"reboot-" + a.How}
}

// Note tells the user something.
type Note struct{ Text string }

func (a *Note) String() string            { return "note " + a.Text }
func (*Note) gadget() Gadget              { return None }
func (*Note) check(context.Context) error { return nil }
func (a *Note) does() []string            { return nil }
func (a *Note) run(_ context.Context, x *session) error {
	x.emit(event.Note{Text: a.Text})
	return nil
}
