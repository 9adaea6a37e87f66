package firmware

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
)

// Builders of images for i.MX, by the offsets of the documents.

// put writes what fmt/encoding calls fixed-size values one after the other.
func put(order binary.AppendByteOrder, values ...any) []byte {
	var b []byte
	for _, v := range values {
		switch v := v.(type) {
		case byte:
			b = append(b, v)
		case uint16:
			b = order.AppendUint16(b, v)
		case uint32:
			b = order.AppendUint32(b, v)
		case uint64:
			b = order.AppendUint64(b, v)
		case []byte:
			b = append(b, v...)
		case string:
			b = append(b, v...)
		}
	}
	return b
}

func pad(b []byte, n int) []byte {
	if len(b) >= n {
		return b
	}
	return append(b, make([]byte, n-len(b))...)
}

// ivtImage describes an image with an IVT.
type ivtImage struct {
	version      byte
	self         uint32
	before       uint32 // from boot_data.start to the table
	entry        uint32 // from the table
	dcd          []byte
	plugin       uint32
	program      []byte
	csf          []byte // behind the program
	noBootData   bool
	lengthBeyond uint32 // what the boot data announce beyond the last byte
}

// bytes lays it out as mkimage does: table, boot data, DCD, the program from entry on.
func (i ivtImage) bytes() []byte {
	var dcd, csf, boot uint32
	if i.dcd != nil {
		dcd = i.self + 44
	}
	program := int(i.entry)
	total := program + len(i.program)
	if i.csf != nil {
		csf = i.self + uint32(total)
		total += len(i.csf)
	}
	if !i.noBootData {
		boot = i.self + 32
	}
	b := put(binary.LittleEndian, byte(0xd1), byte(0), byte(32), i.version, i.self+i.entry, uint32(0), dcd, boot, i.self, csf, uint32(0),
		i.self-i.before, i.before+uint32(total)+i.lengthBeyond, i.plugin, i.dcd)
	b = append(pad(b, program), i.program...)
	return append(b, i.csf...)
}

// makeDCD puts commands behind a header.
func makeDCD(cmds ...[]byte) []byte {
	body := bytes.Join(cmds, nil)
	return put(binary.BigEndian, byte(0xd2), uint16(4+len(body)), byte(0x40), body)
}

// dcdCmd is one command of 32-bit words.
func dcdCmd(tag, param byte, words ...uint32) []byte {
	b := put(binary.BigEndian, tag, uint16(4+4*len(words)), param)
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

var someDCD = makeDCD(
	dcdCmd(0xcc, 0x04, 0x020e05a8, 0x30, 0x020e05b0, 0x31),
	dcdCmd(0xcc, 0x0c, 0x020e05a8, 0xf),
	dcdCmd(0xcc, 0x1c, 0x020e05ac, 1),
	dcdCmd(0xcf, 0x14, 0x020c8000, 1<<31),
	dcdCmd(0xcf, 0x0a, 0x020c8004, 3, 5000),
	dcdCmd(0xc0, 0),
	dcdCmd(0xb2, 0x1d, 7),
	dcdCmd(0xcc, 0x01, 0x021b0000, 0x55),
)

// makeFlashHeader lays out an image for i.MX51 as mkimage does: header, DCD, length, the program at 0xc00.
func makeFlashHeader(start uint32, program []byte, entries ...[3]uint32) []byte {
	self := start + 0x400
	b := put(binary.LittleEndian, self+0xc00, uint32(0xb1), uint32(0), self+20, uint32(0), self+28, start, uint32(0xb17219e9), uint32(12*len(entries)))
	for _, e := range entries {
		b = put(binary.LittleEndian, b, e[0], e[1], e[2])
	}
	b = put(binary.LittleEndian, b, uint32(0x400+0xc00+len(program)))
	return append(pad(b, 0xc00), program...)
}

// containerSpec describes one container of a set.
type containerSpec struct {
	at      int // from the set's start
	tag     byte
	version byte
	flags   uint32
	images  []imageSpec
	noSig   bool
}

type imageSpec struct {
	at    int // from the set's start
	data  []byte
	load  uint64
	flags uint32
	hash  []byte // if not what the flags say
}

func (s containerSpec) bytes() []byte {
	var entries []byte
	for _, i := range s.images {
		hash := i.hash
		if hash == nil {
			switch i.flags >> 8 & 3 {
			case 0:
				h := sha256.Sum256(i.data)
				hash = h[:]
			case 1:
				h := sha512.Sum384(i.data)
				hash = h[:]
			case 2:
				h := sha512.Sum512(i.data)
				hash = h[:]
			}
		}
		entries = put(binary.LittleEndian, entries, uint32(i.at-s.at), uint32(len(i.data)), i.load, i.load, i.flags, uint32(0),
			pad(bytes.Clone(hash), 64), make([]byte, 32))
	}
	sig := uint16(16 + len(entries))
	length := sig + 16
	if s.noSig {
		length, sig = sig, 0
	}
	b := put(binary.LittleEndian, s.version, length, s.tag, s.flags, uint16(3), byte(4), byte(len(s.images)), sig, uint16(0), entries)
	if !s.noSig {
		b = put(binary.LittleEndian, b, byte(0), uint16(16), byte(0x90), uint16(0), uint16(16), uint16(0x200), uint16(0), uint32(0))
	}
	return b
}

// makeSet puts containers and images at their places.
func makeSet(specs ...containerSpec) []byte {
	var b []byte
	place := func(at int, data []byte) {
		b = pad(b, at+len(data))
		copy(b[at:], data)
	}
	for _, s := range specs {
		place(s.at, s.bytes())
		for _, i := range s.images {
			place(i.at, i.data)
		}
	}
	return b
}

// someSet is a set of two containers, with three images, then data that is no part of it.
func someSet() []byte {
	set := makeSet(
		containerSpec{tag: 0x87, flags: 1, images: []imageSpec{{0x2000, pattern(900), 0x1ffe0000, 0x106, nil}}},
		containerSpec{at: 0x400, tag: 0x87, images: []imageSpec{{0x2400, pattern(1024), 0x1ffe0000, 0x113, nil}, {0x2800, pattern(2222), 0x100000, 0x243, nil}}},
	)
	return append(pad(set, 0x3400), makeFIT("arm64", false)...)
}

// sbCommand is a command of a boot stream, and what a load carries.
type sbCommand struct {
	tag       byte
	flags     uint16
	addr, arg uint32
	count     uint32
	data      []byte
}

// makeBootStream builds a stream of one section; encrypted with a key under the device key zero, if key is not nil.
func makeBootStream(key []byte, cmds ...sbCommand) []byte {
	command := func(c sbCommand) []byte {
		b := put(binary.LittleEndian, byte(0), c.tag, c.flags, c.addr, c.count, c.arg)
		b[0] = 0x5a
		for _, x := range b[1:] {
			b[0] += x
		}
		return b
	}
	keys := 0
	if key != nil {
		keys = 1
	}
	first := 7 + 2*keys // the tag
	var section []byte
	for _, c := range cmds {
		if c.data != nil {
			c.data = pad(bytes.Clone(c.data), (len(c.data)+15)&^15)
			c.arg = mpeg2(c.data)
		}
		section = append(append(section, command(c)...), c.data...)
	}
	blocks := first + 1 + len(section)/16 + 2
	head := put(binary.LittleEndian, "STMP", byte(1), byte(1), uint16(0), uint32(blocks), uint32(first), uint32(0), uint16(keys), uint16(7),
		uint16(6), uint16(1), uint16(1), uint16(0), "sgtl", uint64(820454400e6), "\x09\x99\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00",
		"\x00\x03\x00\x00\x00\x04\x00\x00\x00\x05\x00\x00", make([]byte, 8))
	sum := sha1.Sum(head)
	b := append(sum[:], head...)
	b = put(binary.LittleEndian, b, uint32(0), uint32(first+1), uint32(len(section)/16), uint32(1))
	crypt := func(key, iv, data []byte) []byte {
		if key == nil {
			return data
		}
		c, err := aes.NewCipher(key)
		if err != nil {
			panic(err)
		}
		data = bytes.Clone(data)
		cipher.NewCBCEncrypter(c, iv).CryptBlocks(data, data)
		return data
	}
	if key != nil {
		zero := make([]byte, 16)
		mac := crypt(zero, zero, b)
		b = append(b, mac[len(mac)-16:]...)
		b = append(b, crypt(zero, sum[:16], key)...)
	}
	b = append(b, crypt(key, sum[:16], command(sbCommand{tag: 1, flags: 1, count: uint32(len(section) / 16), arg: 1}))...)
	b = append(b, crypt(key, sum[:16], section)...)
	end := sha1.Sum(b)
	return append(b, crypt(key, sum[:16], pad(end[:], 32))...)
}

// mpeg2 is the CRC-32 that is called MPEG-2, bit by bit.
func mpeg2(b []byte) uint32 {
	crc := ^uint32(0)
	for _, c := range b {
		for i := 7; i >= 0; i-- {
			top := crc>>31 ^ uint32(c>>i&1)
			crc <<= 1
			if top == 1 {
				crc ^= 0x04c11db7
			}
		}
	}
	return crc
}

// someStream is what u-boot.sb of an i.MX28 looks like.
func someStream(key []byte) []byte {
	return makeBootStream(key,
		sbCommand{tag: 2, addr: 0x1000, count: 500, data: pattern(500)},
		sbCommand{tag: 2, addr: 0x8000, count: 32, data: pattern(32)},
		sbCommand{tag: 5, flags: 1, addr: 0x8000},
		sbCommand{tag: 3, addr: 0x100, count: 0x20, arg: 0xaa55aa55},
		sbCommand{tag: 2, addr: 0x40002000, count: 3000, data: pattern(3000)},
		sbCommand{tag: 4, addr: 0x40002000, arg: 3},
	)
}

// csfOf builds a CSF: header, install key, authenticate data with blocks.
func makeCSF(blocks ...uint32) []byte {
	key := put(binary.BigEndian, byte(0xbe), uint16(12), byte(0), "\x03\x17\x00\x00", uint32(0x50))
	auth := put(binary.BigEndian, byte(0xca), uint16(12+4*len(blocks)), byte(0), "\x01\xc5\x00\x00", uint32(0x400))
	for _, b := range blocks {
		auth = binary.BigEndian.AppendUint32(auth, b)
	}
	body := append(key, auth...)
	return put(binary.BigEndian, byte(0xd4), uint16(4+len(body)), byte(0x40), body)
}
