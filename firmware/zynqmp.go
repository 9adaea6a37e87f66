package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A boot image of Zynq UltraScale+: UG1085 chapter 11 "Boot Image Format" and UG1283 "Boot Image Layout"; U-Boot's
// tools/zynqmpimage.c and tools/zynqmpbif.c make some. Little-endian words. First the boot header, which the ROM reads:
//
//	offset size field
//	0x00   32   vectors
//	0x20   4    0xaa995566
//	0x24   4    "XNLX"
//	0x28   4    where the key for decryption is; 0 if nothing is encrypted
//	0x2c   4    address that FSBL is loaded to and started at
//	0x30   4    offset of what the ROM loads: PMUFW if there is one, then FSBL
//	0x34   4    length of PMUFW, 0x38 with padding and signature
//	0x3c   4    length of FSBL, 0x40 with padding and signature
//	0x44   4    attributes
//	0x48   4    checksum: complement of the sum of the words from 0x20 on
//	0x98   4    offset of the image header table; 0 if there is none
//	0x9c   4    offset of the partition headers
//	0xb8   ...  addresses and values to write; an address of ffffffff ends them
//
// The rest is FSBL's. Its offsets, but for the boot header's, count words. The image header table:
//
//	0x00   4    version
//	0x04   4    number of partitions
//	0x08   4    first partition header
//	0x0c   4    first image header; 0 if there is none
//	0x10   4    authentication certificate of the headers, or 0
//	0x14   4    where the rest is to be booted from
//	0x3c   4    checksum: complement of the sum of the words before
//
// An image header names a group of partitions:
//
//	0x00   4    next image header, 0 for none
//	0x04   4    first partition header
//	0x0c   4    number of partitions
//	0x10   ...  name: the bytes of each word are reversed; ends with a word of 0
//
// A partition header:
//
//	0x00   4    length when encrypted; 0x04 when not; 0x08 in the file with what is added to it
//	0x0c   4    next partition header, 0 for none
//	0x10   8    entry point
//	0x18   8    load address
//	0x20   4    place of the data
//	0x24   4    attributes
//	0x28   4    number of sections
//	0x2c   4    place of the checksum, 0 for none
//	0x30   4    its image header
//	0x34   4    place of the authentication certificate, 0 for none
//	0x38   4    identifier
//	0x3c   4    checksum as above
const (
	ZynqMPHeaderSize = 0x8b8 // of the boot header

	zynqMagic     = "\x66\x55\x99\xaaXNLX"
	zynqMagicAt   = 0x20
	zynqTableAt   = 0x98
	zynqRegsAt    = 0xb8
	zynqRegs      = 256
	zynqTableSize = 64
	zynqPartSize  = 64
	zynqImageSize = 16 // without its name
	zynqMaxParts  = 32 // what FSBL takes
	zynqMaxName   = 64
	zynqCertSize  = 0xec0      // of an authentication certificate: UG1283
	zynqSumSize   = 48         // of a partition's SHA-3
	zynqOCM       = 0xfffc0000 // up to the end of the address space
)

// ZynqMP is a boot image of Zynq UltraScale+.
type ZynqMP struct {
	Encryption            uint32 // where the key is; 0 for none
	Load                  uint32 // of FSBL, which is started there
	Source                int    // offset of what the ROM loads
	PMUFW, PMUFWTotal     int    // length of the PMU's firmware in it, and with what is added; 0 if the ROM loads none
	FSBL, FSBLTotal       int
	Attributes            uint32
	Checksum, Sum         uint32 // of the boot header: as it says, as it is
	Registers             int    // how many values the ROM is told to write
	Table                 *ZynqMPTable
	Images                []ZynqMPImage // may be none though there are partitions: mkimage makes no image headers
	Partitions            []ZynqMPPartition
	HeadersEnd, FSBLStart int // where the last of the headers ends; where FSBL begins
}

// ZynqMPTable is the image header table.
type ZynqMPTable struct {
	Offset        int
	Version       uint32
	Partitions    int // as it says
	Device        uint32
	Checksum, Sum uint32
	cert          uint32
}

// ZynqMPImage is an image header.
type ZynqMPImage struct {
	Offset     int // of the header
	Size       int // of the header, name included
	Name       string
	First      int // offset of its first partition header
	Partitions int // as it says
}

// ZynqMPPartition is a partition header.
type ZynqMPPartition struct {
	Offset        int // of the header
	Start, Size   int // of the data in the file, with what is added to it
	Length        int // of the data alone
	Entry, Load   uint64
	Attributes    uint32
	Image         int // offset of its image header; 0 if it tells none
	Checksum, Sum uint32
	sumAt, certAt int
}

// CPU names the processor that the partition is for.
func (p ZynqMPPartition) CPU() string {
	return [16]string{"no CPU", "A53-0", "A53-1", "A53-2", "A53-3", "R5-0", "R5-1", "R5 (lockstep)", "PMU"}[p.Attributes>>8&15]
}

// Device names what the partition is loaded into.
func (p ZynqMPPartition) Device() string {
	return [8]string{"", "PS", "PL", "PMU", "XIP"}[p.Attributes>>4&7]
}

// Owner says who loads it.
func (p ZynqMPPartition) Owner() string {
	return [4]string{"FSBL", "U-Boot", "nobody", "nobody"}[p.Attributes>>16&3]
}

// Encrypted and the others are what the attributes say.
func (p ZynqMPPartition) Encrypted() bool { return p.Attributes>>7&1 != 0 }
func (p ZynqMPPartition) Signed() bool    { return p.Attributes>>15&1 != 0 }
func (p ZynqMPPartition) Secure() bool    { return p.Attributes&1 != 0 }
func (p ZynqMPPartition) EL() int         { return int(p.Attributes >> 1 & 3) }
func (p ZynqMPPartition) isPMU() bool     { return p.Attributes>>8&15 == 8 }

// isZynq recognises the header that Zynq-7000 and Zynq UltraScale+ share. The latter's ROM loads FSBL into the OCM,
// whose address the former, which has another word in its place, cannot have.
func isZynq(b []byte) (ok, mp bool) {
	if !matches(b, zynqMagicAt, zynqMagic) || len(b) < zynqTableAt+4 {
		return false, false
	}
	return true, binary.LittleEndian.Uint32(b[0x2c:]) >= zynqOCM
}

// zynqBytes and zynqWords make offsets of what a header says in bytes and in words: no more than 512 MiB, at which no
// file has anything, so that an int holds the sum of some of them.
func zynqBytes(v uint32) int { return int(min(v, 1<<29)) }
func zynqWords(v uint32) int { return int(min(uint64(v)*4, 1<<29)) }

// zynqSum is the complement of the sum of words.
func zynqSum(b []byte) (sum uint32) {
	for ; len(b) >= 4; b = b[4:] {
		sum += binary.LittleEndian.Uint32(b)
	}
	return ^sum
}

// ParseZynqMP reads the headers and verifies their checksums. If the boot header can be read but something is wrong,
// the image is returned with the error.
func ParseZynqMP(b []byte) (*ZynqMP, error) {
	switch ok, mp := isZynq(b); {
	case !ok:
		return nil, errors.New("no Zynq UltraScale+ boot image: no 66 55 99 aa \"XNLX\" at 0x20")
	case !mp:
		return nil, fmt.Errorf("no Zynq UltraScale+ boot image: FSBL would go to %#x, not into the OCM from %#x on; is it for Zynq-7000?",
			binary.LittleEndian.Uint32(b[0x2c:]), uint32(zynqOCM))
	case len(b) < ZynqMPHeaderSize:
		return nil, fmt.Errorf("ZynqMP boot header: %w: the file has %#x bytes, the header %#x", ErrTruncated, len(b), ZynqMPHeaderSize)
	}
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	z := &ZynqMP{
		Encryption: word(0x28), Load: word(0x2c), Source: zynqBytes(word(0x30)), PMUFW: zynqBytes(word(0x34)), PMUFWTotal: zynqBytes(word(0x38)),
		FSBL: zynqBytes(word(0x3c)), FSBLTotal: zynqBytes(word(0x40)), Attributes: word(0x44), Checksum: word(0x48), Sum: zynqSum(b[zynqMagicAt:0x48]),
		HeadersEnd: ZynqMPHeaderSize,
	}
	for z.Registers < zynqRegs && word(zynqRegsAt+8*z.Registers) != 0xffffffff {
		z.Registers++
	}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("ZynqMP "+format, args...)) }
	if z.Sum != z.Checksum {
		fail("boot header: its checksum is %#08x, it says %#08x", z.Sum, z.Checksum)
	}
	z.FSBLStart = z.Source + z.PMUFWTotal
	if end := z.FSBLStart + max(z.FSBL, z.FSBLTotal); z.Source < ZynqMPHeaderSize || end > len(b) {
		fail("boot header: %w: PMUFW and FSBL lie at %#x to %#x, the file has %#x bytes", ErrTruncated, z.Source, end, len(b))
	}
	if at := zynqBytes(word(zynqTableAt)); at != 0 {
		errs = append(errs, z.tables(b, at)...)
	}
	return z, errors.Join(errs...)
}

// tables reads the image header table and what hangs on it.
func (z *ZynqMP) tables(b []byte, at int) (errs []error) {
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	fail := func(format string, args ...any) []error { return append(errs, fmt.Errorf("ZynqMP "+format, args...)) }
	outside := func(off, size int) bool { return off < ZynqMPHeaderSize || off > len(b)-size }
	if at%4 != 0 || outside(at, zynqTableSize) {
		return fail("image header table: %w: it would lie at %#x, the file has %#x bytes", ErrTruncated, at, len(b))
	}
	t := &ZynqMPTable{Offset: at, Version: word(at), Partitions: int(word(at + 4)), cert: word(at + 0x10), Device: word(at + 0x14),
		Checksum: word(at + 0x3c), Sum: zynqSum(b[at : at+0x3c])}
	z.Table = t
	z.HeadersEnd = max(z.HeadersEnd, at+zynqTableSize)
	if t.Sum != t.Checksum {
		errs = fail("image header table: its checksum is %#08x, it says %#08x", t.Sum, t.Checksum)
	}
	for next := zynqWords(word(at + 0x0c)); next != 0; next = zynqWords(word(next)) {
		switch {
		case outside(next, zynqImageSize):
			return fail("image header: %w: it would lie at %#x, the file has %#x bytes", ErrTruncated, next, len(b))
		case len(z.Images) == zynqMaxParts:
			return fail("image headers: more than %d", zynqMaxParts)
		case slices.ContainsFunc(z.Images, func(i ZynqMPImage) bool { return i.Offset == next }):
			return fail("image headers: they go in a circle, back to %#x", next)
		}
		name, size := zynqName(b[next+zynqImageSize:])
		z.Images = append(z.Images, ZynqMPImage{next, zynqImageSize + size, name, zynqWords(word(next + 4)), int(word(next + 0xc))})
		z.HeadersEnd = max(z.HeadersEnd, next+zynqImageSize+size)
	}
	for next := zynqWords(word(at + 8)); next != 0; next = zynqWords(word(next + 0x0c)) {
		switch {
		case outside(next, zynqPartSize):
			return fail("partition header: %w: it would lie at %#x, the file has %#x bytes", ErrTruncated, next, len(b))
		case len(z.Partitions) == zynqMaxParts:
			return fail("partition headers: more than %d, which is more than FSBL takes", zynqMaxParts)
		case slices.ContainsFunc(z.Partitions, func(p ZynqMPPartition) bool { return p.Offset == next }):
			return fail("partition headers: they go in a circle, back to %#x", next)
		}
		p := ZynqMPPartition{Offset: next, Length: zynqWords(word(next + 4)), Size: zynqWords(word(next + 8)), Start: zynqWords(word(next + 0x20)),
			Entry: binary.LittleEndian.Uint64(b[next+0x10:]), Load: binary.LittleEndian.Uint64(b[next+0x18:]), Attributes: word(next + 0x24),
			sumAt: zynqWords(word(next + 0x2c)), Image: zynqWords(word(next + 0x30)), certAt: zynqWords(word(next + 0x34)),
			Checksum: word(next + 0x3c), Sum: zynqSum(b[next : next+0x3c])}
		if len(z.Partitions) == 0 && p.Start == 4*z.Source { // U-Boot's mkimage stores bytes here
			p.Start = z.Source
		}
		z.Partitions = append(z.Partitions, p)
		z.HeadersEnd = max(z.HeadersEnd, next+zynqPartSize)
		if p.Sum != p.Checksum {
			errs = fail("header of partition %d at %#x: its checksum is %#08x, it says %#08x", len(z.Partitions)-1, next, p.Sum, p.Checksum)
		}
		if p.Start+p.Size > len(b) {
			errs = fail("partition %d: %w: it lies at %#x to %#x, the file has %#x bytes", len(z.Partitions)-1, ErrTruncated, p.Start, p.Start+p.Size, len(b))
		}
	}
	if t.Partitions != len(z.Partitions) {
		errs = fail("image header table: it announces %d partitions, there are %d", t.Partitions, len(z.Partitions))
	}
	return errs
}

// zynqName reads an image's name, whose words are stored in the other order, and tells what it occupies.
func zynqName(b []byte) (name string, size int) {
	var s []byte
	for size+4 <= len(b) && size < zynqMaxName {
		w := binary.LittleEndian.Uint32(b[size:])
		size += 4
		if w == 0 {
			break
		}
		s = binary.BigEndian.AppendUint32(s, w)
	}
	s, _, _ = bytes.Cut(s, []byte{0})
	return printable(string(s)), size
}

// Complete tells whether there is more than a first stage: partitions that FSBL, once it runs, is to load.
func (z *ZynqMP) Complete() bool { return z.kept() < len(z.Partitions) }

// kept is how many partitions a first stage has: FSBL's, and the PMU's firmware if that stands behind it on its own.
// Firmware for the PMU that comes later is FSBL's to load from the whole image.
func (z *ZynqMP) kept() int {
	first := func(p ZynqMPPartition) int { // of which image it is
		return slices.IndexFunc(z.Images, func(i ZynqMPImage) bool { return i.Offset == p.Image && i.Offset != 0 })
	}
	if len(z.Partitions) == 0 {
		return 0
	}
	n := 1
	more := func(pred func(ZynqMPPartition) bool) {
		for n < len(z.Partitions) && pred(z.Partitions[n]) {
			n++
		}
	}
	if fsbl := first(z.Partitions[0]); fsbl >= 0 {
		more(func(p ZynqMPPartition) bool { return first(p) == fsbl })
	}
	if z.PMUFW == 0 {
		more(ZynqMPPartition.isPMU)
	}
	return n
}

// FirstStage assembles from the image what the ROM takes over USB, where all it loads must fit the chip's internal
// memory: the headers, FSBL and the PMU's firmware. The chains of headers are ended behind these, the checksums
// computed anew, and the rest cut off. An image that has nothing more is returned as it is. data is what the image was
// parsed from, and is not changed; an image that was parsed with an error is not to be taken apart.
func (z *ZynqMP) FirstStage(data []byte) ([]byte, error) {
	if !z.Complete() {
		return data, nil
	}
	parts := z.Partitions[:z.kept()]
	last := parts[len(parts)-1]
	end := max(z.FSBLStart+max(z.FSBL, z.FSBLTotal), z.Table.Offset+zynqTableSize)
	for _, p := range parts {
		end = max(end, p.Offset+zynqPartSize, p.Start+p.Size)
		if p.certAt != 0 {
			end = max(end, p.certAt+zynqCertSize)
		}
		if p.sumAt != 0 {
			end = max(end, p.sumAt+zynqSumSize)
		}
	}
	if z.Table.cert != 0 {
		end = max(end, zynqWords(z.Table.cert)+zynqCertSize)
	}
	// An image is kept if its first partition is.
	images := 0
	for images < len(z.Images) && slices.ContainsFunc(parts, func(p ZynqMPPartition) bool { return p.Offset == z.Images[images].First }) {
		end = max(end, z.Images[images].Offset+z.Images[images].Size)
		images++
	}
	if len(z.Images) > 0 && images == 0 {
		return nil, errors.New("ZynqMP: the first image header does not lead to the first partition header")
	}
	if end > len(data) {
		return nil, fmt.Errorf("ZynqMP: %w: the first stage would end at %#x, the file has %#x bytes", ErrTruncated, end, len(data))
	}
	out := bytes.Clone(data[:end])
	set := func(off int, v uint32) { binary.LittleEndian.PutUint32(out[off:], v) }
	if images > 0 {
		set(z.Images[images-1].Offset, 0)
	}
	set(last.Offset+0x0c, 0)
	set(last.Offset+0x3c, zynqSum(out[last.Offset:last.Offset+0x3c]))
	set(z.Table.Offset+4, uint32(len(parts)))
	set(z.Table.Offset+0x3c, zynqSum(out[z.Table.Offset:z.Table.Offset+0x3c]))
	if _, err := ParseZynqMP(out); err != nil {
		return nil, fmt.Errorf("the first stage that was taken out: %w", err)
	}
	return out, nil
}
