package uuu

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"snag/event"
	"snag/flash/fastboot"
	"snag/flash/image"
	"snag/flash/sparse"
)

// How images go in pieces: uuu's are of 16 MiB at most, since U-Boot is silent while it writes one. Here a piece may have fill chunks,
// of which U-Boot writes more than it was sent.
const (
	usualPiece = 16 << 20
	mostPiece  = 256 << 20 // which is kept in memory
	minPiece   = 64 << 10
	mostFilled = 256 << 20
)

// inPieces writes an image as Android sparse images that are no larger than U-Boot's buffer.
func (c flash) inPieces(ctx context.Context, x *session, client *fastboot.Client, limit int64) error {
	piece := cmp.Or(c.piece, usualPiece)
	if limit > 0 {
		piece = min(piece, limit)
	}
	piece = min(piece, mostPiece)
	im, done, err := c.open(ctx, x)
	if err != nil {
		return err
	}
	defer done()
	if im.Map != nil {
		x.emit(event.Note{Text: fmt.Sprintf("%s maps %d of the %d bytes of %s", im.MapName, im.Map.Mapped(), im.Size, c.file.text)})
	}
	block, err := c.blockSize(ctx, client)
	if err != nil {
		return err
	}
	progress := x.begin(c.file.text, max(im.Size, 0))
	var out pieceBuffer
	err = image.WriteSparse(ctx, im, image.SparseOptions{Config: sparse.Config{
		BlockSize: block, Max: piece, MaxWritten: max(mostFilled, piece),
		Open: func(int) (io.WriterAt, error) {
			out = out[:0]
			return &out, nil
		},
		Done: func(f sparse.File) error {
			if err := client.Download(ctx, bytes.NewReader(out[:f.Size]), f.Size, nil); err != nil {
				return fmt.Errorf("bytes %d-%d: %w", f.Off, f.End-1, err)
			}
			// As for other flashes, by what is written. What a script says is for pieces that are sent whole, so it is no less.
			patience := 30*time.Second + time.Duration(f.Written)*time.Second/1_000_000
			if err := client.Flash(ctx, c.partition, max(patience, x.line.Timeout)); err != nil {
				return fmt.Errorf("bytes %d-%d: %w", f.Off, f.End-1, err)
			}
			progress.total = max(progress.total, f.End)
			progress.at(f.End)
			return nil
		},
	}})
	if err != nil {
		return err
	}
	progress.end()
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
	if isURL(name) {
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

// blockSize is the device's, if it has told a sensible one; else 0.
func (c flash) blockSize(ctx context.Context, client *fastboot.Client) (int64, error) {
	text, err := client.GetVar(ctx, "logical-block-size")
	if _, refused := err.(*fastboot.FailError); refused {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := fastboot.ParseSize(text)
	if err != nil || n < 512 || n > 4096 || n&(n-1) != 0 {
		return 0, nil
	}
	return n, nil
}

// pieceBuffer holds a piece.
type pieceBuffer []byte

// WriteAt implements io.WriterAt.
func (b *pieceBuffer) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(*b) {
		if end > cap(*b) {
			grown := make([]byte, len(*b), max(end, min(2*cap(*b), mostPiece)))
			copy(grown, *b)
			*b = grown
		}
		clear((*b)[len(*b):end])
		*b = (*b)[:end]
	}
	return copy((*b)[off:], p), nil
}
