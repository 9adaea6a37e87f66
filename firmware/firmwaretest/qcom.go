package firmwaretest

import (
	"crypto/sha256"
	"crypto/sha512"
)

// MBN describes an image with an MBN header, of 80 bytes if SBL.
type MBN struct {
	ID, Version, Load            uint32
	SBL                          bool
	Code, Signature, Certificate []byte
}

// Bytes builds it.
func (m MBN) Bytes() []byte {
	code, signature, certificate := uint32(len(m.Code)), uint32(len(m.Signature)), uint32(len(m.Certificate))
	lengths := put(le, code+signature+certificate, code, m.Load+code, signature, m.Load+code+signature, certificate)
	b := put(le, m.ID, m.Version, uint32(0), m.Load, lengths)
	if m.SBL {
		b = Pad(put(le, uint32(0x844bdcd1), uint32(0x73d71034), m.ID, ^uint32(0), ^uint32(0), uint32(80), m.Load, lengths), 80)
	}
	return append(append(append(b, m.Code...), m.Signature...), m.Certificate...)
}

// QualcommELF builds an executable for 64-bit ARM with a hash segment of a version: 3 and 5 have SHA-256, 6 and 7
// SHA-384. There are 20 bytes of made-up metadata in those, and 30 of signature. The hash segment is the second, at
// 0x1000; the program's begin at 0x2000.
func QualcommELF(version uint32, load uint64, segments ...[]byte) []byte {
	const page = 0x1000
	sum := func(b []byte) []byte { d := sha256.Sum256(b); return d[:] }
	if version >= 6 {
		sum = func(b []byte) []byte { d := sha512.Sum384(b); return d[:] }
	}
	count := len(segments) + 2
	each := len(sum(nil))
	size := uint32(each * count)
	hashes := put(le, uint32(0), version, uint32(0), uint32(0), size+30, size, uint32(0), uint32(30), uint32(0), uint32(0))
	switch version {
	case 6:
		hashes = append(hashes, put(le, uint32(8), uint32(12), make([]byte, 20))...)
	case 7:
		hashes = put(le, uint32(0), version, uint32(4), uint32(8), uint32(8), size, uint32(0), uint32(0), uint32(30), uint32(0), make([]byte, 20))
	}
	headers := put(le, "\x7fELF\x02\x01\x01", make([]byte, 9), uint16(2), uint16(183), uint32(1), load, uint64(64), uint64(0), uint32(0),
		uint16(64), uint16(56), uint16(count), uint16(0), uint16(0), uint16(0))
	header := func(kind, flags uint32, at, address uint64, size int) {
		headers = append(headers, put(le, kind, flags, at, address, address, uint64(size), uint64(size), uint64(page))...)
	}
	header(0, 7<<24, 0, 0, 64+56*count)
	header(0, 2<<24, page, 0, len(hashes)+int(size)+30)
	var body, digests []byte
	for _, s := range segments {
		header(1, 5, uint64(2*page+len(body)), load, len(s))
		digests = append(digests, sum(s)...)
		body, load = Pad(append(body, s...), (len(body)+len(s)+page-1)/page*page), load+page
	}
	hashes = append(append(append(hashes, sum(headers)...), make([]byte, each)...), digests...)
	hashes = append(hashes, Pattern(30)...)
	return append(Pad(append(Pad(headers, page), hashes...), 2*page), body...)
}
