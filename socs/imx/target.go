package imx

import (
	"context"
	"errors"
	"fmt"

	"snag/event"
	"snag/firmware"
	"snag/socs"
	"snag/usb"
)

// Target is one enumeration of a boot ROM, or of the SPL behind it, that is told command by command what to do, as
// uuu's scripts do. [Backend.Recover] does it all by itself. Files are checked here too, as far as one command's file
// can be.
//
// An error is a *socs.BoardError, a *socs.FirmwareError, the context's, or about access to the device.
type Target struct {
	r     *recovery
	sdp   *sdp // nil: a stream
	stage *socs.Stage
	name  string
}

// OpenTarget takes a stage. model is what the stage is the ROM of, by the names of socs.Models; empty: it is an SPL
// that speaks SDP.
func OpenTarget(ctx context.Context, board socs.Board, stage *socs.Stage, model string) (*Target, error) {
	t := &Target{r: &recovery{board: board, endLog: noLog}, stage: stage, name: stageSPL}
	report := fullReport
	if model != "" {
		chip, err := chipOf(socs.Model{Name: model})
		if err != nil {
			return nil, err
		}
		t.r.chip, t.name, report = chip, stageROM, chip.report
		switch chip.proto {
		case stream:
			return t, nil
		case sdpBulk:
			return nil, fmt.Errorf("the boot ROM of %s has no HID interface", chip.name)
		}
	}
	var err error
	if t.sdp, err = t.r.openSDP(ctx, stage, t.name, report); err != nil {
		return nil, t.explain(ctx, err)
	}
	return t, nil
}

// Close ends what goes on beside the commands: a ROM's log is read until then.
func (t *Target) Close() { t.r.endLog() }

// explain makes a transfer's error one of the board's.
func (t *Target) explain(ctx context.Context, err error) error {
	var stuck *socs.BoardError
	var refused *socs.FirmwareError
	var access *usb.AccessError
	switch {
	case err == nil:
		return nil
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case errors.As(err, &stuck), errors.As(err, &refused), errors.As(err, &access):
		return err
	}
	return &socs.BoardError{Stage: t.name, Err: err, Hint: hintFor(err, t.name == stageROM)}
}

// tell emits what was found out about a file.
func (t *Target) tell(findings []socs.Finding) {
	for _, f := range findings {
		if f.Warning {
			t.r.board.Emit(t.name, event.Warning{Text: f.Text})
		} else {
			t.r.board.Emit(t.name, event.Note{Text: f.Text})
		}
	}
}

// Stream pushes a file to a ROM that takes streams: all of it, or the part that the ROM wants. more tells whether an
// SPL in it will come back for U-Boot.
func (t *Target) Stream(ctx context.Context, img socs.Image) (more bool, err error) {
	if t.sdp != nil {
		return false, t.explain(ctx, errors.New("the device takes no stream"))
	}
	c, p, err := check(socs.Model{Name: fields(t.r.models)[0]}, socs.Firmware{slotFlash: img})
	if t.tell(c.Findings); err != nil {
		return false, err
	}
	t.r.plan = p
	return p.second != nil, t.explain(ctx, t.r.serveStream(ctx, t.stage))
}

// BootOptions is how [Target.Boot] starts an image.
type BootOptions struct {
	DCDAddr  uint32 // where the DCD is staged; 0: where the chip's ROM has room
	ClearDCD bool   // the image's IVT is written without the DCD's address, whether or not the ROM could be told to skip it
	NoJump   bool
}

// Boot has an SDP ROM execute the DCD of a file's first image, writes that and starts it; a plugin, and the image
// behind it. more tells whether there is a second stage in the file, for an SPL that comes back for it.
func (t *Target) Boot(ctx context.Context, img socs.Image, opt BootOptions) (more bool, err error) {
	if err := t.rom(); err != nil {
		return false, t.explain(ctx, err)
	}
	c := &checker{chip: t.r.chip, Checked: socs.Checked{Sent: make(socs.Firmware)}}
	img.Data = c.boot(slotFlash, img.Data)
	slot := slotSPL
	if v, err := firmware.FindIVT(img.Data, 0); err == nil {
		if _, addr, err := v.Image(img.Data); err == nil && !within(c.ocram, uint64(addr)) {
			slot = slotWithDCD
		}
	}
	p := &plan{}
	_, err = c.vectored(p, slot, img)
	c.Take("boot", img, err)
	if t.tell(c.Findings); err != nil {
		return false, errors.Join(c.Errs...)
	}
	chip := *t.r.chip
	if opt.DCDAddr != 0 {
		chip.dcd = opt.DCDAddr
	}
	chip.clear = chip.clear || opt.ClearDCD
	r := *t.r
	r.chip, r.plan = &chip, p
	for _, one := range p.images {
		switch {
		case opt.NoJump:
			told, err := r.writeImage(ctx, t.sdp, t.stage, one)
			if err == nil {
				told.Done()
			}
			return false, t.explain(ctx, err)
		default:
			err = r.loadImage(ctx, t.sdp, t.stage, one)
		}
		if err == nil && one.plugin {
			_, err = t.sdp.errorStatus(ctx)
		}
		if err != nil {
			return false, t.explain(ctx, err)
		}
	}
	last := p.images[len(p.images)-1].ivt
	_, more = findSecond(img.Data, last.Offset+firmware.IVTSize, last.End())
	return more && chip.spl, nil
}

// rom says no if the target is no ROM that speaks SDP.
func (t *Target) rom() error {
	if t.r.chip == nil || t.sdp == nil {
		return errors.New("the device is no boot ROM that speaks SDP")
	}
	return nil
}

// DCD has a ROM execute a DCD, staged at an address, or, if that is 0, where the chip's ROM has room.
func (t *Target) DCD(ctx context.Context, addr uint32, dcd []byte) error {
	if err := t.rom(); err != nil {
		return t.explain(ctx, err)
	}
	if addr == 0 {
		addr = t.r.dcd
	}
	return t.explain(ctx, t.sdp.writeDCD(ctx, addr, dcd))
}

// Write writes data, which are path's, to memory. An SPL is given them in one piece, since it searches no more than the
// last; address 0 is where it likes them.
func (t *Target) Write(ctx context.Context, addr uint32, path string, data []byte) error {
	if t.sdp == nil {
		return t.explain(ctx, errors.New("the device takes nothing but a stream"))
	}
	told := t.r.begin(t.stage, t.name, path, len(data))
	write := t.sdp.writeParts
	if t.name == stageSPL {
		write = t.sdp.writeFile
	}
	if err := write(ctx, addr, data, told.At); err != nil {
		return t.explain(ctx, err)
	}
	told.Done()
	return nil
}

// Jump starts what is at an address.
func (t *Target) Jump(ctx context.Context, addr uint32) error {
	if t.sdp == nil {
		return t.explain(ctx, errors.New("the device takes nothing but a stream"))
	}
	return t.explain(ctx, t.sdp.jump(ctx, addr))
}

// JumpImage starts the image with an IVT that was written before, from whose file data is. The ROM is kept from
// executing its DCD: where there is no command for that, or if clear is set, the image's beginning is written again
// without the DCD's address.
func (t *Target) JumpImage(ctx context.Context, v *firmware.IVT, data []byte, clear bool) error {
	if err := t.rom(); err != nil {
		return t.explain(ctx, err)
	}
	image, addr, err := v.Image(data)
	if err != nil {
		return &socs.FirmwareError{Slot: "boot", Err: err}
	}
	switch {
	case !t.r.clear && !clear:
		err = t.sdp.skipDCD(ctx)
	case v.DCD != 0:
		// A whole report, since some ROMs store no less.
		err = t.sdp.writeFile(ctx, addr, clearDCD(image[:min(len(image), t.sdp.report)]), nil)
	}
	if err != nil {
		return t.explain(ctx, err)
	}
	return t.Jump(ctx, addr)
}

// ReadMemory reads a value of 8, 16 or 32 bits.
func (t *Target) ReadMemory(ctx context.Context, addr uint32, width int) (uint32, error) {
	if err := t.rom(); err != nil {
		return 0, t.explain(ctx, err)
	}
	v, err := t.sdp.readRegister(ctx, addr, width)
	return v, t.explain(ctx, err)
}

// WriteMemory writes a value of 8, 16 or 32 bits.
func (t *Target) WriteMemory(ctx context.Context, addr uint32, width int, value uint32) error {
	if err := t.rom(); err != nil {
		return t.explain(ctx, err)
	}
	return t.explain(ctx, t.sdp.writeRegister(ctx, addr, width, value))
}

// Status asks for HAB's status, and returns it in words.
func (t *Target) Status(ctx context.Context) (string, error) {
	if err := t.rom(); err != nil {
		return "", t.explain(ctx, err)
	}
	w, err := t.sdp.errorStatus(ctx)
	return w.hab(), t.explain(ctx, err)
}

// FindSecond finds where in a file with a first stage what follows it begins, which an SPL has to be given. If nothing
// is recognised ok is false and off is the first stage's end.
func FindSecond(data []byte) (off int, ok bool, err error) {
	if area, cut := bootArea(data); cut {
		data = area
	}
	if start, size, ok := firmware.FindBurnTag(data); ok {
		off, ok, err := findBehind(data[start:][:size])
		return start + off, ok, err
	}
	return findBehind(data)
}

func findBehind(data []byte) (off int, ok bool, err error) {
	var start, end int
	if set, _ := firmware.FindContainers(data); set != nil {
		start, end = set.Offset+set.Next, set.Offset+set.Next
	} else {
		v, err := firmware.FindIVT(data, 0)
		if err != nil {
			return 0, false, err
		}
		start, end = v.Offset+firmware.IVTSize, v.End()
	}
	off, ok = findSecond(data, start, end)
	if !ok {
		off = min(end, len(data))
	}
	return off, ok, nil
}
