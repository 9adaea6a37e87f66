// Package image reads disk images of every kind that snag flashes as one stream of pieces: what the image holds, from
// where to where.
//
// An image is raw, a sparse file or an Android sparse image (package sparse), with or without a block map (package
// bmap), and perhaps compressed; it comes from a file, a pipe or an HTTP server. [Open] finds out by the first bytes,
// never by the name. What it does not know as an image, a compressed file of an unknown kind above all, it refuses.
//
//	file, pipe, URL -> decompressor -> raw or sparse -> ranges of the block map -> Image.Next
//	                                                    '-> hashes
//
// Pieces come in order and do not overlap; what no piece covers is not to be written. All stages run at the same time
// on a fixed number of buffers, so memory is bounded however large the image is. A range of a block map is hashed while
// its pieces are on their way: a wrong checksum is an error of a later [Image.Next], and io.EOF comes only when all was
// found right. Until then nothing that was written may be called good.
//
// [Copy] writes an image to a file or device, [WriteSparse] makes Android sparse images of it, [CreateMap] a block map,
// [Verify] reads it for the sake of its checksums.
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"snag/flash/bmap"
)

// Options is how an image is read. The zero value will do.
type Options struct {
	// Bmap is the file or URL of the image's block map. If it is empty, one beside the image is taken (see [MapNames])
	// if there is any.
	Bmap   string
	NoBmap bool // no block map: everything is read

	// Keyring is a file of OpenPGP public keys. If it is given, the block map must be there and be signed by one of
	// them, and have checksums.
	Keyring   string
	Signature string // file or URL of the block map's signature; empty: in the map itself, or beside it as .asc or .sig

	AsIs   bool         // the bytes are what to write, whatever they look like
	Client *http.Client // for URLs; nil: one that gives up on a server silent for a minute
}

// Kind is what a piece holds.
type Kind int

const (
	Data Kind = iota // bytes
	Fill             // 4 bytes, repeated
	Hole             // zeros that were never written: a hole of a sparse file
)

// Piece is a part of an image.
type Piece struct {
	Off, N int64
	Kind   Kind
	// Data is N bytes, if Kind is Data. They must not be changed, nor be used after Release.
	Data []byte
	// Pattern is what is repeated from Off on, if Kind is Fill.
	Pattern [4]byte

	buf *buffer
}

// Release gives the piece's bytes back. A reader that keeps pieces keeps the image waiting once it has [Pieces] of
// them.
func (p *Piece) Release() {
	if p.buf != nil {
		p.buf.release()
		p.buf, p.Data = nil, nil
	}
}

// Zero reports whether the piece is zeros, without looking at its bytes.
func (p *Piece) Zero() bool {
	return p.Kind == Hole || p.Kind == Fill && p.Pattern == [4]byte{}
}

const (
	// PieceSize is the length of the longest piece of Kind Data.
	PieceSize = 1 << 20
	// Pieces is the number of such pieces that may be in use at a time.
	Pieces = 16
)

// Image is an image being read, once, from its begin to its end. Its methods but Close are for one goroutine.
type Image struct {
	Name        string
	Format      string    // "raw" or "Android sparse"
	Compression string    // "gzip", "zstd", ...; empty if there is none
	Size        int64     // bytes, expanded; -1 until the end if only that will tell
	BlockSize   int64     // what the pieces cover begins and ends at multiples of it, but for the image's end; 1 if nothing is known
	Map         *bmap.Map // nil if there is none
	MapName     string
	Signer      string // fingerprint of the key that signed the block map, if a keyring was given

	src    source
	pipe   bool
	length int // of a piece, at most
	ctx    context.Context
	cancel context.CancelCauseFunc
	once   sync.Once
	pieces chan Piece
	free   chan *buffer
	end    int64 // of the image, once pieces is closed
	in     *input
	zstd   *zstdReader // if that is the decompressor
	closer func()      // frees the decompressor, once nobody reads from it
	whole  bool        // it is read to its end, though the block map vouches for all that is to be written
}

// Mapped is how many bytes the block map says are data; without a map it is the image's size, which may be -1.
func (im *Image) Mapped() int64 {
	if im.Map != nil {
		return im.Map.Mapped()
	}
	return im.Size
}

// vouched reports whether the block map has checksums of all that is read.
func (im *Image) vouched() bool {
	return im.Map != nil && !slices.ContainsFunc(im.Map.Ranges, func(r bmap.Range) bool { return r.Sum == nil })
}

// RangeError says which bytes of an image could not be had, or were not what they should be.
type RangeError struct {
	Name     string
	Off, End int64 // bytes of the image, End not included
	Block    int64 // size of the block map's blocks, 0 without one
	Err      error
}

func (e *RangeError) Error() string {
	where := fmt.Sprintf("bytes %d-%d", e.Off, e.End-1)
	switch {
	case e.Block > 0:
		where = fmt.Sprintf("blocks %d-%d (%s)", e.Off/e.Block, (e.End-1)/e.Block, where)
	case e.Off == e.End:
		where = fmt.Sprintf("from byte %d on", e.Off)
	}
	return fmt.Sprintf("%s: %s: %v", e.Name, where, e.Err)
}

func (e *RangeError) Unwrap() error { return e.Err }

// ErrChecksum is what is wrong with a range that is not what the block map says.
var ErrChecksum = errors.New("wrong checksum")

// buffer is the bytes of a piece, shared by who reads it and who hashes it.
type buffer struct {
	b    []byte
	refs atomic.Int32
	free chan *buffer
}

func (b *buffer) release() {
	if b.refs.Add(-1) == 0 {
		b.free <- b // never blocks: there is room for all
	}
}

// Next returns the next piece, or io.EOF after the last and when all checksums were found right. An error is final. The
// piece's Release must be called.
func (im *Image) Next() (Piece, error) {
	im.once.Do(func() {
		if im.ctx.Err() != nil {
			im.release()
			return
		}
		im.pieces = make(chan Piece, Pieces)
		im.free = make(chan *buffer, Pieces)
		for range Pieces {
			im.free <- &buffer{free: im.free}
		}
		go im.produce()
	})
	if im.ctx.Err() == nil {
		select {
		case p, ok := <-im.pieces:
			if ok {
				return p, nil
			}
			im.Size = im.end
			return Piece{}, io.EOF
		case <-im.ctx.Done():
		}
	}
	return Piece{}, context.Cause(im.ctx)
}

// Tail fills b with the image's last bytes, ahead of their turn; false if that cannot be done, or the image is shorter.
func (im *Image) Tail(b []byte) bool {
	src, ok := im.src.(*fileSource)
	if !ok || src.size < int64(len(b)) {
		return false
	}
	_, err := src.f.ReadAt(b, src.size-int64(len(b)))
	return err == nil
}

// From reports whether the image is read from a file or device.
func (im *Image) From(st fs.FileInfo) bool {
	f, ok := im.in.Reader.(*os.File)
	if !ok {
		return false
	}
	own, err := f.Stat()
	return err == nil && os.SameFile(own, st)
}

// Close ends the reading. Pieces that were not released stay valid.
func (im *Image) Close() error {
	im.cancel(errors.New(im.Name + ": closed"))
	im.once.Do(im.release) // if nothing was read
	return im.in.Close()   // a read that is waiting ends
}

// release frees what the reading took. It is called where the reading ends.
func (im *Image) release() {
	if im.closer != nil {
		im.closer()
	}
}

// produce reads the image, in the ranges of the map or whole.
func (im *Image) produce() {
	defer im.release()
	var hashes sync.WaitGroup
	err := im.ranges(&hashes)
	hashes.Wait()
	if err != nil {
		im.cancel(err)
		return
	}
	if im.ctx.Err() == nil {
		close(im.pieces)
	}
}

func (im *Image) ranges(hashes *sync.WaitGroup) error {
	if im.Map == nil {
		end, err := im.span(0, max(im.Size, 0), im.Size < 0, nil)
		im.end = end
		if err != nil {
			return err
		}
		return im.drain()
	}
	for _, r := range im.Map.Ranges {
		off, end := im.Map.Extent(r)
		var sum *summer
		if r.Sum != nil {
			h, err := bmap.NewHash(im.Map.Checksum)
			if err != nil {
				return err
			}
			sum = newSummer(h)
			hashes.Go(func() {
				if got := <-sum.result; string(got) != string(r.Sum) && sum.whole {
					im.cancel(&RangeError{im.Name, off, end, im.Map.BlockSize, fmt.Errorf("%w: its %s is %x, %s says %x",
						ErrChecksum, im.Map.Checksum, got, im.MapName, r.Sum)})
				}
			})
		}
		_, err := im.span(off, end, false, sum)
		if sum != nil {
			sum.close(err == nil)
		}
		if err != nil {
			return err
		}
	}
	im.end = im.Map.ImageSize
	if im.vouched() && !im.pipe && !im.whole {
		return nil // whatever is behind
	}
	// What the map cannot vouch for, the compressed file's own checksums must, and they stand at its end. Who writes
	// into a pipe is not left with a broken one.
	return im.drain()
}

// span sends the pieces of the image from off to end, or to its end.
func (im *Image) span(off, end int64, open bool, sum *summer) (int64, error) {
	from := off
	for open || from < end {
		var buf *buffer
		select {
		case buf = <-im.free:
		case <-im.ctx.Done():
			return from, context.Cause(im.ctx)
		}
		if buf.b == nil { // a small image needs few
			buf.b = make([]byte, im.length)
		}
		to := end
		if open {
			to = math.MaxInt64
		}
		p, err := im.src.next(from, to, buf.b)
		if err == io.EOF && open {
			buf.refs.Store(1)
			buf.release()
			return from, nil
		}
		if err != nil {
			buf.refs.Store(1)
			buf.release()
			return from, im.failed(off, from, end, open, err)
		}
		p.Off = from
		refs := int32(1)
		if p.Kind == Data {
			p.buf = buf
			if sum != nil {
				refs = 2
			}
		}
		buf.refs.Store(refs)
		switch {
		case p.Kind == skip && sum != nil:
			p.buf = buf
			p.Release()
			return from, im.failed(off, from, end, open, errors.New("the sparse image leaves out what the block map has a checksum of"))
		case p.Kind == skip:
			buf.release()
			from += p.N
			continue
		case p.Kind != Data:
			buf.release()
		}
		if sum != nil {
			sum.add(p)
		}
		from += p.N
		select {
		case im.pieces <- p:
		case <-im.ctx.Done():
			return from, context.Cause(im.ctx)
		}
	}
	return from, nil
}

// failed is the error of a reading that came up to at, in the range from off to end.
func (im *Image) failed(off, at, end int64, open bool, err error) error {
	if cause := context.Cause(im.ctx); cause != nil {
		return cause
	}
	e := &RangeError{Name: im.Name, Off: at, End: at, Err: err}
	if im.Map != nil {
		e.Off, e.End, e.Block = off, end, im.Map.BlockSize
	} else if !open {
		e.End = end
	}
	switch err {
	case io.EOF, io.ErrUnexpectedEOF:
		e.Err = fmt.Errorf("the image ends early: %w", io.ErrUnexpectedEOF)
	}
	return e
}

// drain reads what is behind the last piece, for errors.
func (im *Image) drain() error {
	buf := make([]byte, 1<<17)
	for {
		if _, err := im.src.rest(buf); err == io.EOF {
			return im.long()
		} else if err != nil {
			return im.failed(im.end, im.end, im.end, true, fmt.Errorf("behind the last data: %w", err))
		}
	}
}

// long is an error unless the image has as many bytes as its block map says. What comes through a pipe may be of a
// larger medium.
func (im *Image) long() error {
	s, ok := im.src.(*streamSource)
	if !ok || im.Map == nil || s.pos == im.Map.ImageSize || s.pos > im.Map.ImageSize && im.Compression == "" {
		return nil
	}
	e := &RangeError{Name: im.Name, Off: im.Map.ImageSize, End: im.Map.ImageSize, Err: im.otherSize(s.pos)}
	if s.pos < e.End {
		e.Off, e.Block = s.pos, im.Map.BlockSize
	}
	return e
}

// otherSize is what is wrong with an image that is not as long as its block map says.
func (im *Image) otherSize(n int64) error {
	return fmt.Errorf("the image has %d bytes, but %s is of one of %d", n, im.MapName, im.Map.ImageSize)
}
