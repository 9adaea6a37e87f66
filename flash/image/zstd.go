package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// A disk image is mostly zeros, which zstd writes as blocks of one repeated byte, 4 bytes of file for 128 KiB of image.
// To decompress them is most of the work on an image with large holes; so they do not get to the decompressor.
// zstdReader stands before and behind it:
//
//	file -> zstdFilter (frames and blocks) -> zstd.Decoder -> Write -> Read, run
//	                    '-> runs of one byte ----------------------^
//
// A later block may refer back to what a run was, by the frame's window at most. So of each run the last blocks, as
// many as fill the window, are left in. As the decompressor now sees less than the whole image, the frame's size and
// checksum are taken out of its header, and are checked here. That a run gets in at the right place follows from the
// decompressor working in one goroutine, which asks for a block only after it has written the one before; were it
// otherwise, the checksum would not be right.
//
// The format is that of RFC 8878, section 3.1.1:
//
//	off size
//	0   4    magic
//	4   1    descriptor: bits 7-6 size of the content size, 5 single segment, 2 checksum, 1-0 size of the dictionary ID
//	5   1    window, if not a single segment: 2^(10 + bits 7-3), and of that as many eighths as bits 2-0 say
//	-   0-4  dictionary ID
//	-   0-8  content size
//
// and of each block
//
//	off size
//	0   3    bit 0 last block, bits 2-1 type (0 raw, 1 one byte repeated, 2 compressed), the rest is the size
//	3   -    the repeated byte, or as many bytes as the size says
//
// and behind the last block 4 bytes of XXH64 if the frame has a checksum.

// zstdReader decompresses a zstd file.
type zstdReader struct {
	chunks chan zstdChunk
	ack    chan struct{} // data of a chunk were used
	done   chan struct{} // closed: nobody reads on
	trust  atomic.Bool   // the checksums need not be checked: better ones are

	// of the reading side
	chunk zstdChunk
	err   error
}

// zstdChunk is bytes, or n times a byte.
type zstdChunk struct {
	data []byte
	n    int64
	v    byte
	err  error
}

var errClosed = errors.New("closed")

func openZstd(r io.Reader) (io.Reader, func(), error) {
	z := &zstdReader{chunks: make(chan zstdChunk), ack: make(chan struct{}), done: make(chan struct{})}
	f := &zstdFilter{r: r, to: z}
	d, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, nil, err
	}
	go func() {
		defer d.Close()
		_, err := d.WriteTo(f)
		if f.err != nil { // the decompressor takes a header that is cut off for the file's end
			err = f.err
		}
		if err == nil {
			err = io.EOF
		}
		z.send(zstdChunk{err: err})
	}()
	return z, func() { close(z.done) }, nil
}

func (z *zstdReader) send(c zstdChunk) error {
	select {
	case z.chunks <- c:
	case <-z.done:
		return errClosed
	}
	if c.data != nil {
		select {
		case <-z.ack:
		case <-z.done:
			return errClosed
		}
	}
	return nil
}

// fill waits for the next chunk if this one is used up.
func (z *zstdReader) fill() error {
	for len(z.chunk.data) == 0 && z.chunk.n == 0 && z.err == nil {
		if z.chunk.data != nil {
			z.ack <- struct{}{}
		}
		z.chunk = <-z.chunks
		z.err = z.chunk.err
	}
	return z.err
}

func (z *zstdReader) Read(p []byte) (int, error) {
	if err := z.fill(); err != nil {
		return 0, err
	}
	n := copy(p, z.chunk.data)
	if z.chunk.n > 0 {
		n = int(min(int64(len(p)), z.chunk.n))
		for i := range p[:n] {
			p[i] = z.chunk.v
		}
	}
	z.skip(int64(n))
	return n, nil
}

// skip goes on by n bytes, which are in the chunk.
func (z *zstdReader) skip(n int64) {
	if z.chunk.n > 0 {
		z.chunk.n -= n
	} else {
		z.chunk.data = z.chunk.data[n:]
	}
}

// run returns how many of the next bytes are all v, as far as that is known. It waits as Read does.
func (z *zstdReader) run() (v byte, n int64) {
	if z.fill() != nil {
		return 0, 0
	}
	return z.chunk.v, z.chunk.n
}

// zstdFilter is what the decompressor reads from, and writes to.
type zstdFilter struct {
	r   io.Reader
	to  *zstdReader
	err error // of Read; io.EOF is none

	// what the decompressor is given next, in this order
	kept []int64 // blocks of v, of these sizes; as raw blocks, since it is slow to repeat a byte
	fill int64   // as many v, the rest of one of them
	out  []byte
	copy int64 // as many bytes of the file

	frame    bool // within one
	last     bool // its last block was seen
	single   bool // a single segment, which is left as it is
	window   int64
	size     int64 // -1: the header does not say
	checksum bool
	hash     *xxhash.Digest
	content  int64 // bytes of the frame so far

	v      byte    // the byte of the run that is being gathered
	block  []byte  // it, repeated
	run    []int64 // the sizes of its blocks that are to be given to the decompressor
	length int64   // their sum
	cut    int64   // bytes of the run before them
}

// Write gets what the decompressor made.
func (f *zstdFilter) Write(p []byte) (int, error) {
	if !f.single {
		if f.checksum && !f.to.trust.Load() {
			f.hash.Write(p)
		}
		f.content += int64(len(p))
	}
	if err := f.to.send(zstdChunk{data: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Read never gives bytes of two blocks at a time.
func (f *zstdFilter) Read(p []byte) (int, error) {
	for len(f.kept) == 0 && f.fill == 0 && len(f.out) == 0 && f.copy == 0 {
		if err := f.step(); err != nil {
			if err != io.EOF {
				f.err = err
			}
			return 0, err
		}
	}
	switch {
	case f.fill > 0:
		n := copy(p, f.block[:min(f.fill, int64(len(f.block)))])
		f.fill -= int64(n)
		return n, nil
	case len(f.kept) > 0:
		// A block's header goes out whole: nobody asks for less.
		if len(p) < 3 {
			return 0, io.ErrShortBuffer
		}
		f.fill = f.kept[0]
		block := uint32(f.fill) << 3
		if f.kept = f.kept[1:]; len(f.kept) == 0 && f.last && len(f.out) == 0 {
			block |= 1
		}
		return copy(p, []byte{byte(block), byte(block >> 8), byte(block >> 16)}), nil
	case len(f.out) > 0:
		n := copy(p, f.out)
		f.out = f.out[n:]
		return n, nil
	}
	n, err := f.r.Read(p[:min(int64(len(p)), f.copy)])
	f.copy -= int64(n)
	if n > 0 {
		err = nil
	}
	return n, noEOF(err)
}

// step reads a header.
func (f *zstdFilter) step() error {
	switch {
	case !f.frame:
		return f.beginFrame()
	case f.last:
		return f.endFrame()
	}
	var head [4]byte
	if _, err := io.ReadFull(f.r, head[:3]); err != nil {
		return noEOF(err)
	}
	block := binary.LittleEndian.Uint32(head[:])
	kind, size := block>>1&3, int64(block>>3)
	f.last = block&1 != 0
	if kind != 1 {
		err := f.endRun()
		f.out = append(f.out[:0], head[:3]...)
		f.copy = size
		return err
	}
	if _, err := io.ReadFull(f.r, head[3:]); err != nil {
		return noEOF(err)
	}
	if size > min(f.window, 1<<17) {
		return fmt.Errorf("a block of %d bytes, more than there may be", size)
	}
	if f.single || size < 1<<10 { // so that a run of many short blocks takes no memory
		err := f.endRun()
		f.out = append(f.out[:0], head[:]...)
		return err
	}
	if f.v != head[3] || f.block == nil {
		if len(f.run) > 0 { // of another byte: this block is not one of a run
			err := f.endRun()
			f.out = append(f.out[:0], head[:]...)
			return err
		}
		f.v = head[3]
		f.block = repeated([4]byte{f.v, f.v, f.v, f.v}, len(zeros))
	}
	f.run = append(f.run, size)
	f.length += size
	for f.length-f.run[0] >= f.window {
		f.cut += f.run[0]
		f.length -= f.run[0]
		f.run = f.run[1:]
	}
	if f.last {
		return f.endRun()
	}
	return nil
}

// endRun hands the run on: its begin to the reader, its end to the decompressor.
func (f *zstdFilter) endRun() error {
	f.kept = append(f.kept[:0], f.run...)
	if f.cut > 0 {
		f.content += f.cut
		if f.checksum && !f.to.trust.Load() {
			for n := f.cut; n > 0; n -= int64(len(f.block)) {
				f.hash.Write(f.block[:min(n, int64(len(f.block)))])
			}
		}
		if err := f.to.send(zstdChunk{n: f.cut, v: f.v}); err != nil {
			return err
		}
	}
	f.run, f.length, f.cut = f.run[:0], 0, 0
	return nil
}

// beginFrame reads a frame's header, and gives the decompressor one without size and checksum.
func (f *zstdFilter) beginFrame() error {
	var b [18]byte
	if _, err := io.ReadFull(f.r, b[:4]); err != nil {
		return err // io.EOF is the file's end
	}
	switch magic := binary.LittleEndian.Uint32(b[:]); {
	case magic&^0xf == 0x184d2a50: // to be skipped
		if _, err := io.ReadFull(f.r, b[:4]); err != nil {
			return noEOF(err)
		}
		_, err := io.CopyN(io.Discard, f.r, int64(binary.LittleEndian.Uint32(b[:])))
		return noEOF(err)
	case magic != 0xfd2fb528:
		return fmt.Errorf("what follows the last frame is none: %x", b[:4])
	}
	if _, err := io.ReadFull(f.r, b[4:5]); err != nil {
		return noEOF(err)
	}
	descriptor := b[4]
	f.single, f.checksum = descriptor&0x20 != 0, descriptor&0x04 != 0
	window := 1
	if f.single {
		window = 0
	}
	dictionary := []int{0, 1, 2, 4}[descriptor&3]
	sizeLen := []int{0, 2, 4, 8}[descriptor>>6]
	if f.single && sizeLen == 0 {
		sizeLen = 1
	}
	if _, err := io.ReadFull(f.r, b[5:5+window+dictionary+sizeLen]); err != nil {
		return noEOF(err)
	}
	if f.single {
		f.window = 1 << 17
		f.out = append(f.out[:0], b[:5+dictionary+sizeLen]...)
	} else {
		base := int64(1) << (10 + b[5]>>3)
		f.window = base + base/8*int64(b[5]&7)
		b[4] &= 3
		f.out = append(f.out[:0], b[:6+dictionary]...)
	}
	f.size = -1
	switch field := b[5+window+dictionary:]; sizeLen {
	case 2:
		f.size = int64(binary.LittleEndian.Uint16(field)) + 256
	case 4:
		f.size = int64(binary.LittleEndian.Uint32(field))
	case 8:
		f.size = int64(binary.LittleEndian.Uint64(field))
	}
	f.frame, f.last, f.content, f.hash = true, false, 0, xxhash.New()
	return nil
}

// endFrame checks the frame's size and checksum. The decompressor has written all of it.
func (f *zstdFilter) endFrame() error {
	f.frame = false
	var b [4]byte
	if f.checksum {
		if _, err := io.ReadFull(f.r, b[:]); err != nil {
			return noEOF(err)
		}
	}
	switch {
	case f.single: // the decompressor checks for itself
		if f.checksum {
			f.out = append(f.out[:0], b[:]...)
		}
		return nil
	case f.size >= 0 && f.size != f.content:
		return fmt.Errorf("the frame has %d bytes, its header says %d", f.content, f.size)
	case f.checksum && !f.to.trust.Load() && uint32(f.hash.Sum64()) != binary.LittleEndian.Uint32(b[:]):
		return errors.New("wrong checksum")
	}
	return nil
}
