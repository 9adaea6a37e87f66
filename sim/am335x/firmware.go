package am335x

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
)

// Generated firmware stands in where real firmware cannot be had. It has the layout that a recovery tool
// looks at, and random bytes where the code would be: no processor could run it.

// GenerateSPL makes a raw first stage of size bytes, at least 256: the exception vectors of an ARM
// program that is linked for the ROM's download area, U-Boot's banner, and the vendor class string.
//
//	offset size  content
//	0      4     branch over the vectors (b 0x80)
//	4      28    seven times ldr pc, [pc, #20]
//	32     28    the addresses that these load, at 0x402f0400 and up
//	64     48    banner and vendor class, each ended by a NUL
func GenerateSPL(size int, seed uint64) []byte {
	b := random(max(size, 256), seed)
	le := binary.LittleEndian
	le.PutUint32(b, 0xea00001e)
	for i := range 7 {
		le.PutUint32(b[4+4*i:], 0xe59ff014)
		le.PutUint32(b[32+4*i:], 0x402f0440+uint32(4*i))
	}
	clear(b[60:112])
	copy(b[64:], "U-Boot SPL 2026.10\x00AM335x U-Boot SPL\x00")
	return b
}

// GenerateUBoot makes a u-boot.img with size bytes behind the header of a legacy uImage (U-Boot,
// include/image.h; all fields big-endian):
//
//	offset size field
//	0      4    magic 0x27051956
//	4      4    CRC-32 of the header, this field taken as 0
//	8      4    time
//	12     4    length of the data
//	16     4    load address
//	20     4    entry point
//	24     4    CRC-32 of the data
//	28     4    os 17 (U-Boot), architecture 2 (ARM), type 5 (firmware), compression 0
//	32     32   name
func GenerateUBoot(size int, seed uint64) []byte {
	data := random(size, seed)
	h := make([]byte, 64, 64+len(data))
	be := binary.BigEndian
	be.PutUint32(h, 0x27051956)
	be.PutUint32(h[12:], uint32(len(data)))
	be.PutUint32(h[16:], 0x80800000)
	be.PutUint32(h[20:], 0x80800000)
	be.PutUint32(h[24:], crc32.ChecksumIEEE(data))
	copy(h[28:], []byte{17, 2, 5, 0})
	copy(h[32:], "U-Boot 2026.10 for am335x board")
	be.PutUint32(h[4:], crc32.ChecksumIEEE(h))
	return append(h, data...)
}

func random(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
