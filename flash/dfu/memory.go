package dfu

import (
	"context"
	"fmt"
	"io"

	"snag/flash"
	"snag/usb/dfu"
)

// memory is where an image goes on a device with DfuSe.
type memory struct {
	layout []dfu.Segment
	addr   uint32
	size   int64 // from there to the end of what is contiguous
}

func (t *Target) memory(ctx context.Context, s *session) (*memory, error) {
	a, err := t.setting(s.Device)
	if err != nil {
		return nil, err
	}
	layout, err := dfu.ParseLayout(a.Name)
	if err != nil {
		return nil, err
	}
	if err := s.Select(ctx, a); err != nil {
		return nil, err
	}
	m := &memory{layout: layout, addr: t.Address}
	if m.addr == 0 {
		m.addr = layout[0].Address
	}
	for end := int64(m.addr); ; {
		g, ok := m.segment(uint32(end))
		if !ok || end > 0xffffffff {
			break
		}
		end = int64(g.Address) + g.Size()
		m.size = end - int64(m.addr)
	}
	if m.size == 0 {
		return nil, fmt.Errorf("DFU setting %s has no memory at address %#08x", a, m.addr)
	}
	return m, nil
}

// segment finds the one that an address is in.
func (m *memory) segment(addr uint32) (dfu.Segment, bool) {
	for _, g := range m.layout {
		if addr >= g.Address && int64(addr-g.Address) < g.Size() {
			return g, true
		}
	}
	return dfu.Segment{}, false
}

// chunk is how much is written or read by one sequence of blocks, at most.
const chunk = 1 << 16

// writeMemory erases page by page what it then writes.
func (t *Target) writeMemory(ctx context.Context, w *writing, r io.Reader, size int64) error {
	m, err := t.memory(ctx, w.session)
	if err != nil {
		return err
	}
	full := func() error {
		return fmt.Errorf("%s: %s is larger than the %d bytes from address %#08x on", t, w.name, m.size, m.addr)
	}
	if size > m.size+maxSuffixSize {
		return full()
	}
	buf := make([]byte, chunk)
	for at := int64(0); ; {
		addr := m.addr + uint32(at)
		g, ok := m.segment(addr)
		n, err := io.ReadFull(r, buf[:piece(g, addr)])
		if n == 0 && err == io.EOF {
			return t.verifyMemory(ctx, w, m)
		}
		switch {
		case n == 0, err != nil && err != io.ErrUnexpectedEOF: // which the last piece ends in
			return err
		case !ok || at >= m.size:
			return full()
		case !g.Write:
			return fmt.Errorf("%s: the memory at address %#08x cannot be written", t, addr)
		}
		if err := t.erase(ctx, w, g, addr, at == 0); err != nil {
			return err
		}
		if err := w.DownloadAt(ctx, addr, buf[:n], nil); err != nil {
			return w.explain(err)
		}
		w.report(flash.Writing, int64(n))
		at += int64(n)
	}
}

// erase erases the page that begins at an address, if one does.
func (t *Target) erase(ctx context.Context, w *writing, g dfu.Segment, addr uint32, first bool) error {
	in := int64(addr-g.Address) % g.PageSize
	switch {
	case g.Erase && in == 0:
		return w.explain(w.Erase(ctx, addr))
	case g.Erase && first:
		return fmt.Errorf("%s: address %#08x is within a page of %d bytes, which can be erased as a whole only", t, addr, g.PageSize)
	}
	return nil
}

// piece is how much of a page there is behind an address.
func piece(g dfu.Segment, addr uint32) int64 {
	if g.PageSize == 0 {
		return 1 // whether there is more than there is room for
	}
	return min(chunk, g.PageSize-int64(addr-g.Address)%g.PageSize)
}

// verifyMemory reads back what was written, if that is wanted.
func (t *Target) verifyMemory(ctx context.Context, w *writing, m *memory) error {
	if err := w.Abort(ctx); err != nil || w.sums == nil { // leaves dfuDNLOAD-IDLE
		return err
	}
	return t.compareMemory(ctx, w, m)
}

// compareMemory reads back as much as there are sums of.
func (t *Target) compareMemory(ctx context.Context, w *writing, m *memory) error {
	w.sums.close()
	c := &comparison{name: w.name, want: w.sums, progress: func(n int64) { w.report(flash.Verifying, n) }}
	for c.got.size < c.want.size {
		n := min(chunk, c.want.size-c.got.size)
		b, err := w.UploadAt(ctx, m.addr+uint32(c.got.size), int(n))
		if err == nil {
			_, err = c.Write(b)
		}
		if err == nil && len(b) == 0 {
			err = c.whole()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
	}
	return nil
}
