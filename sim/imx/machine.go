package imx

import (
	"context"
	"fmt"
	"sync"
)

// Machine is the memory and the processor behind a ROM. A ROM calls it from one goroutine at a time.
// Addresses are physical; registers are memory. Multi-byte registers are little-endian.
type Machine interface {
	// ReadMemory fills b from the address on.
	ReadMemory(ctx context.Context, addr uint32, b []byte) error

	// WriteMemory stores b from the address on.
	WriteMemory(ctx context.Context, addr uint32, b []byte) error

	// Jump lets the processor go on at an address. It returns when the ROM is left for good.
	Jump(ctx context.Context, entry uint32) error
}

// Poller is a [Machine] without hardware of its own, which is told what a DCD's check command waits for
// instead of being polled for it.
type Poller interface {
	// Settle is told that the bits of mask at the address are to be as in value.
	Settle(addr, mask, value uint32)
}

// memoryMax bounds what a [Memory] holds, in bytes: the host chooses what is written.
const memoryMax = 512 << 20

const pageSize = 4096

// Memory is a [Machine] of sparse memory, zero where nothing was written, which executes nothing. Its zero
// value is ready.
type Memory struct {
	// Reads, if not nil, is told of every access to registers by [Memory.ReadMemory] and may change what
	// is read: a status bit that comes up after some time.
	Reads func(addr uint32, b []byte)

	mu    sync.Mutex
	pages map[uint32]*[pageSize]byte
	bytes int
}

// ReadMemory implements [Machine].
func (m *Memory) ReadMemory(_ context.Context, addr uint32, b []byte) error {
	if err := inside(addr, len(b)); err != nil {
		return err
	}
	m.each(addr, b, false, func(page, part []byte) { copy(part, page) })
	if m.Reads != nil {
		m.Reads(addr, b)
	}
	return nil
}

// WriteMemory implements [Machine].
func (m *Memory) WriteMemory(_ context.Context, addr uint32, b []byte) error {
	if err := inside(addr, len(b)); err != nil {
		return err
	}
	if !m.each(addr, b, true, func(page, part []byte) { copy(page, part) }) {
		return fmt.Errorf("virtual memory: more than %d MiB written", memoryMax>>20)
	}
	return nil
}

// Jump implements [Machine].
func (m *Memory) Jump(context.Context, uint32) error { return nil }

// Settle implements [Poller].
func (m *Memory) Settle(addr, mask, value uint32) {
	var word [4]byte
	for i := range word {
		m.each(addr+uint32(i), word[i:i+1], true, func(page, _ []byte) {
			page[0] = page[0]&^byte(mask>>(8*i)) | byte(value&mask>>(8*i))
		})
	}
}

// each calls f for the pieces of b with what is stored of their pages. Without create, what was never
// written is zeros. It returns false if there is no more room.
func (m *Memory) each(addr uint32, b []byte, create bool, f func(page, part []byte)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(b) > 0 {
		off := addr % pageSize
		n := min(len(b), pageSize-int(off))
		page := m.pages[addr/pageSize]
		if page == nil {
			page = new([pageSize]byte)
			if create {
				if m.bytes >= memoryMax {
					return false
				}
				if m.pages == nil {
					m.pages = make(map[uint32]*[pageSize]byte)
				}
				m.pages[addr/pageSize] = page
				m.bytes += pageSize
			}
		}
		f(page[off:], b[:n])
		b, addr = b[n:], addr+uint32(n)
	}
	return true
}

// inside refuses what reaches beyond 4 GiB.
func inside(addr uint32, n int) error {
	if uint64(addr)+uint64(n) > 1<<32 {
		return fmt.Errorf("%d bytes at %#x reach beyond 4 GiB", n, addr)
	}
	return nil
}
