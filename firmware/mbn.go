package firmware

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Qualcomm's boot images are of two kinds. Old ones have an MBN header (LK, target/msm8960/tools/mkheader.c; coreboot,
// util/qualcomm/mbn_tools.py), little-endian, of ten words:
//
//	offset size field
//	0      4    image id
//	4      4    version, 3 in most
//	8      4    offset on the medium, 0
//	12     4    load address
//	16     4    length of what follows the header
//	20     4    length of the code
//	24     4    address of the signature
//	28     4    its length
//	32     4    address of the certificates
//	36     4    their length
//
// or, of a first stage (SBL1), of twenty: code word, magic, image id, two of 0 or ff, the header's length, load
// address, and then from the length on as above; the rest is reserved. New ones are ELF files, one of whose program
// headers is of the hash segment: bits 24 to 26 of its flags are 2 (Linux, drivers/soc/qcom/mdt_loader.c). It begins
// with a header too, of which these are needed to find the table of digests, one of each program header's bytes
// (coreboot, util/cbfstool/platform_fixups.c):
//
//	offset size field
//	4      4    version: 3, 5, 6 or 7
//	20     4    length of the table
//	8      12   7: lengths of the common, Qualcomm's and the vendor's metadata, which are in front of the table
//	40     8    6: lengths of Qualcomm's and the vendor's, the same
//
// Behind the table are signatures and certificates.
const (
	mbnHeaderSize = 40
	mbnSBLSize    = 80
	mbnSBLMagic   = "\xd1\xdc\x4b\x84\x34\x10\xd7\x73"
	mbnMaxVersion = 7
	mbnHash       = 2
)

// mbnType is what a program header's flags say of the segment to Qualcomm's loaders.
func mbnType(flags uint32) uint32 { return flags >> 24 & 7 }

// hashSegment is the index of the hash segment's program header, -1 if there is none.
func (e *ELF) hashSegment() int {
	return slices.IndexFunc(e.Headers, func(h ELFHeader) bool { return mbnType(h.Flags) == mbnHash })
}

// MBN is an image with an MBN header.
type MBN struct {
	ID          uint32
	Version     uint32 // 0 of an SBL1
	SBL         bool   // its header is that of an SBL1
	HeaderSize  int
	Load        uint32
	Code        []byte // part of the parsed slice
	Signature   []byte
	Certificate []byte
	Trailing    int // bytes behind
}

// ParseMBN reads the header. Without magic, an image of ten words counts as one if its lengths agree. One that is cut
// has what there is of it, and is returned with the error.
func ParseMBN(b []byte) (*MBN, error) {
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	m := &MBN{SBL: matches(b, 0, mbnSBLMagic), HeaderSize: mbnHeaderSize}
	if m.SBL {
		m.HeaderSize = mbnSBLSize
	}
	switch {
	case len(b) < m.HeaderSize && m.SBL:
		return nil, fmt.Errorf("MBN: %w: the file has %d bytes, the header %d", ErrTruncated, len(b), m.HeaderSize)
	case len(b) < m.HeaderSize:
		return nil, fmt.Errorf("no MBN: the file has %d bytes, a header %d", len(b), m.HeaderSize)
	}
	lengths := 16
	if m.SBL {
		m.ID, m.Load, lengths = word(8), word(24), 28
	} else {
		m.ID, m.Version, m.Load = word(0), word(4), word(12)
	}
	whole, code, signature, certificate := word(lengths), word(lengths+4), word(lengths+12), word(lengths+20)
	sum := uint64(code) + uint64(signature) + uint64(certificate)
	switch {
	case code == 0 || uint64(whole) != sum:
		if m.SBL {
			return nil, fmt.Errorf("MBN: %d bytes are announced, of which %d are code, %d signature and %d certificates", whole, code, signature, certificate)
		}
		return nil, errors.New("no MBN: the lengths in the first 40 bytes do not agree")
	case !m.SBL && (m.Version == 0 || m.Version > mbnMaxVersion):
		return nil, fmt.Errorf("no MBN: version %d", m.Version)
	}
	rest := b[m.HeaderSize:]
	take := func(n uint32) []byte {
		part := rest[:min(uint64(n), uint64(len(rest)))]
		rest = rest[len(part):]
		return part
	}
	have := uint64(len(rest))
	m.Code, m.Signature, m.Certificate = take(code), take(signature), take(certificate)
	m.Trailing = len(rest)
	if sum > have {
		return m, fmt.Errorf("MBN: %w: %d bytes are announced behind the header, the file has %d", ErrTruncated, sum, have)
	}
	return m, nil
}

// MBNHashes is the hash segment of an ELF file.
type MBNHashes struct {
	Offset, Size int // in the file
	Version      int
	Table        int         // where the digests begin
	Algo         string      // sha1, sha256 or sha384; empty if the table has none of these
	Digests      []MBNDigest // of the program headers that have one, none without Algo
	Rest         int         // bytes behind the table: signatures and certificates
}

// MBNDigest is the digest of a program header's bytes.
type MBNDigest struct {
	Header int // of the program headers
	OK     bool
}

// ParseMBNHashes reads the hash segment of an ELF file, and verifies the digests. It returns nil if there is none. If
// only the table is wrong, the segment is returned with the error; a digest that is not right is no error.
func ParseMBNHashes(b []byte) (*MBNHashes, error) {
	e, err := ParseELF(b)
	if e == nil {
		return nil, err
	}
	n := e.hashSegment()
	if n < 0 {
		return nil, nil
	}
	at := e.Headers[n]
	s := &MBNHashes{Offset: at.Offset, Size: len(at.Data)}
	word := func(off int) uint64 { return uint64(binary.LittleEndian.Uint32(at.Data[off:])) }
	if len(at.Data) >= 8 {
		s.Version = int(word(4))
	}
	switch {
	case uint64(len(at.Data)) < at.Size:
		return s, fmt.Errorf("ELF: %w: of the hash segment's %d bytes the file has %d", ErrTruncated, at.Size, len(at.Data))
	case len(at.Data) < mbnHeaderSize+8:
		return s, fmt.Errorf("ELF: the hash segment has %d bytes", len(at.Data))
	}
	table, size := uint64(mbnHeaderSize), word(20)
	switch s.Version {
	case 3, 5:
	case 6:
		table += 8 + word(40) + word(44)
	case 7:
		table += word(8) + word(12) + word(16)
	default:
		return s, fmt.Errorf("ELF: the hash segment is of version %d, which is not known", s.Version)
	}
	have := uint64(len(at.Data))
	if table > have || size > have-table {
		return s, fmt.Errorf("ELF: the hash segment has %d bytes, its table %d at %#x", have, size, table)
	}
	s.Table, s.Rest = at.Offset+int(table), int(have-table-size)
	var sum func([]byte) []byte
	switch length := size / uint64(len(e.Headers)); {
	case size%uint64(len(e.Headers)) != 0:
	case length == sha1.Size:
		s.Algo, sum = "sha1", func(b []byte) []byte { d := sha1.Sum(b); return d[:] }
	case length == sha256.Size:
		s.Algo, sum = "sha256", func(b []byte) []byte { d := sha256.Sum256(b); return d[:] }
	case length == sha512.Size384:
		s.Algo, sum = "sha384", func(b []byte) []byte { d := sha512.Sum384(b); return d[:] }
	}
	if s.Algo == "" {
		return s, fmt.Errorf("ELF: the hash segment's table has %d bytes for %d program headers", size, len(e.Headers))
	}
	digests := at.Data[table:][:size]
	each := len(digests) / len(e.Headers)
	hashed := 0 // program headers may all mean the same bytes
	for i, h := range e.Headers {
		digest := digests[i*each:][:each]
		if i == n || h.Size == 0 || bytes.Count(digest, []byte{0}) == each { // its own is zero
			continue
		}
		if hashed += len(h.Data); hashed > 4*len(b) {
			return s, errors.New("ELF: the program headers have the same bytes many times")
		}
		s.Digests = append(s.Digests, MBNDigest{i, uint64(len(h.Data)) == h.Size && bytes.Equal(sum(h.Data), digest)})
	}
	return s, nil
}
