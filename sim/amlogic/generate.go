package amlogic

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
)

// Generate makes firmware for a chip, by the names of Snagboot's files: about as many bytes of U-Boot as asked for, and
// a BL2 as large as BL2s are, or no larger than that. Its contents are random, by the seed; the headers are right, and
// as in files that Amlogic's and others' programs made.
func Generate(f Family, size int, seed uint64) map[string][]byte {
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	size = max(size, 1024) &^ 15
	bl2 := min(max(size, 0x1800)&^63, 0xc000)
	switch f {
	case GX:
		var fip []byte
		for _, n := range []int{0x3e00, 0x5400, size&^511 + 512} {
			fip = append(fip, make([]byte, (0x4000-len(fip)%0x4000)%0x4000)...)
			fip = append(fip, encrypted(random, n)...)
		}
		return map[string][]byte{"bl2": generateAML(random, bl2), "u-boot": fip}
	case AXG:
		return map[string][]byte{"bl2": generateAML(random, bl2), "u-boot": generateFIP(random, 0x4000, size)}
	}
	// DDR firmware and the like stand between the table and the first image; shorter here.
	return map[string][]byte{"u-boot-fip": append(generateAML(random, 0x10000), generateFIP(random, 0x8000, size)...)}
}

func fill(random *rand.ChaCha8, n int) []byte {
	b := make([]byte, n)
	random.Read(b)
	return b
}

// generateAML makes an image of n bytes.
func generateAML(random *rand.ChaCha8, n int) []byte {
	const nonce, header, data = 16, 64, 0xff0
	b := fill(random, n)
	h := b[nonce:]
	clear(h[:data])
	copy(h, "@AML")
	total := uint32(n - nonce)
	for off, v := range map[int]uint32{4: total, 20: header, 24: 0x200, 28: 0x60, 36: 0x240, 40: 0xdb0, 44: total - 0x60, 52: data, 56: total - data} {
		binary.LittleEndian.PutUint32(h[off:], v)
	}
	copy(h[8:], []byte{header, 0, 1, 1})
	d := sha256.New()
	d.Write(h[:header])
	d.Write(h[0x60:])
	copy(h[header:], d.Sum(nil))
	return b
}

// encrypted makes a piece of a FIP, of n bytes and a block for its header.
func encrypted(random *rand.ChaCha8, n int) []byte {
	const block = 512
	b := fill(random, block+n)
	h := b[:block]
	clear(h)
	for off, v := range map[int]uint32{0: block << 16, 4: 0x10001, 16: uint32(n), 20: block, 24: uint32(n), 28: uint32(n), 248: block << 16} {
		binary.LittleEndian.PutUint32(h[off:], v)
	}
	copy(h[12:], "AMLC")
	copy(h[252:], "AMLC")
	copy(h[136:], "AES-CBC2026/01/01 00:00:00")
	d := sha256.New()
	d.Write(b[n:])
	d.Write(b[block:n])
	copy(h[32:], d.Sum(nil))
	return b
}

// generateBL3 makes a BL31 or BL33: a header as gxlimg's amlsblk.c makes it, and n bytes.
func generateBL3(random *rand.ChaCha8, n int) []byte {
	const nonce, header, start = 16, 608, 656
	b := fill(random, start+n)
	clear(b[:start])
	h := b[nonce:]
	copy(h, "@AML\x01")
	binary.LittleEndian.PutUint64(h[16:], uint64(n))
	binary.LittleEndian.PutUint64(h[24:], start)
	program := sha256.Sum256(b[start:])
	copy(h[32:], program[:])
	all := sha256.Sum256(h[:header])
	copy(h[header:], all[:])
	return b
}

// generateFIP makes a FIP behind 16 bytes, with its first image at an offset, and U-Boot of a size last.
func generateFIP(random *rand.ChaCha8, first, size int) []byte {
	images := []struct {
		uuid string
		data []byte
	}{
		{"\x97\x66\xfd\x3d\x89\xbe\xe8\x49\xae\x5d\x78\xa1\x40\x60\x82\x13", generateAML(random, 0x1570)}, // BL30
		{"\x47\xd4\x08\x6d\x4c\xfe\x98\x46\x9b\x95\x29\x50\xcb\xbd\x5a\x00", generateBL3(random, 0x2370)}, // BL31
		{"\x05\xd0\xe1\x89\x53\xdc\x13\x47\x8d\x2b\x50\x0a\x4b\x7a\x3e\x38", nil},                         // BL32
		{"\xd6\xd0\xee\xa7\xfc\xea\xd5\x4b\x97\x82\x99\x34\xf2\x34\xb6\xe4", generateBL3(random, size)},   // BL33
	}
	b := make([]byte, first)
	copy(b[16:], "\x01\x00\x64\xaa\x78\x56\x34\x12")
	for n, i := range images {
		e := b[32+40*n:]
		copy(e, i.uuid)
		binary.LittleEndian.PutUint64(e[16:], uint64(len(b)))
		binary.LittleEndian.PutUint64(e[24:], uint64(len(i.data)))
		b = append(b, i.data...)
	}
	return b
}
