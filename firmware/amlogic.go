package firmware

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Amlogic's images begin with 16 bytes of no meaning to others (a nonce), and a header; little-endian. The one of BL2
// and BL30 is in Amlogic's U-Boot of 2015, arch/arm/cpu/armv8/common/firmware/plat/gxb/crypto/secureboot.c,
// st_aml_block_header. Its offsets count from the header:
//
//	offset size field
//	0      4    "@AML"
//	4      4    size, from the header to the end
//	8      1    size of the header, 64
//	9      1    index of the root key
//	10     2    version, major and minor
//	12     4    -
//	16     4    type of the signature; 0: the SHA-256 alone
//	20     4    its place
//	24     4    its size
//	28     4    place of what it covers, beside the header
//	32     12   type, place and size of the public key
//	44     4    size of what it covers
//	48     4    type of the program
//	52     4    its place
//	56     4    its size
//	60     4    -
//
// BL31 and BL33 of the later SoCs have another one (gxlimg, amlsblk.c). Its place counts from the nonce:
//
//	0      4    "@AML"
//	4      4    1
//	8      8    0
//	16     8    size of the program
//	24     8    its place
//	32     32   its SHA-256
//	608    32   SHA-256 of the 608 bytes before
const (
	amlMagic      = "@AML"
	amlNonce      = 16
	amlHeaderSize = 64
	amlBL3Size    = 608 // without the digest behind it
	amlCard       = 512 // where a card's image has BL2
)

// AMLImage is an image with such a header.
type AMLImage struct {
	BL3      bool // the header is that of BL31 and BL33
	Major    int
	Minor    int
	Size     int // of all, from the nonce on
	Start    int // of the program, from the nonce on
	Program  []byte
	Signed   bool // by a key; the signature is not verified
	Verified bool // the SHA-256 that it has is right
}

// ParseAML reads the image at the begin of b, and verifies its SHA-256, unless it is signed. If the header is sound but
// something else is not, the image is returned with the error; one that is cut has what there is of it.
func ParseAML(b []byte) (*AMLImage, error) {
	if !matches(b, amlNonce, amlMagic) {
		return nil, fmt.Errorf("no %s at byte %d", amlMagic, amlNonce)
	}
	h := b[amlNonce:]
	if len(h) < amlHeaderSize {
		return nil, fmt.Errorf("%s: %w: the header ends with the file", amlMagic, ErrTruncated)
	}
	if binary.LittleEndian.Uint32(h[4:]) == 1 && h[8] == 0 {
		return parseBL3(b)
	}
	word := func(off int) uint64 { return uint64(binary.LittleEndian.Uint32(h[off:])) }
	a := &AMLImage{Major: int(h[10]), Minor: int(h[11]), Signed: word(16) != 0}
	size, place, covered, length, program := word(4), word(20), word(28), word(44), word(52)
	switch {
	case h[8] != amlHeaderSize:
		return nil, fmt.Errorf("%s: a header of %d bytes, expected %d", amlMagic, h[8], amlHeaderSize)
	case size < amlHeaderSize || place+sha256.Size > size || covered+length > size || program > size:
		return nil, fmt.Errorf("%s: the header points out of the %d bytes that it announces", amlMagic, size)
	}
	a.Size, a.Start = amlNonce+int(size), amlNonce+int(program)
	if size > uint64(len(h)) {
		a.Size, a.Program = len(b), b[min(a.Start, len(b)):]
		return a, fmt.Errorf("%s: %w: the header announces %d bytes, the file has %d", amlMagic, ErrTruncated, size, len(h))
	}
	a.Program = b[a.Start:a.Size]
	if a.Signed {
		return a, nil
	}
	a.Verified = sum256(h[:amlHeaderSize], h[covered:covered+length]) == [sha256.Size]byte(h[place:])
	if !a.Verified {
		return a, fmt.Errorf("%s: the SHA-256 of the image is not the one in its header", amlMagic)
	}
	return a, nil
}

// parseBL3 reads a BL31 or BL33.
func parseBL3(b []byte) (*AMLImage, error) {
	const header = amlNonce + amlBL3Size + sha256.Size
	if len(b) < header {
		return nil, fmt.Errorf("%s: %w: the header ends with the file", amlMagic, ErrTruncated)
	}
	h := b[amlNonce:]
	size, start := binary.LittleEndian.Uint64(h[16:]), binary.LittleEndian.Uint64(h[24:])
	if sum256(h[:amlBL3Size]) != [sha256.Size]byte(h[amlBL3Size:]) {
		return nil, fmt.Errorf("%s: the SHA-256 of the header is wrong", amlMagic)
	}
	if start < header || start > uint64(len(b)) || size > uint64(len(b))-start {
		return nil, fmt.Errorf("%s: %w: the header announces %d bytes at %#x, the file has %d", amlMagic, ErrTruncated, size, start, len(b))
	}
	a := &AMLImage{BL3: true, Size: int(start + size), Start: int(start), Program: b[start : start+size]}
	if a.Verified = sum256(a.Program) == [sha256.Size]byte(h[32:]); !a.Verified {
		return a, fmt.Errorf("%s: the SHA-256 of the program is not the one in its header", amlMagic)
	}
	return a, nil
}

func sum256(parts ...[]byte) (sum [sha256.Size]byte) {
	d := sha256.New()
	for _, p := range parts {
		d.Write(p)
	}
	return [sha256.Size]byte(d.Sum(nil))
}

// What BL2 loads is a FIP. That of GXBB, GXL and GXM is cut in pieces, each encrypted and behind a header of its own:
// gxlimg, amlcblk.c. The first has the table of contents; the others are BL30, BL31 and BL33, each at a multiple of 16
// KiB in the file. Little-endian:
//
//	offset size field
//	2      2    size of a block, 512
//	4      2    1: encrypted
//	12     4    "AMLC"
//	16     4    place of the first block, which is behind the others
//	20     4    place of the second
//	24     4    size of all blocks
//	28     4    size of what is in them
//	32     32   SHA-256 of the blocks, in their order
//	64     48   key and initial vector
//	136    7    "AES-CBC", then 20 bytes of date, as text
//	252    4    "AMLC"
//
// That of the other SoCs is a FIP as it is elsewhere, behind 16 bytes: its offsets count from these. It stands behind
// BL2 in the u-boot.bin of G12 and later.
const (
	amlcMagic   = "AMLC"
	amlcHeader  = 256
	amlcBlock   = 512
	amlcAlign   = 0x4000
	amlcMost    = 64 // pieces
	amlcCipher  = 136
	amlcDate    = 143
	amlcDateEnd = 163
)

// AMLPiece is a piece of an encrypted FIP.
type AMLPiece struct {
	Offset   int // in the FIP
	Size     int // with its header
	Cipher   string
	Date     string
	Verified bool
}

// AMLFIP is what BL2 loads.
type AMLFIP struct {
	FIP    *FIP       // nil: it is encrypted
	Pieces []AMLPiece // of an encrypted one
	Size   int
}

// ParseAMLFIP reads what BL2 loads, and verifies the SHA-256 of its pieces. If there is one but something is wrong with
// it, it is returned with the error.
func ParseAMLFIP(b []byte) (*AMLFIP, error) {
	if matches(b, amlNonce, fipMagic) {
		f, err := parseFIP(b, amlNonce)
		if f == nil {
			return nil, err
		}
		return &AMLFIP{FIP: f, Size: f.Size}, err
	}
	if !matches(b, 12, amlcMagic) {
		return nil, fmt.Errorf("neither a FIP at byte %d nor %s at byte 12", amlNonce, amlcMagic)
	}
	f := &AMLFIP{}
	for off := 0; matches(b, off+12, amlcMagic) && len(f.Pieces) < amlcMost; off = (f.Size + amlcAlign - 1) &^ (amlcAlign - 1) {
		p, err := parsePiece(b[off:])
		if err != nil && p.Size == 0 {
			return f.orNone(), fmt.Errorf("%s at %#x: %w", amlcMagic, off, err)
		}
		p.Offset = off
		f.Pieces = append(f.Pieces, p)
		f.Size = off + p.Size
		if err != nil {
			return f, fmt.Errorf("%s at %#x: %w", amlcMagic, off, err)
		}
	}
	return f, nil
}

// orNone is nil if there is nothing in it.
func (f *AMLFIP) orNone() *AMLFIP {
	if len(f.Pieces) == 0 {
		return nil
	}
	return f
}

// parsePiece reads a piece. One whose header is bad has no size.
func parsePiece(b []byte) (AMLPiece, error) {
	if len(b) < amlcHeader {
		return AMLPiece{}, fmt.Errorf("%w: the header ends with the file", ErrTruncated)
	}
	word := func(off int) uint64 { return uint64(binary.LittleEndian.Uint32(b[off:])) }
	first, second, size := word(16), word(20), word(24)
	if !matches(b, 252, amlcMagic) || binary.LittleEndian.Uint16(b[2:]) != amlcBlock || second != amlcBlock || size < amlcBlock || first != size {
		return AMLPiece{}, errors.New("a header that is not understood")
	}
	text := func(from, to int) string { return printable(strings.TrimRight(string(b[from:to]), "\x00")) }
	p := AMLPiece{Size: int(first) + amlcBlock, Cipher: text(amlcCipher, amlcDate), Date: text(amlcDate, amlcDateEnd)}
	if first+amlcBlock > uint64(len(b)) {
		p.Size = len(b)
		return p, fmt.Errorf("%w: the header announces %d bytes, the file has %d", ErrTruncated, first+amlcBlock, len(b))
	}
	p.Verified = sum256(b[first:first+amlcBlock], b[second:first]) == [sha256.Size]byte(b[32:])
	if !p.Verified {
		return p, errors.New("the SHA-256 of the blocks is not the one in the header")
	}
	return p, nil
}

// identifyAML finds Amlogic's images.
func identifyAML(b []byte) (Info, bool) {
	switch {
	case matches(b, amlNonce, amlMagic):
		text := "an Amlogic boot image (@AML): a BL2"
		if a, err := ParseAML(b); err == nil && matches(b, a.Size+amlNonce, fipMagic) {
			text = "an Amlogic boot image (@AML): BL2 and FIP"
		} else if err == nil && len(b) > a.Size {
			text = "an Amlogic boot image (@AML): a BL2 and more"
		}
		return Info{KindAML, text}, true
	case matches(b, 12, amlcMagic) && len(b) >= amlcHeader:
		return Info{KindAMLFIP, "an Amlogic FIP, encrypted (AMLC)"}, true
	case matches(b, amlNonce, fipMagic) && bytes.Count(b[:amlNonce], []byte{0}) == amlNonce:
		return Info{KindAMLFIP, "an Amlogic FIP"}, true
	case matches(b, amlCard+amlNonce, amlMagic):
		return Info{KindAMLCard, "an Amlogic boot image for a card (@AML behind one sector)"}, true
	}
	return Info{}, false
}
