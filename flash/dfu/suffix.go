package dfu

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"snag/usb"
)

// Lengths of a suffix. Longer ones begin with what nobody has specified yet.
const (
	suffixSize    = 16
	maxSuffixSize = 255
)

// anyID stands for every vendor, or every product.
const anyID = 0xffff

// suffix is what may be at the end of a file for DFU.
type suffix struct {
	id      usb.ID
	version uint16 // of DFU
	size    int
	crc     uint32
}

// parseSuffix decodes it (DFU 1.1, appendix B), little-endian; ok is false if b does not end with one.
//
//	off size                  off size
//	-16 2    bcdDevice        -8  3    signature, "UFD"
//	-14 2    idProduct        -5  1    length of the suffix
//	-12 2    idVendor         -4  4    CRC-32 of all bytes before it, not inverted at its end
//	-10 2    bcdDFU
func parseSuffix(b []byte) (s suffix, ok bool) {
	if len(b) < suffixSize {
		return s, false
	}
	b = b[len(b)-suffixSize:]
	s = suffix{
		id:      usb.ID{Vendor: binary.LittleEndian.Uint16(b[4:]), Product: binary.LittleEndian.Uint16(b[2:])},
		version: binary.LittleEndian.Uint16(b[6:]),
		size:    int(b[11]),
		crc:     binary.LittleEndian.Uint32(b[12:]),
	}
	return s, string(b[8:11]) == "UFD" && s.size >= suffixSize
}

// ErrSuffix says that a file is not for the device, or not as it was made, as its own DFU suffix has it.
var ErrSuffix = errors.New("DFU suffix")

// versionDfuSe is the version of files with ST's extension.
const versionDfuSe = 0x011a

// check holds a suffix against the IDs of the device.
func (s suffix) check(ids []usb.ID) error {
	if s.version == versionDfuSe {
		return fmt.Errorf("%w: a DfuSe file (.dfu), which holds addresses and perhaps several images: give the raw image (.bin) that it was made of", ErrSuffix)
	}
	for _, id := range ids {
		if (s.id.Vendor == anyID || s.id.Vendor == id.Vendor) && (s.id.Product == anyID || s.id.Product == id.Product) {
			return nil
		}
	}
	return fmt.Errorf("%w: the file is for devices %s, this is %s", ErrSuffix, s.id, ids[0])
}

// unsuffixed reads a file without its suffix, if there is one. The CRC in it and its IDs are checked before the file's
// last bytes are handed out.
type unsuffixed struct {
	r    *bufio.Reader
	ids  []usb.ID
	crc  uint32 // of what was handed out
	rest []byte // the last bytes
	last bool   // there is nothing but rest
}

func newUnsuffixed(r io.Reader, ids []usb.ID) *unsuffixed {
	return &unsuffixed{r: bufio.NewReaderSize(r, 1<<16), ids: ids}
}

func (u *unsuffixed) Read(p []byte) (int, error) {
	if u.last {
		if len(u.rest) == 0 {
			return 0, io.EOF
		}
		n := copy(p, u.rest)
		u.rest = u.rest[n:]
		return n, nil
	}
	p = p[:min(len(p), u.r.Size()-maxSuffixSize)]
	b, err := u.r.Peek(len(p) + maxSuffixSize)
	switch err {
	case nil:
		n := copy(p, b)
		u.crc = crc32.Update(u.crc, crc32.IEEETable, p)
		u.r.Discard(n)
		return n, nil
	case io.EOF:
		s, ok := parseSuffix(b)
		if u.last = true; ok && s.size <= len(b) {
			if crc := ^crc32.Update(u.crc, crc32.IEEETable, b[:len(b)-4]); crc != s.crc {
				return 0, fmt.Errorf("%w: the file's CRC is %08x, its suffix says %08x: it was changed after it was made", ErrSuffix, crc, s.crc)
			}
			if err := s.check(u.ids); err != nil {
				return 0, err
			}
			b = b[:len(b)-s.size]
		}
		u.rest = b
		return u.Read(p)
	}
	return 0, err
}
