package fastboot

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"snag/sim/uboot"
)

// What flash and erase do to the storage of a U-Boot (fb_mmc.c, fb_nand.c, lib/image-sparse.c), and the texts of their
// FAILs.

// medium is what a name stands for: so many bytes, written in whole blocks.
type medium struct {
	size, block int64
	only        bool // sparse images are not looked for
	write       func(p []byte, off int64) error
	erase       func() error
}

// card is the MMC that flash is for.
func (s *stage) card() *uboot.MMC {
	if n := s.flashMMC(); n >= 0 && n < len(s.b.cfg.UBoot.MMC) {
		return s.b.cfg.UBoot.MMC[n]
	}
	return nil
}

// store writes the last download, or erases. It returns the reason if that fails.
func (s *stage) store(word, name string) string {
	m := s.b.cfg.UBoot
	if m == nil {
		size, ok := s.b.cfg.Partitions[name]
		switch {
		case !ok:
			return "invalid partition or device"
		case word == "flash" && len(s.image) > size:
			return "too large for partition"
		}
		return ""
	}
	if (name == "gpt" || name == "mbr") && word == "flash" && !s.b.cfg.FlashMTD {
		return s.table(name)
	}
	to, reason := s.medium(name)
	if reason != "" {
		return reason
	}
	if word == "erase" {
		if err := to.erase(); err != nil {
			return "failed erasing from device " + name
		}
		return ""
	}
	if !to.only && isSparse(s.image) {
		return sparse(to, s.image)
	}
	if int64(len(s.image)) > to.size {
		return "too large for partition"
	}
	p := s.image
	if rest := int64(len(p)) % to.block; rest != 0 {
		p = append(slices.Clip(p), make([]byte, to.block-rest)...)
	}
	if err := to.write(p, 0); err != nil {
		return "failed writing to device " + name
	}
	return ""
}

// medium finds what a name stands for.
func (s *stage) medium(name string) (medium, string) {
	m := s.b.cfg.UBoot
	if s.b.cfg.FlashMTD {
		return mtdMedium(m, name)
	}
	d := s.card()
	if d == nil {
		return medium{}, "invalid mmc device"
	}
	area := func(n int, first, end int64) medium {
		return medium{
			size: (end - first) * uboot.BlockSize, block: uboot.BlockSize,
			write: func(p []byte, off int64) error { return d.Write(n, first+off/uboot.BlockSize, p) },
			erase: func() error { return d.Areas[n].Erase(first*uboot.BlockSize, (end-first)*uboot.BlockSize) },
		}
	}
	if boot, ok := strings.CutPrefix(name, fmt.Sprintf("mmc%dboot", s.flashMMC())); ok && (boot == "0" || boot == "1") {
		n := 1 + int(boot[0]-'0')
		if d.Areas[n] == nil {
			return medium{}, "failed to switch to boot partition"
		}
		to := area(n, 0, d.Areas[n].Size()/uboot.BlockSize)
		to.only = true
		return to, ""
	}
	if to, ok := s.nxp(d, name, area); ok {
		return to, ""
	}
	if name == "mmc"+strconv.Itoa(s.flashMMC()) {
		return area(0, 0, d.Areas[0].Size()/uboot.BlockSize), ""
	}
	if alias := m.Getenv("fastboot_partition_alias_" + name); alias != "" {
		name = alias
	}
	if t, err := uboot.ReadGPT(d.Areas[0]); err == nil {
		if p, _, ok := t.Find(name); ok {
			return area(0, p.First, p.End), ""
		}
	}
	var first, n int64
	if _, err := fmt.Sscanf(m.Getenv("fastboot_raw_partition_"+name), "%v %v", &first, &n); err == nil && n > 0 && first >= 0 && first+n <= d.Areas[0].Size()/uboot.BlockSize {
		return area(0, first, first+n), ""
	}
	return medium{}, "invalid partition or device"
}

// mtdMedium is a partition of a flash chip. U-Boot erases it before it writes it, and skips bad blocks.
func mtdMedium(m *uboot.Machine, name string) (medium, string) {
	d, p, ok := m.Flash(name)
	if !ok {
		return medium{}, "invalid NAND device"
	}
	return medium{
		size: p.Size, block: d.Page,
		write: func(b []byte, off int64) error { return d.WriteGood(p, b, off) },
		erase: func() error { return d.EraseGood(p) },
	}, ""
}

// table writes a partition table.
func (s *stage) table(name string) string {
	d := s.card()
	if d == nil {
		return "invalid mmc device"
	}
	if name == "mbr" {
		if len(s.image) < uboot.BlockSize || s.image[510] != 0x55 || s.image[511] != 0xaa {
			return "invalid MBR partition"
		}
		if err := d.Write(0, 0, s.image[:uboot.BlockSize]); err != nil {
			return "writing MBR partition failed"
		}
		return ""
	}
	t, err := uboot.ParseGPT(s.image, d.Areas[0].Size())
	if err != nil {
		return "invalid GPT partition"
	}
	if err := t.WriteTo(d); err != nil {
		return "writing GPT partitions failed"
	}
	return ""
}

func isSparse(b []byte) bool {
	return len(b) >= 28 && binary.LittleEndian.Uint32(b) == 0xed26ff3a && binary.LittleEndian.Uint16(b[4:]) == 1
}

// sparse writes an Android sparse image as U-Boot does (lib/image-sparse.c, write_sparse_image).
func sparse(to medium, b []byte) string {
	le := binary.LittleEndian
	header, chunkHeader := int64(le.Uint16(b[8:])), int64(le.Uint16(b[10:]))
	block, total, chunks := int64(le.Uint32(b[12:])), int64(le.Uint32(b[16:])), le.Uint32(b[20:])
	if block == 0 || block%to.block != 0 {
		return "sparse image block size issue"
	}
	if header != 28 || chunkHeader != 12 {
		return "sparse image write failure" // U-Boot means to skip what is more, and goes wrong
	}
	b = b[28:]
	off, seen := int64(0), int64(0)
	for range chunks {
		if len(b) < 12 {
			return "sparse image write failure" // U-Boot reads on in what came before
		}
		kind, blocks, length := le.Uint16(b), int64(le.Uint32(b[4:])), int64(le.Uint32(b[8:]))
		b = b[12:]
		n := blocks * block
		switch kind {
		case 0xcac1:
			if length != 12+n {
				return "Bogus chunk size for chunk type Raw"
			}
			if off+n > to.size {
				return "Request would exceed partition size!"
			}
			if n > int64(len(b)) {
				return "sparse image write failure"
			}
			if err := to.write(b[:n], off); err != nil {
				return "flash write failure"
			}
			b = b[n:]
		case 0xcac2:
			if length != 12+4 || len(b) < 4 {
				return "Bogus chunk size for chunk type FILL"
			}
			if off+n > to.size {
				return "Request would exceed partition size!"
			}
			if err := fill(to, [4]byte(b), off, n); err != nil {
				return "flash write failure"
			}
			b = b[4:]
		case 0xcac3:
		case 0xcac4:
			if length != 12+4 {
				return "Bogus chunk size for chunk type CRC32"
			}
			// U-Boot does not skip the checksum.
		default:
			return "Unknown chunk type"
		}
		off, seen = off+n, seen+blocks
	}
	if seen != total {
		return "sparse image write failure"
	}
	return ""
}

func fill(to medium, pattern [4]byte, off, n int64) error {
	buf := make([]byte, min(n, 512<<10))
	for i := range buf {
		buf[i] = pattern[i%4]
	}
	for n > 0 {
		size := min(n, int64(len(buf)))
		if err := to.write(buf[:size], off); err != nil {
			return err
		}
		off, n = off+size, n-size
	}
	return nil
}
