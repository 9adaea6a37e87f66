package uuu

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"snag/event"
	target "snag/flash/fastboot"
	"snag/flash/image"
	"snag/usb/fastboot"
)

// usualPiece is how much uuu sends at a time, since U-Boot is silent while it writes.
const usualPiece = 16 << 20

// inPieces writes an image as Android sparse images that are no larger than U-Boot's buffer. Here a piece may have fill
// chunks, of which U-Boot writes more than it was sent.
func (c flash) inPieces(ctx context.Context, x *session, client *fastboot.Client) error {
	im, done, err := c.open(ctx, x)
	if err != nil {
		return err
	}
	defer done()
	if im.Map != nil {
		x.emit(event.Note{Text: fmt.Sprintf("%s maps %d of the %d bytes of %s", im.MapName, im.Map.Mapped(), im.Size, c.file.text)})
	}
	block, err := client.BlockSize(ctx)
	if err != nil {
		im.Close()
		return err
	}
	t := x.begin(c.file.text, max(im.Size, 0))
	at := int64(0)
	err = target.FlashSparse(ctx, client, im, c.partition, target.SparseOptions{
		Piece: cmp.Or(c.piece, usualPiece), Block: block, Patience: x.line.Timeout, // what a script says is for pieces that are sent whole, so it is the least
		Progress: func(n int64) {
			at += n
			t.Total = max(t.Total, at)
			t.At(at)
		},
	})
	if err != nil {
		return err
	}
	t.Done()
	return nil
}

// open opens the image.
func (c flash) open(ctx context.Context, x *session) (im *image.Image, done func() error, err error) {
	o := image.Options{NoBmap: c.noBmap || !c.sparse}
	if c.bmap.text != "" {
		o.Bmap = x.script.files.path(c.bmap.text)
	}
	nothing := func() error { return nil }
	name := c.file.text
	if image.IsURL(name) {
		im, err = image.Open(ctx, name, o)
		return im, nothing, err
	}
	// A file, or the contents of one: what is compressed the image finds out.
	file, inside, err := split(x.script.files.path(strings.TrimSuffix(name, "/*")))
	if err != nil {
		return nil, nil, err
	}
	if inside == "" {
		im, err = image.Open(ctx, file, o)
		return im, nothing, err
	}
	f, err := x.script.files.open(name)
	if err != nil {
		return nil, nil, err
	}
	if im, err = image.New(ctx, name, f, o); err != nil {
		f.Close()
		return nil, nil, err
	}
	return im, f.Close, nil
}
