package dfu

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"snag/flash/image"
)

// stream reads an image as DFU takes it, which knows no offsets: what the image leaves out is zeros.
type stream struct {
	im    *image.Image
	piece image.Piece
	pos   int64
	end   int64 // of the image; -1: not known yet
}

func newStream(im *image.Image) *stream { return &stream{im: im, end: -1} }

func (s *stream) Read(p []byte) (int, error) {
	if s.pos >= s.piece.Off+s.piece.N && s.end < 0 {
		s.piece.Release()
		var err error
		switch s.piece, err = s.im.Next(); {
		case err == io.EOF:
			s.end = s.im.Size
		case err != nil:
			return 0, err
		}
	}
	if s.end >= 0 && s.pos >= s.end {
		return 0, io.EOF
	}
	switch at := s.pos - s.piece.Off; {
	case s.end >= 0:
		p = p[:min(int64(len(p)), s.end-s.pos)]
		clear(p)
	case at < 0:
		p = p[:min(int64(len(p)), -at)]
		clear(p)
	default:
		p = p[:min(int64(len(p)), s.piece.N-at)]
		if s.piece.Kind == image.Data {
			copy(p, s.piece.Data[at:])
			break
		}
		for i := range p {
			p[i] = s.piece.Pattern[(at+int64(i))%4]
		}
	}
	s.pos += int64(len(p))
	return len(p), nil
}

// step is how many bytes have a checksum of their own, for verification.
const step = 1 << 20

// sums are the checksums of what was written.
type sums struct {
	hash hash.Hash
	size int64
	all  [][sha256.Size]byte
}

func (s *sums) Write(b []byte) (int, error) {
	done := len(b)
	for len(b) > 0 {
		if s.hash == nil {
			s.hash = sha256.New()
		}
		n := int(min(int64(len(b)), step-s.size%step))
		s.hash.Write(b[:n])
		b, s.size = b[n:], s.size+int64(n)
		if s.size%step == 0 {
			s.add()
		}
	}
	return done, nil
}

func (s *sums) add() {
	s.all = append(s.all, [sha256.Size]byte(s.hash.Sum(nil)))
	s.hash = nil
}

// close ends the last step.
func (s *sums) close() {
	if s.hash != nil {
		s.add()
	}
}

// ErrVerify says that what a device gives back is not what it was sent.
var ErrVerify = errors.New("the device gives back something else than it was sent")

// comparison holds what is read back against the checksums. Its Write fails at the first difference.
type comparison struct {
	name     string
	want     *sums
	got      sums
	progress func(n int64)
}

func (c *comparison) Write(b []byte) (int, error) {
	had := len(c.got.all)
	c.got.Write(b)
	if c.got.size == c.want.size {
		c.got.close()
	}
	for i := had; i < len(c.got.all); i++ {
		if c.got.all[i] != c.want.all[i] {
			off := int64(i) * step
			return 0, &image.RangeError{Name: c.name, Off: off, End: min(off+step, c.want.size), Err: ErrVerify}
		}
	}
	c.progress(int64(len(b)))
	return len(b), nil
}

// whole is an error unless all was read back.
func (c *comparison) whole() error {
	if c.got.size < c.want.size {
		return &image.RangeError{Name: c.name, Off: c.got.size, End: c.want.size, Err: fmt.Errorf("%w: it ends here", ErrVerify)}
	}
	return nil
}
