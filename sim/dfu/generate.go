package dfu

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
)

// Generate makes the files that a board starts with, by the names that snag has for them ("tf-a", "fip-ddr", "fip",
// "tiboot3", "sysfw", "tispl", "u-boot", "boot", "fsbl"; "image" for a gadget), each with some size bytes of noise.
// They are as much as the stages and those who check such files look at, and start nothing.
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
			put(files["tf-a"], 72, 0x00020200)
			ddr := noise()
			files["fip-ddr"] = pack(fipImage{uuidDDR, ddr[:min(len(ddr), 30<<10)]})
		}
		return files
	case K3:
		return generateK3(m, noise)
	case RZN1:
		return map[string][]byte{"u-boot": spkg(noise())}
	}
	if m.Family == Gadget {
		return map[string][]byte{"image": noise()}
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
	if v2 {
		put(h, 104, 384) // an extension header of padding
		copy(h[128:], "ST\xff\xff")
		put(h, 132, 384)
	} else {
		put(h, 100, 1)
	}
	return append(h, payload...)
}

// UUIDs of what is in a FIP.
const (
	uuidBL31 = "\x47\xd4\x08\x6d\x4c\xfe\x98\x46\x9b\x95\x29\x50\xcb\xbd\x5a\x00"
	uuidBL33 = "\xd6\xd0\xee\xa7\xfc\xea\xd5\x4b\x97\x82\x99\x34\xf2\x34\xb6\xe4" // U-Boot
	uuidFW   = "\x58\x07\xe1\x6a\x84\x59\x47\xbe\x8e\xd5\x64\x8e\x8d\xdd\xab\x0e" // TF-A's device tree
	uuidDDR  = "\xb1\x12\x49\xbe\x92\xdd\x4b\x10\x86\x7c\x2c\x6a\x4b\x47\xa7\xfb"
)

// fip has U-Boot, and what TF-A wants beside it.
func fip(payload []byte) []byte {
	return pack(fipImage{uuidFW, make([]byte, 64)}, fipImage{uuidBL31, make([]byte, 64)}, fipImage{uuidBL33, payload})
}

type fipImage struct {
	uuid string
	data []byte
}

// pack makes a FIP: a table, of which the last entry tells the end, and what it tells of.
func pack(images ...fipImage) []byte {
	b := make([]byte, 16+40*(len(images)+1))
	put(b, 0, 0xaa640001)
	put(b, 4, 0x12345678)
	for i, img := range images {
		copy(b[16+40*i:], img.uuid)
		put(b, 32+40*i, uint32(len(b)))
		put(b, 40+40*i, uint32(len(img.data)))
		b = append(b, img.data...)
	}
	put(b, 32+40*len(images), uint32(len(b)))
	return b
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
