package uboot

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// MTD is a flash chip: NAND, whose pages must be erased before they are written, and that has bad blocks; or NOR.
type MTD struct {
	Name  string // "spi-nand0", "nor0"
	NAND  bool
	Block int64 // bytes of an erase block
	Page  int64 // least that is written at a time; 1 for NOR
	Parts []MTDPart

	Bad   map[int64]bool // blocks, by their numbers, that are marked bad
	Worn  map[int64]bool // blocks that cannot be erased, which nobody knows yet
	store *Store

	// Violation is told of what destroys data, if not nil.
	Violation func(format string, args ...any)
}

// MTDPart is a partition of a flash chip, of whole blocks.
type MTDPart struct {
	Name      string
	Off, Size int64
}

// NewMTD makes a chip in which all is erased.
func NewMTD(name string, nand bool, size, block, page int64, parts ...MTDPart) *MTD {
	return &MTD{Name: name, NAND: nand, Block: block, Page: page, Parts: parts, Bad: map[int64]bool{}, Worn: map[int64]bool{}, store: NewStore(size, 0xff)}
}

// Size is the chip's in bytes.
func (d *MTD) Size() int64 { return d.store.Size() }

// ReadAt implements [io.ReaderAt]: all bytes, those of bad blocks too.
func (d *MTD) ReadAt(p []byte, off int64) (int, error) { return d.store.ReadAt(p, off) }

// Flip flips a bit of the byte at off, as wear does.
func (d *MTD) Flip(off int64) {
	b := make([]byte, 1)
	d.store.ReadAt(b, off)
	b[0] ^= 0x10
	d.store.WriteAt(b, off)
}

// Written calls f with what is not erased, as [Store.Written] does.
func (d *MTD) Written(f func(off int64, page []byte)) { d.store.Written(f) }

// ReadGood returns n bytes from off on, bad blocks left out.
func (d *MTD) ReadGood(off, n int64) ([]byte, error) {
	var out []byte
	for int64(len(out)) < n {
		if off >= d.Size() {
			return nil, fmt.Errorf("%d bytes are behind the end", n-int64(len(out)))
		}
		size := min(d.Block-off%d.Block, n-int64(len(out)))
		if !d.Bad[off/d.Block] {
			b := make([]byte, size)
			d.store.ReadAt(b, off)
			out = append(out, b...)
		}
		off += size
	}
	return out, nil
}

func (d *MTD) violation(format string, args ...any) {
	if d.Violation != nil {
		d.Violation(d.Name+": "+format, args...)
	}
}

// program writes whole pages to a good block. Bits only go from 1 to 0; a page of NAND is written once.
func (d *MTD) program(p []byte, off int64) error {
	old := make([]byte, len(p))
	if _, err := d.store.ReadAt(old, off); err != nil {
		return err
	}
	if d.NAND && !blank(old) {
		d.violation("the page at %#x is written without having been erased", off)
	}
	now := make([]byte, len(p))
	for i := range p {
		now[i] = p[i] & old[i]
	}
	if !d.NAND && !bytes.Equal(now, p) {
		d.violation("bytes from %#x on are written without having been erased", off)
	}
	_, err := d.store.WriteAt(now, off)
	return err
}

func blank(p []byte) bool {
	return !slices.ContainsFunc(p, func(b byte) bool { return b != 0xff })
}

// erase erases one block.
func (d *MTD) erase(off int64) error {
	if d.Worn[off/d.Block] {
		return fmt.Errorf("block at %#x: erase failed", off)
	}
	return d.store.Erase(off, d.Block)
}

// view is a part of a chip, or all of it.
type view struct {
	*MTD
	off, size int64
}

// look finds a chip or a partition by its name.
func (m *Machine) look(name string) (view, error) {
	for _, d := range m.MTD {
		if d.Name == name {
			return view{d, 0, d.Size()}, nil
		}
		for _, p := range d.Parts {
			if p.Name == name {
				return view{d, p.Off, p.Size}, nil
			}
		}
	}
	return view{}, fmt.Errorf("MTD device %.40s not found", name)
}

// bad reports whether the block at off is marked.
func (v view) bad(off int64) bool { return v.Bad[(v.off+off)/v.Block] }

// io reads or writes n bytes, a multiple of the page's size, as "mtd" and "nand" do: bad blocks are skipped, and what
// they would have held goes behind them.
func (v view) io(m *Machine, write bool, addr uint64, off, n int64, withBlank bool) error {
	if err := m.within(addr, n); err != nil {
		return err
	}
	if off < 0 || off > v.size {
		return fmt.Errorf("offset %#x of %#x", off, v.size)
	}
	for n > 0 {
		if off%v.Block == 0 && off < v.size && v.bad(off) {
			m.Printf("Skipping bad block at 0x%08x\n", off)
			off += v.Block
			continue
		}
		size := min(n, v.Block-off%v.Block)
		if v.NAND {
			size = min(size, v.Page)
		}
		if off+size > v.size {
			return fmt.Errorf("failure at offset %#x: behind the end", off)
		}
		b := make([]byte, size)
		var err error
		if write {
			if err = m.Read(addr, b); err == nil && (withBlank || !blank(b)) {
				err = v.program(b, v.off+off)
			}
		} else if _, err = v.store.ReadAt(b, v.off+off); err == nil {
			err = m.Write(addr, b)
		}
		if err != nil {
			return err
		}
		addr, off, n = addr+uint64(size), off+size, n-size
	}
	return nil
}

// clear erases whole blocks; the marked ones are left out, and not made up for. A block that cannot be erased is
// printed, and no error (cmd/mtd.c, do_mtd_erase).
func (v view) clear(m *Machine, off, n int64) error {
	switch {
	case off%v.Block != 0:
		return errors.New("offset not aligned with a block")
	case n%v.Block != 0:
		return errors.New("size not a multiple of a block")
	case off < 0 || n <= 0 || off > v.size || n > v.size-off:
		return fmt.Errorf("bytes %#x to %#x of %#x", off, off+n, v.size)
	}
	for ; n > 0; off, n = off+v.Block, n-v.Block {
		if v.bad(off) {
			m.Printf("Skipping bad block at 0x%08x\n", off)
		} else if err := v.erase(v.off + off); err != nil {
			m.Printf("%v\n", err)
		}
	}
	return nil
}

// Flash finds a partition, or a chip, by its name.
func (m *Machine) Flash(name string) (*MTD, MTDPart, bool) {
	v, err := m.look(name)
	if err != nil {
		return nil, MTDPart{}, false
	}
	return v.MTD, MTDPart{name, v.off, v.size}, true
}

// EraseGood erases a partition but for its bad blocks.
func (d *MTD) EraseGood(p MTDPart) error {
	for off := p.Off; off < p.Off+p.Size; off += d.Block {
		if !d.Bad[off/d.Block] {
			if err := d.erase(off); err != nil {
				return err
			}
		}
	}
	return nil
}

// WriteGood writes pages to a partition, at an offset that counts good blocks only. What is to be written is erased
// first.
func (d *MTD) WriteGood(p MTDPart, b []byte, off int64) error {
	good := int64(0)
	for at := p.Off; at < p.Off+p.Size && len(b) > 0; at += d.Block {
		if d.Bad[at/d.Block] {
			continue
		}
		good += d.Block
		if off >= good {
			continue
		}
		in := off - (good - d.Block)
		n := min(int64(len(b)), d.Block-in)
		if in == 0 {
			if err := d.erase(at); err != nil {
				return err
			}
		}
		if err := d.program(b[:n], at+in); err != nil {
			return err
		}
		b, off = b[n:], off+n
	}
	if len(b) > 0 {
		return fmt.Errorf("%d bytes are behind the end of %s", len(b), p.Name)
	}
	return nil
}

// Fill fills the chip's first n bytes with something.
func (d *MTD) Fill(with byte, n int64) {
	d.store.WriteAt(bytes.Repeat([]byte{with}, int(n)), 0)
}

// Used is how much of it was written.
func (d *MTD) Used() int64 { return d.store.Used() }
