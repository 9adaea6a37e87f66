// Package firmwaretest builds firmware images for tests, by the offsets of the formats' documents. It shares no code
// with the parsers of package firmware.
package firmwaretest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
)

// Pattern is n bytes of no format.
func Pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*i>>3 + i)
	}
	return b
}

// Damage returns a copy with one byte changed.
func Damage(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x10
	return b
}

// put puts values one after the other.
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

// Pad appends zeros until there are n bytes.
func Pad(b []byte, n int) []byte {
	if len(b) >= n {
		return b
	}
	return append(b, make([]byte, n-len(b))...)
}

// IVT describes an image with an IVT.
type IVT struct {
	Version    byte
	Self       uint32
	Before     uint32 // from boot_data.start to the table
	Entry      uint32 // from the table
	DCD        []byte
	Plugin     uint32
	Program    []byte
	CSF        []byte // behind the program
	NoBootData bool
	Beyond     uint32 // what the boot data announce beyond the last byte
}

// Bytes lays it out as mkimage does: table, boot data, DCD, the program from entry on.
func (i IVT) Bytes() []byte {
	var dcd, csf, boot uint32
	if i.DCD != nil {
		dcd = i.Self + 44
	}
	program := int(i.Entry)
	total := program + len(i.Program)
	if i.CSF != nil {
		csf = i.Self + uint32(total)
		total += len(i.CSF)
	}
	if !i.NoBootData {
		boot = i.Self + 32
	}
	b := put(binary.LittleEndian, byte(0xd1), byte(0), byte(32), i.Version, i.Self+i.Entry, uint32(0), dcd, boot, i.Self, csf, uint32(0),
		i.Self-i.Before, i.Before+uint32(total)+i.Beyond, i.Plugin, i.DCD)
	b = append(Pad(b, program), i.Program...)
	return append(b, i.CSF...)
}

// DCD puts commands behind a header.
func DCD(cmds ...[]byte) []byte {
	body := bytes.Join(cmds, nil)
	return put(binary.BigEndian, byte(0xd2), uint16(4+len(body)), byte(0x40), body)
}

// DCDCommand is one command of 32-bit words.
func DCDCommand(tag, param byte, words ...uint32) []byte {
	b := put(binary.BigEndian, tag, uint16(4+4*len(words)), param)
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

// SomeDCD has a command of each kind.
var SomeDCD = DCD(
	DCDCommand(0xcc, 0x04, 0x020e05a8, 0x30, 0x020e05b0, 0x31),
	DCDCommand(0xcc, 0x0c, 0x020e05a8, 0xf),
	DCDCommand(0xcc, 0x1c, 0x020e05ac, 1),
	DCDCommand(0xcf, 0x14, 0x020c8000, 1<<31),
	DCDCommand(0xcf, 0x0a, 0x020c8004, 3, 5000),
	DCDCommand(0xc0, 0),
	DCDCommand(0xb2, 0x1d, 7),
	DCDCommand(0xcc, 0x01, 0x021b0000, 0x55),
)

// FlashHeader lays out an image for i.MX51 as mkimage does: header, DCD, length, the program at 0xc00.
func FlashHeader(start uint32, program []byte, entries ...[3]uint32) []byte {
	self := start + 0x400
	b := put(binary.LittleEndian, self+0xc00, uint32(0xb1), uint32(0), self+20, uint32(0), self+28, start, uint32(0xb17219e9), uint32(12*len(entries)))
	for _, e := range entries {
		b = put(binary.LittleEndian, b, e[0], e[1], e[2])
	}
	b = put(binary.LittleEndian, b, uint32(0x400+0xc00+len(program)))
	return append(Pad(b, 0xc00), program...)
}

// Container describes one container of a set.
type Container struct {
	At          int // from the set's start
	Tag         byte
	Version     byte
	Flags       uint32
	Images      []Image
	NoSignature bool
}

// Image is an image of a container.
type Image struct {
	At    int // from the set's start
	Data  []byte
	Load  uint64
	Flags uint32
	Hash  []byte // if not what the flags say
}

// Bytes is the container alone, without its images.
func (s Container) Bytes() []byte {
	var entries []byte
	for _, i := range s.Images {
		hash := i.Hash
		if hash == nil {
			switch i.Flags >> 8 & 3 {
			case 0:
				h := sha256.Sum256(i.Data)
				hash = h[:]
			case 1:
				h := sha512.Sum384(i.Data)
				hash = h[:]
			case 2:
				h := sha512.Sum512(i.Data)
				hash = h[:]
			}
		}
		entries = put(binary.LittleEndian, entries, uint32(i.At-s.At), uint32(len(i.Data)), i.Load, i.Load, i.Flags, uint32(0),
			Pad(bytes.Clone(hash), 64), make([]byte, 32))
	}
	sig := uint16(16 + len(entries))
	length := sig + 16
	if s.NoSignature {
		length, sig = sig, 0
	}
	b := put(binary.LittleEndian, s.Version, length, s.Tag, s.Flags, uint16(3), byte(4), byte(len(s.Images)), sig, uint16(0), entries)
	if !s.NoSignature {
		b = put(binary.LittleEndian, b, byte(0), uint16(16), byte(0x90), uint16(0), uint16(16), uint16(0x200), uint16(0), uint32(0))
	}
	return b
}

// ContainerSet puts containers and images at their places.
func ContainerSet(specs ...Container) []byte {
	var b []byte
	place := func(at int, data []byte) {
		b = Pad(b, at+len(data))
		copy(b[at:], data)
	}
	for _, s := range specs {
		place(s.At, s.Bytes())
		for _, i := range s.Images {
			place(i.At, i.Data)
		}
	}
	return b
}

// SomeSet is a set of two containers, with three images, then data at 0x3400 that is no part of it.
func SomeSet() []byte {
	set := ContainerSet(
		Container{Tag: 0x87, Flags: 1, Images: []Image{{0x2000, Pattern(900), 0x1ffe0000, 0x106, nil}}},
		Container{At: 0x400, Tag: 0x87, Images: []Image{{0x2400, Pattern(1024), 0x1ffe0000, 0x113, nil}, {0x2800, Pattern(2222), 0x100000, 0x243, nil}}},
	)
	return append(Pad(set, 0x3400), "what follows the set"...)
}

// StreamCommand is a command of a boot stream, and what a load carries.
type StreamCommand struct {
	Tag          byte
	Flags        uint16
	Address, Arg uint32
	Count        uint32
	Data         []byte
}

// BootStream builds a stream of one section; encrypted with a key under the device key zero, if key is not nil.
func BootStream(key []byte, cmds ...StreamCommand) []byte {
	command := func(c StreamCommand) []byte {
		b := put(binary.LittleEndian, byte(0), c.Tag, c.Flags, c.Address, c.Count, c.Arg)
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
		if c.Data != nil {
			c.Data = Pad(bytes.Clone(c.Data), (len(c.Data)+15)&^15)
			c.Arg = mpeg2(c.Data)
		}
		section = append(append(section, command(c)...), c.Data...)
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
	b = append(b, crypt(key, sum[:16], command(StreamCommand{Tag: 1, Flags: 1, Count: uint32(len(section) / 16), Arg: 1}))...)
	b = append(b, crypt(key, sum[:16], section)...)
	end := sha1.Sum(b)
	return append(b, crypt(key, sum[:16], Pad(end[:], 32))...)
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

// SomeStream is what u-boot.sb of an i.MX28 looks like.
func SomeStream(key []byte) []byte {
	return BootStream(key,
		StreamCommand{Tag: 2, Address: 0x1000, Count: 500, Data: Pattern(500)},
		StreamCommand{Tag: 2, Address: 0x8000, Count: 32, Data: Pattern(32)},
		StreamCommand{Tag: 5, Flags: 1, Address: 0x8000},
		StreamCommand{Tag: 3, Address: 0x100, Count: 0x20, Arg: 0xaa55aa55},
		StreamCommand{Tag: 2, Address: 0x40002000, Count: 3000, Data: Pattern(3000)},
		StreamCommand{Tag: 4, Address: 0x40002000, Arg: 3},
	)
}

// CSF builds a CSF: header, install key, authenticate data with blocks.
func CSF(blocks ...uint32) []byte {
	key := put(binary.BigEndian, byte(0xbe), uint16(12), byte(0), "\x03\x17\x00\x00", uint32(0x50))
	auth := put(binary.BigEndian, byte(0xca), uint16(12+4*len(blocks)), byte(0), "\x01\xc5\x00\x00", uint32(0x400))
	for _, b := range blocks {
		auth = binary.BigEndian.AppendUint32(auth, b)
	}
	body := append(key, auth...)
	return put(binary.BigEndian, byte(0xd4), uint16(4+len(body)), byte(0x40), body)
}
