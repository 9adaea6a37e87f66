package sunxi

import (
	"fmt"
	"sync"
)

// memoryMax bounds what a memory holds, in bytes: the host chooses what is written.
const memoryMax = 512 << 20

const pageSize = 4096

// memory is sparse, zero where nothing was written.
type memory struct {
	mu    sync.Mutex
	pages map[uint32]*[pageSize]byte
}

// read fills b. What was never written is zeros.
func (m *memory) read(addr uint32, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(b) > 0 {
		off := addr % pageSize
		n := min(len(b), pageSize-int(off))
		if page := m.pages[addr/pageSize]; page != nil {
			copy(b[:n], page[off:])
		} else {
			clear(b[:n])
		}
		b, addr = b[n:], addr+uint32(n)
	}
}

func (m *memory) write(addr uint32, b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(b) > 0 {
		off := addr % pageSize
		page := m.pages[addr/pageSize]
		if page == nil {
			if len(m.pages) >= memoryMax/pageSize {
				return fmt.Errorf("virtual memory: more than %d MiB written", memoryMax>>20)
			}
			if m.pages == nil {
				m.pages = map[uint32]*[pageSize]byte{}
			}
			page = new([pageSize]byte)
			m.pages[addr/pageSize] = page
		}
		n := copy(page[off:], b)
		b, addr = b[n:], addr+uint32(n)
	}
	return nil
}

// span is the bytes from start to end.
type span struct{ start, end uint64 }

// merge adds a span to sorted, disjoint ones.
func merge(spans []span, add span) []span {
	out := make([]span, 0, len(spans)+1)
	for i, s := range spans {
		switch {
		case s.end < add.start:
			out = append(out, s)
		case add.end < s.start:
			return append(append(out, add), spans[i:]...)
		default:
			add.start, add.end = min(add.start, s.start), max(add.end, s.end)
		}
	}
	return append(out, add)
}

// cut takes an area out of sorted, disjoint spans.
func cut(spans []span, a Area) (out []span) {
	from, to := uint64(a.Addr), uint64(a.Addr)+uint64(a.Size)
	for _, s := range spans {
		if s.start < min(s.end, from) {
			out = append(out, span{s.start, min(s.end, from)})
		}
		if max(s.start, to) < s.end {
			out = append(out, span{max(s.start, to), s.end})
		}
	}
	return out
}
