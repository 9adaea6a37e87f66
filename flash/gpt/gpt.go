// Package gpt makes GUID partition tables.
//
// A table stands twice on a disk, at its begin behind a protective MBR, and at its end. In blocks, of a disk that has n
// of them of 512 bytes:
//
//	0      protective MBR
//	1      header
//	2-33   128 entries of 128 bytes
//	34     the first block that partitions may have
//	n-34   the last
//	n-33   the entries again
//	n-1    the header again
//
// [New] lays partitions out, [Table.Sparse] is the table as an Android sparse image that leaves out all the rest of the
// disk: what any target of package flash writes. Source: UEFI Specification 2.10, sections 5.2.3, 5.3.
package gpt

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"

	"snag/flash/sparse"
)

// Partition is an entry of a table.
type Partition struct {
	Name     string // up to 36 UTF-16 units
	Start    int64  // bytes; 0: behind the one before, at a multiple of Align
	Size     int64  // bytes; -1, of the last one: what is left
	Type     GUID   // zero: Linux
	UUID     GUID   // zero: a random one
	Bootable bool   // to a BIOS
}

// Align is what partitions begin at multiples of that do not say where they begin.
const Align = 1 << 20

// Entries is how many partitions a table has room for.
const Entries = 128

const (
	entrySize   = 128
	headerSize  = 92
	maxName     = 36
	bootableBit = 1 << 2 // legacy BIOS bootable
)

var le = binary.LittleEndian

// GUID is one as it is stored: the first three numbers are little-endian.
type GUID [16]byte

// Types are those that have a word.
var Types = map[string]GUID{
	"linux":  must("0fc63daf-8483-4772-8e79-3d69d8477de4"),
	"swap":   must("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"),
	"system": must("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), // EFI's
	"efi":    must("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
	"data":   must("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"),
}

func must(s string) GUID {
	g, err := ParseGUID(s)
	if err != nil {
		panic(err)
	}
	return g
}

// ParseGUID reads "0fc63daf-8483-4772-8e79-3d69d8477de4".
func ParseGUID(s string) (g GUID, err error) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return g, fmt.Errorf("GUID %q: expected one such as 0fc63daf-8483-4772-8e79-3d69d8477de4", s)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(g) {
		return g, fmt.Errorf("GUID %q: expected hexadecimal digits", s)
	}
	for i, j := range []int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15} {
		g[i] = b[j]
	}
	return g, nil
}

// random makes a GUID of version 4 (RFC 9562, section 5.4).
func random(r io.Reader) (g GUID, err error) {
	_, err = io.ReadFull(r, g[:])
	g[7] = g[7]&0x0f | 0x40
	g[8] = g[8]&0x3f | 0x80
	return g, err
}

// Table is a table of a disk.
type Table struct {
	Size, Block int64 // bytes, of the disk and of its blocks
	Partitions  []Partition

	primary, backup []byte
}

// New lays partitions out on a disk of size bytes that has blocks of block bytes. GUIDs that are missing are made of
// what rand has.
func New(size, block int64, parts []Partition, rand io.Reader) (*Table, error) {
	if block < 512 || block > 1<<16 || block&(block-1) != 0 {
		return nil, fmt.Errorf("blocks of %d bytes: expected a power of two from 512 on", block)
	}
	t := &Table{Size: size / block * block, Block: block}
	n, array := size/block, int64(Entries*entrySize)/block
	array = max(array, 1)
	first, last := 2+array, n-2-array
	if last < first {
		return nil, fmt.Errorf("a disk of %d bytes has no room for a partition table", size)
	}
	if len(parts) == 0 || len(parts) > Entries {
		return nil, fmt.Errorf("%d partitions: expected 1 to %d", len(parts), Entries)
	}
	entries := make([]byte, max(Entries*entrySize, int(block)))
	end := first * block // of the partition before
	for i, p := range parts {
		bad := func(format string, args ...any) error {
			return fmt.Errorf("partition %q: %s", p.Name, fmt.Sprintf(format, args...))
		}
		if p.Start == 0 {
			p.Start = (end + Align - 1) / Align * Align
		}
		if p.Size == -1 && i == len(parts)-1 {
			p.Size = (last+1)*block - p.Start
		}
		switch {
		case p.Start < end:
			return nil, bad("it begins at byte %d, but what is before it goes up to %d", p.Start, end)
		case p.Start%block != 0 || p.Size%block != 0:
			return nil, bad("begin and size are whole blocks of %d bytes", block)
		case p.Size <= 0 || p.Size > (last+1)*block-p.Start:
			return nil, bad("there are %d bytes for it", max((last+1)*block-p.Start, 0))
		}
		end = p.Start + p.Size
		if p.Type == (GUID{}) {
			p.Type = Types["linux"]
		}
		var err error
		if p.UUID == (GUID{}) {
			if p.UUID, err = random(rand); err != nil {
				return nil, err
			}
		}
		if !p.encode(entries[i*entrySize:], block) {
			return nil, bad("its name has more than %d letters", maxName)
		}
		t.Partitions = append(t.Partitions, p)
	}
	disk, err := random(rand)
	if err != nil {
		return nil, err
	}
	h := header{disk: disk, first: first, last: last, sum: crc32.ChecksumIEEE(entries[:Entries*entrySize])}
	t.primary = append(append(mbr(n, block), h.encode(block, 1, n-1, 2)...), entries...)
	t.backup = append(entries, h.encode(block, n-1, 1, last+1)...)
	return t, nil
}

// header is what both headers have.
type header struct {
	disk        GUID
	first, last int64  // blocks that partitions may have
	sum         uint32 // of the entries
}

// encode makes a block of it: that of block my, while the other header is in block other, and its entries begin in
// block entries.
//
//	0   "EFI PART"
//	8   revision 1.0
//	12  size
//	16  CRC-32 of the header
//	24  block of this header, of the other
//	40  first block of partitions, last
//	56  GUID of the disk
//	72  first block of the entries
//	80  how many, and each one's size
//	88  CRC-32 of the entries
func (h header) encode(block, my, other, entries int64) []byte {
	b := make([]byte, block)
	copy(b, "EFI PART")
	le.PutUint32(b[8:], 0x00010000)
	le.PutUint32(b[12:], headerSize)
	le.PutUint64(b[24:], uint64(my))
	le.PutUint64(b[32:], uint64(other))
	le.PutUint64(b[40:], uint64(h.first))
	le.PutUint64(b[48:], uint64(h.last))
	copy(b[56:], h.disk[:])
	le.PutUint64(b[72:], uint64(entries))
	le.PutUint32(b[80:], Entries)
	le.PutUint32(b[84:], entrySize)
	le.PutUint32(b[88:], h.sum)
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:headerSize]))
	return b
}

// encode writes the partition's entry; not if its name is too long.
//
//	0   type
//	16  its GUID
//	32  first block
//	40  last block
//	48  attributes
//	56  name, UTF-16
func (p *Partition) encode(e []byte, block int64) bool {
	name := utf16.Encode([]rune(p.Name))
	if len(name) > maxName {
		return false
	}
	copy(e, p.Type[:])
	copy(e[16:], p.UUID[:])
	le.PutUint64(e[32:], uint64(p.Start/block))
	le.PutUint64(e[40:], uint64((p.Start+p.Size)/block-1))
	if p.Bootable {
		le.PutUint64(e[48:], bootableBit)
	}
	for i, u := range name {
		le.PutUint16(e[56+2*i:], u)
	}
	return true
}

// mbr is the protective one: a partition of type ee that is all of the disk behind it.
func mbr(n, block int64) []byte {
	b := make([]byte, block)
	p := b[446:]
	copy(p, []byte{0, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff})
	le.PutUint32(p[8:], 1)
	le.PutUint32(p[12:], uint32(min(n-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

// Sparse is the table as an Android sparse image, of all of the disk but the last bytes that make no whole block.
func (t *Table) Sparse() ([]byte, error) {
	var out buffer
	w, err := sparse.NewWriter(sparse.Config{
		BlockSize: t.Block, Size: t.Size,
		Open: func(int) (io.WriterAt, error) { return &out, nil },
		Done: func(f sparse.File) error {
			if f.Size != int64(len(out)) {
				return errors.New("gpt: more than one sparse image")
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	_, err1 := w.Write(t.primary)
	err2 := w.Skip(t.Size - int64(len(t.primary)+len(t.backup)))
	_, err3 := w.Write(t.backup)
	return out, errors.Join(err1, err2, err3, w.Close())
}

// buffer is written anywhere.
type buffer []byte

func (b *buffer) WriteAt(p []byte, off int64) (int, error) {
	if n := int(off) + len(p); n > len(*b) {
		*b = append(*b, make([]byte, n-len(*b))...)
	}
	return copy((*b)[off:], p), nil
}
