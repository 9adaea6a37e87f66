package uboot

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
)

// pageSize is how a [Store] keeps what was written.
const pageSize = 64 << 10

// stride is how much is copied at a time. Of more than that Go copies each byte by itself if the processor has no AVX, as
// that of an emulated machine may not, unless both addresses are multiples of 8, which those of a sparse image's chunks
// hardly are.
const stride = 2 << 10

// Store is bytes, of which only those that were written take memory. Several goroutines may use it.
type Store struct {
	size  int64
	blank byte // what was not written

	mu    sync.RWMutex
	pages map[int64]*[pageSize]byte
}

// NewStore makes a store in which every byte is blank.
func NewStore(size int64, blank byte) *Store {
	return &Store{size: size, blank: blank, pages: map[int64]*[pageSize]byte{}}
}

// Size is the store's in bytes.
func (s *Store) Size() int64 { return s.size }

// Used is how many bytes of memory the store takes.
func (s *Store) Used() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return int64(len(s.pages)) * pageSize
}

// ReadAt implements [io.ReaderAt].
func (s *Store) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.clip(len(p), off, io.EOF)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for at := 0; at < n; {
		page, in := (off+int64(at))/pageSize, int((off+int64(at))%pageSize)
		step := min(pageSize-in, n-at)
		if b := s.pages[page]; b != nil {
			copy(p[at:at+step], b[in:])
		} else {
			for i := at; i < at+step; i++ {
				p[i] = s.blank
			}
		}
		at += step
	}
	return n, err
}

// WriteAt implements [io.WriterAt].
func (s *Store) WriteAt(p []byte, off int64) (int, error) {
	n, err := s.clip(len(p), off, io.ErrShortWrite)
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := 0; at < n; {
		page, in := (off+int64(at))/pageSize, int((off+int64(at))%pageSize)
		step := min(pageSize-in, n-at, stride)
		copy(s.page(page)[in:], p[at:at+step])
		at += step
	}
	return n, err
}

// page is one to write to. The lock is held.
func (s *Store) page(n int64) *[pageSize]byte {
	b := s.pages[n]
	if b == nil {
		b = new([pageSize]byte)
		if s.blank != 0 {
			for i := range b {
				b[i] = s.blank
			}
		}
		s.pages[n] = b
	}
	return b
}

// Written calls f with the pages that are not blank, in their order. They are not to be kept.
func (s *Store) Written(f func(off int64, page []byte)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	blank := bytes.Repeat([]byte{s.blank}, pageSize)
	for _, n := range slices.Sorted(maps.Keys(s.pages)) {
		if b := s.pages[n][:min(pageSize, s.size-n*pageSize)]; !bytes.Equal(b, blank[:len(b)]) {
			f(n*pageSize, b)
		}
	}
}

// Erase makes n bytes blank.
func (s *Store) Erase(off, n int64) error {
	if off < 0 || n < 0 || off > s.size || n > s.size-off {
		return fmt.Errorf("erasing bytes %#x to %#x of %#x", off, off+n, s.size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n > 0 {
		page, in := off/pageSize, off%pageSize
		step := min(pageSize-in, n)
		if step == pageSize {
			delete(s.pages, page)
		} else if b := s.pages[page]; b != nil {
			for i := in; i < in+step; i++ {
				b[i] = s.blank
			}
		}
		off += step
		n -= step
	}
	return nil
}

// clip is how many of n bytes at off there are.
func (s *Store) clip(n int, off int64, end error) (int, error) {
	if off < 0 || off > s.size {
		return 0, fmt.Errorf("byte %#x of %#x: %w", off, s.size, end)
	}
	if int64(n) > s.size-off {
		return int(s.size - off), end
	}
	return n, nil
}

// Reader reads the store from its begin to its end.
func (s *Store) Reader() io.Reader { return io.NewSectionReader(s, 0, s.size) }
