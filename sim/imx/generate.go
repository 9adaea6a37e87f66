package imx

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
)

// Generated images stand in where real firmware cannot be had. They have the layout that a recovery tool
// looks at, and random bytes where the code would be: no processor could run them.

// IVTImage is an image that begins with its IVT.
type IVTImage struct {
	Self    uint32 // where the IVT goes
	Before  uint32 // bytes of boot data's start before it: what a storage medium holds in front
	Version byte   // zero: 0x40
	DCD     []byte // nil: none
	Size    int    // bytes of code; at least 256
	Seed    uint64
	Flags   uint32 // boot data's third word: 1 for a plugin
	Signed  bool   // a CSF follows
}

// codeOffset is where the code begins in an image with an IVT, behind the largest DCD.
const codeOffset = 0x800

// Generate makes the image:
//
//	0      IVT, boot data at 32, DCD at 44
//	0x800  code: the entry
//	...    CSF, where the image is signed
func (i IVTImage) Generate() []byte {
	b := make([]byte, codeOffset)
	if i.Version == 0 {
		i.Version = 0x40
	}
	b = append(b, random(max(i.Size, 256), i.Seed)...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	le := binary.LittleEndian
	copy(b, []byte{0xd1, 0, ivtSize, i.Version})
	le.PutUint32(b[4:], i.Self+codeOffset)
	if i.DCD != nil {
		le.PutUint32(b[12:], i.Self+44)
		copy(b[44:], i.DCD)
	}
	le.PutUint32(b[16:], i.Self+ivtSize)
	le.PutUint32(b[20:], i.Self)
	length := len(b)
	if i.Signed {
		le.PutUint32(b[24:], i.Self+uint32(len(b)))
		length += csfSize
	}
	le.PutUint32(b[32:], i.Self-i.Before)
	le.PutUint32(b[36:], i.Before+uint32(length))
	le.PutUint32(b[40:], i.Flags)
	if i.Signed {
		sum := sha256.Sum256(b)
		b = append(append(b, 0xd4, 0, csfSize, 0x40), sum[:]...)
	}
	return b
}

// GenerateDCD makes a DCD of n writes, and, if it is not to be plain, of one command more of each kind that U-Boot's
// mkimage knows: bits set, bits cleared, a check for bits that hardware sets.
func GenerateDCD(n int, plain bool) []byte {
	be := binary.BigEndian
	b := []byte{0xd2, 0, 0, 0x40}
	write := func(param byte, pairs int, base uint32) {
		b = append(b, 0xcc, 0, 0, param)
		be.PutUint16(b[len(b)-3:], uint16(4+8*pairs))
		for i := range pairs {
			b = be.AppendUint32(b, base+uint32(4*i))
			b = be.AppendUint32(b, 0x00c0_0000+uint32(i))
		}
	}
	write(0x04, n, 0x020e_0500)
	if !plain {
		write(0x1c, 1, 0x020c_4068) // set bits
		write(0x0c, 1, 0x020c_4068) // clear bits
		b = append(b, 0xcf, 0, 12, 0x14)
		b = be.AppendUint32(b, 0x020c_8000) // no DRAM controller, whose address would tell the SoC
		b = be.AppendUint32(b, 0x0000_0002)
	}
	be.PutUint16(b[1:], uint16(len(b)))
	return b
}

// GenerateV1 makes an image with i.MX51's flash header v1 for an address, with a DCD of n writes:
//
//	0     flash header v1 (28 bytes), at 28 the barker 0xb17219e9, at 32 the length of the DCD's entries, at 36 these: width in
//	      bytes, address, value; behind them the length of the image
//	...   code, at the next multiple of 0x100
func GenerateV1(self uint32, writes, size int, seed uint64) []byte {
	le := binary.LittleEndian
	code := (40 + 12*writes + 0xff) &^ 0xff
	b := append(make([]byte, code), random(max(size, 256), seed)...)
	le.PutUint32(b, self+uint32(code))
	le.PutUint32(b[4:], 0xb1)
	le.PutUint32(b[12:], self+20)
	if writes > 0 {
		le.PutUint32(b[20:], self+28)
	}
	le.PutUint32(b[24:], self)
	le.PutUint32(b[28:], 0xb17219e9)
	le.PutUint32(b[32:], uint32(12*writes))
	for i := range writes {
		at := b[36+12*i:]
		le.PutUint32(at, 4)
		le.PutUint32(at[4:], 0x73fa_8400+uint32(4*i))
		le.PutUint32(at[8:], uint32(i))
	}
	le.PutUint32(b[36+12*writes:], uint32(len(b)))
	return b
}

// GenerateLegacy makes a legacy image of size bytes for a load address (U-Boot, include/image.h; big-endian):
//
//	0   magic, CRC-32 of the header, time          24  CRC-32 of the data
//	12  length of the data                         28  system, processor, type, compression
//	16  load address, entry                        32  name
//	64  data
func GenerateLegacy(load uint32, size int, seed uint64) []byte {
	be := binary.BigEndian
	b := append(make([]byte, 64), random(size, seed)...)
	be.PutUint32(b, legacyMagic)
	be.PutUint32(b[8:], 1700000000)
	be.PutUint32(b[12:], uint32(size))
	be.PutUint32(b[16:], load)
	be.PutUint32(b[20:], load)
	be.PutUint32(b[24:], crc32.ChecksumIEEE(b[64:]))
	copy(b[28:], []byte{17, 2, 5, 0}) // U-Boot, ARM, firmware, none
	copy(b[32:64], "U-Boot 2026.10 for a virtual board")
	be.PutUint32(b[4:], crc32.ChecksumIEEE(b[:64]))
	return b
}

// GenerateFIT makes a FIT with images of these sizes as external data, and one configuration that uses all.
func GenerateFIT(seed uint64, sizes ...int) []byte {
	var t tree
	t.node("")
	t.str("description", "U-Boot of a virtual board")
	t.num("#address-cells", 1)
	t.node("images")
	at := 0
	names := []string{"uboot", "atf", "fdt-1", "tee"}
	types := []string{"standalone", "firmware", "flat_dt", "tee"}
	for i, n := range sizes {
		t.node(names[i%4])
		t.str("type", types[i%4])
		t.str("compression", "none")
		t.num("load", 0x8020_0000+uint32(at)) // DRAM on all of them
		t.num("data-offset", uint32(at))
		t.num("data-size", uint32(n))
		t.end()
		at += (n + 3) &^ 3
	}
	t.end()
	t.node("configurations")
	t.str("default", "config-1")
	t.node("config-1")
	t.str("firmware", names[0])
	t.str("fdt", names[2])
	t.end()
	t.end()
	t.end()
	b := t.blob()
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return append(b, random(at, seed)...)
}

// tree writes a flattened device tree (Devicetree Specification 0.4, chapter 5).
type tree struct{ structure, strings []byte }

func (t *tree) word(v uint32) { t.structure = binary.BigEndian.AppendUint32(t.structure, v) }

func (t *tree) bytes(b []byte) {
	t.structure = append(t.structure, b...)
	for len(t.structure)%4 != 0 {
		t.structure = append(t.structure, 0)
	}
}

func (t *tree) node(name string) {
	t.word(1)
	t.bytes(append([]byte(name), 0))
}

func (t *tree) end() { t.word(2) }

func (t *tree) prop(name string, value []byte) {
	t.word(3)
	t.word(uint32(len(value)))
	t.word(uint32(len(t.strings)))
	t.strings = append(append(t.strings, name...), 0)
	t.bytes(value)
}

func (t *tree) str(name, value string) { t.prop(name, append([]byte(value), 0)) }

func (t *tree) num(name string, value uint32) {
	t.prop(name, binary.BigEndian.AppendUint32(nil, value))
}

func (t *tree) blob() []byte {
	t.word(9)
	const header, reserved = 40, 16
	structure := uint32(header + reserved)
	names := structure + uint32(len(t.structure))
	total := (names + uint32(len(t.strings)) + 3) &^ 3
	var b []byte
	for _, w := range []uint32{fitMagic, total, structure, names, header, 17, 16, 0, uint32(len(t.strings)), uint32(len(t.structure))} {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	b = append(b, make([]byte, reserved)...)
	b = append(append(b, t.structure...), t.strings...)
	return append(b, make([]byte, int(total)-len(b))...)
}

// ContainerImage is an image of a container.
type ContainerImage struct {
	Type byte // bits 0-3 of its flags
	Core byte // bits 4-7
	Size int
	Load uint64
}

// GenerateContainers makes a container set: a header for each list of images, in steps of 0x400 (version 0) or 0x4000
// (version 2), the images behind the last header at multiples of 0x400, and zeros to a multiple of 0x400.
func GenerateContainers(version byte, seed uint64, containers ...[]ContainerImage) []byte {
	step := 0x400
	if version == 2 {
		step = 0x4000
	}
	le := binary.LittleEndian
	b := make([]byte, len(containers)*step)
	for c, images := range containers {
		signature := containerHeader + containerEntry*len(images)
		for i, image := range images {
			at := len(b)
			data := random(image.Size, seed+uint64(16*c+i))
			b = append(b, data...)
			for len(b)%0x400 != 0 {
				b = append(b, 0)
			}
			e := b[c*step+containerHeader+containerEntry*i:]
			le.PutUint32(e, uint32(at-c*step))
			le.PutUint32(e[4:], uint32(len(data)))
			le.PutUint64(e[8:], image.Load)
			le.PutUint64(e[16:], image.Load)
			le.PutUint32(e[24:], uint32(image.Type&15)|uint32(image.Core&15)<<4)
			sum := sha256.Sum256(data)
			copy(e[32:], sum[:])
		}
		h := b[c*step:]
		h[0], h[3], h[11] = version, 0x87, byte(len(images))
		le.PutUint16(h[12:], uint16(signature))
		le.PutUint16(h[1:], uint16(signature+16))
		copy(h[signature:], []byte{0, 16, 0, 0x90}) // signature block: version, length, tag
	}
	return b
}

// GenerateSB makes a boot stream of about size bytes that is not encrypted: one section, which loads random bytes. A section header
// has number, offset and size in blocks, flags; a command checksum, tag, flags, address, count, CRC. SHA-1 ends it.
func GenerateSB(size int, seed uint64) []byte {
	const first = sbHeader/16 + 1 // block of the section
	data := random((max(size, 256)-16*first-48)&^15, seed)
	le := binary.LittleEndian
	b := make([]byte, 16*(first+1))
	copy(b[20:], "STMP\x01\x01")
	le.PutUint32(b[28:], uint32(first+1+len(data)/16+2))
	le.PutUint32(b[32:], first)
	le.PutUint16(b[44:], sbHeader/16)
	le.PutUint16(b[46:], 1)
	le.PutUint16(b[48:], 1)
	copy(b[52:], "sgtl")
	sum := sha1.Sum(b[20:sbHeader])
	copy(b, sum[:])

	section := b[sbHeader:]
	le.PutUint32(section[4:], first)
	le.PutUint32(section[8:], uint32(1+len(data)/16))
	section[12] = 1 // to boot
	load := b[16*first:]
	load[1] = 2
	le.PutUint32(load[4:], 0x4000_2000)
	le.PutUint32(load[8:], uint32(len(data)))
	le.PutUint32(load[12:], sbCRC(data))
	load[0] = 0x5a
	for _, c := range load[1:] {
		load[0] += c
	}
	b = append(b, data...)
	sum = sha1.Sum(b)
	return append(append(b, sum[:]...), make([]byte, 32-len(sum))...)
}

// sbCRC is a CRC-32 with the most significant bit first, from all ones, not inverted.
func sbCRC(b []byte) uint32 {
	crc := ^uint32(0)
	for _, c := range b {
		crc ^= uint32(c) << 24
		for range 8 {
			top := crc >> 31
			crc = crc<<1 ^ 0x04c11db7*top
		}
	}
	return crc
}

// Images are the files for a board: one for the ROM and, where SPL takes a file of its own, that one. A
// flash.bin is both.
type Images struct {
	First  []byte
	Second []byte // nil: First holds it
}

// SecondOffset is where NXP's mkimage puts the FIT of an i.MX8MQ or 8MM: uuu's scripts for SDPU know no other place.
const SecondOffset = 0x57c00

// Generate makes files for a board that is configured like that, of about size bytes in all.
func Generate(cfg Config, size int, seed uint64) (Images, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return Images{}, err
	}
	m := c.Model
	switch {
	case m.Header == "sb":
		return Images{First: GenerateSB(size, seed)}, nil
	case m.OldHeader:
		return Images{First: GenerateV1(m.DRAM+0x800000, 20, size, seed)}, nil
	case m.Header == "container":
		return Images{First: generateContainers(m, size, seed)}, nil
	case m.UID: // i.MX8M
		return Images{First: generateMX8M(m, size, seed)}, nil
	}
	// Of a bulk ROM the host carries out the DCD; imx_usb refuses to set or clear bits there.
	image := IVTImage{Self: m.DRAM + 0x7ff400, Before: 0x400, DCD: GenerateDCD(20, m.Protocol == Bulk), Size: size, Seed: seed, Signed: c.Closed}
	if c.Closed {
		image.DCD = nil // the signature covers the IVT: NXP signs images whose DCD is not pointed to
	}
	if c.SPL == SPLNone {
		return Images{First: image.Generate()}, nil
	}
	image.Self, image.DCD, image.Size = 0x0090_7400, nil, min(size/2, 48<<10)
	if m.Name == "imx7ulp" {
		image.Self = 0x2f01_0c00
	}
	two := Images{First: image.Generate()}
	switch c.SPLFinds {
	case FindNothing:
		two.Second = GenerateLegacy(m.DRAM+0x0780_0000, size, seed+1)
	default:
		two.Second = GenerateFIT(seed+1, size, 0, 20_000)
	}
	return two, nil
}

// generateMX8M makes the flash.bin of an i.MX8M: on MQ HDMI firmware first, SPL with an IVT, U-Boot as a FIT.
func generateMX8M(m Model, size int, seed uint64) []byte {
	var b []byte
	offset := SecondOffset
	if m.Protocol == SDPS {
		offset = 0x58000 // binman's place for 8MN and 8MP
	}
	if m.Name == "imx8mq" {
		// 1 KiB of zeros, then HDMI firmware, whose boot data count those zeros; imx_usb looks for SPL 4 KiB plus that
		// length into the file.
		const length = 0x9400
		b = append(make([]byte, 0x400), IVTImage{Self: 0x8400, Before: 0x400, Version: 0x41, Size: length - 0x400 - codeOffset, Seed: seed + 7, Flags: 2}.Generate()...)
		b = append(b, make([]byte, 0x1000+length-len(b))...)
	}
	b = append(b, IVTImage{Self: 0x007e_0fc0 &^ 0x3ff, Version: 0x41, Size: min(size/3, 0x28000), Seed: seed}.Generate()...)
	b = append(b, make([]byte, max(0, offset-len(b)))...)
	return append(b, GenerateFIT(seed+1, max(size-offset, 4096), 40_000, 20_000)...)
}

// generateContainers makes the flash.bin of a SoC with containers: the maker's firmware, SPL and what goes with it, and
// the container with U-Boot.
func generateContainers(m Model, size int, seed uint64) []byte {
	version := byte(0)
	if m.Name == "imx943" || m.Name == "imx952" {
		version = 2
	}
	load := uint64(0x20490000) // internal memory
	if m.Data == 1024 {        // i.MX8Q, 8DXL
		load = 0x100000
	}
	spl := []ContainerImage{{Type: 3, Core: 1, Size: 30_000, Load: 0x1ffe0000}, {Type: 3, Core: 4, Size: min(size/4, 160<<10), Load: load}}
	b := GenerateContainers(version, seed, []ContainerImage{{Type: 6, Core: 6, Size: 40_000}}, spl)
	return append(b, GenerateContainers(version, seed+100, []ContainerImage{
		{Type: 3, Core: 4, Size: 40_000, Load: 0x80000000},
		{Type: 3, Core: 4, Size: max(size-len(b), 4096), Load: 0x80020000},
	})...)
}

func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 0x1a2b))
	i := 0
	for ; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	for ; i < n; i++ {
		b[i] = byte(r.Uint32())
	}
	return b
}
