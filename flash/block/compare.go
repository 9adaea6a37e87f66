//go:build linux

package block

import (
	"context"
	"fmt"
	"io"

	"snag/flash"
	"snag/flash/image"
)

// Verify implements [flash.Verifier]: it reads the image, and then what the medium holds in its places.
func (d *Device) Verify(ctx context.Context, im *image.Image, o flash.Options) error {
	defer im.Close()
	if err := room(d.String(), d.Size, im); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { im.Close() })
	defer stop()
	w := newWriter(d.medium, im.Name, true)
	defer w.close()
	for {
		p, err := im.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = w.note(p)
			p.Release()
		}
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return err
		}
	}
	var progress func(int64)
	if o.Progress != nil {
		progress = func(n int64) { o.Progress(flash.Verifying, n) }
	}
	if err := d.lost(w.verify(ctx, progress)); err != nil {
		return fmt.Errorf("%s: %w", d.Node, err)
	}
	return nil
}

// note records a piece as if it had been written.
func (w *writer) note(p image.Piece) error {
	switch {
	case p.Kind == image.Data:
		return w.written.add(p.Data, p.Off)
	case p.Zero():
		return w.written.addZeros(p.Off, p.N)
	}
	b := make([]byte, min(p.N, image.PieceSize))
	for i := range b {
		b[i] = p.Pattern[i%len(p.Pattern)]
	}
	for done := int64(0); done < p.N; done += int64(len(b)) {
		if err := w.written.add(b[:min(p.N-done, int64(len(b)))], p.Off+done); err != nil {
			return err
		}
	}
	return nil
}

// Block is the length of the device's logical blocks, in bytes.
func (d *Device) Block() int64 { return d.medium.Block() }
