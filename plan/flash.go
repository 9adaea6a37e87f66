package plan

import (
	"context"
	"fmt"

	"snag/event"
	"snag/flash"
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

// open opens a target.
func (x *session) open(ctx context.Context, t Target) (flash.Target, error) {
	if x.opt.open != nil {
		return x.opt.open(ctx, x, t)
	}
	return nil, &recovery.UsageError{Err: fmt.Errorf("%s: not built yet", t)}
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

func (a *Flash) run(ctx context.Context, x *session) error {
	im, err := x.image(ctx, &a.Source)
	if err != nil {
		return err
	}
	t, err := x.open(ctx, a.To)
	if err != nil {
		im.Close()
		return err
	}
	m := newMeter(x.board.Emit, a.To.stage(), a.Image, im.Mapped(), flash.Writing)
	err = t.Write(ctx, im, flash.Options{Verify: a.Verify, Progress: m.add})
	m.end(err)
	return err
}

func (a *Verify) run(ctx context.Context, x *session) error {
	im, err := x.image(ctx, &a.Source)
	if err != nil {
		return err
	}
	t, err := x.open(ctx, a.On)
	if err != nil {
		im.Close()
		return err
	}
	v, ok := t.(flash.Verifier)
	if !ok {
		im.Close()
		return &recovery.UsageError{Err: fmt.Errorf("%s cannot be compared with an image later: use verify: true when it is flashed", a.On)}
	}
	m := newMeter(x.board.Emit, a.On.stage(), a.Image, im.Mapped(), flash.Verifying)
	err = v.Verify(ctx, im, flash.Options{Progress: m.add})
	m.end(err)
	return err
}

func (a *GPT) run(ctx context.Context, x *session) error {
	if a.On.Kind != ToMMC {
		return &recovery.UsageError{Err: fmt.Errorf("gpt on %s: not built yet", a.On)}
	}
	c, err := x.fastboot(ctx)
	if err != nil {
		return err
	}
	return c.Run(ctx, fmt.Sprintf("gpt write mmc %x '%s'", a.On.Device, a.uboot()), x.patience(0, commandTime))
}
