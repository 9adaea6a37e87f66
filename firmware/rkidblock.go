package firmware

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
)

// An ID block is in front of what a Rockchip ROM loads from media: U-Boot, tools/rkcommon.c (mkimage's rksd and rkspi).
// Little-endian, in sectors of 512 bytes. In version 1 the first sector is encrypted; decrypted it has:
//
//	offset size field
//	0      4    0x0ff0aa55
//	8      4    not 0: the images are not encrypted; else each sector is, by itself
//	12     2    offset of the images, in sectors
//	506    2    size of the first image, in sectors
//	508    2    size of both
//
// The first image runs in internal memory and sets up the DRAM (Rockchip's DDR blob, or U-Boot's TPL); it begins with
// the ROM's tag. The second is started in DRAM (U-Boot's SPL) if the first returns; without one, the size of both is
// that of the first and 512 KiB. Version 2:
//
//	0      4    "RKNS"
//	8      2    offset of the hash of the header, in words: 384
//	10     2    number of images
//	12     4    bits 0 to 3: 0 no hashes, 1 SHA-256, 2 SHA-512
//	120    88   each image, of four
//	1536   64   the hash of what is before it, or a signature
//
//	of an image:
//	0      2    offset, in sectors
//	2      2    size, in sectors
//	4      4    address; 0xffffffff: the ROM's own
//	24     64   hash
//
// On SPI flash only the first 2 KiB of each 4 KiB are used.
const (
	rockchipSector   = 512
	rockchipMagic    = 0x0ff0aa55
	rockchipRKNS     = "RKNS"
	rockchipV2Images = 4
	rockchipMaxBoot  = 512 << 10 // RK_MAX_BOOT_SIZE
	rockchipIDSize   = 2048
)

// RockchipIDBlock is an ID block with its images.
type RockchipIDBlock struct {
	Version int
	RC4     bool   // the images are encrypted
	SPI     bool   // spread over the pages of SPI flash
	Tag     string // of the first image: "RK33"; empty if there is none
	Size    int    // up to the end of the last image, in the file
	Hash    string // "sha256", "sha512", or empty
	HashOK  bool   // that of the header
	Images  []RockchipImage
}

// RockchipImage is an image behind an ID block.
type RockchipImage struct {
	Offset, Size int    // in the file
	Data         []byte // decrypted and gathered
	HashOK       bool
}

var errNoIDBlock = errors.New("no Rockchip ID block")

// isRockchipIDBlock knows the first bytes of version 1 by what they are encrypted.
func isRockchipIDBlock(b []byte) bool {
	return matches(b, 0, rockchipRKNS) || len(b) >= rockchipSector && binary.LittleEndian.Uint32(RockchipRC4(b[:4])) == rockchipMagic
}

// ParseRockchipIDBlock reads an ID block and its images. If its header can be read but an image is cut or has another
// hash, it is returned with the error.
func ParseRockchipIDBlock(b []byte) (*RockchipIDBlock, error) {
	switch {
	case matches(b, 0, rockchipRKNS) && len(b) < rockchipIDSize:
		return nil, fmt.Errorf("ID block: %w: the file has %d bytes", ErrTruncated, len(b))
	case matches(b, 0, rockchipRKNS):
		return parseRockchipV2(b)
	case !isRockchipIDBlock(b):
		return nil, fmt.Errorf("%w: the file begins with % x", errNoIDBlock, b[:min(8, len(b))])
	}
	h, le := RockchipRC4(b[:rockchipSector]), binary.LittleEndian
	d := &RockchipIDBlock{Version: 1, RC4: le.Uint32(h[8:]) == 0}
	start, first, both := int(le.Uint16(h[12:])), int(le.Uint16(h[506:])), int(le.Uint16(h[508:]))
	if start < rockchipIDSize/rockchipSector || first == 0 || both < first {
		return nil, fmt.Errorf("ID block: images at sector %d, of %d and in all %d sectors: expected 4 or more, and the first no larger than both", start, first, both)
	}
	at := start * rockchipSector
	d.Tag = rockchipTag(d, b, at)
	if d.Tag == "" {
		if spread := spiOffset(at); rockchipTag(d, b, spread) != "" {
			d.SPI, d.Tag = true, rockchipTag(d, b, spread)
		}
	}
	err := d.image(b, start, first, "first")
	if second := both - first; second > 0 && second*rockchipSector != rockchipMaxBoot && err == nil {
		err = d.image(b, start+first, second, "second")
	}
	return d, err
}

// rockchipTag is the tag of an image at a place; empty if there is none.
func rockchipTag(d *RockchipIDBlock, b []byte, at int) string {
	if at > len(b)-8 {
		return ""
	}
	b = b[at:][:8]
	if d.RC4 {
		b = RockchipRC4(b)
	}
	tag, _ := RockchipCode(b)
	return tag
}

// spiOffset is where something lies in an image for SPI flash.
func spiOffset(off int) int { return off&^0x7ff<<1 + off&0x7ff }

// image adds the image of so many sectors.
func (d *RockchipIDBlock) image(b []byte, at, sectors int, which string) error {
	off, size := at*rockchipSector, sectors*rockchipSector
	i := RockchipImage{Offset: off}
	if d.SPI {
		i.Offset = spiOffset(off)
		for end := off + size; off < end; {
			n := min(0x800-off&0x7ff, end-off)
			from := min(spiOffset(off), len(b))
			part := b[from:min(from+n, len(b))]
			i.Data = append(i.Data, part...)
			i.Size = from + len(part) - i.Offset
			if off += n; len(part) < n {
				break
			}
		}
	} else {
		i.Offset = min(off, len(b))
		i.Data = b[i.Offset:min(off+size, len(b))]
		i.Size = len(i.Data)
	}
	i.Offset, i.Size = min(i.Offset, len(b)), max(i.Size, 0)
	cut := len(i.Data) < size
	have := len(i.Data)
	if d.RC4 {
		i.Data = rockchipSectors(i.Data)
	}
	d.Images, d.Size = append(d.Images, i), max(d.Size, i.Offset+i.Size)
	if cut {
		return fmt.Errorf("ID block: %w: its %s image has %d bytes, of which the file has %d", ErrTruncated, which, size, have)
	}
	return nil
}

// parseRockchipV2 reads an ID block that is not encrypted.
func parseRockchipV2(b []byte) (*RockchipIDBlock, error) {
	le := binary.LittleEndian
	d := &RockchipIDBlock{Version: 2}
	hashAt, count := int(le.Uint16(b[8:]))*4, int(le.Uint16(b[10:]))
	var sum func([]byte) []byte
	switch le.Uint32(b[12:]) & 15 {
	case 0:
	case 1:
		d.Hash, sum = "sha256", func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
	case 2:
		d.Hash, sum = "sha512", func(b []byte) []byte { s := sha512.Sum512(b); return s[:] }
	default:
		return nil, fmt.Errorf("ID block: hashes of kind %d, expected 0 to 2", le.Uint32(b[12:])&15)
	}
	switch {
	case count < 1 || count > rockchipV2Images:
		return nil, fmt.Errorf("ID block: %d images, expected 1 to %d", count, rockchipV2Images)
	case hashAt > rockchipIDSize-64:
		return nil, fmt.Errorf("ID block: the hash of its header is at %#x, behind its end", hashAt)
	}
	entry := func(n int) []byte { return b[120+88*n:][:88] }
	matches := func(n int) bool {
		return bytes.Equal(sum(d.Images[n].Data), entry(n)[24:][:len(sum(nil))])
	}
	read := func() (err error) {
		d.Images, d.Size = nil, 0
		for n := 0; n < count && err == nil; n++ {
			sectors := int(le.Uint16(entry(n)[2:]))
			if sectors == 0 { // as mkimage leaves the second if there is none
				break
			}
			err = d.image(b, int(le.Uint16(entry(n))), sectors, [rockchipV2Images]string{"first", "second", "third", "fourth"}[n])
		}
		return err
	}
	err := read()
	if sum != nil && len(d.Images) > 0 && !matches(0) { // for SPI flash, or damaged
		d.SPI = true
		if spread := read(); len(d.Images) > 0 && matches(0) {
			err = spread
		} else {
			d.SPI = false
			err = read()
		}
	}
	if len(d.Images) == 0 {
		return d, fmt.Errorf("ID block: it has no images")
	}
	if sum == nil {
		return d, err
	}
	d.HashOK = bytes.Equal(sum(b[:hashAt]), b[hashAt:][:len(sum(nil))])
	if !d.HashOK && err == nil {
		err = fmt.Errorf("ID block: the %s of its header is another", d.Hash)
	}
	for n := range d.Images {
		if d.Images[n].HashOK = matches(n); !d.Images[n].HashOK && err == nil {
			err = fmt.Errorf("ID block: the %s of image %d is another", d.Hash, n+1)
		}
	}
	return d, err
}
