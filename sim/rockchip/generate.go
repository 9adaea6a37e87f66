package rockchip

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode/utf16"
)

// Images are what a board can be sent: a loader container with a USB plug, or two files in its place, which are not
// encrypted, as U-Boot's build makes them; and what is written to media, an ID block with both.
type Images struct {
	Loader           []byte
	Code471, Code472 []byte
	IDBlock          []byte
	Plug             []byte // that is in the container, not encrypted
}

// Generate makes files of about so many bytes each for 471 and 472.
func Generate(m Model, for471, for472 int, seed uint64) Images {
	init, spl, plug := program(m, for471, seed), uboot(m, for472, seed+1), program(m, for472, seed+2)
	copy(plug[4:], "\x00\x00\x00\x00RSAK\xf8\x01\x00\x00")
	l := Loader{Chip: m.Chip, Code471: []Entry{{Name: strings.ToLower(m.Chip) + "_ddr_800MHz_v1.00.bin", Data: init, Delay: 1}}}
	if !m.final471() {
		l.Code472 = []Entry{{Name: strings.ToLower(m.Chip) + "_usbplug_v1.00.bin", Data: plug}}
	}
	l.Flash = []Entry{{Name: "FlashData", Data: init}, {Name: "FlashBoot", Data: spl}}
	if !m.RC4 {
		l.Plain, l.New = true, true
		l.Flash = append(l.Flash, Entry{Name: "FlashHead", Data: make([]byte, 2048)})
	}
	id := IDBlock(m, init, spl)
	return Images{Loader: l.Bytes(), Code471: init, Code472: spl, IDBlock: id, Plug: plug}
}

// program is one that begins with the ROM's tag, or a branch. No two have the same bytes.
func program(m Model, size int, seed uint64) []byte {
	b := make([]byte, max(size, 64))
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(len(m.Name))}).Read(b)
	if copy(b, branch(m)); m.Tag != "" {
		copy(b, m.Tag)
	}
	copy(b[16:], m.Name)
	return b
}

// branch is one over U-Boot's or Rockchip's header.
func branch(m Model) []byte {
	if m.ARM64 {
		return []byte{0x82, 0, 0, 0x14}
	}
	return []byte{0x81, 0, 0, 0xea}
}

// uboot is what U-Boot's build makes for 472: SPL, and at a multiple of 64 bytes a FIT with the rest.
func uboot(m Model, size int, seed uint64) []byte {
	b := program(m, max(size/2, 1024), seed)
	copy(b, branch(m))
	clear(b[4:16]) // where U-Boot of 64 bits says where it is linked to
	copy(b[512:], "U-Boot SPL 2026.07 (made up)\x00")
	for len(b)%64 != 0 {
		b = append(b, 0)
	}
	return append(b, fit(program(m, max(size-len(b)-300, 64), seed+1))...)
}

// fit is a FIT with one image.
func fit(data []byte) []byte {
	be := binary.BigEndian
	var names, body []byte
	prop := func(name string, value []byte) {
		body = be.AppendUint32(body, 3)
		body = be.AppendUint32(body, uint32(len(value)))
		body = be.AppendUint32(body, uint32(len(names)))
		names = append(append(names, name...), 0)
		body = append(body, value...)
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
	}
	begin := func(name string) {
		body = append(append(be.AppendUint32(body, 1), name...), 0)
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
	}
	end := func(n int) {
		for range n {
			body = be.AppendUint32(body, 2)
		}
	}
	text := func(name, s string) { prop(name, append([]byte(s), 0)) }
	begin("")
	text("description", "U-Boot for a virtual board")
	prop("#address-cells", be.AppendUint32(nil, 1))
	begin("images")
	begin("u-boot")
	for _, p := range [][2]string{{"description", "U-Boot"}, {"type", "standalone"}, {"os", "u-boot"}, {"arch", "arm64"}, {"compression", "none"}} {
		text(p[0], p[1])
	}
	prop("load", be.AppendUint32(nil, 0x00800000))
	prop("data", data)
	begin("hash")
	text("algo", "sha256")
	sum := sha256.Sum256(data)
	prop("value", sum[:])
	end(3)
	begin("configurations")
	text("default", "conf-1")
	begin("conf-1")
	text("description", "virtual")
	text("firmware", "u-boot")
	end(3)
	body = be.AppendUint32(body, 9)
	head := 40 + 16
	b := be.AppendUint32(nil, 0xd00dfeed)
	for _, v := range []int{head + len(body) + len(names), head, head + len(body), 40, 17, 16, 0, len(names), len(body)} {
		b = be.AppendUint32(b, uint32(v))
	}
	b = append(b, make([]byte, 16)...)
	return append(append(b, body...), names...)
}

// Loader is a loader container.
type Loader struct {
	Chip   string // as rkbin's recipes name it
	New    bool   // "LDR ", else "BOOT"
	Plain  bool   // nothing is encrypted
	Signed bool

	Code471, Code472, Flash []Entry
}

// Entry is an image in it, which the packer pads to 2048 bytes.
type Entry struct {
	Name  string
	Data  []byte
	Delay int // ms
	// Bare leaves Data as it is: neither padded nor encrypted.
	Bare bool
}

// chipCodes are the chips with numbers.
var chipCodes = map[string]uint32{
	"RK27": 0x10, "RKCAYMAN": 0x11, "RK28": 0x20, "RK281X": 0x21, "RKPANDA": 0x22, "RKNANO": 0x30, "RKSMART": 0x31, "RKCROWN": 0x40, "RK29": 0x50,
	"RK292X": 0x51, "RK30": 0x60, "RK30B": 0x61, "RK31": 0x70, "RK32": 0x80,
}

// Bytes packs the container.
func (l Loader) Bytes() []byte {
	code, ok := chipCodes[l.Chip]
	if !ok {
		code = binary.BigEndian.Uint32([]byte(fmt.Sprintf("%-4s", l.Chip[2:])[:4]))
	}
	le := binary.LittleEndian
	tag, signed, plain := "BOOT", byte(0), byte(0)
	if l.New {
		tag = "LDR "
	}
	if l.Signed {
		signed = 'S'
	}
	if l.Plain {
		plain = 1
	}
	const head, entry = 102, 57
	b := le.AppendUint16([]byte(tag), head)
	b = append(le.AppendUint32(b, 0x0125), 0, 0, 3, 1) // version 1.25
	b = append(le.AppendUint16(b, 2026), 11, 22, 20, 15, 0)
	b = le.AppendUint32(b, code)
	at := uint32(head)
	kinds := []struct {
		kind uint32
		list []Entry
	}{{1, l.Code471}, {2, l.Code472}, {4, l.Flash}}
	for _, k := range kinds {
		b = append(le.AppendUint32(append(b, byte(len(k.list))), at), entry)
		at += uint32(len(k.list) * entry)
	}
	b = append(b, signed, plain)
	b = append(b, make([]byte, head-len(b))...)
	var data []byte
	for _, k := range kinds {
		for _, e := range k.list {
			d := slices.Clone(e.Data)
			if !e.Bare {
				d = append(d, make([]byte, -len(d)&2047)...)
				switch {
				case l.Plain:
				case k.kind == 4:
					d = sectors(d)
				default:
					d = rc4(d)
				}
			}
			b = le.AppendUint32(append(b, entry), k.kind)
			name := make([]byte, 40)
			for i, u := range utf16.Encode([]rune(e.Name)) {
				if i == 19 { // the packer cuts
					break
				}
				le.PutUint16(name[2*i:], u)
			}
			b = append(b, name...)
			b = le.AppendUint32(b, at+uint32(len(data)))
			b = le.AppendUint32(b, uint32(len(d)))
			b = le.AppendUint32(b, uint32(e.Delay))
			data = append(data, d...)
		}
	}
	b = append(b, data...)
	return le.AppendUint32(b, crc32(b))
}

// crc32 is the container's.
func crc32(b []byte) (c uint32) {
	for _, x := range b {
		c ^= uint32(x) << 24
		for range 8 {
			top := c >> 31
			c = c<<1 ^ top*0x04c10db7
		}
	}
	return c
}

// sectors is rc4 anew for each 512 bytes.
func sectors(b []byte) (out []byte) {
	for s := range slices.Chunk(b, 512) {
		out = append(out, rc4(s)...)
	}
	return out
}

// IDBlock is what a ROM of the model loads from media, with the two images, as mkimage makes it. The second may be nil.
func IDBlock(m Model, init, boot []byte) []byte {
	le := binary.LittleEndian
	pad := func(b []byte) []byte { return append(slices.Clone(b), make([]byte, -len(b)&2047)...) }
	init, boot = pad(init), pad(boot)
	h := make([]byte, 2048)
	if !m.RC4 {
		copy(h, "RKNS")
		le.PutUint16(h[8:], 384)
		le.PutUint16(h[10:], 2)
		le.PutUint32(h[12:], 1)
		at := 4
		for n, d := range [][]byte{init, boot} {
			e := h[120+88*n:]
			le.PutUint16(e, uint16(at))
			le.PutUint16(e[2:], uint16(len(d)/512))
			le.PutUint32(e[4:], 0xffffffff)
			le.PutUint32(e[12:], uint32(n+1))
			sum := sha256.Sum256(d)
			copy(e[24:], sum[:])
			at += len(d) / 512
		}
		sum := sha256.Sum256(h[:1536])
		copy(h[1536:], sum[:])
		return slices.Concat(h, init, boot)
	}
	le.PutUint32(h, 0x0ff0aa55)
	le.PutUint32(h[8:], 1)
	le.PutUint16(h[12:], 4)
	le.PutUint16(h[506:], uint16(len(init)/512))
	both := len(init) + len(boot)
	if len(boot) == 0 {
		both = len(init) + 512<<10
	}
	le.PutUint16(h[508:], uint16(both/512))
	copy(h, rc4(h[:512]))
	if m.Tag != "" {
		copy(init, m.Tag)
	}
	return slices.Concat(h, init, boot)
}
