package amlogic

const page = 4096

// memory is what was written, by page.
type memory map[uint32][]byte

func (m memory) each(addr uint32, b []byte, f func(page, b []byte)) {
	for len(b) > 0 {
		at := addr % page
		n := min(page-int(at), len(b))
		p := m[addr-at]
		if p == nil {
			p = make([]byte, page)
			m[addr-at] = p
		}
		f(p[at:], b[:n])
		addr, b = addr+uint32(n), b[n:]
	}
}

func (m memory) write(addr uint32, b []byte) {
	m.each(addr, b, func(page, b []byte) { copy(page, b) })
}

func (m memory) read(addr uint32, n int) []byte {
	b := make([]byte, n)
	m.each(addr, b, func(page, b []byte) { copy(b, page) })
	return b
}
