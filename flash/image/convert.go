package image

import (
	"context"
	"fmt"
	"io"

	"snag/flash/bmap"
	"snag/flash/sparse"
)

// SparseOptions is how [WriteSparse] cuts an image: Open and Done, Max, MaxWritten and SkipZeros as in [sparse.Config].
type SparseOptions struct {
	sparse.Config
	// SkipHoles leaves out what a sparse file never had written, too.
	SkipHoles bool
}

// WriteSparse writes an image as Android sparse images. Where BlockSize is 0, it is 4096, or less if the block map has
// smaller blocks; Size is taken from the image. It closes the image.
func WriteSparse(ctx context.Context, im *Image, o SparseOptions) error {
	defer im.Close()
	stop := context.AfterFunc(ctx, func() { im.cancel(context.Cause(ctx)) })
	defer stop()
	if o.BlockSize == 0 {
		o.BlockSize = 4096
		if im.BlockSize > 1 {
			o.BlockSize = min(o.BlockSize, im.BlockSize)
		}
	}
	if im.BlockSize > 1 && im.BlockSize%o.BlockSize != 0 {
		return fmt.Errorf("%s: what is to be written of it has blocks of %d bytes, so a sparse image of it cannot have blocks of %d", im.Name, im.BlockSize, o.BlockSize)
	}
	o.Size = max(im.Size, 0)
	w, err := sparse.NewWriter(o.Config)
	if err != nil {
		return fmt.Errorf("%s: %w", im.Name, err)
	}
	write := writePieces
	if _, ok := im.src.(*fileSource); ok && im.Map == nil {
		write = writeFile
	}
	if err := write(im, w, o.SkipHoles); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("%s: %w", im.Name, err)
	}
	return nil
}

// writePieces writes the image's pieces.
func writePieces(im *Image, w *sparse.Writer, skipHoles bool) error {
	at, err := int64(0), error(nil)
	for err == nil {
		var p Piece
		if p, err = im.Next(); err == io.EOF {
			err = nil
			break
		} else if err != nil {
			return err
		}
		if p.Off > at {
			err = w.Skip(p.Off - at)
		}
		switch {
		case err != nil:
		case p.Kind == Data:
			_, err = w.Write(p.Data)
		default:
			err = writeFill(w, p, skipHoles)
		}
		at = p.Off + p.N
		p.Release()
	}
	if err == nil && im.Size > at {
		err = w.Skip(im.Size - at)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", im.Name, err)
	}
	return nil
}

// writeFile writes a raw image that is in a file, of which nothing is to be hashed: it is read to where it is sent from.
func writeFile(im *Image, w *sparse.Writer, skipHoles bool) error {
	src := im.src.(*fileSource)
	for at := int64(0); at < src.size; {
		end, hole, failed := src.stretch(at, src.size)
		if failed != nil {
			return im.failed(0, at, src.size, false, failed)
		}
		var err error
		if hole {
			err = writeFill(w, Piece{Kind: Hole, N: end - at}, skipHoles)
			at = end
		} else {
			err = w.Fetch(min(end-at, PieceSize), func(p []byte) error {
				if failed = context.Cause(im.ctx); failed == nil {
					_, failed = src.f.ReadAt(p, at)
				}
				at += int64(len(p))
				return failed
			})
		}
		if failed != nil {
			return im.failed(0, at, src.size, false, failed)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", im.Name, err)
		}
	}
	return nil
}

// writeFill writes a piece of no data.
func writeFill(w *sparse.Writer, p Piece, skipHoles bool) error {
	if p.Kind == Hole && skipHoles {
		return w.Skip(p.N)
	}
	return w.Fill(p.Pattern, p.N)
}

// Verify reads an image to its end for the sake of its checksums. It closes the image.
func Verify(ctx context.Context, im *Image, progress func(n int64)) error {
	defer im.Close()
	im.whole = true
	stop := context.AfterFunc(ctx, func() { im.cancel(context.Cause(ctx)) })
	defer stop()
	for {
		p, err := im.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if progress != nil {
			progress(p.N)
		}
		p.Release()
	}
}

// MapOptions is how [CreateMap] maps an image.
type MapOptions struct {
	BlockSize   int64 // 0: 4096
	NoChecksums bool
	// Zeros makes blocks that are zeros unmapped, even if they were written. Whoever uses the map loses them on a
	// medium that holds something else.
	Zeros bool
}

// CreateMap makes the block map of an image: mapped is all but holes and what a sparse image leaves out. It closes the
// image.
func CreateMap(ctx context.Context, im *Image, o MapOptions) (*bmap.Map, error) {
	defer im.Close()
	stop := context.AfterFunc(ctx, func() { im.cancel(context.Cause(ctx)) })
	defer stop()
	if o.BlockSize == 0 {
		o.BlockSize = 4096
	}
	if _, err := (&bmap.Map{ImageSize: 1, BlockSize: o.BlockSize}).Encode(); err != nil {
		return nil, err
	}
	c := mapper{o: o, m: &bmap.Map{Version: "2.0", BlockSize: o.BlockSize}}
	if !o.NoChecksums {
		c.m.Checksum = "sha256"
	}
	for {
		p, err := im.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			c.close(0)
			return nil, err
		}
		c.piece(p)
		c.m.ImageSize = p.Off + p.N
		p.Release()
	}
	c.m.ImageSize = max(im.Size, c.m.ImageSize)
	c.close(c.m.ImageSize)
	for i, sum := range c.sums {
		c.m.Ranges[i].Sum = <-sum.result
	}
	return c.m, nil
}

// mapper makes ranges of pieces. The last range is open.
type mapper struct {
	o      MapOptions
	m      *bmap.Map
	sums   []*summer
	hashed int64 // end of what the open range's hash has
	open   bool
}

func (c *mapper) piece(p Piece) {
	switch {
	case p.Kind == Hole || c.o.Zeros && p.Zero():
	case p.Kind != Data || !c.o.Zeros:
		c.mapped(p)
	default:
		// The blocks between two that are zeros are one part.
		from, at := int64(0), int64(0)
		part := func(to int64) {
			if from < to {
				part := p
				part.Off, part.N, part.Data = p.Off+from, to-from, p.Data[from:to]
				c.mapped(part)
			}
			from = at
		}
		for at < p.N {
			block := at
			at += min(p.N-at, c.o.BlockSize-(p.Off+at)%c.o.BlockSize)
			if allZero(p.Data[block:at]) {
				part(block)
			}
		}
		part(p.N)
	}
}

func allZero(b []byte) bool {
	for ; len(b) > len(zeros); b = b[len(zeros):] {
		if string(b[:len(zeros)]) != string(zeros[:]) {
			return false
		}
	}
	return string(b) == string(zeros[:len(b)])
}

// mapped adds a piece to the open range, or to a new one.
func (c *mapper) mapped(p Piece) {
	bs := c.o.BlockSize
	first, last := p.Off/bs, (p.Off+p.N-1)/bs
	if n := len(c.m.Ranges); c.open && first <= c.m.Ranges[n-1].Last+1 {
		c.m.Ranges[n-1].Last = last
	} else {
		c.close(p.Off)
		c.m.Ranges = append(c.m.Ranges, bmap.Range{First: first, Last: last})
		c.open, c.hashed = true, first*bs
		if !c.o.NoChecksums {
			h, _ := bmap.NewHash(c.m.Checksum)
			c.sums = append(c.sums, newSummer(h))
		}
	}
	c.zeros(p.Off)
	if !c.o.NoChecksums {
		if p.buf != nil {
			p.buf.refs.Add(1)
		}
		c.sums[len(c.sums)-1].add(p)
	}
	c.hashed = p.Off + p.N
}

// zeros hashes what is a hole within a mapped block, up to the byte before to.
func (c *mapper) zeros(to int64) {
	if to > c.hashed && !c.o.NoChecksums {
		c.sums[len(c.sums)-1].add(Piece{Off: c.hashed, N: to - c.hashed, Kind: Hole})
	}
}

// close ends the open range, in an image that has size bytes or more.
func (c *mapper) close(size int64) {
	if !c.open {
		return
	}
	c.open = false
	c.zeros(min((c.m.Ranges[len(c.m.Ranges)-1].Last+1)*c.o.BlockSize, size))
	if !c.o.NoChecksums {
		c.sums[len(c.sums)-1].close(true)
	}
}
