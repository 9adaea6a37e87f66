package image

import (
	"errors"
	"io"
	"os"

	"snag/flash/sparse"
)

// skip is a piece that is not to be written.
const skip Kind = -1

// source reads an image of one format.
type source interface {
	// next returns a piece that begins at from and ends at to or before; Off is the caller's to set. Data are read into
	// buf. from is never before the end of the last piece. At the end of the image it returns io.EOF; if the image
	// should be longer, io.ErrUnexpectedEOF.
	next(from, to int64, buf []byte) (Piece, error)
	// rest reads on behind the last piece, up to io.EOF.
	rest(buf []byte) (int, error)
}

// fileSource is a raw image that can be read anywhere.
type fileSource struct {
	f         *os.File
	size      int64
	data, end int64 // the last known stretch of data
}

// stretch is the end of what begins at from and ends at to or before, and is a hole or has none.
func (s *fileSource) stretch(from, to int64) (end int64, hole bool, err error) {
	if from >= s.size {
		return 0, false, io.EOF
	}
	to = min(to, s.size)
	if from >= s.end {
		if err := s.seek(from); err != nil {
			return 0, false, err
		}
	}
	if from < s.data {
		return min(to, s.data), true, nil
	}
	return min(to, s.end), false, nil
}

func (s *fileSource) next(from, to int64, buf []byte) (Piece, error) {
	end, hole, err := s.stretch(from, to)
	switch {
	case err != nil:
		return Piece{}, err
	case hole:
		return Piece{Kind: Hole, N: end - from}, nil
	}
	n := min(end-from, int64(len(buf)))
	if _, err := s.f.ReadAt(buf[:n], from); err != nil {
		return Piece{}, noEOF(err)
	}
	return Piece{Kind: Data, N: n, Data: buf[:n]}, nil
}

func (s *fileSource) rest([]byte) (int, error) { return 0, io.EOF }

// alignment is that of a piece's begin, where it is free.
const alignment = 4096

// streamSource is a raw image that can only be read on.
type streamSource struct {
	r    io.Reader
	pos  int64
	size int64 // -1: unknown
}

func (s *streamSource) next(from, to int64, buf []byte) (Piece, error) {
	runs, _ := s.r.(runner)
	for s.pos < from {
		if runs != nil {
			if _, n := runs.run(); n > 0 {
				n = min(n, from-s.pos)
				s.pos += n
				runs.skip(n)
				continue
			}
		}
		n, err := s.r.Read(buf[:min(int64(len(buf)), from-s.pos)])
		s.pos += int64(n)
		if s.pos < from && err != nil {
			return Piece{}, noEOF(err)
		}
	}
	want := int(min(int64(len(buf)), to-from))
	n, err := 0, error(nil)
	for n < want && err == nil {
		end := want
		if runs != nil {
			if v, run := runs.run(); run >= sparseStep {
				// Pieces begin at multiples of alignment, as direct I/O wants it.
				odd := int((from + int64(n)) % alignment)
				if odd == 0 && n > 0 {
					break
				}
				if odd == 0 {
					run = min(run/alignment*alignment, to-from)
					runs.skip(run)
					s.pos += run
					return Piece{Kind: Fill, N: run, Pattern: [4]byte{v, v, v, v}}, nil
				}
				end = min(want, n+alignment-odd)
			}
		}
		var m int
		m, err = s.r.Read(buf[n:end])
		n += m
	}
	s.pos += int64(n)
	if n == 0 && err == io.EOF && s.size >= 0 && s.pos < s.size {
		err = io.ErrUnexpectedEOF
	}
	if n > 0 {
		err = nil // a shorter last piece; the next has the error again
	}
	return Piece{Kind: Data, N: int64(n), Data: buf[:n]}, err
}

func (s *streamSource) rest(buf []byte) (int, error) {
	n, err := s.r.Read(buf)
	s.pos += int64(n)
	return n, err
}

// sparseSource is an Android sparse image.
type sparseSource struct {
	r     *sparse.Reader
	tail  io.Reader // what the image was read from
	chunk sparse.Chunk
	pos   int64 // in a raw chunk
	ended bool  // the tail is read
}

func (s *sparseSource) next(from, to int64, buf []byte) (Piece, error) {
	for from >= s.chunk.Off+s.chunk.N {
		c, err := s.r.Next()
		if err == io.EOF && from < s.r.Size() {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return Piece{}, err
		}
		s.chunk, s.pos = c, c.Off
	}
	n := min(to, s.chunk.Off+s.chunk.N) - from
	switch s.chunk.Kind {
	case sparse.DontCare:
		return Piece{Kind: skip, N: n}, nil
	case sparse.Fill:
		p := Piece{Kind: Fill, N: n}
		for i := range p.Pattern {
			p.Pattern[i] = s.chunk.Pattern[(from-s.chunk.Off+int64(i))%4]
		}
		return p, nil
	}
	if err := s.r.Skip(from - s.pos); err != nil {
		return Piece{}, err
	}
	n = min(n, int64(len(buf)))
	if _, err := io.ReadFull(s.r, buf[:n]); err != nil {
		return Piece{}, err
	}
	s.pos = from + n
	return Piece{Kind: Data, N: n, Data: buf[:n]}, nil
}

func (s *sparseSource) rest(buf []byte) (int, error) {
	for {
		if _, err := s.r.Next(); err == io.EOF {
			break
		} else if err != nil {
			return 0, err
		}
	}
	if s.ended {
		return s.tail.Read(buf)
	}
	s.ended = true
	n, err := io.ReadFull(s.tail, buf[:len(sparse.Magic)])
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	if string(buf[:n]) == sparse.Magic {
		err = errors.New("another sparse image follows: flash each by itself")
	}
	return n, err
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
