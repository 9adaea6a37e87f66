package dfu

import (
	"context"
	"errors"
	"fmt"
	"io"

	"snag/flash"
	"snag/flash/image"
	"snag/usb"
)

var _ flash.Verifier = (*Target)(nil)

// Verify implements [flash.Verifier]: it reads the image, and then uploads as much as there is of it. What the image
// leaves out is compared as zeros, which Write sends.
//
// U-Boot gives back a setting that is larger than the image only once: it goes on where an upload was ended, and so
// refuses the next one (drivers/dfu/dfu.c, dfu_read).
func (t *Target) Verify(ctx context.Context, im *image.Image, o flash.Options) error {
	return t.with(ctx, im, func() error { return t.verify(ctx, im, o) })
}

func (t *Target) verify(ctx context.Context, im *image.Image, o flash.Options) error {
	s, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	a, err := t.setting(s.Device)
	if err != nil {
		return err
	}
	if err := s.able(false, true); err != nil {
		return err
	}
	w := &writing{session: s, alt: a, name: im.Name, sums: new(sums), progress: o.Progress}
	if _, err := io.Copy(w.sums, newUnsuffixed(newStream(im), s.ids)); err != nil {
		return err
	}
	if s.DfuSe() {
		m, err := t.memory(ctx, s)
		if err != nil {
			return err
		}
		if w.sums.size > m.size {
			return fmt.Errorf("%s: %s is larger than the %d bytes from address %#08x on", t, w.name, m.size, m.addr)
		}
		return t.compareMemory(ctx, w, m)
	}
	if err := s.Select(ctx, a); err != nil {
		return err
	}
	err = t.compare(ctx, w)
	if errors.Is(err, usb.ErrStall) {
		err = fmt.Errorf("%w; U-Boot does so if it was read from before, and not up to the setting's end: have it run its dfu command anew", err)
	}
	return err
}
