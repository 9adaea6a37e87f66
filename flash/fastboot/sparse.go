package fastboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"snag/flash/image"
	"snag/flash/sparse"
	"snag/usb/fastboot"
)

// How images go in pieces. A device is silent while it writes one, and a piece may have fill chunks, of which it writes
// more than it was sent.
const (
	MinPiece   = 64 << 10 // the least that is worth sending
	tiny       = 8 << 10  // in which blocks of 4096 bytes have hardly any room
	usualPiece = 32 << 20
	mostPiece  = 256 << 20 // two of which are kept in memory
	mostFilled = 256 << 20
)

// SparseOptions is how [FlashSparse] cuts an image.
type SparseOptions struct {
	Piece     int64         // most bytes of a download; 0: 32 MiB. The device's limit holds too
	Block     int64         // 0: 4096, or less if the image's blocks are smaller
	SkipZeros bool          // zeros are not written: the medium was just erased to zeros
	Patience  time.Duration // least time that the device may be silent over a piece
	Progress  func(n int64) // bytes of the image that it is further; may be nil
}

// FlashSparse writes an image to a partition as Android sparse images that are no larger than the device's buffer,
// which MaxDownload has asked for. It keeps two of them in memory: the next is made while one is written. A device that
// takes less than it said gets smaller ones. It closes the image.
func FlashSparse(ctx context.Context, c *fastboot.Client, im *image.Image, partition string, o SparseOptions) error {
	piece := o.Piece
	if piece == 0 {
		piece = usualPiece
	}
	piece = min(piece, mostPiece)
	if c.Limit > 0 {
		piece = min(piece, c.Limit)
	}
	if o.Block == 0 && piece < tiny {
		o.Block = 512
	}
	room := piece
	if im.Size >= 0 {
		room = min(room, im.Size+64<<10) // and its headers
	}
	return ahead(ctx, func(ctx context.Context, next func() (*buffer, error), hand func(*buffer) error) error {
		var b *buffer
		return image.WriteSparse(ctx, im, image.SparseOptions{Config: sparse.Config{
			BlockSize: o.Block, Max: piece, MaxWritten: max(mostFilled, piece), SkipZeros: o.SkipZeros,
			Open: func(int) (w io.WriterAt, err error) {
				if b, err = next(); err == nil && b.data == nil {
					b.data = aligned(room) // all at once: to grow bit by bit is to copy it several times
				}
				return b, err
			},
			Done: func(f sparse.File) error {
				b.data, b.off, b.end, b.written = b.data[:f.Size], f.Off, f.End, f.Written
				return hand(b)
			},
		}})
	}, func(ctx context.Context, b *buffer) error {
		if err := flashPiece(ctx, c, partition, b, o.Patience); err != nil {
			return fmt.Errorf("bytes %d-%d: %w", b.off, b.end-1, err)
		}
		if o.Progress != nil {
			o.Progress(b.end - b.off)
		}
		return nil
	})
}

// aligned makes room for a sparse image whose first raw chunk, behind the file's header, a don't-care chunk and its own
// header, has its bytes at a multiple of 8: a processor without AVX copies them one by one if they are elsewhere.
func aligned(room int64) []byte {
	const before = 28 + 12 + 12
	const skip = 8 - before%8
	return make([]byte, skip+room)[skip:skip]
}

// flashPiece sends one sparse image, in smaller ones if the device does not take it.
func flashPiece(ctx context.Context, c *fastboot.Client, partition string, b *buffer, patience time.Duration) error {
	size := int64(len(b.data))
	err := c.DownloadBytes(ctx, b.data)
	if _, small := errors.AsType[*fastboot.SizeError](err); small && size/2 >= MinPiece {
		im, err := image.New(ctx, "a part of it", bytes.NewReader(b.data), image.Options{})
		if err != nil {
			return err
		}
		c.Limit = size / 2
		return FlashSparse(ctx, c, im, partition, SparseOptions{Block: im.BlockSize, Patience: patience})
	}
	if err != nil {
		return err
	}
	return c.Flash(ctx, partition, max(patience, fastboot.WriteTime(b.written)))
}
