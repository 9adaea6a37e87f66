package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// What TI's ROMs want on memory devices: AM335x TRM (SPRUH73), 26.1.10 "Image Format"; mkimage's
// "omapimage" writes it as MLO. Little-endian. First a configuration header of 512 bytes, a table
// of contents whose entries have 32 bytes each and end with one of 0xff:
//
//	offset size field
//	0      4    start of the item in the file
//	4      4    size of the item
//	8      12   flags, alignment, load address; unused
//	20     12   name, padded with NUL: "CHSETTINGS"
//
// Then the GP header, which may also stand alone, and the program:
//
//	offset size field
//	0      4    size; mkimage counts these eight bytes, other tools do not
//	4      4    load address, at which the ROM also starts the program
//
// A ROM that boots over USB, Ethernet or UART wants the program alone.
const (
	tiConfigSize   = 512
	tiEntrySize    = 32
	tiGPSize       = 8
	tiGPMaxSize    = 1 << 20    // no such SoC has more internal memory
	tiInternalLow  = 0x40200000 // internal memory of OMAP3; the others' begins above
	tiInternalHigh = 0x40400000
)

// TOCItem is an entry of the table of contents.
type TOCItem struct {
	Name        string
	Start, Size uint32 // in the file
}

// MLO is a first stage with the headers of TI's memory boot.
type MLO struct {
	Items []TOCItem // the table of contents; none if there is but a GP header
	Size  uint32    // as the GP header has it
	Load  uint32    // load address: which SoC it is for
	Data  []byte    // the program without headers; part of the parsed slice
}

// ParseMLO takes the headers off. It accepts a GP header without the configuration header before it.
func ParseMLO(b []byte) (*MLO, error) {
	m := new(MLO)
	rest := b
	switch {
	case hasTOC(b):
		if len(b) < tiConfigSize+tiGPSize {
			return nil, fmt.Errorf("MLO: %w: %d bytes, the headers alone have %d", ErrTruncated, len(b), tiConfigSize+tiGPSize)
		}
		m.Items = tocItems(b[:tiConfigSize])
		rest = b[tiConfigSize:]
		if !hasGP(rest) {
			return nil, fmt.Errorf("MLO: no GP header at byte %d: size %#x, load address %#x", tiConfigSize,
				binary.LittleEndian.Uint32(rest), binary.LittleEndian.Uint32(rest[4:]))
		}
	case swappedMLO(b):
		return nil, errors.New("MLO: its words are byte-swapped, as for SPI flash (MLO.byteswap)")
	case !hasGP(b):
		return nil, errors.New("no MLO: neither a table of contents (CHSETTINGS) nor a GP header")
	}
	m.Size = binary.LittleEndian.Uint32(rest)
	m.Load = binary.LittleEndian.Uint32(rest[4:])
	m.Data = rest[tiGPSize:]
	switch have := uint64(len(m.Data)); {
	case have+tiGPSize < uint64(m.Size):
		return nil, fmt.Errorf("MLO: %w: the GP header announces %d bytes, the file has %d", ErrTruncated, m.Size, have)
	case have > uint64(m.Size): // padded
		m.Data = m.Data[:m.Size]
	}
	return m, nil
}

func hasTOC(b []byte) bool {
	return len(b) >= tiEntrySize && len(tocItems(b)) > 0
}

// tocItems lists the table's entries that look like such: names of capital letters.
func tocItems(b []byte) []TOCItem {
	var items []TOCItem
	for len(b) >= tiEntrySize && len(items) < tiConfigSize/tiEntrySize {
		start, size := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		name := bytes.TrimRight(b[20:tiEntrySize], "\x00")
		if start > 1<<24 || size > 1<<24 || !tocName(name) {
			break
		}
		items = append(items, TOCItem{string(name), start, size})
		b = b[tiEntrySize:]
	}
	return items
}

func tocName(name []byte) bool {
	for _, c := range name {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return len(name) >= 3
}

func hasGP(b []byte) bool {
	if len(b) < tiGPSize+4 {
		return false
	}
	size, load := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	return size > tiGPSize && size <= tiGPMaxSize && load%4 == 0 && load >= tiInternalLow && load < tiInternalHigh
}

// hasKeystoneGP recognises the GP header of Keystone 2, which is big-endian and precedes a program for the
// shared memory at 0x0c000000 (U-Boot's CONFIG_SPL_TEXT_BASE of the k2 boards).
func hasKeystoneGP(b []byte) bool {
	if len(b) < tiGPSize+4 {
		return false
	}
	size, load := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	return size > tiGPSize && size <= tiGPMaxSize && load%4 == 0 && load >= 0x0c000000 && load < 0x0c600000
}

// swappedMLO recognises the table of contents with the bytes of every word reversed.
func swappedMLO(b []byte) bool { return matches(b, 20, "ESHCNITT\x00\x00SG") }
