package firmware

import (
	"encoding/binary"
	"fmt"
)

// The STM32 header stands before what the ROM of an STM32MP loads: ST's wiki, "STM32 header for binary files"; U-Boot's
// tools/stm32image.c writes version 1. Little-endian.
//
//	offset size field
//	0      4    "STM2"
//	4      64   signature: ECDSA, two numbers of 32 bytes; 0 if there is none
//	68     4    checksum: sum of the payload's bytes
//	72     4    version of the header: 0, minor, major, 0
//	76     4    length of the payload
//	80     4    entry point
//	84     4    reserved
//	88     4    load address
//	92     4    reserved
//	96     4    version of the image, against roll-back
//
// In version 1 (STM32MP15) it goes on so, for 256 bytes in all:
//
//	100    4    option flags; bit 0: not signed
//	104    4    ECDSA algorithm: 1 P-256, 2 brainpool
//	108    64   public key
//	172    83   padding
//	255    1    binary type
//
// In version 2 (STM32MP13, STM32MP2) so, for 128 bytes and the extension headers, which are 384 bytes long in all files
// known:
//
//	100    4    extension flags; bit 0: signed, bit 1: encrypted, bit 31: there is padding
//	104    4    length of the extension headers
//	108    4    binary type
//	112    16   padding
//	128    ...  extension headers: type, length with these eight bytes, contents
const (
	stm32Magic     = "STM2"
	stm32V1Size    = 256
	stm32V2Size    = 128     // without extension headers
	stm32MaxExt    = 1 << 12 // of all extension headers
	stm32NotSigned = 1 << 0  // option flags, version 1
	stm32Signed    = 1 << 0  // extension flags, version 2
	stm32Encrypted = 1 << 1  // extension flags, version 2
)

// STM32Image is a file with an STM32 header.
type STM32Image struct {
	Major, Minor int
	HeaderSize   int    // with the extension headers
	Length       uint32 // of the payload, as the header tells it
	Checksum     uint32
	Sum          uint32 // as the payload has it
	Entry, Load  uint32
	Version      uint32 // against roll-back
	Flags        uint32 // option flags (version 1), extension flags (version 2)
	Type         uint32 // what it is for: see TypeName
	Signed       bool   // it claims to be; the signature is not verified
	Encrypted    bool
	Extensions   []STM32Extension // version 2
	Payload      []byte           // part of the parsed slice
	Trailing     int              // bytes behind the payload
}

// STM32Extension is an extension header of version 2.
type STM32Extension struct {
	Type   uint32
	Offset int // in the file
	Size   int
}

// TypeName says what the binary type stands for.
func (s *STM32Image) TypeName() string {
	switch t := s.Type; {
	case t == 0:
		return "U-Boot"
	case t >= 0x10 && t < 0x20:
		return "TF-A"
	case t >= 0x20 && t < 0x30:
		return "OP-TEE"
	case t == 0x30:
		return "coprocessor firmware"
	default:
		return fmt.Sprintf("type %#x", t)
	}
}

// Name names the extension as TF-A's boot_api.h of the STM32MP2 does.
func (e STM32Extension) Name() string {
	switch e.Type {
	case 0x01005453: // "ST", 0, 1
		return "decryption"
	case 0x02005453:
		return "authentication"
	case 0xffff5453:
		return "padding"
	}
	return fmt.Sprintf("type %#x", e.Type)
}

// ParseSTM32 reads an STM32 header and checks the payload. If the header is sound but the payload is not, the
// image is returned with the error; one whose payload is cut has what there is of it.
func ParseSTM32(b []byte) (*STM32Image, error) {
	switch {
	case !matches(b, 0, stm32Magic):
		return nil, fmt.Errorf("no STM32 header: the file begins with % x instead of %q", b[:min(4, len(b))], stm32Magic)
	case len(b) < stm32V2Size:
		return nil, fmt.Errorf("STM32 header: %w: the file has %d bytes", ErrTruncated, len(b))
	}
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	s := &STM32Image{Major: int(b[74]), Minor: int(b[73]), Checksum: word(68), Entry: word(80), Load: word(88), Version: word(96), Flags: word(100)}
	switch s.Major {
	case 1:
		s.HeaderSize = stm32V1Size
		if len(b) < s.HeaderSize {
			return nil, fmt.Errorf("STM32 header: %w: the file has %d bytes, the header %d", ErrTruncated, len(b), s.HeaderSize)
		}
		s.Type, s.Signed = uint32(b[255]), s.Flags&stm32NotSigned == 0
	case 2:
		ext := word(104)
		if ext > stm32MaxExt || int(ext) > len(b)-stm32V2Size {
			return nil, fmt.Errorf("STM32 header: %w: %d bytes of extension headers in a file of %d", ErrTruncated, ext, len(b))
		}
		s.HeaderSize = stm32V2Size + int(ext)
		s.Type, s.Signed, s.Encrypted = word(108), s.Flags&stm32Signed != 0, s.Flags&stm32Encrypted != 0
		for off := stm32V2Size; off < s.HeaderSize; {
			left := s.HeaderSize - off
			if left < 8 || word(off+4) < 8 || word(off+4) > uint32(left) {
				return nil, fmt.Errorf("STM32 header: a bad extension header at %#x of %#x", off, s.HeaderSize)
			}
			e := STM32Extension{word(off), off, int(word(off + 4))}
			s.Extensions = append(s.Extensions, e)
			off += e.Size
		}
	default:
		return nil, fmt.Errorf("STM32 header: version %d.%d is not known, only 1 and 2", s.Major, s.Minor)
	}
	s.Length = word(76)
	s.Payload = b[s.HeaderSize:]
	if uint64(s.Length) > uint64(len(s.Payload)) {
		return s, fmt.Errorf("STM32 header: %w: it announces %d bytes of payload, the file has %d", ErrTruncated, s.Length, len(s.Payload))
	}
	s.Trailing = len(s.Payload) - int(s.Length)
	s.Payload = s.Payload[:s.Length]
	for _, c := range s.Payload {
		s.Sum += uint32(c)
	}
	if s.Sum != s.Checksum {
		return s, fmt.Errorf("STM32 header: the payload's checksum is %#08x, the header says %#08x", s.Sum, s.Checksum)
	}
	return s, nil
}
