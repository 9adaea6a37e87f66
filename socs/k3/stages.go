package k3

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"snag/event"
	"snag/socs"
	"snag/socs/dfuboot"
	"snag/usb"
	"snag/usb/dfu"
)

// The alternate settings, by which the stages are told apart: the USB IDs are the same.
const (
	altROM   = "bootloader"
	altSysfw = "sysfw.itb"
	altTispl = "tispl.bin"
	altUBoot = "u-boot.img"

	// U-Boot itself, if it has a DFU gadget, may offer the files of a boot partition, this one among them. They are not to
	// be written to.
	altFlash = "tiboot3.bin"
)

// The stages, as events and errors name them. That of the main cores' SPL has their name: spl-a53.
const (
	stageROM   = "rom"
	stageBL1   = "bl1" // AM62L: the ROM again, on behalf of TF-A
	stageSysfw = "sysfw"
	stageR5    = "spl-r5"
)

// recovery is one board on its way up.
type recovery struct {
	*chip
	firmware socs.Firmware
	board    socs.Board

	runs int    // how often the ROM was begun with
	last string // the last stage that has what it needs; empty: none since the ROM was begun with

	// maybe says that the board has everything that some versions of U-Boot need. Others come back once more.
	maybe bool
}

func (r *recovery) stageMain() string { return "spl-" + r.main }

// next waits for the next stage. It is nil if the board has everything and none came.
func (r *recovery) next(ctx context.Context) (*socs.Stage, error) {
	wait, cancel := ctx, context.CancelFunc(func() {})
	if r.maybe {
		wait, cancel = context.WithTimeout(ctx, lastTime)
	}
	defer cancel()
	stage, err := r.board.Next(wait)
	switch {
	case err == nil:
		return stage, nil
	case r.maybe && wait.Err() != nil && ctx.Err() == nil:
		return nil, nil
	}
	if stuck, ok := errors.AsType[*socs.BoardError](err); ok && r.last != "" {
		return nil, &socs.BoardError{Stage: stuck.Stage, Err: err, Hint: r.silentHint()}
	}
	return nil, err
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

// serve does what one enumeration of the board needs. It returns true when the board has everything.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (bool, error) {
	name, done, err := r.offer(ctx, stage)
	err = dfuboot.Gone(ctx, stage, err)
	if cause := context.Cause(ctx); cause != nil && err != nil {
		return false, cause
	}
	switch {
	case err == nil:
		return done, nil
	case errors.Is(err, usb.ErrGone):
		r.last, r.maybe = "", false
		r.board.Emit(name, event.Warning{Text: fmt.Sprintf("the board left port %s: %v; waiting for it to come back", stage.Port, err)})
		return false, nil
	}
	if _, ok := errors.AsType[*socs.BoardError](err); ok {
		return false, err
	}
	hint := dfuboot.Hint(err)
	if status, ok := errors.AsType[*dfu.StatusError](err); ok && hint == "" && name != stageROM && name != stageBL1 && status.State == dfu.Error {
		hint = "SPL has no room for the file, or was reset: check that it is the right one, and take all files from one build"
	}
	if hint == "" {
		hint = "reset the board and run snag again; try another cable, and a port without hubs in between"
	}
	return false, &socs.BoardError{Stage: name, Err: err, Hint: hint}
}

// offer gives a stage what it offers to take. It returns the stage's name.
func (r *recovery) offer(ctx context.Context, stage *socs.Stage) (name string, done bool, err error) {
	d, err := dfuboot.Open(ctx, r.board, stage, true)
	switch {
	case errors.Is(err, dfuboot.ErrNoDFU) && r.maybe:
		return "", true, nil // U-Boot's
	case errors.Is(err, dfuboot.ErrNoDFU):
		return r.following(), false, r.strange(stage, err.Error())
	case err != nil:
		return r.following(), false, err
	case d.Has(altROM):
		return r.serveROM(ctx, d)
	case d.Has(altFlash) && r.maybe:
		return "", true, nil
	case d.Has(altFlash):
		return r.following(), false, r.strange(stage, "U-Boot's own DFU gadget: "+settings(d))
	case d.Has(altSysfw) && !d.Has(altTispl):
		return r.serveSysfw(ctx, d)
	case d.Has(altTispl) && !r.bl1 && r.last != stageR5:
		return r.serveR5(ctx, d)
	case d.Has(altUBoot):
		return r.serveMain(ctx, d)
	case r.maybe:
		return "", true, nil
	}
	return r.following(), false, r.strange(stage, settings(d))
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

func settings(d *dfuboot.Link) string {
	var names []string
	for _, a := range d.Alts {
		names = append(names, a.String())
	}
	return "the alternate settings " + strings.Join(names, ", ")
}

// serveROM gives the ROM tiboot3, and, for AM62L's BL1, tispl.
func (r *recovery) serveROM(ctx context.Context, d *dfuboot.Link) (string, bool, error) {
	name, slot := stageROM, slotTiboot3
	if r.bl1 && r.last == stageROM {
		name, slot = stageBL1, slotTispl
	} else if err := r.countRun(); err != nil {
		return name, false, err
	}
	r.last, r.maybe = "", false
	if err := r.send(ctx, d, name, altROM, slot); err != nil && !errors.Is(err, dfu.ErrLeft) {
		return name, false, err
	}
	// The ROM starts it by itself, some before the status is read again.
	r.last = name
	return name, false, nil
}

// countRun counts the ROM's appearances.
func (r *recovery) countRun() error {
	r.runs++
	switch {
	case r.runs > maxRuns:
		return &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("the boot ROM is back after tiboot3 was sent %d times", maxRuns),
			Hint: "the first stage does not run on this board: check that it was built for this board, SoC and security variant (GP, HS-FS, HS-SE), and that power and cable are good"}
	case r.runs > 1 && r.last == stageROM:
		r.board.Emit(stageROM, event.Note{Text: "the boot ROM is back after tiboot3, which some boards need twice: sending it again"})
	case r.runs > 1:
		r.board.Emit(stageROM, event.Warning{Text: "the boot ROM is back: starting over"})
	}
	return nil
}

// serveSysfw gives the R5's SPL the system firmware.
func (r *recovery) serveSysfw(ctx context.Context, d *dfuboot.Link) (string, bool, error) {
	if _, ok := r.firmware[slotSysfw]; !ok {
		return stageSysfw, false, &socs.BoardError{Stage: stageSysfw, Err: errors.New("SPL on the board asks for sysfw.itb, and the firmware has none"),
			Hint: `add it as "sysfw", from the build that tiboot3.bin is from`}
	}
	err := r.hand(ctx, d, stageSysfw, [][2]string{{altSysfw, slotSysfw}})
	return stageSysfw, false, err
}

// serveR5 gives the R5's SPL tispl, and u-boot if it offers to take that: the SPL after it may look for it in memory.
func (r *recovery) serveR5(ctx context.Context, d *dfuboot.Link) (string, bool, error) {
	files := [][2]string{{altTispl, slotTispl}}
	if d.Has(altUBoot) {
		files = append(files, [2]string{altUBoot, slotUBoot})
	}
	if err := r.hand(ctx, d, stageR5, files); err != nil {
		return stageR5, false, err
	}
	r.maybe = len(files) == 2
	return stageR5, false, nil
}

// serveMain gives the main cores' SPL U-Boot.
func (r *recovery) serveMain(ctx context.Context, d *dfuboot.Link) (string, bool, error) {
	err := r.hand(ctx, d, r.stageMain(), [][2]string{{altUBoot, slotUBoot}})
	return r.stageMain(), err == nil, err
}

// hand sends an SPL files, each to its setting, and makes it go on.
func (r *recovery) hand(ctx context.Context, d *dfuboot.Link, name string, files [][2]string) error {
	r.maybe = false
	for _, f := range files {
		if err := r.send(ctx, d, name, f[0], f[1]); err != nil {
			return err
		}
	}
	// SPL looks at what it has when it leaves the bus, which it does for DETACH alone.
	if err := d.Leave(ctx); err != nil {
		return err
	}
	r.last = name
	return nil
}

func (r *recovery) send(ctx context.Context, d *dfuboot.Link, name, alt, slot string) error {
	a, err := d.Find(alt)
	if err != nil {
		return err
	}
	return d.Send(ctx, name, a, r.firmware[slot])
}
