package dfu

import (
	"crypto/sha512"
	"encoding/binary"
	"slices"
)

// k3Builds is what the files of a K3 say of themselves: where the ROM puts the first stage (U-Boot,
// arch/arm/dts/k3-*-binman.dtsi), and which SoC is on the board.
var k3Builds = map[string]struct {
	load       uint32
	compatible string
}{
	"am62x": {0x43c00000, "ti,am625"}, "am62ax": {0x43c00000, "ti,am62a7"}, "am62dx": {0x43c00000, "ti,am62d2"},
	"am62px": {0x43c00000, "ti,am62p5"}, "am62lx": {0x70800000, "ti,am62l3"}, "am64x": {0x70000000, "ti,am642"},
	"am65x": {0x41c00000, "ti,am654"}, "j721e": {0x41c00000, "ti,j721e"}, "j7200": {0x41c00000, "ti,j7200"},
	"j721s2": {0x41c00000, "ti,j721s2"}, "j722s": {0x43c00000, "ti,j722s"}, "j784s4": {0x41c00000, "ti,j784s4"},
}

// generateK3 makes the files of a K3. On AM62L tispl is for the ROM too.
func generateK3(m Model, noise func() []byte) map[string][]byte {
	build := k3Builds[m.Name]
	board := deviceTree(func(t *tokens) { t.prop("compatible", build.compatible+"\x00") })
	files := map[string][]byte{
		"tiboot3": x509(build.load, noise()),
		"tispl":   fit(board, noise(), "atf", "spl"),
		"u-boot":  fit(board, noise(), "uboot"),
	}
	if m.Name == "am62lx" {
		files["tispl"] = x509(0x80000000, slices.Concat([]byte("U-Boot SPL 2026.10\x00\x00"), board, noise()))
	}
	if m.Split {
		files["sysfw"] = fit(nil, noise(), "sysfw.bin")
	}
	return files
}

// der is an element of DER, with lengths of up to two bytes.
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

// x509 is a file with a certificate that nobody signed, of the size of one with a key of 4096 bits. Its extensions are
// those that the ROM looks at: what to do with the file (.1) and its SHA-512 (.2). The signature is noise, too.
func x509(load uint32, payload []byte) []byte {
	integer := func(n int) []byte { // in as few bytes as hold it with its sign
		b := binary.BigEndian.AppendUint64(nil, uint64(n))
		for len(b) > 1 && b[0] == 0 && b[1] < 0x80 {
			b = b[1:]
		}
		return der(2, b)
	}
	extension := func(n byte, value ...[]byte) []byte {
		id := der(6, []byte{0x2b, 6, 1, 4, 1, 0x82, 0x26, 1, n}) // 1.3.6.1.4.1.294.1.n
		return der(0x30, id, der(4, der(0x30, value...)))
	}
	sum := sha512.Sum512(payload)
	algorithm := der(0x30, der(6, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0d}), der(5))
	key := der(0x30, der(0x30, der(6, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1}), der(5)), der(3, make([]byte, 527)))
	day := der(0x17, []byte("250101000000Z"))
	contents := der(0x30, der(0xa0, integer(2)), integer(1), algorithm, der(0x30), der(0x30, day, day), der(0x30), key,
		der(0xa3, der(0x30,
			extension(1, integer(1), integer(16), integer(0), der(4, binary.BigEndian.AppendUint32(nil, load)), integer(len(payload))),
			extension(2, der(6, []byte{0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3}), der(4, sum[:])),
		)))
	return append(der(0x30, contents, algorithm, der(3, make([]byte, 513))), payload...)
}

// tokens builds a flattened device tree.
type tokens struct{ structure, strings []byte }

func (t *tokens) cell(v int) { t.structure = binary.BigEndian.AppendUint32(t.structure, uint32(v)) }

func (t *tokens) bytes(s string) {
	t.structure = append(t.structure, s...)
	t.structure = append(t.structure, make([]byte, -len(s)&3)...)
}

func (t *tokens) node(name string, inside func()) {
	t.cell(1)
	t.bytes(name + "\x00")
	inside()
	t.cell(2)
}

func (t *tokens) prop(name, value string) {
	t.cell(3)
	t.cell(len(value))
	t.cell(len(t.strings))
	t.strings = append(t.strings, name+"\x00"...)
	t.bytes(value)
}

func deviceTree(inside func(*tokens)) []byte {
	var t tokens
	t.node("", func() { inside(&t) })
	t.cell(9)
	const at = 40 + 16 // behind header and reservations
	var h []byte
	h = binary.BigEndian.AppendUint32(h, 0xd00dfeed)
	for _, v := range []int{at + len(t.structure) + len(t.strings), at, at + len(t.structure), 40, 17, 16, 0, len(t.strings), len(t.structure)} {
		h = binary.BigEndian.AppendUint32(h, uint32(v))
	}
	return slices.Concat(h, make([]byte, 16), t.structure, t.strings)
}

// fit is a tree of images, each with its part of the payload, and the description of a board.
func fit(board, payload []byte, names ...string) []byte {
	return deviceTree(func(t *tokens) {
		t.node("images", func() {
			for i, name := range names {
				t.node(name, func() {
					t.prop("type", "firmware\x00")
					t.prop("data", string(payload[i*len(payload)/len(names):(i+1)*len(payload)/len(names)]))
				})
			}
			t.node("fdt-0", func() {
				t.prop("type", "flat_dt\x00")
				t.prop("data", string(board))
			})
		})
	})
}
