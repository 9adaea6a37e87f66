package firmware

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// SPKG is what the ROM of RZ/N1 loads: its User's Manual, "SPKG format"; U-Boot's tools/renesas_spkgimage.h.
// Little-endian. A header, eight times:
//
//	offset size field
//	0      4    "RZN1"
//	4      1    version, 1
//	5      1    bits 1 and 2: ECC's block size (256, 512, 1024), bit 5: ECC is used (of NAND)
//	6      1    ECC's scheme
//	7      1    bytes of ECC in a block
//	8      4    in the upper 24 bits: length of the payload with its CRC
//	12     4    load address
//	16     4    offset from it at which to start; bit 0: Thumb
//	20     4    CRC-32 of the 20 bytes before
//
// then the payload: at its begin there may be a security header of 264 bytes, at its end is its CRC-32.
const (
	spkgMagic      = "RZN1"
	spkgHeaderSize = 24
	spkgCopies     = 8
	spkgBLpSize    = 264
	spkgBLpFiller  = 0x88 // of a security header that says nothing, as U-Boot's mkimage makes it
)

// SPKG is an SPKG image.
type SPKG struct {
	Version    int
	Headers    int // how many of the eight are sound and alike
	ECC        bool
	Block      int // ECC's block size
	Scheme     int // ECC's scheme
	Load       uint32
	Offset     uint32 // at which to start, from Load; bit 0 is taken off
	Thumb      bool
	CRC, Sum   uint32 // of the payload: as it says, as it is
	DummyBLp   bool   // a security header without contents stands in front of the program
	Payload    []byte // without its CRC; part of the parsed slice
	Trailing   int    // bytes behind the CRC
	HeaderSize int    // of all headers
}

// Program is the payload without an empty security header.
func (s *SPKG) Program() []byte {
	if s.DummyBLp {
		return s.Payload[spkgBLpSize:]
	}
	return s.Payload
}

// ParseSPKG reads the headers and verifies their CRC and the payload's. The ROM takes the first header that is sound.
// If there is one but something else is wrong, the image is returned with the error; one whose payload is cut has what
// there is of it.
func ParseSPKG(b []byte) (*SPKG, error) {
	const all = spkgCopies * spkgHeaderSize
	switch {
	case !matches(b, 0, spkgMagic):
		return nil, fmt.Errorf("no SPKG: the file begins with % x instead of %q", b[:min(4, len(b))], spkgMagic)
	case len(b) < all:
		return nil, fmt.Errorf("SPKG: %w: the file has %d bytes, the headers %d", ErrTruncated, len(b), all)
	}
	s := &SPKG{HeaderSize: all}
	var h []byte
	for n := range spkgCopies {
		c := b[n*spkgHeaderSize:][:spkgHeaderSize]
		switch {
		case !matches(c, 0, spkgMagic) || crc32.ChecksumIEEE(c[:20]) != binary.LittleEndian.Uint32(c[20:]):
		case h == nil:
			h = c
			s.Headers++
		case bytes.Equal(c, h):
			s.Headers++
		}
	}
	if h == nil {
		return nil, fmt.Errorf("SPKG: none of the %d headers has the CRC that it says", spkgCopies)
	}
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(h[off:]) }
	s.Version, s.ECC, s.Block, s.Scheme = int(h[4]), h[5]&0x20 != 0, 256<<(h[5]>>1&3), int(h[6])
	s.Load, s.Offset, s.Thumb = word(12), word(16)&^1, word(16)&1 != 0
	length := int(word(8) >> 8)
	rest := b[all:]
	switch {
	case length < 4:
		return s, fmt.Errorf("SPKG: a payload of %d bytes, with its CRC", length)
	case length > len(rest):
		s.Payload = rest
		return s, fmt.Errorf("SPKG: %w: the header announces %d bytes of payload, the file has %d", ErrTruncated, length, len(rest))
	}
	s.Payload, s.Trailing = rest[:length-4], len(rest)-length
	s.CRC, s.Sum = binary.LittleEndian.Uint32(rest[length-4:]), crc32.ChecksumIEEE(s.Payload)
	s.DummyBLp = len(s.Payload) > spkgBLpSize && bytes.Count(s.Payload[:spkgBLpSize], []byte{spkgBLpFiller}) == spkgBLpSize
	switch {
	case s.Sum != s.CRC:
		return s, fmt.Errorf("SPKG: the payload's CRC is %#08x, the file says %#08x", s.Sum, s.CRC)
	case s.Headers < spkgCopies:
		return s, fmt.Errorf("SPKG: %d of the %d headers differ from the first sound one", spkgCopies-s.Headers, spkgCopies)
	case int64(s.Offset) >= int64(len(s.Payload)):
		return s, fmt.Errorf("SPKG: it would be started at %#x, behind the %#x bytes of the payload", s.Offset, len(s.Payload))
	}
	return s, nil
}
