package ums

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
)

// Storage keeps the bytes of a unit. An *os.File does, too.
type Storage interface {
	io.ReaderAt
	io.WriterAt
}

// Memory is a [Storage] that takes as much memory as what is not zero, in steps of 64 KiB. The zero value is empty.
type Memory struct {
	mu    sync.Mutex
	chunk map[int64]*[chunkSize]byte
}

const chunkSize = 64 << 10

// each calls do with the parts of p and of the chunks where they are; nil for one that is zeros. It makes those for
// which do says so, and calls do again.
func (m *Memory) each(p []byte, off int64, do func(chunk, p []byte) (make bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(p) > 0 {
		i, at := off/chunkSize, off%chunkSize
		n := min(int64(len(p)), chunkSize-at)
		c := m.chunk[i]
		if c == nil && do(nil, p[:n]) {
			c = new([chunkSize]byte)
			if m.chunk == nil {
				m.chunk = make(map[int64]*[chunkSize]byte)
			}
			m.chunk[i] = c
		}
		if c != nil {
			do(c[at:at+n], p[:n])
		}
		p, off = p[n:], off+n
	}
}

// ReadAt implements [io.ReaderAt].
func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	m.each(p, off, func(chunk, p []byte) bool {
		if copy(p, chunk) == 0 {
			clear(p)
		}
		return false
	})
	return len(p), nil
}

// WriteAt implements [io.WriterAt].
func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	m.each(p, off, func(chunk, p []byte) bool {
		copy(chunk, p)
		return !bytes.Equal(p, zeros[:len(p)])
	})
	return len(p), nil
}

// Sum is a hash of what there is but zeros, and of where it is: the same for two of the same content.
func (m *Memory) Sum() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := sha256.New()
	for _, i := range slices.Sorted(maps.Keys(m.chunk)) {
		if c := m.chunk[i]; *c != zeros {
			binary.Write(h, binary.BigEndian, i)
			h.Write(c[:])
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

var zeros [chunkSize]byte
