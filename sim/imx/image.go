package imx

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
)

// ivt is an image vector table (IMX6DQRM, section 8.7.1; U-Boot, include/imximage.h), little-endian but for the
// length:
//
//	off size
//	0   4    tag 0xd1, length 0x0020, version 0x40 to 0x43
//	4   4    entry
//	8   4    reserved
//	12  4    DCD, 0: none
//	16  4    boot data
//	20  4    self
//	24  4    CSF, 0: none
//	28  4    reserved
//
// All are absolute addresses. Boot data are start, length and flags (bit 0: plugin), 4 bytes each.
type ivt struct{ entry, dcd, bootData, self, csf uint32 }

const ivtSize = 32

func parseIVT(b []byte) (ivt, error) {
	if len(b) < ivtSize || b[0] != 0xd1 || b[1] != 0 || b[2] != ivtSize || b[3]&0xfc != 0x40 {
		return ivt{}, fmt.Errorf("no IVT (d1 00 20 4x) but % x", b[:min(len(b), 4)])
	}
	le := binary.LittleEndian
	return ivt{le.Uint32(b[4:]), le.Uint32(b[12:]), le.Uint32(b[16:]), le.Uint32(b[20:]), le.Uint32(b[24:])}, nil
}

// errMore says that the size of an image shows only in more of it.
var errMore = errors.New("the image is cut short")

// firstStage returns how many bytes of a stream a ROM takes for the first image, told from the stream's
// beginning, or errMore.
func firstStage(header string, b []byte) (size int, err error) {
	switch header {
	case "sb":
		return sbSize(b)
	case "container":
		return containerSet(b)
	}
	return ivtImage(b)
}

// ivtImage is the size of an image that begins with its IVT.
func ivtImage(b []byte) (int, error) {
	if len(b) < ivtSize {
		return 0, errMore
	}
	v, err := parseIVT(b)
	if err != nil {
		return 0, err
	}
	at := uint64(v.bootData) - uint64(v.self)
	if v.bootData < v.self || at > 0x1000 {
		return 0, fmt.Errorf("boot data at %#x, IVT at %#x", v.bootData, v.self)
	}
	if uint64(len(b)) < at+12 {
		return 0, errMore
	}
	start, length := binary.LittleEndian.Uint32(b[at:]), binary.LittleEndian.Uint32(b[at+4:])
	end := uint64(start) + uint64(length)
	if start > v.self || end < uint64(v.self)+ivtSize || end-uint64(v.self) > streamMax {
		return 0, fmt.Errorf("boot data: start %#x, length %#x, IVT at %#x", start, length, v.self)
	}
	return int(end - uint64(v.self)), nil
}

// A container header (U-Boot, include/imx_container.h), little-endian:
//
//	off size                                       image entry, 128 bytes each, from 16 on:
//	0   1    version: 0, or 2                      0   4   offset from the header
//	1   2    length                                4   4   size
//	3   1    tag 0x87; 0x82: of the V2X            8   8   load address
//	11  1    number of images                      16  8   entry
//	12  2    offset of the signature block         24  4   flags: bits 0-3 type
//
// Several headers follow each other in steps of 0x400 bytes, 0x4000 in version 2.
const (
	containerHeader = 16
	containerEntry  = 128
)

// container returns the end of a container's images from its header on, and the spacing of headers.
func container(b []byte) (end, step int, ok bool, err error) {
	if len(b) < containerHeader {
		return 0, 0, false, errMore
	}
	length := int(binary.LittleEndian.Uint16(b[1:]))
	if b[3] != 0x87 && (b[3] != 0x82 || b[0] != 2) || b[0] != 0 && b[0] != 2 || length < containerHeader {
		return 0, 0, false, nil
	}
	step = 0x400
	if b[0] == 2 {
		step = 0x4000
	}
	n := int(b[11])
	if containerHeader+n*containerEntry > length || length > step {
		return 0, 0, false, fmt.Errorf("container of length %d with %d images", length, n)
	}
	if len(b) < length {
		return 0, 0, false, errMore
	}
	end = length
	for i := range n {
		e := b[containerHeader+i*containerEntry:]
		last := uint64(binary.LittleEndian.Uint32(e)) + uint64(binary.LittleEndian.Uint32(e[4:]))
		if last > streamMax {
			return 0, 0, false, fmt.Errorf("container's image %d ends at %#x", i, last)
		}
		end = max(end, int(last))
	}
	return end, step, true, nil
}

// containerSet is the size of the containers that begin a stream: the end of the last image of any of them,
// rounded up to 0x400 as uuu and U-Boot (image-container.c) have it. uuu looks at the last entry of the last
// header alone; of well-formed sets that is the same.
func containerSet(b []byte) (int, error) {
	size, at := 0, 0
	for i := range 3 {
		if len(b) < at {
			return 0, errMore
		}
		end, step, ok, err := container(b[at:])
		if err != nil {
			return 0, err
		}
		if !ok {
			if i == 0 {
				return 0, fmt.Errorf("no container (byte 3 is 87) but % x", b[:4])
			}
			break
		}
		size, at = max(size, at+end), at+step
		if at >= size {
			break
		}
	}
	return (size + 0x3ff) &^ 0x3ff, nil
}

// A boot stream (U-Boot, tools/mxsimage.h), little-endian:
//
//	off size
//	0   20   SHA-1 of the rest of the header
//	20  4    "STMP"
//	24  4    version, flags
//	28  4    length of the stream in blocks of 16 bytes
//	32  20   first tag, section, keys, header blocks, sections
//	52  4    "sgtl"
//	56  40   time, versions, drive
const sbHeader = 96

func sbSize(b []byte) (int, error) {
	if len(b) < sbHeader {
		return 0, errMore
	}
	sum := sha1.Sum(b[20:sbHeader])
	if string(b[20:24]) != "STMP" || !bytes.Equal(sum[:], b[:20]) {
		return 0, fmt.Errorf("no boot stream (STMP, SHA-1 of the header)")
	}
	size := uint64(binary.LittleEndian.Uint32(b[28:])) * 16
	if size < sbHeader || size > streamMax {
		return 0, fmt.Errorf("boot stream of %d bytes", size)
	}
	return int(size), nil
}

// fitMagic and legacyMagic begin a FIT, which is a flattened device tree, and a legacy image (U-Boot, include/image.h).
const (
	fitMagic    = 0xd00dfeed
	legacyMagic = 0x27051956
)

// fitEnd returns where a FIT with its external data ends, counted from its beginning. Data that is external has
// its place from the end of the tree, rounded up to 4 (data-offset), or from its beginning (data-position).
// Images that no configuration uses count too.
func fitEnd(b []byte) (int, error) {
	be := binary.BigEndian
	if len(b) < 40 {
		return 0, errMore
	}
	total := be.Uint32(b[4:])
	if be.Uint32(b) != fitMagic || total < 40 || total > streamMax {
		return 0, fmt.Errorf("no FIT")
	}
	if uint64(len(b)) < uint64(total) {
		return 0, errMore
	}
	b = b[:total]
	at, names := be.Uint32(b[8:]), be.Uint32(b[12:])
	end := uint64(total)
	base := (end + 3) &^ 3
	var offset, position, size int64 = -1, -1, -1
	flush := func() {
		if size >= 0 && offset >= 0 {
			end = max(end, base+uint64(offset+size))
		} else if size >= 0 && position >= 0 {
			end = max(end, uint64(position+size))
		}
		offset, position, size = -1, -1, -1
	}
	bad := errors.New("the FIT's tree is malformed")
	word := func() (uint32, bool) {
		if uint64(at)+4 > uint64(len(b)) {
			return 0, false
		}
		v := be.Uint32(b[at:])
		at += 4
		return v, true
	}
	for {
		token, ok := word()
		if !ok {
			return 0, bad
		}
		switch token {
		case 1: // a node begins: its name
			flush()
			n := -1
			if uint64(at) < uint64(len(b)) {
				n = bytes.IndexByte(b[at:], 0)
			}
			if n < 0 {
				return 0, bad
			}
			at = (at + uint32(n) + 4) &^ 3
		case 2: // it ends
			flush()
		case 3: // a property: length, name, value
			n, ok1 := word()
			name, ok2 := word()
			if !ok1 || !ok2 || uint64(at)+uint64(n) > uint64(len(b)) || uint64(names)+uint64(name) >= uint64(len(b)) {
				return 0, bad
			}
			text, _, _ := bytes.Cut(b[names+name:], []byte{0})
			if n == 4 {
				v := int64(be.Uint32(b[at:]))
				switch string(text) {
				case "data-offset":
					offset = v
				case "data-position":
					position = v
				case "data-size":
					size = v
				}
			}
			at = (at + n + 3) &^ 3
		case 4:
		case 9:
			if end > streamMax {
				return 0, bad
			}
			return int(end), nil
		default:
			return 0, bad
		}
	}
}
