// Package sparse reads and writes Android sparse images: a disk image as chunks, of which some only say what to repeat,
// or what to leave as it is. All numbers are little-endian.
//
// A file begins with a header:
//
//	off size
//	0   4    magic, 0xed26ff3a
//	4   2    major version, 1
//	6   2    minor version, 0
//	8   2    size of this header, 28; what is beyond is skipped
//	10  2    size of a chunk's header, 12; what is beyond is skipped
//	12  4    block size, a multiple of 4
//	16  4    blocks of the expanded image
//	20  4    chunks
//	24  4    CRC-32 of the expanded image, or 0
//
// and each chunk with one of its own:
//
//	off size
//	0   2    type: 0xcac1 raw, 0xcac2 fill, 0xcac3 don't care, 0xcac4 CRC-32
//	2   2    0
//	4   4    blocks of the expanded image that the chunk stands for
//	8   4    bytes of the chunk in the file, this header included
//
// Behind it stand a raw chunk's blocks, a fill chunk's 4 bytes, a CRC-32.
//
// [Reader] takes what is in use, and is strict about sizes. CRC-32s are not checked: those that libsparse writes do not
// cover what they should. [Writer] writes what every reader takes: the headers above, no CRC-32, and chunks that cover
// exactly the header's blocks. It cuts an image into several files where a device takes no more at a time: each begins
// with a don't-care chunk over what came before it.
//
// Sources: AOSP system/core/libsparse (sparse_format.h, sparse_read.cpp, output_file.cpp); U-Boot lib/image-sparse.c.
package sparse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Magic is what a sparse image begins with.
const Magic = "\x3a\xff\x26\xed"

const (
	headerSize      = 28
	chunkHeaderSize = 12
	// MaxBlockSize is the largest size of blocks that is taken.
	MaxBlockSize = 64 << 20
)

// Kind is what a chunk is.
type Kind uint16

// The types of chunks (libsparse/sparse_format.h).
const (
	Raw      Kind = 0xcac1 // data
	Fill     Kind = 0xcac2 // 4 bytes, repeated
	DontCare Kind = 0xcac3 // to be left as it is
	crc32    Kind = 0xcac4
)

// Header is what the file's header says.
type Header struct {
	BlockSize int64
	Blocks    int64 // of the expanded image
	Chunks    int64
}

// Size is the size of the expanded image in bytes.
func (h Header) Size() int64 { return h.Blocks * h.BlockSize }

// Chunk is one chunk that stands for a part of the image.
type Chunk struct {
	Kind    Kind
	Off, N  int64   // bytes of the expanded image
	Pattern [4]byte // of a fill chunk; Off is a multiple of 4
}

// Reader reads a sparse image from a stream. It works as archive/tar's does: [Reader.Next] goes to the next chunk,
// [Reader.Read] reads what is in it.
type Reader struct {
	Header
	r         io.Reader
	surplus   int64 // of each chunk's header
	chunk     int64 // chunks begun
	off       int64 // end of the last chunk, in the expanded image
	remaining int64 // bytes of the raw chunk that were not read
	err       error
}

// NewReader reads the header. If r is an [io.Seeker], what is skipped is not read.
func NewReader(r io.Reader) (*Reader, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return nil, fmt.Errorf("sparse image: header: %w", noEOF(err))
	}
	le := binary.LittleEndian
	size, chunkSize := int64(le.Uint16(b[8:])), int64(le.Uint16(b[10:]))
	s := &Reader{r: r, surplus: chunkSize - chunkHeaderSize, Header: Header{
		BlockSize: int64(le.Uint32(b[12:])), Blocks: int64(le.Uint32(b[16:])), Chunks: int64(le.Uint32(b[20:])),
	}}
	switch {
	case string(b[:4]) != Magic:
		return nil, errors.New("sparse image: no magic number")
	case le.Uint16(b[4:]) != 1:
		return nil, fmt.Errorf("sparse image: version %d.%d, expected 1", le.Uint16(b[4:]), le.Uint16(b[6:]))
	case size < headerSize || chunkSize < chunkHeaderSize:
		return nil, fmt.Errorf("sparse image: headers of %d and %d bytes, expected 28 and 12 at least", size, chunkSize)
	case s.BlockSize == 0 || s.BlockSize%4 != 0 || s.BlockSize > MaxBlockSize:
		return nil, fmt.Errorf("sparse image: blocks of %d bytes, expected a multiple of 4, %d at most", s.BlockSize, MaxBlockSize)
	}
	if err := s.discard(size - headerSize); err != nil {
		return nil, fmt.Errorf("sparse image: header: %w", err)
	}
	return s, nil
}

// Next returns the next chunk, or io.EOF after the last. What was not read of the one before is skipped.
func (s *Reader) Next() (Chunk, error) {
	for s.err == nil {
		c, err := s.next()
		if err == io.EOF {
			s.err = err
		} else if err != nil {
			s.err = fmt.Errorf("sparse image: chunk %d of %d, at byte %d of the expanded image: %w", s.chunk, s.Chunks, s.off, err)
		} else if c.Kind != crc32 {
			return c, nil
		}
	}
	return Chunk{}, s.err
}

func (s *Reader) next() (Chunk, error) {
	if err := s.discard(s.remaining); err != nil {
		return Chunk{}, err
	}
	s.remaining = 0
	if s.chunk == s.Chunks {
		if s.off != s.Size() {
			return Chunk{}, fmt.Errorf("the chunks end here, but the header says %d", s.Size())
		}
		return Chunk{}, io.EOF
	}
	s.chunk++
	var b [chunkHeaderSize]byte
	if _, err := io.ReadFull(s.r, b[:]); err != nil {
		return Chunk{}, noEOF(err)
	}
	if err := s.discard(s.surplus); err != nil {
		return Chunk{}, err
	}
	le := binary.LittleEndian
	c := Chunk{Kind: Kind(le.Uint16(b[0:])), Off: s.off, N: int64(le.Uint32(b[4:])) * s.BlockSize}
	length := int64(le.Uint32(b[8:])) - chunkHeaderSize - s.surplus
	want := int64(0)
	switch c.Kind {
	case Raw:
		want = c.N
	case Fill, crc32:
		want = 4
	case DontCare:
	default:
		return Chunk{}, fmt.Errorf("unknown type %#04x", uint16(c.Kind))
	}
	switch {
	case c.Kind == crc32 && c.N != 0:
		return Chunk{}, errors.New("a CRC-32 that stands for blocks")
	case length != want:
		return Chunk{}, fmt.Errorf("%d bytes behind the header of a chunk of type %#04x, expected %d", length, uint16(c.Kind), want)
	case c.N > s.Size()-s.off:
		return Chunk{}, fmt.Errorf("%d bytes of the image, past its end at %d", c.N, s.Size())
	}
	if c.Kind == Raw {
		s.remaining = c.N
	} else if want == 4 {
		if _, err := io.ReadFull(s.r, c.Pattern[:]); err != nil {
			return Chunk{}, noEOF(err)
		}
	}
	s.off += c.N
	return c, nil
}

// Read reads from the raw chunk that [Reader.Next] returned last; at its end, and in any other chunk, it returns
// io.EOF.
func (s *Reader) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.remaining == 0 {
		return 0, io.EOF
	}
	n, err := s.r.Read(p[:min(int64(len(p)), s.remaining)])
	s.remaining -= int64(n)
	if err == io.EOF && s.remaining == 0 {
		err = nil
	}
	if err != nil {
		s.err = fmt.Errorf("sparse image: chunk %d of %d, at byte %d of the expanded image: %w",
			s.chunk, s.Chunks, s.off-s.remaining, noEOF(err))
		return n, s.err
	}
	return n, nil
}

// Skip goes n bytes on in the raw chunk.
func (s *Reader) Skip(n int64) error {
	n = min(n, s.remaining)
	if err := s.discard(n); err != nil {
		s.err = fmt.Errorf("sparse image: chunk %d of %d: %w", s.chunk, s.Chunks, err)
		return s.err
	}
	s.remaining -= n
	return nil
}

func (s *Reader) discard(n int64) error {
	if n <= 0 {
		return nil
	}
	if seeker, ok := s.r.(io.Seeker); ok {
		// Seeking goes past any end, so the last byte is read.
		if _, err := seeker.Seek(n-1, io.SeekCurrent); err != nil {
			return err
		}
		n = 1
	}
	_, err := io.CopyN(io.Discard, s.r, n)
	return noEOF(err)
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
