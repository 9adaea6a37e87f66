package amlogic

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// maxFIP is how much is looked at of a FIP.
const maxFIP = 4 << 20

// imageAML finds a BL2: 16 bytes, then a header, from which on its offsets count (secureboot.c, st_aml_block_header),
// little-endian:
//
//	offset size field
//	0      4    "@AML"
//	4      4    size of all
//	8      1    size of the header, 64
//	9      3    index of the root key, version
//	16     4    type of the signature; 0: a SHA-256 only
//	20     4    where it is
//	24     4    its size
//	28     4    begin of what it protects, beside the header
//	44     4    size of that
func imageAML(b []byte) ([]byte, error) {
	const nonce, header = 16, 64
	if len(b) < nonce+header || string(b[nonce:nonce+4]) != "@AML" {
		return nil, errors.New("no @AML at its byte 16")
	}
	h := b[nonce:]
	word := func(off int) uint64 { return uint64(binary.LittleEndian.Uint32(h[off:])) }
	size, kind, signature, start, length := word(4), word(16), word(20), word(28), word(44)
	switch {
	case size > uint64(len(h)) || size < header || h[8] != header:
		return nil, fmt.Errorf("a size of %d in %d bytes", size, len(h))
	case kind != 0:
		return nil, errors.New("it is signed, for another part")
	case signature+sha256.Size > size || start+length > size:
		return nil, errors.New("its header points out of it")
	}
	d := sha256.New()
	d.Write(h[:header])
	d.Write(h[start : start+length])
	if !bytes.Equal(d.Sum(nil), h[signature:signature+sha256.Size]) {
		return nil, errors.New("its SHA-256 is wrong")
	}
	return b[:nonce+size], nil
}

// imageFIP finds a FIP, as the BL2 of GX wants it, in pieces each encrypted and with a header of its own, or that of
// AXG, plain behind 16 bytes.
func imageFIP(b []byte) ([]byte, error) {
	if len(b) < 16 {
		return nil, errors.New("nothing")
	}
	if string(b[12:16]) != "AMLC" {
		images, err := tableOf(b[16:])
		if err != nil {
			return nil, err
		}
		end := 0
		for _, i := range images {
			end = max(end, int(i.offset+i.size))
		}
		if end == 0 || end > len(b) {
			return nil, fmt.Errorf("images up to %#x", end)
		}
		return b[:end], nil
	}
	// The first piece is the table; where the others are is encrypted. Each begins at a multiple of 16 KiB.
	end := 0
	for off := 0; off+256 <= len(b) && string(b[off+12:off+16]) == "AMLC"; {
		size, err := piece(b[off:])
		if err != nil {
			return nil, fmt.Errorf("the piece at %#x: %w", off, err)
		}
		end = off + size
		off = (end + 0x3fff) &^ 0x3fff
	}
	return b[:end], nil
}

// piece is the size of an encrypted piece of a FIP (gxlimg, amlcblk.c), little-endian:
//
//	offset size field
//	2      2    size of a block, 512
//	12     4    "AMLC"
//	16     4    where the first block is: behind the others
//	20     4    where the second block is
//	24     4    size of all blocks
//	32     32   their SHA-256
//	252    4    "AMLC"
func piece(b []byte) (int, error) {
	word := func(off int) int { return int(binary.LittleEndian.Uint32(b[off:])) }
	block, first, second, size := int(binary.LittleEndian.Uint16(b[2:])), word(16), word(20), word(24)
	if string(b[252:256]) != "AMLC" || block != 512 || second != block || size < block || first != size || first+block > len(b) {
		return 0, errors.New("a bad header")
	}
	d := sha256.New()
	d.Write(b[first : first+block])
	d.Write(b[second:size])
	if !bytes.Equal(d.Sum(nil), b[32:64]) {
		return 0, errors.New("its SHA-256 is wrong")
	}
	return first + block, nil
}

// image is an entry of a FIP.
type image struct{ offset, size uint32 }

// tableOf reads the table of a FIP (Trusted Firmware-A, include/tools_share/firmware_image_package.h). Its offsets
// count from 16 bytes before it.
func tableOf(b []byte) ([]image, error) {
	if !bytes.HasPrefix(b, []byte{0x01, 0x00, 0x64, 0xaa}) {
		return nil, fmt.Errorf("no FIP but % x", b[:min(4, len(b))])
	}
	var all []image
	for off := 16; off+40 <= len(b); off += 40 {
		e := b[off : off+40]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			return all, nil
		}
		offset, size := binary.LittleEndian.Uint64(e[16:]), binary.LittleEndian.Uint64(e[24:])
		if offset > maxPiece || size > maxPiece {
			return nil, fmt.Errorf("an image of %d bytes at %#x", size, offset)
		}
		all = append(all, image{uint32(offset), uint32(size)})
	}
	return nil, errors.New("a table without end")
}
