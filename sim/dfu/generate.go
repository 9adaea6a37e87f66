package dfu

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
)

// Generate makes the files that a board starts with, by the names that snag has for them ("tf-a", "fip-ddr", "fip",
// "tiboot3", "sysfw", "tispl", "u-boot", "boot", "fsbl"), each with some size bytes of noise. They are as much as the
// stages and those who check such files look at, and start nothing.
func Generate(m Model, size int, seed uint64) map[string][]byte {
	r := rand.New(rand.NewPCG(seed, 0))
	noise := func() []byte {
		b := make([]byte, size+r.IntN(64))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	switch m.Family {
	case STM32MP1, STM32MP2:
		files := map[string][]byte{"tf-a": stm32(noise(), m.Name != "stm32mp15"), "fip": fip(noise())}
		if m.Family == STM32MP2 {
			ddr := noise()
			files["fip-ddr"] = fip(ddr[:min(len(ddr), 30<<10)])
		}
		return files
	case K3:
		return generateK3(m, noise)
	case RZN1:
		return map[string][]byte{"u-boot": spkg(noise())}
	}
	fsbl, rest := noise(), noise()
	return map[string][]byte{"fsbl": zynqmp(fsbl[:min(len(fsbl), 128<<10)], nil), "boot": zynqmp(fsbl[:min(len(fsbl), 128<<10)], rest)}
}

func put(b []byte, at int, v uint32) { binary.LittleEndian.PutUint32(b[at:], v) }

func stm32(payload []byte, v2 bool) []byte {
	size, version := 256, uint32(0x00010000)
	if v2 {
		size, version = 512, 0x00020000
	}
	h := make([]byte, size)
	copy(h, "STM2")
	sum := uint32(0)
	for _, c := range payload {
		sum += uint32(c)
	}
	put(h, 68, sum)
	put(h, 72, version)
	put(h, 76, uint32(len(payload)))
	if !v2 {
		put(h, 100, 1)
	}
	return append(h, payload...)
}

// fip is a table of one entry and its end.
func fip(payload []byte) []byte {
	h := make([]byte, 16+2*40)
	put(h, 0, 0xaa640001)
	put(h, 4, 0x12345678)
	copy(h[16:], "\x47\xd4\x08\x6d\x4c\xfe\x98\x46\x9b\x95\x29\x50\xcb\xbd\x5a\x00") // TF-A's BL31
	put(h, 32, uint32(len(h)))
	put(h, 40, uint32(len(payload)))
	put(h, 72, uint32(len(h)+len(payload)))
	return append(h, payload...)
}

func spkg(payload []byte) []byte {
	h := make([]byte, 24)
	copy(h, "RZN1\x01")
	put(h, 8, uint32(len(payload)+4)<<8)
	put(h, 12, 0x20040000)
	put(h, 20, crc32.ChecksumIEEE(h[:20]))
	var b []byte
	for range 8 {
		b = append(b, h...)
	}
	b = append(b, payload...)
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(payload))
}

// zynqmp is a boot image of an FSBL, and of a second partition if there is one.
func zynqmp(fsbl, second []byte) []byte {
	align := func(b []byte) []byte { return append(b, make([]byte, -len(b)&63)...) }
	h := make([]byte, 0x1000)
	fsbl, second = align(append([]byte(nil), fsbl...)), align(append([]byte(nil), second...))
	put(h, 0x20, 0xaa995566)
	copy(h[0x24:], "XNLX")
	put(h, 0x2c, 0xfffc0000)
	put(h, 0x30, uint32(len(h)))
	put(h, 0x3c, uint32(len(fsbl)))
	put(h, 0x40, uint32(len(fsbl)))
	put(h, 0x48, ^words(h[0x20:0x48]))
	const table, images, parts = 0x8c0, 0x900, 0xa00
	put(h, 0x98, table)
	put(h, 0x9c, parts)
	n := 1
	if len(second) > 0 {
		n = 2
	}
	put(h, table, 0x01020000)
	put(h, table+4, uint32(n))
	put(h, table+8, parts/4)
	put(h, table+12, images/4)
	put(h, table+0x3c, ^words(h[table:table+0x3c]))
	at := len(h)
	for i := range n {
		size, image, part := len(fsbl), images+i*0x40, parts+i*0x40
		if i == 1 {
			size = len(second)
		}
		if i+1 < n {
			put(h, image, uint32(image+0x40)/4)
			put(h, part+0xc, uint32(part+0x40)/4)
		}
		put(h, image+4, uint32(part)/4)
		put(h, image+0xc, 1)
		copy(h[image+0x10:], []string{"lbsf", "toob"}[i]) // words of four letters, backwards
		for _, o := range []int{0, 4, 8} {
			put(h, part+o, uint32(size)/4)
		}
		put(h, part+0x20, uint32(at)/4)
		put(h, part+0x24, 0x110) // PS, A53-0
		put(h, part+0x28, 1)
		put(h, part+0x30, uint32(image)/4)
		put(h, part+0x3c, ^words(h[part:part+0x3c]))
		at += size
	}
	return append(append(h, fsbl...), second...)
}
