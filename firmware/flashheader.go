package firmware

import (
	"encoding/binary"
	"fmt"
)

// Flash header of i.MX25, 35 and 51: U-Boot's include/imximage.h, flash_header_v1_t. Little-endian.
//
//	offset size field
//	0      4    entry point
//	4      4    barker 0x000000b1
//	8      4    address of the CSF; 0 if there is none
//	12     4    address of the DCD's address below
//	16     4    address of the super root key
//	20     4    address of the DCD
//	24     4    address that the image is loaded to, what stands before the header on the medium included
//
// The length of the image follows the DCD's last entry.
const (
	flashHeaderSize   = 28
	flashHeaderBarker = 0xb1
	flashHeaderDCD    = 20 // offset of the DCD's address
)

// FlashHeader is a flash header of version 1.
type FlashHeader struct {
	Offset       int // in the file
	Entry        uint32
	CSF, SRK     uint32 // addresses, 0 for none
	DCD          uint32 // address, 0 for none
	Self         uint32 // address of the header, as the DCD's address tells it
	Start        uint32 // address that the image is loaded to
	Length       uint32 // from Start; 0 if it is not known
	Instructions []DCDCommand
}

// FindFlashHeader finds the first flash header of version 1 at or after from, at a multiple of four, and reads its DCD.
func FindFlashHeader(data []byte, from int) (*FlashHeader, error) {
	var refused error
	tries := 0
	for off := max(from, 0); off <= len(data)-flashHeaderSize; off += 4 {
		if binary.LittleEndian.Uint32(data[off+4:]) != flashHeaderBarker {
			continue
		}
		h, err := parseFlashHeader(data, off)
		if err == nil {
			return h, nil
		}
		if refused == nil {
			refused = err
		}
		if tries++; tries == maxRefused {
			break
		}
	}
	if refused != nil {
		return nil, refused
	}
	return nil, fmt.Errorf("no flash header of version 1 (b1 00 00 00) in %d bytes from %#x on", max(len(data)-from, 0), from)
}

func parseFlashHeader(data []byte, off int) (*FlashHeader, error) {
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(data[off+i:]) }
	h := &FlashHeader{Offset: off, Entry: word(0), CSF: word(8), SRK: word(16), DCD: word(20), Start: word(24)}
	fail := func(format string, args ...any) (*FlashHeader, error) {
		return nil, fmt.Errorf("flash header at %#x: "+format, append([]any{off}, args...)...)
	}
	if word(12) < flashHeaderDCD {
		return fail("it does not say its own address")
	}
	h.Self = word(12) - flashHeaderDCD
	if h.Start > h.Self || h.Entry < h.Self {
		return fail("load address %#x, header %#x and entry point %#x are not in this order", h.Start, h.Self, h.Entry)
	}
	if h.DCD == 0 {
		return h, nil
	}
	at := int64(off) + int64(h.DCD) - int64(h.Self)
	if at < 0 || at+8 > int64(len(data)) {
		return fail("%w: its DCD at %#x lies outside of the file", ErrTruncated, h.DCD)
	}
	var err error
	if h.Instructions, err = ParseDCDv1(data[at:]); err != nil {
		return fail("%w", err)
	}
	if end := int(at) + 8 + len(h.Instructions)*dcdV1Entry; end+4 <= len(data) {
		h.Length = binary.LittleEndian.Uint32(data[end:])
	}
	return h, nil
}

// Image returns the bytes to write and the address to write them to: from the header to the image's end, or to that of
// the file if it comes first. It is an error if the entry point is not among them.
func (h *FlashHeader) Image(data []byte) (image []byte, addr uint32, err error) {
	if h.Offset > len(data)-flashHeaderSize {
		return nil, 0, fmt.Errorf("flash header at %#x: %w: the file has %#x bytes", h.Offset, ErrTruncated, len(data))
	}
	image = data[h.Offset:]
	if before := h.Self - h.Start; h.Length > before && uint64(h.Length-before) < uint64(len(image)) {
		image = image[:h.Length-before]
	}
	if uint64(h.Entry)-uint64(h.Self) >= uint64(len(image)) {
		return nil, 0, fmt.Errorf("flash header at %#x: %w: the entry point %#x lies behind the image's last byte", h.Offset, ErrTruncated, h.Entry)
	}
	return image, h.Self, nil
}
