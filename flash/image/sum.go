package image

import "hash"

// summer hashes a range of the image in a goroutine of its own.
type summer struct {
	jobs   chan Piece
	result chan []byte
	whole  bool // the range came to its end; written before jobs is closed
}

var zeros [1 << 16]byte

func newSummer(h hash.Hash) *summer {
	s := &summer{jobs: make(chan Piece, Pieces), result: make(chan []byte, 1)}
	go func() {
		for p := range s.jobs {
			if p.Kind == Data {
				h.Write(p.Data)
				p.Release()
				continue
			}
			block := zeros[:]
			if !p.Zero() {
				block = repeated(p.Pattern, len(zeros))
			}
			for n := p.N; n > 0; n -= int64(len(block)) {
				h.Write(block[:min(n, int64(len(block)))])
			}
		}
		s.result <- h.Sum(nil)
	}()
	return s
}

// add hashes p, and releases it.
func (s *summer) add(p Piece) { s.jobs <- p }

func (s *summer) close(whole bool) {
	s.whole = whole
	close(s.jobs)
}

// repeated returns n bytes that repeat a pattern; n is a multiple of 4.
func repeated(pattern [4]byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = pattern[i%4]
	}
	return b
}
