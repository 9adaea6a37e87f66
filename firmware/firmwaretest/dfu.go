package firmwaretest

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"slices"
	"strings"
)

var le = binary.LittleEndian

// STM32 describes an image with an STM32 header.
type STM32 struct {
	Version     [2]byte // major, minor
	Type        byte
	Load, Entry uint32
	Payload     []byte
}

// Bytes builds it: 256 bytes of header in version 1, 512 in version 2, which has one extension header of padding.
func (s STM32) Bytes() []byte {
	var sum uint32
	for _, c := range s.Payload {
		sum += uint32(c)
	}
	b := Pad([]byte("STM2"), 68)
	b = append(b, put(le, sum, byte(0), s.Version[1], s.Version[0], byte(0), uint32(len(s.Payload)), s.Entry, uint32(0), s.Load, uint32(0), uint32(0))...)
	if s.Version[0] == 1 {
		b = append(b, put(le, uint32(1), uint32(1))...)
		b = append(Pad(b, 255), s.Type)
	} else {
		b = append(b, put(le, uint32(1<<31), uint32(384), uint32(s.Type))...)
		b = append(Pad(b, 128), put(le, "ST\xff\xff", uint32(384))...)
		b = Pad(b, 512)
	}
	return append(b, s.Payload...)
}

// FIPImage is an image of a package.
type FIPImage struct {
	UUID string // in hexadecimal, with or without dashes
	Data []byte
}

// The UUIDs of some images: U-Boot, its device tree, TF-A's BL31 and STM32MP2's DDR firmware.
const (
	UUIDBL33 = "d6d0eea7fcead54b97829934f234b6e4"
	UUIDHW   = "08b8f1d9c9cf9349a9626fbc6b7265cc"
	UUIDBL31 = "47d4086d4cfe98469b952950cbbd5a00"
	UUIDDDR  = "b11249be92dd4b10867c2c6a4b47a7fb"
)

// FIP builds a package.
func FIP(images ...FIPImage) []byte {
	b := put(le, uint32(0xaa640001), uint32(0x12345678), uint64(0))
	at := uint64(16 + 40*(len(images)+1))
	for _, i := range images {
		id, err := hex.DecodeString(strings.ReplaceAll(i.UUID, "-", ""))
		if err != nil || len(id) != 16 {
			panic("no UUID: " + i.UUID)
		}
		b = append(b, put(le, id, at, uint64(len(i.Data)), uint64(0))...)
		at += uint64(len(i.Data))
	}
	b = append(b, put(le, make([]byte, 16), at, uint64(0), uint64(0))...)
	for _, i := range images {
		b = append(b, i.Data...)
	}
	return b
}

// SPKG describes an image for RZ/N1.
type SPKG struct {
	Load, Offset uint32
	BLp          bool // put an empty security header in front
	Padding      int  // to a multiple of which the file is made
	Program      []byte
}

// Bytes builds it.
func (s SPKG) Bytes() []byte {
	body := s.Program
	if s.BLp {
		body = append(bytes.Repeat([]byte{0x88}, 264), body...)
	}
	for s.Padding > 0 && (192+len(body)+4)%s.Padding != 0 {
		body = append(slices.Clip(body), 0xff)
	}
	h := put(le, "RZN1", byte(1), byte(0x22), byte(5), byte(52), uint32(len(body)+4)<<8, s.Load, s.Offset)
	h = append(h, put(le, crc32.ChecksumIEEE(h))...)
	b := bytes.Repeat(h, 8)
	b = append(b, body...)
	return append(b, put(le, crc32.ChecksumIEEE(body))...)
}

// ZynqMP describes a boot image as Xilinx's bootgen lays it out: boot header, image header table, image headers,
// partition headers, data. The first partition of the first image is FSBL's.
type ZynqMP struct {
	PMUFW  []byte // that the ROM is to load
	Images []ZynqMPImage
}

// ZynqMPImage is a named group of partitions.
type ZynqMPImage struct {
	Name       string
	Partitions []ZynqMPPartition
}

// ZynqMPPartition is one of them.
type ZynqMPPartition struct {
	Data       []byte
	Load       uint64
	Attributes uint32 // 0x116: A53-0, EL3, PS; 0x8xx: PMU
}

// Bytes builds it.
func (z ZynqMP) Bytes() []byte {
	const table, images, partitions, data = 0x8c0, 0x900, 0xc80, 0x2800
	b := make([]byte, data)
	word := func(at int, values ...uint32) {
		for i, v := range values {
			le.PutUint32(b[at+4*i:], v)
		}
	}
	sum := func(from, to int) uint32 {
		var s uint32
		for ; from < to; from += 4 {
			s += le.Uint32(b[from:])
		}
		return 0xffffffff - s
	}
	for i := range 8 {
		word(4*i, 0xeafffffe)
	}
	fsbl := z.Images[0].Partitions[0]
	pmu, length := uint32(len(z.PMUFW)+3)&^3, uint32(len(fsbl.Data)+3)&^3
	word(0x20, 0xaa995566, 0x584c4e58, 0, uint32(fsbl.Load), data, pmu, pmu, length, length, 0x800)
	word(0x48, sum(0x20, 0x48))
	word(0x98, table, partitions)
	for i := range 256 {
		word(0xb8+8*i, 0xffffffff, 0)
	}

	n := 0 // partitions
	at := images
	b = append(b, Pad(z.PMUFW, int(pmu))...)
	for i, img := range z.Images {
		name := Pad([]byte(img.Name), (len(img.Name)+3)/4*4+4)
		next := at + (16+len(name)+63)/64*64
		word(at, uint32(next/4), uint32(partitions+64*n)/4, 0, uint32(len(img.Partitions)))
		if i == len(z.Images)-1 {
			word(at, 0)
		}
		for j := 0; j < len(name); j += 4 {
			copy(b[at+16+j:], []byte{name[j+3], name[j+2], name[j+1], name[j]})
		}
		for j, p := range img.Partitions {
			h := partitions + 64*n
			start, size := uint32(len(b)), uint32(len(p.Data)+3)&^3
			if n == 0 {
				start, size = data, pmu+size
			}
			word(h, size/4, size/4, size/4, uint32(h+64)/4, uint32(p.Load), uint32(p.Load>>32), uint32(p.Load), uint32(p.Load>>32),
				start/4, p.Attributes, 1, 0, uint32(at)/4, 0, 0)
			if i == len(z.Images)-1 && j == len(img.Partitions)-1 {
				word(h+12, 0)
			}
			word(h+60, sum(h, h+60))
			b = append(b, Pad(slices.Clip(p.Data), (len(p.Data)+3)&^3)...)
			b = Pad(b, (len(b)+63)&^63)
			n++
		}
		at = next
	}
	word(table, 0x01020000, uint32(n), partitions/4, images/4, 0, 0)
	word(table+60, sum(table, table+60))
	return b
}

// SomeBoot is a whole boot image: FSBL, the PMU's firmware on its own, TF-A, U-Boot in two partitions.
func SomeBoot() []byte {
	return ZynqMP{Images: []ZynqMPImage{
		{"fsbl.elf", []ZynqMPPartition{{Pattern(3000), 0xfffc0000, 0x116}}},
		{"pmufw.elf", []ZynqMPPartition{{Pattern(1200), 0xffdc0000, 0x830}}},
		{"bl31.elf", []ZynqMPPartition{{Pattern(2000), 0xfffea000, 0x117}}},
		{"u-boot.elf", []ZynqMPPartition{{Pattern(5000), 0x8000000, 0x114}, {Pattern(400), 0x100000, 0x114}}},
	}}.Bytes()
}

// SomeBootMerged is one whose PMU firmware the ROM loads.
func SomeBootMerged() []byte {
	return ZynqMP{PMUFW: Pattern(1100), Images: []ZynqMPImage{
		{"zynqmp_fsbl.elf", []ZynqMPPartition{{Pattern(3000), 0xfffc0000, 0x116}}},
		{"u-boot.elf", []ZynqMPPartition{{Pattern(5000), 0x8000000, 0x114}}},
	}}.Bytes()
}

// der builds an element of X.690's distinguished encoding.
func der(tag byte, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	switch n := len(body); {
	case n < 0x80:
		return append([]byte{tag, byte(n)}, body...)
	case n < 0x100:
		return append([]byte{tag, 0x81, byte(n)}, body...)
	default:
		return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, body...)
	}
}

func derInt(v uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, v)
	for len(b) > 1 && b[0] == 0 && b[1] < 0x80 {
		b = b[1:]
	}
	return der(2, b)
}

func derAddress(v uint32) []byte { return der(4, binary.BigEndian.AppendUint32(nil, v)) }

func derDigest(data []byte) []byte {
	sum := sha512.Sum512(data)
	return append(der(6, []byte("\x60\x86\x48\x01\x65\x03\x04\x02\x03")), der(4, sum[:])...)
}

// TIExtension builds an extension below TI's arc.
func TIExtension(id byte, value ...[]byte) []byte {
	return der(0x30, der(6, []byte("\x2b\x06\x01\x04\x01\x82\x26\x01"), []byte{id}), der(4, der(0x30, value...)))
}

// TICertificate builds a certificate with these extensions; nobody signed it.
func TICertificate(extensions ...[]byte) []byte {
	rsa := der(0x30, der(6, []byte("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d")), der(5))
	name := der(0x30, der(0x31, der(0x30, der(6, []byte("\x55\x04\x03")), der(12, []byte("a test")))))
	day := der(0x17, []byte("250101000000Z"))
	key := der(0x30, der(0x30, der(6, []byte("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01")), der(5)), der(3, make([]byte, 271)))
	basic := der(0x30, der(6, []byte("\x55\x1d\x13")), der(4, der(0x30, der(1, []byte{0xff}))))
	body := der(0x30, der(0xa0, derInt(2)), derInt(1), rsa, name, der(0x30, day, day), name, key,
		der(0xa3, der(0x30, append([][]byte{basic}, extensions...)...)))
	return der(0x30, body, rsa, der(3, make([]byte, 513)))
}

// TIBoot builds a tiboot3.bin that has a boot loader alone.
func TIBoot(load uint32, program []byte) []byte {
	return append(TICertificate(
		TIExtension(1, derInt(1), derInt(16), derInt(0), derAddress(load), derInt(uint32(len(program)))),
		TIExtension(2, derDigest(program)),
		TIExtension(3, derInt(1)),
		TIExtension(8, der(4, make([]byte, 32)), derInt(4), derInt(0), derInt(0)),
	), program...)
}

// TIComponent is one of a combined image.
type TIComponent struct {
	Type, Core, Load uint32
	Data             []byte
}

// TICombined builds a tiboot3.bin with several components.
func TICombined(components ...TIComponent) []byte {
	var all []byte
	list := [][]byte{nil, derInt(uint32(len(components)))}
	for _, c := range components {
		list = append(list, der(0x30, derInt(c.Type), derInt(c.Core), derInt(0), derAddress(c.Load), derInt(uint32(len(c.Data))), derDigest(c.Data)))
		all = append(all, c.Data...)
	}
	list[0] = derInt(uint32(len(all)))
	return append(TICertificate(TIExtension(3, derInt(2)), TIExtension(9, list...)), all...)
}

// SomeTiboot3 is a combined image of boot loader, system firmware and the data of both.
func SomeTiboot3() []byte {
	return TICombined(TIComponent{1, 16, 0x43c00000, Pattern(3000)}, TIComponent{2, 0, 0x40000, Pattern(2000)},
		TIComponent{18, 0, 0x67000, Pattern(300)}, TIComponent{17, 16, 0x43c7a800, Pattern(200)})
}

// TISigned builds an image signed for the system firmware.
func TISigned(data []byte) []byte {
	return append(TICertificate(TIExtension(3, derInt(1)), TIExtension(34, derDigest(data), derInt(uint32(len(data)))),
		TIExtension(35, derAddress(0), derInt(2))), data...)
}

// ELF64 builds an executable for 64-bit ARM of one segment.
func ELF64(load uint64, program []byte) []byte {
	b := put(le, "\x7fELF\x02\x01\x01", make([]byte, 9), uint16(2), uint16(183), uint32(1), load, uint64(64), uint64(0), uint32(0),
		uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0))
	b = append(b, put(le, uint32(1), uint32(5), uint64(120), load, load, uint64(len(program)), uint64(len(program)+64), uint64(8))...)
	return append(b, program...)
}

// ELF32 builds a big-endian executable for MIPS of one segment.
func ELF32(load uint32, program []byte) []byte {
	be := binary.BigEndian
	b := put(be, "\x7fELF\x01\x02\x01", make([]byte, 9), uint16(2), uint16(8), uint32(1), load, uint32(52), uint32(0), uint32(0),
		uint16(52), uint16(32), uint16(1), uint16(0), uint16(0), uint16(0))
	b = append(b, put(be, uint32(1), uint32(84), load, load, uint32(len(program)), uint32(len(program)+64), uint32(7), uint32(4))...)
	return append(b, program...)
}
