package k3

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"snag/event"
	"snag/socs"
	"snag/socs/dfustage"
	"snag/socs/stages"
	"snag/usb"
	"snag/usb/dfu"
)

// The alternate settings, by which the stages are told apart: the USB IDs are the same.
const (
	altROM   = "bootloader"
	altSysfw = "sysfw.itb"
	altTispl = "tispl.bin"
	altUBoot = "u-boot.img"

	// U-Boot itself, if it has a DFU gadget, may offer the files of a boot partition, this one among them. They are not
	// to be written to.
	altFlash = "tiboot3.bin"
)

// The stages, as events and errors name them. That of the main cores' SPL has their name: spl-a53.
const (
	stageROM   = "rom"
	stageBL1   = "bl1" // AM62L: the ROM again, on behalf of TF-A
	stageSysfw = "sysfw"
	stageR5    = "spl-r5"
)

// recovery is one board on its way up. It is the board, with a patience of its own.
type recovery struct {
	socs.Board
	*chip
	firmware socs.Firmware

	runs int    // how often the ROM was begun with
	at   string // the stage
	last string // the last stage that has what it needs; empty: none since the ROM was begun with

	// maybe says that the board has everything that some versions of U-Boot need. Others come back once more.
	maybe bool
}

func (r *recovery) stageMain() string { return "spl-" + r.main }

// errEverything says that the board may have had everything, and that no stage came.
var errEverything = errors.New("the board has everything")

// Next implements socs.Board.
func (r *recovery) Next(ctx context.Context) (*socs.Stage, error) {
	if r.maybe {
		wait, cancel := context.WithTimeout(ctx, lastTime)
		defer cancel()
		stage, err := r.Board.Next(wait)
		if err != nil && wait.Err() != nil && ctx.Err() == nil {
			r.Emit(stageR5, event.Warning{Text: fmt.Sprintf("%s did not come back for u-boot.img within %s: if it is of before 2024 it has found that in memory, else it does not run; what U-Boot shows next (--expect), or its console, tells", r.stageMain(), lastTime)})
			return nil, errEverything
		}
		return stage, err
	}
	stage, err := r.Board.Next(ctx)
	if stuck, ok := errors.AsType[*socs.BoardError](err); ok && r.last != "" {
		return nil, &socs.BoardError{Stage: stuck.Stage, Err: err, Hint: r.silentHint()}
	}
	return stage, err
}

// silentHint tells why there may be no stage after the last one.
func (r *recovery) silentHint() string {
	switch {
	case r.last == stageROM && r.bl1:
		return "the ROM rejects a tiboot3.bin that is not signed for this device without a word: check that it was built for " + r.name
	case r.last == stageROM:
		return "the ROM rejects a tiboot3.bin of another security variant (GP, HS-FS, HS-SE) or SoC without a word; or it was built without DFU (U-Boot's *_r5_usbdfu.config)"
	case r.last == stageBL1:
		return "the ROM rejects what is not signed for this device without a word; or SPL in tispl.bin was built without DFU"
	}
	return "what was sent does not start: on HS devices it must be signed, on GP ones take the _unsigned file; take all files from one build, with DFU in both SPLs; the serial console tells more"
}

// hint tells what may have caused a transfer's failure.
func (r *recovery) hint(err error) string {
	if status, ok := errors.AsType[*dfu.StatusError](err); ok && status.State == dfu.Error && r.at != stageROM && r.at != stageBL1 {
		return "SPL has no room for the file, or was disturbed: check that it is the right one, take all files from one build, and reset the board"
	}
	return dfustage.Hint(err)
}

// serve gives a stage what it offers to take. It returns true when the board has everything.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (done bool, err error) {
	opened := false // one that leaves before that may come once more
	defer func() {
		if err != nil && opened {
			r.last, r.maybe = "", false
		}
	}()
	r.at = r.following()
	s, err := dfustage.Open(ctx, r, stage, named)
	opened = err == nil
	_, transfer := errors.AsType[*usb.TransferError](err)
	switch {
	case err != nil && (transfer || errors.Is(err, usb.ErrGone)):
		return false, err
	case err != nil && r.maybe: // no DFU interface: U-Boot's
		return true, nil
	case err != nil:
		return false, r.strange(stage, err.Error())
	case has(s, altROM):
		return false, r.serveROM(ctx, s)
	case has(s, altFlash) && r.maybe:
		return true, nil
	case has(s, altFlash):
		return false, r.strange(stage, "U-Boot's own DFU gadget: "+settings(s))
	case has(s, altSysfw) && !has(s, altTispl):
		return false, r.serveSysfw(ctx, s)
	case has(s, altTispl) && !r.bl1 && r.last != stageR5:
		return false, r.serveR5(ctx, s)
	case has(s, altUBoot) && (r.last == "" || r.bl1 || r.at == r.stageMain()):
		err := r.hand(ctx, s, r.stageMain(), [][2]string{{altUBoot, slotUBoot}})
		return err == nil, err
	case r.maybe:
		return true, nil
	}
	return false, r.strange(stage, settings(s))
}

// named reports whether a device tells the names of its settings.
func named(d *dfu.Device) bool {
	return slices.ContainsFunc(d.Alts, func(a dfu.Alt) bool { return a.Name != "" })
}

func has(s *dfustage.Session, alt string) bool {
	_, err := s.Find(alt)
	return err == nil
}

// following is the stage that is expected.
func (r *recovery) following() string {
	switch {
	case r.last == "":
		return stageROM
	case r.last == stageROM && r.bl1:
		return stageBL1
	case r.last == stageROM && r.split:
		return stageSysfw
	case r.last == stageROM || r.last == stageSysfw:
		return stageR5
	}
	return r.stageMain()
}

// strange is the error of a device that is none of the stages.
func (r *recovery) strange(stage *socs.Stage, found string) error {
	e := &socs.BoardError{Stage: r.following(), Hint: "what runs on the board is no boot stage: reset it into its boot ROM and run snag again"}
	want := altROM
	switch r.following() {
	case stageSysfw:
		want = altSysfw
	case stageR5:
		want = altTispl
	case r.stageMain():
		want = altUBoot
	}
	if r.last != "" {
		e.Hint = "the stage before has another gadget or other settings: take all files from one build, with dfu_alt_info of include/env/ti/k3_dfu.env"
	}
	e.Err = fmt.Errorf("expected an alternate setting %q from %s on port %s, found %s", want, stage.ID, stage.Port, found)
	return e
}

func settings(s *dfustage.Session) string {
	var names []string
	for _, a := range s.Alts {
		names = append(names, a.String())
	}
	return "the alternate settings " + strings.Join(names, ", ")
}

// serveROM gives the ROM tiboot3, and, for AM62L's BL1, tispl. It starts them by itself, some before the status is read
// again. One that stays on the bus asks for the next file there: Snagboot looks for the device, and not whether it is
// another one.
func (r *recovery) serveROM(ctx context.Context, s *dfustage.Session) error {
	for {
		slot := slotTiboot3
		if r.bl1 && r.last == stageROM {
			r.at, slot = stageBL1, slotTispl
		} else {
			r.at = stageROM
			if err := r.countRun(); err != nil {
				return err
			}
		}
		r.maybe = false
		left, err := r.send(ctx, s, altROM, slot)
		r.last = r.at
		if err != nil || left || !r.stays(ctx, s) {
			return err
		}
	}
}

// stays tells whether a ROM that has a file is still there after a time, and waits for another.
func (r *recovery) stays(ctx context.Context, s *dfustage.Session) bool {
	if stages.Left(ctx, s.Stage, stayTime) {
		return false
	}
	ask, cancel := context.WithTimeout(ctx, goneTime)
	defer cancel()
	a, err := s.Status(ask)
	return err == nil && a.Status == dfu.OK && a.State == dfu.Idle
}

// countRun counts the ROM's appearances. There are boards that need tiboot3 twice.
func (r *recovery) countRun() error {
	r.runs++
	switch {
	case r.runs > stages.MaxRuns:
		return &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("the boot ROM is back after tiboot3 was sent %d times", stages.MaxRuns),
			Hint: "the first stage does not run on this board: check that it was built for this board, SoC and security variant (GP, HS-FS, HS-SE), and that power and cable are good"}
	case r.runs > 1 && r.last == stageROM:
		r.Emit(stageROM, event.Note{Text: "the boot ROM is back after tiboot3, which some boards need twice: sending it again"})
	case r.runs > 1:
		r.Emit(stageROM, event.Warning{Text: "the boot ROM is back: starting over"})
	}
	return nil
}

// serveSysfw gives the R5's SPL the system firmware.
func (r *recovery) serveSysfw(ctx context.Context, s *dfustage.Session) error {
	if _, ok := r.firmware[slotSysfw]; !ok {
		return &socs.BoardError{Stage: stageSysfw, Err: errors.New("SPL on the board asks for sysfw.itb, and the firmware has none"),
			Hint: `add it as "sysfw", from the build that tiboot3.bin is from`}
	}
	return r.hand(ctx, s, stageSysfw, [][2]string{{altSysfw, slotSysfw}})
}

// serveR5 gives the R5's SPL tispl, and u-boot if it offers to take that: the SPL after it may look for it in memory.
func (r *recovery) serveR5(ctx context.Context, s *dfustage.Session) error {
	files := [][2]string{{altTispl, slotTispl}}
	if has(s, altUBoot) {
		files = append(files, [2]string{altUBoot, slotUBoot})
	}
	err := r.hand(ctx, s, stageR5, files)
	r.maybe = len(files) == 2
	return err
}

// hand sends an SPL files, each to its setting, and makes it go on: it looks at what it has when it leaves the bus,
// which it does for DETACH alone.
func (r *recovery) hand(ctx context.Context, s *dfustage.Session, name string, files [][2]string) error {
	r.at, r.maybe = name, false
	for _, f := range files {
		left, err := r.send(ctx, s, f[0], f[1])
		switch {
		case err != nil:
			return err
		case left && stages.Left(ctx, s.Stage, goneTime):
			return fmt.Errorf("%w before DETACH", usb.ErrGone)
		case left:
			return fmt.Errorf("DFU device %s on port %s, alternate setting %q: it has the whole file and does not answer any more: %w",
				s.Stage.ID, s.Stage.Port, f[0], context.DeadlineExceeded)
		}
	}
	if err := s.Leave(ctx); err != nil {
		return err
	}
	r.last = name
	return nil
}

func (r *recovery) send(ctx context.Context, s *dfustage.Session, alt, slot string) (left bool, err error) {
	a, err := s.Find(alt)
	if err != nil {
		return false, err
	}
	img := r.firmware[slot]
	return s.Send(ctx, r.at, a, dfustage.File{Path: img.Path, Data: img.Data})
}
