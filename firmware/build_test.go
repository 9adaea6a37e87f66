package firmware

import (
	"encoding/binary"
	"hash/crc32"
	"os/exec"
	"testing"
)

// Builders of images for the tests, from the formats' documents; they share no code with the parsers.

// makeUImage builds a legacy image: ARM, U-Boot, firmware, not compressed.
func makeUImage(name string, load uint32, data []byte) []byte {
	h := make([]byte, 64, 64+len(data))
	copy(h, "\x27\x05\x19\x56")
	be := binary.BigEndian
	be.PutUint32(h[8:], 1700000000)
	be.PutUint32(h[12:], uint32(len(data)))
	be.PutUint32(h[16:], load)
	be.PutUint32(h[20:], load+4)
	be.PutUint32(h[24:], crc32.ChecksumIEEE(data))
	copy(h[28:], "\x11\x02\x05\x00")
	copy(h[32:], name)
	be.PutUint32(h[4:], crc32.ChecksumIEEE(h))
	return append(h, data...)
}

// tree builds a device tree token by token.
type tree struct {
	structure, strings []byte
}

func (t *tree) cell(v uint32) *tree {
	t.structure = binary.BigEndian.AppendUint32(t.structure, v)
	return t
}

func (t *tree) pad() *tree {
	for len(t.structure)%4 != 0 {
		t.structure = append(t.structure, 0)
	}
	return t
}

func (t *tree) begin(name string) *tree {
	t.cell(1)
	t.structure = append(append(t.structure, name...), 0)
	return t.pad()
}

func (t *tree) end() *tree { return t.cell(2) }

func (t *tree) prop(name string, value []byte) *tree {
	t.cell(3).cell(uint32(len(value))).cell(uint32(len(t.strings)))
	t.strings = append(append(t.strings, name...), 0)
	t.structure = append(t.structure, value...)
	return t.pad()
}

func (t *tree) text(name, value string) *tree { return t.prop(name, append([]byte(value), 0)) }

func (t *tree) num(name string, v uint32) *tree {
	return t.prop(name, binary.BigEndian.AppendUint32(nil, v))
}

// bytes puts the header, an empty reservation block, the structure and the strings together.
func (t *tree) bytes() []byte {
	t.cell(9)
	const header, reserve = 40, 16
	structure := header + reserve
	strings := structure + len(t.structure)
	b := make([]byte, structure, strings+len(t.strings))
	for i, v := range []uint{0xd00dfeed, uint(strings + len(t.strings)), uint(structure), uint(strings), header, 17, 16, 0, uint(len(t.strings)), uint(len(t.structure))} {
		binary.BigEndian.PutUint32(b[4*i:], uint32(v))
	}
	return append(append(b, t.structure...), t.strings...)
}

// makeMLO builds the headers of an MLO as mkimage does, with the GP size counting its header.
func makeMLO(load uint32, program []byte) []byte {
	b := make([]byte, 512, 520+len(program))
	le := binary.LittleEndian
	le.PutUint32(b, 0x40)
	le.PutUint32(b[4:], 0xc)
	copy(b[20:], "CHSETTINGS")
	for i := 32; i < 64; i++ {
		b[i] = 0xff
	}
	copy(b[64:], "\xc1\xc0\xc0\xc0\x00\x01")
	b = le.AppendUint32(b, uint32(len(program)+8))
	b = le.AppendUint32(b, load)
	return append(b, program...)
}

// makeSPL builds a program that looks like U-Boot's SPL: vectors for base, a banner, n bytes in all.
func makeSPL(base uint32, banner string, n int) []byte {
	b := make([]byte, n)
	le := binary.LittleEndian
	le.PutUint32(b, 0xea00000f)
	for i := 1; i < 8; i++ {
		le.PutUint32(b[4*i:], 0xe59ff014)
		le.PutUint32(b[28+4*i:], base+0x40)
	}
	copy(b[128:], banner)
	for i := 256; i < n; i++ {
		b[i] = byte(i * 7)
	}
	return b
}

// tool finds a foreign program, or skips the test.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no %s to compare with (Debian package %s)", name, pkg)
	}
	return path
}
