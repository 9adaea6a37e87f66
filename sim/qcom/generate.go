package qcom

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"math/rand/v2"
)

// Images are what a board is recovered with.
type Images struct {
	XBL   []byte // an ELF file with a hash segment, as a programmer or xbl is
	UBoot []byte // the same, as U-Boot's is
	MBN   []byte // the same program as UBoot, behind an MBN header of 40 bytes
}

// Generate makes images whose programs are of a size, of noise that the seed determines.
func Generate(size int, seed uint64) Images {
	r := rand.NewChaCha8([32]byte{byte(seed), 13})
	noise := func(n int) []byte {
		b := make([]byte, n)
		r.Read(b)
		return b
	}
	program := noise(size)
	return Images{XBL: elf(0x14680000, noise(size), noise(size/3+1)), UBoot: elf(0x9fc00000, program), MBN: mbn(5, 0x9fc00000, program)}
}

// elf makes a file like those of Qualcomm's tools: the headers themselves, the hash segment (version 6, SHA-384), and
// segments at page boundaries.
func elf(load uint64, segments ...[]byte) []byte {
	const page = 4096
	n := len(segments) + 2
	headers := 64 + 56*n
	table := make([]byte, 48+sha512.Size384*n+100) // a made-up signature at the end
	le := binary.LittleEndian
	put := func(b []byte, off int, values ...any) {
		for _, v := range values {
			n, _ := binary.Encode(b[off:], le, v)
			off += n
		}
	}
	b := make([]byte, page)
	copy(b, "\x7fELF\x02\x01\x01")
	put(b, 16, uint16(2), uint16(183), uint32(1), load, uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), uint16(n))
	put(b, 64, uint32(0), uint32(7<<24), uint64(0), uint64(0), uint64(0), uint64(headers), uint64(0), uint64(0))
	put(b, 64+56, uint32(0), uint32(2<<24|1<<21), uint64(page), uint64(0), uint64(0), uint64(len(table)), uint64(len(table)), uint64(page))
	at := 2 * page
	for i, s := range segments {
		put(b, 64+56*(i+2), uint32(1), uint32(5), uint64(at), load, load, uint64(len(s)), uint64(len(s)), uint64(page))
		load += uint64(len(s)+page-1) / page * page
		at += (len(s) + page - 1) / page * page
	}
	put(table, 0, uint32(0), uint32(6), uint32(0), uint32(0), uint32(sha512.Size384*n+100), uint32(sha512.Size384*n), uint32(0), uint32(100))
	digest := func(i int, of []byte) {
		sum := sha512.Sum384(of)
		copy(table[48+i*sha512.Size384:], sum[:])
	}
	digest(0, b[:headers])
	for i, s := range segments {
		digest(i+2, s)
	}
	b = append(b, table...)
	for _, s := range segments {
		b = append(b, bytes.Repeat([]byte{0xff}, (page-len(b)%page)%page)...)
		b = append(b, s...)
	}
	return b
}

// mbn puts a header of version 3 in front of a program.
func mbn(id, load uint32, program []byte) []byte {
	size := uint32(len(program))
	b, _ := binary.Append(nil, binary.LittleEndian, []uint32{id, 3, 0, load, size, size, load + size, 0, load + size, 0})
	return append(b, program...)
}
