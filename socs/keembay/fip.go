package keembay

import (
	"encoding/binary"
	"fmt"
)

// The firmware image package of Trusted Firmware-A (include/tools_share/firmware_image_package.h), little-endian:
//
//	off size
//	0   4    name, aa640001
//	4   4    serial number, not zero
//	8   8    flags
//	16  -    entries, the last one with a UUID of zeros
//
//	entry
//	0   16   UUID
//	16  8    offset of the image
//	24  8    its size
//	32  8    flags
const (
	fipName   = 0xaa640001
	fipHeader = 16
	fipEntry  = 40
)

// isFIP reports whether a file begins as a FIP does.
func isFIP(b []byte) bool { return len(b) >= 4 && binary.LittleEndian.Uint32(b) == fipName }

// checkFIP walks over a FIP's table, and returns the number of images.
func checkFIP(b []byte) (int, error) {
	le := binary.LittleEndian
	if len(b) < fipHeader || le.Uint32(b[4:]) == 0 {
		return 0, fmt.Errorf("the FIP's header: expected %d bytes with a serial number, got % x", fipHeader, b[:min(len(b), fipHeader)])
	}
	for n, off := 0, fipHeader; ; n, off = n+1, off+fipEntry {
		if off+fipEntry > len(b) {
			return 0, fmt.Errorf("the FIP is cut: its table of images has no end within %d bytes", len(b))
		}
		entry := b[off : off+fipEntry]
		if [16]byte(entry) == [16]byte{} {
			return n, nil
		}
		start, size := le.Uint64(entry[16:]), le.Uint64(entry[24:])
		if start > uint64(len(b)) || size > uint64(len(b))-start {
			return 0, fmt.Errorf("the FIP is cut: image %d has %d bytes at %#x, the file has %d", n+1, size, start, len(b))
		}
	}
}
