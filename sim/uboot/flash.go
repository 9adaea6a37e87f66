package uboot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// mtdCommand is mtd (cmd/mtd.c): list, read, write, erase, bad.
func mtdCommand(_ context.Context, m *Machine, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	word, option, _ := strings.Cut(args[1], ".")
	if word == "list" {
		m.Printf("List of MTD devices:\n")
		for _, d := range m.MTD {
			d.show(m)
		}
		return nil
	}
	if len(args) < 3 {
		return errUsage
	}
	v, err := m.look(args[2])
	if err != nil {
		return err
	}
	switch word {
	case "bad":
		m.Printf("MTD device %s bad blocks list:\n", args[2])
		for off := int64(0); off < v.size; off += v.Block {
			if v.bad(off) {
				m.Printf("\t0x%08x\n", off)
			}
		}
		return nil
	case "erase":
		if len(args) > 5 {
			return errUsage
		}
		n, err := numbers(args[3:])
		if err != nil {
			return err
		}
		off, size := int64(0), v.size
		if len(n) > 0 {
			off = int64(n[0])
		}
		if len(n) > 1 {
			size = int64(n[1])
		}
		return v.clear(m, off, size)
	case "read", "write":
		if len(args) < 4 || len(args) > 6 {
			return errUsage
		}
		n, err := numbers(args[3:])
		if err != nil {
			return err
		}
		off, size := int64(0), v.size
		if len(n) > 1 {
			off = int64(n[1])
		}
		if len(n) > 2 {
			size = int64(n[2])
		}
		if off%v.Page != 0 {
			return errors.New("offset not aligned with a page")
		}
		if rest := size % v.Page; rest != 0 {
			m.Printf("Size not on a page boundary, rounding\n")
			size += v.Page - rest
		}
		return v.io(m, word == "write", n[0], off, size, !v.NAND || option == "dontskipff")
	}
	return errUsage
}

// show prints what "mtd list" prints.
func (d *MTD) show(m *Machine) {
	kind := "NOR flash"
	if d.NAND {
		kind = "NAND flash"
	}
	m.Printf("* %s\n  - type: %s\n  - block size: 0x%x bytes\n  - min I/O: 0x%x bytes\n  - 0x%012x-0x%012x : \"%s\"\n", d.Name, kind, d.Block, d.Page, 0, d.Size(), d.Name)
	for _, p := range d.Parts {
		m.Printf("\t  - 0x%012x-0x%012x : \"%s\"\n", p.Off, p.Off+p.Size, p.Name)
	}
}

// nandCommand is nand (cmd/nand.c) for the first NAND: read, write, erase, erase.part, bad. An offset may be a
// partition's name.
func nandCommand(_ context.Context, m *Machine, args []string) error {
	i := slices.IndexFunc(m.MTD, func(d *MTD) bool { return d.NAND })
	if i < 0 {
		return errors.New("no devices available")
	}
	d := m.MTD[i]
	chip := view{d, 0, d.Size()}
	// extent reads OFF|PARTITION [SIZE].
	extent := func(args []string) (view, int64, int64, error) {
		v, off := chip, int64(0)
		if j := slices.IndexFunc(d.Parts, func(p MTDPart) bool { return p.Name == args[0] }); j >= 0 {
			v = view{d, d.Parts[j].Off, d.Parts[j].Size}
		} else {
			n, err := number(args[0])
			if err != nil {
				return v, 0, 0, err
			}
			off = int64(n)
		}
		size := v.size - off
		if len(args) > 1 {
			n, err := number(args[1])
			if err != nil {
				return v, 0, 0, err
			}
			size = int64(n)
		}
		if off > v.size || size > v.size-off {
			return v, 0, 0, errors.New("size exceeds partition or device limit")
		}
		return v, off, size, nil
	}
	if len(args) < 2 {
		return errUsage
	}
	switch args[1] {
	case "info", "device":
		m.Printf("Device 0: %s, sector size %d KiB\n  Page size %d b\n", d.Name, d.Block>>10, d.Page)
		return nil
	case "bad":
		for off := int64(0); off < chip.size; off += d.Block {
			if chip.bad(off) {
				m.Printf("  %08x\n", off)
			}
		}
		return nil
	case "erase", "erase.part":
		if len(args) < 3 || len(args) > 4 {
			return errUsage
		}
		v, off, size, err := extent(args[2:])
		if err != nil {
			return err
		}
		if rest := size % d.Block; rest != 0 {
			size += d.Block - rest
		}
		return v.clear(m, off, size)
	case "read", "write":
		if len(args) < 4 || len(args) > 5 {
			return errUsage
		}
		addr, err := number(args[2])
		if err != nil {
			return err
		}
		v, off, size, err := extent(args[3:])
		if err != nil {
			return err
		}
		if off%d.Page != 0 {
			return errors.New("attempt to write non page-aligned data")
		}
		if rest := size % d.Page; rest != 0 {
			size += d.Page - rest
		}
		return v.io(m, args[1] == "write", addr, off, size, true)
	}
	return errUsage
}

// sfCommand is sf (cmd/sf.c): probe, read, write, erase.
func sfCommand(_ context.Context, m *Machine, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	if args[1] == "probe" {
		// BUS:CS, of which CS counts the NOR flashes.
		var nors []*MTD
		for _, d := range m.MTD {
			if !d.NAND {
				nors = append(nors, d)
			}
		}
		cs := uint64(0)
		if len(args) > 2 {
			_, s, ok := strings.Cut(args[2], ":")
			if !ok {
				s = args[2]
			}
			var err error
			if cs, err = number(s); err != nil {
				return err
			}
		}
		m.sf = nil
		if cs >= uint64(len(nors)) {
			return errors.New("failed to initialize SPI flash")
		}
		m.sf = nors[cs]
		m.Printf("SF: Detected %s with page size 256 Bytes, erase size %d KiB, total %d MiB\n", m.sf.Name, m.sf.Block>>10, m.sf.Size()>>20)
		return nil
	}
	if m.sf == nil {
		return errors.New("no SPI flash selected. Please run `sf probe'")
	}
	v := view{m.sf, 0, m.sf.Size()}
	switch args[1] {
	case "erase":
		if len(args) != 4 {
			return errUsage
		}
		digits, up := strings.CutPrefix(args[3], "+")
		n, err := numbers([]string{args[2], digits})
		if err != nil {
			return err
		}
		size := int64(n[1])
		if rest := size % v.Block; up && rest != 0 {
			size += v.Block - rest
		}
		return v.clear(m, int64(n[0]), size)
	case "read", "write":
		if len(args) != 5 {
			return errUsage
		}
		n, err := numbers(args[2:])
		if err != nil {
			return err
		}
		off, size := int64(n[1]), int64(n[2])
		if off > v.size || size > v.size-off {
			return fmt.Errorf("attempting %s past flash size (%#x)", args[1], v.size)
		}
		return v.io(m, args[1] == "write", n[0], off, size, true)
	}
	return errUsage
}
