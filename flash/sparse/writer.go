package sparse

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Config is how a [Writer] cuts an image.
type Config struct {
	BlockSize int64 // 0: 4096
	// Size is the image's in bytes, 0 if it is not known. If it is, every file covers the whole image, as some devices
	// want.
	Size int64
	// Max is how long a file may be in bytes; 0: only one file is written.
	Max int64
	// MaxWritten is how many bytes a device may have to write for one file, fill chunks written out; 0: any number. A
	// device that writes is silent, so this bounds the time it is.
	MaxWritten int64
	// SkipZeros makes don't-care chunks of blocks of zeros: for a medium that was just erased to zeros.
	SkipZeros bool
	// Open is called at the begin of each file, numbered from 0, for where to write it, which may be a [Memory].
	Open func(file int) (io.WriterAt, error)
	// Done is called at the end of each file, if it is not nil.
	Done func(File) error
}

// File is a file that a [Writer] wrote.
type File struct {
	Number   int
	Size     int64 // bytes
	Off, End int64 // the bytes of the image that it says something new of
	Written  int64 // bytes that a device writes for it
}

// Memory is a file in memory, of which a part can be filled in place.
type Memory interface {
	// Room is the file's bytes from off to off+n, until the next call of any of its methods. The file becomes as long as
	// that, if it is shorter.
	Room(off, n int64) []byte
}

// Writer writes an image, from its begin to its end, as sparse images. An error is final.
type Writer struct {
	c   Config
	max int64 // blocks of a raw chunk, by the size of its length field

	at      int64  // blocks of the image that were given
	scratch []byte // of Fetch
	partial []byte // the begin of the next one
	mixed   bool   // and some of it is more than skipped

	out   io.WriterAt // nil if there is no file begun
	file  File
	pos   int64 // blocks that the chunks of the file cover, without the one open
	count uint32
	open  chunk
	err   error
}

// chunk is the chunk that may still grow.
type chunk struct {
	kind    Kind // 0: none
	header  int64
	blocks  int64
	pattern [4]byte
}

// NewWriter returns a Writer, or says what in c is impossible.
func NewWriter(c Config) (*Writer, error) {
	if c.BlockSize == 0 {
		c.BlockSize = 4096
	}
	least := int64(headerSize + 3*chunkHeaderSize + c.BlockSize)
	switch {
	case c.BlockSize < 4 || c.BlockSize%4 != 0 || c.BlockSize > MaxBlockSize:
		return nil, fmt.Errorf("sparse image: blocks of %d bytes, expected a multiple of 4, %d at most", c.BlockSize, MaxBlockSize)
	case c.Size < 0 || c.Size/c.BlockSize >= math.MaxUint32:
		return nil, fmt.Errorf("sparse image: %d bytes are more than there can be blocks of %d bytes", c.Size, c.BlockSize)
	case c.Max < 0 || c.Max > 0 && c.Max < least:
		return nil, fmt.Errorf("sparse image: files of %d bytes, %d are needed for blocks of %d", c.Max, least, c.BlockSize)
	case c.MaxWritten < 0 || c.MaxWritten > 0 && c.MaxWritten < c.BlockSize:
		return nil, fmt.Errorf("sparse image: %d bytes to be written for a file, a block has %d", c.MaxWritten, c.BlockSize)
	}
	if c.Max == 0 {
		c.Max = math.MaxInt64
	}
	if c.MaxWritten == 0 {
		c.MaxWritten = math.MaxInt64
	}
	return &Writer{c: c, max: (math.MaxUint32 - chunkHeaderSize) / c.BlockSize}, nil
}

// Write gives the next bytes of the image. Blocks that repeat 4 bytes become fill chunks.
func (w *Writer) Write(p []byte) (int, error) {
	given := len(p)
	for len(p) > 0 && w.err == nil {
		if len(w.partial) > 0 || int64(len(p)) < w.c.BlockSize {
			n := min(int(w.c.BlockSize)-len(w.partial), len(p))
			w.partial = append(w.partial, p[:n]...)
			w.mixed = true
			p = p[n:]
			w.full()
			continue
		}
		n := int64(len(p)) / w.c.BlockSize * w.c.BlockSize
		w.data(p[:n])
		p = p[n:]
	}
	if w.err != nil {
		return 0, w.err
	}
	return given, nil
}

// fetched is how much [Writer.Fetch] has read at a time that it does not know yet where to put.
const fetched = 256 << 10

// Fetch gives the next n bytes of the image, which read is called for: it fills its argument with those that follow, not
// all at once. Into a [Memory] most of them are read without a copy.
func (w *Writer) Fetch(n int64, read func([]byte) error) error {
	for n > 0 && w.err == nil {
		p := w.place(n)
		inPlace := p != nil
		if !inPlace {
			w.scratch = append(w.scratch[:0], make([]byte, min(n, fetched))...)
			p = w.scratch
		}
		if err := read(p); err != nil {
			w.fail(err)
			break
		}
		n -= int64(len(p))
		if inPlace {
			p = w.accept(p)
		}
		_, _ = w.Write(p)
	}
	return w.err
}

// place is where blocks of the next n bytes go if they belong to the open chunk; nil if that is not known.
func (w *Writer) place(n int64) []byte {
	m, ok := w.out.(Memory)
	if !ok || w.open.kind != Raw || len(w.partial) > 0 || w.behind() > 0 {
		return nil
	}
	if n = min(n/w.c.BlockSize, w.room()); n <= 0 {
		return nil
	}
	return m.Room(w.file.Size, n*w.c.BlockSize)
}

// accept adds to the open chunk what was read in its place, up to a block that should be a fill chunk, and returns the
// rest.
func (w *Writer) accept(p []byte) []byte {
	n := 0
	for bs := int(w.c.BlockSize); n < len(p); n += bs {
		if _, ok := uniform(p[n : n+bs]); ok {
			break
		}
	}
	w.scratch = append(w.scratch[:0], p[n:]...)
	w.file.Size += int64(n)
	w.grow(int64(n) / w.c.BlockSize)
	return w.scratch
}

// Fill says that the next n bytes of the image repeat pattern, whose first byte is at a multiple of 4.
func (w *Writer) Fill(pattern [4]byte, n int64) error {
	return w.repeat(n, true, pattern)
}

// Skip says that the next n bytes of the image are not to be written. A block that is skipped in part is written whole,
// with zeros in that part.
func (w *Writer) Skip(n int64) error {
	return w.repeat(n, false, [4]byte{})
}

func (w *Writer) repeat(n int64, fill bool, pattern [4]byte) error {
	for n > 0 && w.err == nil {
		if len(w.partial) > 0 || n < w.c.BlockSize {
			for n > 0 && int64(len(w.partial)) < w.c.BlockSize {
				w.partial = append(w.partial, pattern[len(w.partial)%4])
				n--
			}
			w.mixed = w.mixed || fill
			w.full()
			continue
		}
		blocks := n / w.c.BlockSize
		if fill {
			w.fill(pattern, blocks)
		} else {
			w.skip(blocks)
		}
		n -= blocks * w.c.BlockSize
	}
	return w.err
}

// full writes the block that came in parts once it is whole.
func (w *Writer) full() {
	if int64(len(w.partial)) < w.c.BlockSize {
		return
	}
	if w.mixed {
		w.data(w.partial)
	} else {
		w.skip(1)
	}
	w.partial, w.mixed = w.partial[:0], false
}

// data takes whole blocks.
func (w *Writer) data(p []byte) {
	bs := int(w.c.BlockSize)
	for len(p) > 0 && w.err == nil {
		if pattern, ok := uniform(p[:bs]); ok {
			n := bs
			for n < len(p) && bytes.Equal(p[n:n+bs], p[:bs]) {
				n += bs
			}
			w.fill(pattern, int64(n/bs))
			p = p[n:]
			continue
		}
		n := bs
		for n < len(p) {
			if _, ok := uniform(p[n : n+bs]); ok {
				break
			}
			n += bs
		}
		w.raw(p[:n])
		p = p[n:]
	}
}

// uniform reports whether a block repeats its first 4 bytes.
func uniform(b []byte) (pattern [4]byte, ok bool) {
	copy(pattern[:], b)
	return pattern, bytes.Equal(b[4:8], pattern[:]) && bytes.Equal(b[4:], b[:len(b)-4])
}

func (w *Writer) skip(blocks int64) { w.advance(blocks) }

func (w *Writer) fill(pattern [4]byte, blocks int64) {
	if w.c.SkipZeros && pattern == [4]byte{} {
		w.skip(blocks)
		return
	}
	for blocks > 0 && w.err == nil {
		if w.open.kind != Fill || w.open.pattern != pattern || w.behind() > 0 || w.written() <= 0 {
			if !w.begin(Fill, 4, 1) {
				return
			}
			w.open.pattern = pattern
			w.writeAt(pattern[:], w.file.Size)
			w.file.Size += 4
		}
		n := min(blocks, w.written())
		w.grow(n)
		blocks -= n
	}
}

func (w *Writer) raw(p []byte) {
	for len(p) > 0 && w.err == nil {
		if w.open.kind != Raw || w.behind() > 0 || w.room() <= 0 {
			if !w.begin(Raw, w.c.BlockSize, 1) {
				return
			}
		}
		n := min(int64(len(p))/w.c.BlockSize, w.room())
		w.writeAt(p[:n*w.c.BlockSize], w.file.Size)
		w.file.Size += n * w.c.BlockSize
		w.grow(n)
		p = p[n*w.c.BlockSize:]
	}
}

// room is how many blocks more the open chunk may have if it is a raw one.
func (w *Writer) room() int64 {
	return min(w.written(), (w.c.Max-chunkHeaderSize-w.file.Size)/w.c.BlockSize, w.max-w.open.blocks)
}

// written is how many blocks more the device may write for the file.
func (w *Writer) written() int64 { return (w.c.MaxWritten - w.file.Written) / w.c.BlockSize }

// behind is how many blocks were skipped since the last chunk.
func (w *Writer) behind() int64 { return w.at - w.pos - w.open.blocks }

// begin opens a chunk with room for so many bytes and blocks, in the next file if this one is too full.
func (w *Writer) begin(kind Kind, bytes, blocks int64) bool {
	w.endChunk()
	need := 2*chunkHeaderSize + bytes // its own, and of a last don't-care chunk
	if w.out != nil && w.at > w.pos {
		need += chunkHeaderSize
	}
	if w.out != nil && (w.c.Max-w.file.Size < need || w.written() < blocks) {
		w.endFile(w.at, false)
	}
	w.openFile()
	if w.at > w.pos {
		w.dontCare(w.at)
	}
	w.open = chunk{kind: kind, header: w.file.Size}
	w.file.Size += chunkHeaderSize
	return w.err == nil
}

// grow adds blocks to the open chunk.
func (w *Writer) grow(n int64) {
	w.open.blocks += n
	w.file.Written += n * w.c.BlockSize
	w.advance(n)
}

func (w *Writer) advance(n int64) {
	w.at += n
	if total := w.blocks(); w.at > math.MaxUint32 || total > 0 && w.at > total {
		w.fail(fmt.Errorf("sparse image: more than %d blocks of %d bytes were given", min(w.at-n, math.MaxUint32), w.c.BlockSize))
	}
}

// blocks is the number of blocks of the image, 0 if it is not known.
func (w *Writer) blocks() int64 { return (w.c.Size + w.c.BlockSize - 1) / w.c.BlockSize }

func (w *Writer) endChunk() {
	if w.open.kind == 0 {
		return
	}
	length := int64(4)
	if w.open.kind == Raw {
		length = w.open.blocks * w.c.BlockSize
	}
	w.chunkHeader(w.open.kind, w.open.header, w.open.blocks, length)
	w.pos += w.open.blocks
	w.open = chunk{}
}

// dontCare writes a chunk from the end of the last up to a block.
func (w *Writer) dontCare(to int64) {
	w.chunkHeader(DontCare, w.file.Size, to-w.pos, 0)
	w.file.Size += chunkHeaderSize
	w.pos = to
}

func (w *Writer) chunkHeader(kind Kind, at, blocks, length int64) {
	var b [chunkHeaderSize]byte
	le := binary.LittleEndian
	le.PutUint16(b[0:], uint16(kind))
	le.PutUint32(b[4:], uint32(blocks))
	le.PutUint32(b[8:], uint32(chunkHeaderSize+length))
	w.writeAt(b[:], at)
	w.count++
}

func (w *Writer) openFile() {
	if w.out != nil || w.err != nil {
		return
	}
	out, err := w.c.Open(w.file.Number)
	if err != nil {
		w.fail(err)
		return
	}
	w.out, w.pos, w.count = out, 0, 0
	w.file.Size, w.file.Written = headerSize, 0
}

// endFile ends the file whose last news is of the block before end.
func (w *Writer) endFile(end int64, last bool) {
	w.endChunk()
	total := w.blocks()
	if total == 0 && last {
		total = end
	}
	if total > w.pos {
		w.dontCare(total)
	}
	var b [headerSize]byte
	le := binary.LittleEndian
	copy(b[:], Magic)
	le.PutUint16(b[4:], 1)
	le.PutUint16(b[8:], headerSize)
	le.PutUint16(b[10:], chunkHeaderSize)
	le.PutUint32(b[12:], uint32(w.c.BlockSize))
	le.PutUint32(b[16:], uint32(w.pos))
	le.PutUint32(b[20:], w.count)
	w.writeAt(b[:], 0)
	w.file.End = end * w.c.BlockSize
	if w.c.Size > 0 {
		w.file.End = min(w.file.End, w.c.Size)
	}
	if w.err == nil && w.c.Done != nil {
		w.fail(w.c.Done(w.file))
	}
	w.file = File{Number: w.file.Number + 1, Off: w.file.End}
	w.out = nil
}

// Close ends the last file. An image's last block that is not whole is filled up with zeros.
func (w *Writer) Close() error {
	if n := len(w.partial); n > 0 && w.err == nil {
		w.repeat(w.c.BlockSize-int64(n), false, [4]byte{})
	}
	if total := w.blocks(); w.err == nil && total > w.at {
		w.fail(fmt.Errorf("sparse image: %d blocks were given, expected %d", w.at, total))
	}
	w.endChunk()
	if w.err == nil && (w.out != nil || w.file.Number == 0) {
		w.openFile()
		w.endFile(w.at, true)
	}
	if w.err != nil {
		return w.err
	}
	w.err = errors.New("sparse image: it was closed")
	return nil
}

func (w *Writer) writeAt(p []byte, off int64) {
	if w.err != nil {
		return
	}
	if _, err := w.out.WriteAt(p, off); err != nil {
		w.fail(fmt.Errorf("sparse image: file %d, at byte %d: %w", w.file.Number, off, err))
	}
}

// fail keeps the first error.
func (w *Writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}
