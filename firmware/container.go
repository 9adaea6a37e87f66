package firmware

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Containers of i.MX8QM, 8QXP, 8DXL, 8ULP and 9x: U-Boot's include/imx_container.h and imx8image.h; i.MX 8QM
// reference manual, "Image Container". Little-endian. The header:
//
//	offset size field
//	0      1    version: 0, or 2
//	1      2    length of header, entries and signature block
//	3      1    tag 0x87; 0x82 for the V2X container of version 2
//	4      4    flags: bits 0 to 1 whose keys signed it (0 none, 1 NXP's, 2 the owner's)
//	8      2    software version
//	10     1    fuse version
//	11     1    number of images
//	12     2    offset of the signature block; 0 if there is none
//	14     2    reserved
//
// An entry for each image:
//
//	offset size field
//	0      4    offset from the container header
//	4      4    size
//	8      8    load address
//	16     8    entry point
//	24     4    flags: bits 0 to 3 type, 4 to 7 core, from 8 on hash algorithm and "encrypted"
//	28     4    meta data
//	32     64   hash
//	96     32   initialisation vector
//
// The signature block:
//
//	offset size field
//	0      1    version
//	1      2    length
//	3      1    tag 0x90
//	4      2    offsets within the block of certificate, SRK table, signature and key blob; 0 for none
//	12     4    reserved
//
// The containers of a set follow each other at multiples of 0x400 bytes (version 2: 0x4000). The first is
// NXP's own firmware (SECO, ELE), then perhaps that of V2X, then the board's first stage. What U-Boot's SPL loads comes
// after all their images, as a container of its own or a FIT.
const (
	containerHeaderSize = 16
	containerEntrySize  = 128
	containerSigSize    = 16
	containerTag        = 0x87
	containerTagV2X     = 0x82
	containerSigTag     = 0x90
	containerMaxImages  = 32
	containerRound      = 0x400
)

// ContainerSet is what a ROM loads its first stage from.
type ContainerSet struct {
	Offset     int // in the file
	Containers []Container

	// Size is the length of the set with its images from Offset on, as the host has to send it to ROMs that
	// take the set alone. Next is where what follows the set may begin, from Offset on. They differ where the last
	// entry is a copy of the FlexSPI configuration block, which is not sent.
	Size, Next int
	// Whole says that the file has but this one container, or its second is not what a set has:
	// then Size and Next are all the rest of the file.
	Whole bool
}

// Container is one container.
type Container struct {
	Offset      int // in the file
	Version     byte
	Tag         byte
	Length      int
	Flags       uint32
	SWVersion   uint16
	FuseVersion byte
	Images      []ContainerImage
	Signature   *SignatureBlock // nil if there is none
}

// ContainerImage is one image of a container.
type ContainerImage struct {
	Offset, Size int // Offset is that in the file; whether it lies there ParseContainers says
	Load, Entry  uint64
	Flags, Meta  uint32
	Algo         string // of the hash: "sha384"
	Hash         []byte // part of the parsed slice, as long as the algorithm's; 64 bytes if that is unknown
	Encrypted    bool

	Verified   bool
	Unverified string // why it is not, if nothing is wrong: "encrypted"
}

// SignatureBlock is what can be told of a signature that nothing here can verify. The offsets are those in the block.
type SignatureBlock struct {
	Offset, Length                  int // Offset is that in the file
	Cert, SRKTable, Signature, Blob uint16
}

// SignedBy tells whose keys a container is signed with; empty if it is not signed.
func (c *Container) SignedBy() string {
	return [4]string{"", "NXP", "the owner", "unknown"}[c.Flags&3]
}

// Image types that matter to the layout of a set.
const (
	imageFCB = 0x08
	imageV2X = 0x0b
)

// Type is what the image is, as a number: bits 0 to 3 of the flags.
func (i *ContainerImage) Type() byte { return byte(i.Flags & 0xf) }

// Core is the number of the core that it is for. What it means depends on the SoC.
func (i *ContainerImage) Core() byte { return byte(i.Flags >> 4 & 0xf) }

// TypeName is the type in words: U-Boot's imx8image.h, IMG_TYPE_*.
func (i *ContainerImage) TypeName() string { return nameOf(containerTypes, i.Type()) }

var containerTypes = map[byte]string{
	0x01: "CSF", 0x02: "SCD", 0x03: "executable", 0x04: "data", 0x05: "DDR initialisation", 0x06: "SECO or ELE firmware",
	0x07: "provisioning image", 0x08: "DEK blob or FCB copy", 0x09: "provisioning data", 0x0a: "fast-boot executable",
	0x0b: "V2X primary firmware", 0x0c: "V2X secondary firmware", 0x0d: "V2X ROM patch", 0x0e: "V2X placeholder",
}

// isContainer tells whether a container header stands at the start of b.
func isContainer(b []byte) bool {
	if len(b) < containerHeaderSize || b[0] != 0 && b[0] != 2 || b[3] != containerTag && b[3] != containerTagV2X {
		return false
	}
	size, images := int(binary.LittleEndian.Uint16(b[1:])), int(b[11])
	return images <= containerMaxImages && size >= containerHeaderSize+images*containerEntrySize
}

// ParseContainers reads the set of containers at an offset of the file and verifies the images' hashes. The size of the
// set is computed as uuu does (libuuu/rominfo.cpp, GetContainerActualSize), which looks at the last image of the last
// container; U-Boot's get_container_size looks at all of them and at the signature block. For the sets that the
// vendor's tools make both are the same. The error joins everything that is wrong; what could be read is returned
// beside it, or nil if there is no container at all.
func ParseContainers(data []byte, at int) (*ContainerSet, error) {
	if at < 0 || at > len(data) || !isContainer(data[at:]) || data[at+3] != containerTag {
		return nil, fmt.Errorf("no container at %#x: expected version 0 or 2, a length and tag 87", at)
	}
	p := containerParser{data: data, budget: fitHashBudget * len(data)}
	s := &ContainerSet{Offset: at}
	spacing := 0x400
	if data[at] == 2 {
		spacing = 0x4000
	}
	last := 1 // the index of the last container of the set
	next := p.from(at + spacing)
	switch {
	case !isContainer(next) || data[at] != 2 && next[3] != containerTag:
		last = 0
	case data[at] == 2:
		if next[3] == containerTagV2X {
			last = 2
		}
	case next[11] > 0 && len(next) >= containerHeaderSize+containerEntrySize && next[containerHeaderSize+24]&0xf == imageV2X:
		last = 2
	}
	if last > 0 {
		if b := p.from(at + last*spacing); !isContainer(b) || b[3] != containerTag {
			last = 0
		}
	}
	for i := range last + 1 {
		s.Containers = append(s.Containers, p.container(at+i*spacing))
	}
	rest := len(data) - at
	s.Whole = last == 0
	s.Size, s.Next = rest, rest
	if images := s.Containers[last].Images; !s.Whole && len(images) > 0 {
		s.Next = s.end(images[len(images)-1], rest)
		s.Size = s.Next
		if n := len(images); n > 1 && images[n-1].Type() == imageFCB {
			s.Size = s.end(images[n-2], rest)
			s.Next = max(s.Next, s.Size) // the entry of a copy may point anywhere
		}
	}
	return s, errors.Join(p.errs...)
}

// end is the end of an image from the set's beginning, rounded up, and no more than the file has.
func (s *ContainerSet) end(i ContainerImage, rest int) int {
	end := int64(i.Offset) - int64(s.Offset) + int64(i.Size)
	return int(min((end+containerRound-1)&^(containerRound-1), int64(rest)))
}

type containerParser struct {
	data   []byte
	budget int // bytes that may still be hashed
	errs   []error
}

func (p *containerParser) from(off int) []byte {
	return p.data[min(off, len(p.data)):]
}

func (p *containerParser) fail(off int, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("container at %#x: "+format, append([]any{off}, args...)...))
}

// container reads one whose header was looked at.
func (p *containerParser) container(off int) Container {
	b := p.data[off:]
	le := binary.LittleEndian
	c := Container{Offset: off, Version: b[0], Tag: b[3], Length: int(le.Uint16(b[1:])), Flags: le.Uint32(b[4:]), SWVersion: le.Uint16(b[8:]), FuseVersion: b[10]}
	if c.Length > len(b) {
		p.fail(off, "%w: it has %#x bytes, the file ends after %#x", ErrTruncated, c.Length, len(b))
	}
	for i := range int(b[11]) {
		at := containerHeaderSize + i*containerEntrySize
		if at+containerEntrySize > len(b) {
			break
		}
		img := p.image(off, i, b[at:at+containerEntrySize], c.Version)
		c.Images = append(c.Images, img)
	}
	if at := int(le.Uint16(b[12:])); at != 0 {
		switch {
		case at+containerSigSize > len(b):
			p.fail(off, "%w: its signature block at %#x lies behind the end of the file", ErrTruncated, at)
		case at+containerSigSize > c.Length:
			p.fail(off, "its signature block at %#x lies outside of its %#x bytes", at, c.Length)
		case b[at+3] != containerSigTag:
			p.fail(off, "its signature block begins with % x, expected tag 90 in the fourth byte", b[at:at+4])
		default:
			sig := b[at:]
			c.Signature = &SignatureBlock{off + at, int(le.Uint16(sig[1:])), le.Uint16(sig[4:]), le.Uint16(sig[6:]), le.Uint16(sig[8:]), le.Uint16(sig[10:])}
		}
	}
	return c
}

// image reads entry i of the container at off.
func (p *containerParser) image(off, i int, e []byte, version byte) ContainerImage {
	le := binary.LittleEndian
	start, size := int64(off)+int64(le.Uint32(e)), int64(le.Uint32(e[4:]))
	img := ContainerImage{
		Offset: int(min(start, math.MaxInt32)), Size: int(min(size, math.MaxInt32)), Load: le.Uint64(e[8:]), Entry: le.Uint64(e[16:]),
		Flags: le.Uint32(e[24:]), Meta: le.Uint32(e[28:]), Hash: e[32:96],
	}
	var sum func([]byte) []byte
	img.Algo, img.Encrypted, sum = imageHash(version, img.Flags)
	if sum != nil {
		img.Hash = img.Hash[:len(sum(nil))]
	}
	if size > 0 && start+size > int64(len(p.data)) {
		p.fail(off, "image %d (%s): %w: bytes %#x to %#x of a file of %#x", i, img.TypeName(), ErrTruncated, start, start+size-1, len(p.data))
		return img
	}
	switch {
	case img.Encrypted:
		img.Unverified = "encrypted"
		return img
	case sum == nil:
		img.Unverified = "unknown hash algorithm"
		return img
	case len(bytes.Trim(img.Hash, "\x00")) == 0:
		img.Unverified = "no hash"
		return img
	}
	if p.budget -= int(size); p.budget < 0 {
		p.fail(off, "image %d: the images overlap too much to be hashed", i)
		return img
	}
	var body []byte
	if size > 0 {
		body = p.data[start : start+size]
	}
	if got := sum(body); !bytes.Equal(got, img.Hash) {
		p.fail(off, "image %d (%s): %s is %x, the container says %x", i, img.TypeName(), img.Algo, got, img.Hash)
		return img
	}
	img.Verified = true
	return img
}

// imageHash decodes the flags of an image. Version 0 has the algorithm in bits 8 and 9, and "encrypted" in bit 10 by
// U-Boot (IMG_FLAG_ENCRYPTED_MASK in imx8image.h) but in bit 11 by NXP's SPSDK (ahab_iae.py): either is taken for it,
// for a wrong guess only leaves a hash unverified. Version 2 has four bits of algorithm, and "encrypted" in bit 12
// (SPSDK).
func imageHash(version byte, flags uint32) (algo string, encrypted bool, sum func([]byte) []byte) {
	n := flags >> 8 & 3
	encrypted = flags&0xc00 != 0
	if version == 2 {
		n, encrypted = flags>>8&0xf, flags&0x1000 != 0
	}
	switch n {
	case 0:
		return "sha256", encrypted, func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
	case 1:
		return "sha384", encrypted, func(b []byte) []byte { s := sha512.Sum384(b); return s[:] }
	case 2:
		return "sha512", encrypted, func(b []byte) []byte { s := sha512.Sum512(b); return s[:] }
	case 3:
		return "sm3", encrypted, nil
	case 4:
		return "sha3-256", encrypted, func(b []byte) []byte { s := sha3.Sum256(b); return s[:] }
	case 5:
		return "sha3-384", encrypted, func(b []byte) []byte { s := sha3.Sum384(b); return s[:] }
	case 6:
		return "sha3-512", encrypted, func(b []byte) []byte { s := sha3.Sum512(b); return s[:] }
	}
	return fmt.Sprintf("number %d", n), encrypted, nil
}
