package plan

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"snag/event"
	"snag/flash"
	"snag/flash/block"
	"snag/flash/dfu"
	"snag/flash/fastboot"
	"snag/flash/image"
	"snag/recovery"
)

// stage is the name of the stage of events while the target is written.
func (t Target) stage() string {
	if g := t.gadget(); g != None {
		return g.String()
	}
	return string(t.Kind)
}

// diskTime is how long a disk, or a directory that something has yet to be mounted on, is awaited.
const diskTime = 30 * time.Second

// open opens a target; done gives back what it took.
func (x *session) open(ctx context.Context, t Target) (to flash.Target, done func(), err error) {
	done = func() {}
	if x.opt.open != nil {
		to, err = x.opt.open(ctx, x, t)
		return to, done, err
	}
	switch t.Kind {
	case ToDFU:
		return &dfu.Target{Host: x.opt.USB, Port: x.stage.Port, Alt: t.Name, Address: uint32(t.Address)}, done, nil
	case ToFile:
		return &block.File{Name: t.Name, Wait: x.opt.disk}, done, nil
	case ToDisk:
		if t.File != "" {
			return &block.Mounted{Options: x.disk(t), Name: t.File}, done, nil
		}
		d, err := block.Open(ctx, x.disk(t))
		if err != nil {
			return nil, nil, err
		}
		return d, func() { d.Close() }, nil
	}
	c, err := x.fastboot(ctx)
	if err != nil {
		return nil, nil, err
	}
	c.Most = t.BufferSize
	switch t.Kind {
	case ToMMC:
		to = fastboot.MMC{Client: c, Device: t.Device, HWPart: t.Hardware, Partition: t.Partition, Offset: t.Offset, Buffer: t.Buffer}
	case ToMTD, ToSF:
		to = fastboot.MTD{Client: c, Name: t.Name, SF: t.Kind == ToSF, NOR: t.NOR, Block: t.EraseBlock, Offset: t.Offset, Buffer: t.Buffer}
	default:
		to = fastboot.Partition{Client: c, Name: t.Name}
	}
	return to, func() { c.Most = 0 }, nil
}

// disk says which disk is meant. One that is named by its path must be the board's, too, if a port was named.
func (x *session) disk(t Target) block.Options {
	o := block.Options{Path: t.Name, Port: x.opt.Port, Force: t.Force, Wait: x.opt.disk}
	if t.Device >= 0 {
		o.Path, o.Port, o.LUN = "", x.stage.Port, t.Device
	}
	o.Partition, _ = strconv.Atoi(t.Partition)
	return o
}

// image opens the image, and tells what there is to know of it.
func (x *session) image(ctx context.Context, src *Source) (*image.Image, error) {
	im, err := src.open(ctx)
	if err != nil {
		return nil, err
	}
	if im.Map != nil {
		s := fmt.Sprintf("%s maps %d of %d bytes", im.MapName, im.Mapped(), im.Size)
		if im.Signer != "" {
			s += ", signed by " + im.Signer
		}
		x.emit(event.Note{Text: s})
	}
	return im, nil
}

// total is how many bytes of an image are done when all are; -1: its end will tell.
func (t Target) total(im *image.Image) int64 {
	switch t.Kind {
	case ToDFU, ToMTD, ToSF: // which leave nothing out
		return im.Size
	}
	return im.Mapped()
}

// turns reports whether a target reads back each piece before it writes the next.
func (t Target) turns() bool { return t.Kind == ToMMC || t.Kind == ToMTD || t.Kind == ToSF }

func (a *Flash) run(ctx context.Context, x *session) error {
	im, err := x.image(ctx, &a.Source)
	if err != nil {
		return err
	}
	t, done, err := x.open(ctx, a.To)
	if err != nil {
		im.Close()
		return err
	}
	defer done()
	m := newMeter(x.board.Emit, a.To.stage(), a.Image, a.To.total(im), a.To.turns(), flash.Writing)
	err = t.Write(ctx, im, flash.Options{Verify: a.Verify, Progress: m.add})
	m.end(err)
	return err
}

func (a *Verify) run(ctx context.Context, x *session) error {
	im, err := x.image(ctx, &a.Source)
	if err != nil {
		return err
	}
	t, done, err := x.open(ctx, a.On)
	if err != nil {
		im.Close()
		return err
	}
	defer done()
	v, ok := t.(flash.Verifier)
	if !ok {
		im.Close()
		return &recovery.UsageError{Err: fmt.Errorf("%s is not compared with an image later: use verify: true when it is flashed", a.On)}
	}
	m := newMeter(x.board.Emit, a.On.stage(), a.Image, a.On.total(im), false, flash.Verifying)
	err = v.Verify(ctx, im, flash.Options{Progress: m.add})
	m.end(err)
	return err
}
