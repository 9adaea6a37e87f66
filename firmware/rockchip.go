package firmware

import (
	"bytes"
	"crypto/rc4"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf16"
)

// A Rockchip loader container, which Rockchip's boot_merger packs and rkdeveloptool's "db" downloads: rkdeveloptool,
// boot_merger.h, main.cpp (mergeBoot) and RKBoot.cpp. Little-endian and packed:
//
//	offset size field
//	0      4    "BOOT", or "LDR " of chips with the new ID block
//	4      2    size of the header: 102
//	6      4    version, BCD: the last byte minor, the one before major
//	10     4    version of the packer
//	14     7    time: year (2), month, day, hour, minute, second
//	21     4    chip: its last four characters, stored backwards ("C033" of RK330C), or a number below 0x100
//	25     1    471 entries: number
//	26     4    offset of the first
//	30     1    size of each: 57
//	31     6    the same of the 472 entries
//	37     6    the same of the loader entries, which are for flash
//	43     1    'S': signed
//	44     1    not 0: the loader entries are not encrypted
//	45     57   reserved
//
// and an entry:
//
//	0      1    size: 57
//	1      4    kind: 1 471, 2 472, 4 loader
//	5      40   name, UTF-16
//	45     4    offset of the data in the file
//	49     4    size of the data
//	53     4    delay after it was sent, in ms
//
// The last four bytes of the file are a CRC32 of what is before them, with a polynomial of Rockchip's own: see
// [rockchipCRC32]. What the 471 and 472 entries hold is sent as it is: the packer has encrypted it for the ROMs that
// decrypt.
const (
	rockchipHeaderSize = 102
	rockchipEntrySize  = 57
	rockchipMaxEntries = 64
	rockchipBOOT       = "BOOT"
	rockchipLDR        = "LDR "
)

// RockchipLoader is a loader container.
type RockchipLoader struct {
	Tag        string // "BOOT" or "LDR "
	Major      int    // of the version
	Minor      int
	Time       time.Time // zero if it is none
	ChipCode   uint32
	Chip       string // as the packer's recipe names it: "RK330C"
	Signed     bool   // it claims to be; that is not verified
	PlainFlash bool   // the loader entries are not encrypted
	Table      int    // end of header and entries
	Size       int    // with the checksum
	Sum, Want  uint32 // CRC32 of the file, and what it says

	Code471, Code472, Flash []RockchipEntry
}

// RockchipEntry is one image of a container.
type RockchipEntry struct {
	Name   string
	Offset int
	Data   []byte // as it is stored
	Delay  time.Duration
}

// isRockchipLoader asks for the header's size too, since "BOOT" begins other files as well.
func isRockchipLoader(b []byte) bool {
	return len(b) >= 6 && (string(b[:4]) == rockchipBOOT || string(b[:4]) == rockchipLDR) && binary.LittleEndian.Uint16(b[4:]) == rockchipHeaderSize
}

// ParseRockchipLoader reads a container. If its tables can be read but the checksum is wrong, it is returned with the
// error.
func ParseRockchipLoader(b []byte) (*RockchipLoader, error) {
	switch {
	case len(b) < 4 || string(b[:4]) != rockchipBOOT && string(b[:4]) != rockchipLDR:
		return nil, fmt.Errorf("no Rockchip loader: the file begins with % x instead of %q or %q", b[:min(4, len(b))], rockchipBOOT, rockchipLDR)
	case len(b) < rockchipHeaderSize+4:
		return nil, fmt.Errorf("loader container: %w: the file has %d bytes", ErrTruncated, len(b))
	case !isRockchipLoader(b):
		return nil, fmt.Errorf("loader container: the header says that it has %d bytes, expected %d", binary.LittleEndian.Uint16(b[4:]), rockchipHeaderSize)
	}
	le := binary.LittleEndian
	l := &RockchipLoader{
		Tag: string(b[:4]), Major: int(b[7]>>4)*10 + int(b[7]&15), Minor: int(b[6]>>4)*10 + int(b[6]&15),
		ChipCode: le.Uint32(b[21:]), Signed: b[43] == 'S', PlainFlash: b[44] != 0, Table: rockchipHeaderSize, Size: len(b),
		Want: le.Uint32(b[len(b)-4:]),
	}
	l.Chip = rockchipChip(l.ChipCode)
	if m, d := b[16], b[17]; m >= 1 && m <= 12 && d >= 1 && d <= 31 && b[18] < 24 && b[19] < 60 && b[20] < 60 {
		l.Time = time.Date(int(le.Uint16(b[14:])), time.Month(m), int(d), int(b[18]), int(b[19]), int(b[20]), 0, time.UTC)
	}
	body := b[:len(b)-4]
	for _, t := range []struct {
		at   int
		kind uint32
		name string
		list *[]RockchipEntry
	}{{25, 1, "471", &l.Code471}, {31, 2, "472", &l.Code472}, {37, 4, "loader", &l.Flash}} {
		count, start, size := int(b[t.at]), uint64(le.Uint32(b[t.at+1:])), uint64(b[t.at+5])
		switch {
		case count > rockchipMaxEntries:
			return nil, fmt.Errorf("loader container: %d %s entries, expected %d at most", count, t.name, rockchipMaxEntries)
		case count > 0 && size < rockchipEntrySize:
			return nil, fmt.Errorf("loader container: its %s entries have %d bytes, expected %d", t.name, size, rockchipEntrySize)
		case start+uint64(count)*size > uint64(len(body)):
			return nil, fmt.Errorf("loader container: %w: the table of %s entries ends at %#x, the file has %#x bytes", ErrTruncated, t.name, start+uint64(count)*size, len(b))
		}
		for n := range count {
			e := body[start+uint64(n)*size:][:rockchipEntrySize]
			l.Table = max(l.Table, int(start)+(n+1)*int(size))
			entry := RockchipEntry{Name: rockchipName(e[5:45]), Delay: time.Duration(le.Uint32(e[53:])) * time.Millisecond}
			if kind := le.Uint32(e[1:]); kind != t.kind {
				return nil, fmt.Errorf("loader container: %s entry %d (%s) is of kind %d, expected %d", t.name, n, entry.Name, kind, t.kind)
			}
			off, length := uint64(le.Uint32(e[45:])), uint64(le.Uint32(e[49:]))
			if off > uint64(len(body)) || length > uint64(len(body))-off {
				return nil, fmt.Errorf("loader container: %w: %s entry %d (%s) has %d bytes at %#x, the file %d", ErrTruncated, t.name, n, entry.Name, length, off, len(b))
			}
			entry.Offset, entry.Data = int(off), body[off:off+length]
			*t.list = append(*t.list, entry)
		}
	}
	if l.Sum = rockchipCRC32(body); l.Sum != l.Want {
		return l, fmt.Errorf("loader container: the file's CRC32 is %#08x, its last four bytes say %#08x", l.Sum, l.Want)
	}
	return l, nil
}

// rockchipName reads the name of an entry, which the packer cuts.
func rockchipName(b []byte) string {
	var units []uint16
	for ; len(b) >= 2 && binary.LittleEndian.Uint16(b) != 0; b = b[2:] {
		units = append(units, binary.LittleEndian.Uint16(b))
	}
	return printable(string(utf16.Decode(units)))
}

// rockchipChips are the chips that have a number (rkdeveloptool, DefineHeader.h, ENUM_RKDEVICE_TYPE; the names are
// those of boot_merger.h's CHIP_ constants).
var rockchipChips = map[uint32]string{
	0x10: "RK27", 0x11: "RKCAYMAN", 0x20: "RK28", 0x21: "RK281X", 0x22: "RKPANDA", 0x30: "RKNANO", 0x31: "RKSMART", 0x40: "RKCROWN",
	0x50: "RK29", 0x51: "RK292X", 0x60: "RK30", 0x61: "RK30B", 0x70: "RK31", 0x80: "RK32",
}

// rockchipChip names a chip as the recipes do, which put RK in front of the four characters, whether it is an RK, an RV
// or a PX.
func rockchipChip(code uint32) string {
	if name := rockchipChips[code]; name != "" {
		return name
	}
	c := []byte{byte(code >> 24), byte(code >> 16), byte(code >> 8), byte(code)}
	if bytes.ContainsFunc(c, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Sprintf("chip %#x", code)
	}
	return "RK" + string(c)
}

// rockchipTable is that of [rockchipCRC32].
var rockchipTable = sync.OnceValue(func() *[256]uint32 {
	var t [256]uint32
	for i := range t {
		c := uint32(i) << 24
		for range 8 {
			if c&(1<<31) != 0 {
				c = c<<1 ^ 0x04c10db7
			} else {
				c <<= 1
			}
		}
		t[i] = c
	}
	return &t
})

// rockchipCRC32 begins with 0, takes the highest bit first and inverts nothing; the polynomial is 0x04c10db7, not the
// common 0x04c11db7 (rkdeveloptool, crc.cpp).
func rockchipCRC32(b []byte) uint32 {
	table, c := rockchipTable(), uint32(0)
	for _, x := range b {
		c = c<<8 ^ table[byte(c>>24)^x]
	}
	return c
}

// rockchipKey is the same in every ROM (U-Boot, tools/rkcommon.c).
var rockchipKey = []byte{124, 78, 3, 4, 85, 5, 9, 7, 45, 44, 123, 56, 23, 13, 23, 17}

// RockchipRC4 encrypts, or decrypts, as the ROMs want it for a download: one key stream for all. b is left as it is.
func RockchipRC4(b []byte) []byte {
	c, err := rc4.NewCipher(rockchipKey)
	if err != nil {
		panic(err) // the key's length is right
	}
	out := make([]byte, len(b))
	c.XORKeyStream(out, b)
	return out
}

// rockchipSectors is [RockchipRC4] as it is done on media: anew for each sector.
func rockchipSectors(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for ; len(b) > 0; b = b[min(len(b), rockchipSector):] {
		out = append(out, RockchipRC4(b[:min(len(b), rockchipSector)])...)
	}
	return out
}

// RockchipCode tells whether a file begins as code for a Rockchip ROM does that is not encrypted: with the ROM's tag,
// which is then returned, or a branch, in front of which U-Boot's and Rockchip's programs have their headers.
func RockchipCode(b []byte) (tag string, ok bool) {
	if len(b) < 8 {
		return "", false
	}
	if s := string(b[:4]); strings.HasPrefix(s, "RK") && s[2] >= '0' && s[2] <= '9' && s[3] >= '0' && s[3] <= '9' || s == "110B" {
		return s, true
	}
	word := binary.LittleEndian.Uint32(b)
	return "", word>>26 == 0b000101 || word>>24 == 0xea // b of A64 and of A32
}

// RockchipPlug tells by its first 12 bytes whether code for 472, not encrypted, is Rockchip's USB plug.
func RockchipPlug(b []byte) bool { return matches(b, 8, "RSAK") }
