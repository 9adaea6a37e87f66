// Package bmap reads and writes block maps: small XML files that say which blocks of a disk image hold data, with a
// checksum of each stretch of them. Whoever writes the image may leave out all other blocks.
//
// A file is the root element bmap with the attribute version, and in it:
//
//	ImageSize          bytes of the image, uncompressed
//	BlockSize          bytes of a block
//	BlocksCount        ImageSize/BlockSize, rounded up
//	MappedBlocksCount  blocks in all ranges; behind BlockMap up to version 1.2
//	ChecksumType       name of the hash; 1.4 and 2.0
//	BmapFileChecksum   hash of this file, its own digits taken for zeros; 1.4 and 2.0 (1.3: BmapFileSHA1)
//	BlockMap           Range elements: "first-last" or "n", with the attribute chksum (1.1 to 1.3: sha1)
//
// [Parse] reads versions 1.0 to 2.0 and checks everything that a reader may rely on, the file's own checksum too;
// [Map.Encode] writes 2.0. A signature covers the file, the file's ranges cover the image: [Keyring.Verify] and
// [Keyring.VerifyClearsigned] close the chain.
//
// Source: bmaptool of the Yocto Project, BmapCreate.py and BmapCopy.py, and its man page. What versions 1.4 and 2.0
// write is the same.
package bmap

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"math"
)

// MaxSize is the size of the longest file that [Parse] takes: some 300 000 ranges, with checksums.
const MaxSize = 32 << 20

// Map is what a block map says.
type Map struct {
	Version   string // "2.0"; as it was read
	ImageSize int64  // bytes, above 0
	BlockSize int64  // bytes, a power of two from 512 on
	Checksum  string // hash of the ranges: "sha256", "sha1", ...; empty if there are no checksums
	Ranges    []Range
}

// Range is a stretch of blocks that hold data.
type Range struct {
	First, Last int64  // blocks, both included
	Sum         []byte // hash of the bytes that the image has in these blocks; nil if there is none
}

// Blocks is the number of blocks of the image.
func (m *Map) Blocks() int64 { return (m.ImageSize-1)/m.BlockSize + 1 }

// Mapped is the number of bytes of the image that are in ranges.
func (m *Map) Mapped() int64 {
	var n int64
	for _, r := range m.Ranges {
		off, end := m.Extent(r)
		n += end - off
	}
	return n
}

// Extent returns the bytes of the image that are in r, from off up to end. The image's last block may be short.
func (m *Map) Extent(r Range) (off, end int64) {
	return r.First * m.BlockSize, min((r.Last+1)*m.BlockSize, m.ImageSize)
}

// check finds what makes a map useless or dangerous.
func (m *Map) check() error {
	switch {
	case m.ImageSize <= 0 || m.ImageSize > math.MaxInt64/2:
		return fmt.Errorf("an image of %d bytes", m.ImageSize)
	case m.BlockSize < 512 || m.BlockSize > 1<<30 || m.BlockSize&(m.BlockSize-1) != 0:
		return fmt.Errorf("blocks of %d bytes, expected a power of two from 512 on", m.BlockSize)
	}
	next := int64(0)
	for _, r := range m.Ranges {
		switch {
		case r.First < next || r.Last < r.First:
			return fmt.Errorf("range %d-%d is out of order: block %d is the first that may follow", r.First, r.Last, next)
		case r.Last >= m.Blocks():
			return fmt.Errorf("range %d-%d is past the end of an image of %d blocks", r.First, r.Last, m.Blocks())
		}
		next = r.Last + 1
	}
	return nil
}

// NewHash returns the hash that a ChecksumType names.
func NewHash(name string) (hash.Hash, error) {
	switch name {
	case "sha1":
		return sha1.New(), nil
	case "sha256":
		return sha256.New(), nil
	case "sha384":
		return sha512.New384(), nil
	case "sha512":
		return sha512.New(), nil
	case "":
		return nil, errors.New("no checksum type")
	}
	return nil, fmt.Errorf("unknown checksum type %.32q: sha1, sha256, sha384 and sha512 are known", name)
}
