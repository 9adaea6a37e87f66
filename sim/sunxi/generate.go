package sunxi

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
)

// Images are files to recover a board with.
type Images struct {
	SPL, UBoot []byte // U-Boot's is a legacy image, or a FIT with TF-A for what is started in AArch64
	Combined   []byte // both, as U-Boot's build calls them u-boot-sunxi-with-spl.bin
}

// uBootOffset is where U-Boot is in a combined file with an SPL that ends before.
const uBootOffset = 0x8000

// Generate makes images with some size bytes of noise for U-Boot. They are as much as ROM, SPL and those who check such
// files look at, and start nothing.
func Generate(m Model, size int, seed uint64) Images {
	r := rand.New(rand.NewPCG(seed, 0))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	name := "sunxi-" + m.Name + "-board"
	i := Images{SPL: generateSPL(noise(24<<10), name)}
	if m.AArch64() {
		i.UBoot = generateFIT(m, name, noise(size), noise(30_001), noise(12_345))
	} else {
		i.UBoot = generateLegacy(m.dram.Addr+0x0a000000, noise(size))
		if m.core == arm926 {
			i.UBoot = generateLegacy(m.dram.Addr+0x01700000, noise(size))
		}
	}
	i.Combined = append(make([]byte, 0, uBootOffset+len(i.UBoot)), i.SPL...)
	i.Combined = append(i.Combined[:max(len(i.SPL), uBootOffset)], i.UBoot...)
	return i
}

// generateSPL makes an SPL of version 0.2, with a device tree's name. b becomes it.
func generateSPL(b []byte, name string) []byte {
	le := binary.LittleEndian
	clear(b[:egonHeader])
	le.PutUint32(b, 0xea000016) // b 0x60
	copy(b[4:], egon+fromROM)
	le.PutUint32(b[16:], uint32(len(b)))
	copy(b[20:], "SPL\x02")
	le.PutUint32(b[32:], 44)
	copy(b[44:egonHeader-1], name)
	le.PutUint32(b[12:], egonSum(b))
	return b
}

// generateLegacy makes a legacy image (U-Boot's include/image.h), big-endian.
func generateLegacy(load uint32, data []byte) []byte {
	be := binary.BigEndian
	h := make([]byte, 64)
	be.PutUint32(h, 0x27051956)
	be.PutUint32(h[12:], uint32(len(data)))
	be.PutUint32(h[16:], load)
	be.PutUint32(h[24:], crc32.ChecksumIEEE(data))
	h[28], h[29], h[30] = 17, 2, 5 // U-Boot, ARM, firmware
	copy(h[32:], "U-Boot for a virtual board")
	be.PutUint32(h[4:], crc32.ChecksumIEEE(h))
	return append(h, data...)
}

// firmwareAt is where TF-A is loaded to, and the OpenRISC core's firmware (U-Boot's arch/arm/dts/sunxi-u-boot.dtsi); 0:
// none.
func firmwareAt(m Model) (tfa, scp uint32) {
	switch m.Name {
	case "a64", "h5":
		return 0x44000, 0x50000
	case "h6":
		return 0x104000, 0x114000
	}
	return m.dram.Addr, 0
}

// generateFIT makes a FIT of TF-A, U-Boot and a device tree for a board of that name, and one for another board before
// it.
func generateFIT(m Model, name string, uboot, tfa, dtb []byte) []byte {
	at, scp := firmwareAt(m)
	var t tree
	t.begin("")
	t.text("description", "for a virtual board")
	t.number("#address-cells", 1)
	t.begin("images")
	image := func(node, os, kind string, load, entry uint32, data []byte) {
		t.begin(node)
		t.text("description", node)
		t.text("type", kind)
		t.text("arch", "arm64")
		t.text("compression", "none")
		if os != "" {
			t.text("os", os)
		}
		if load != 0 {
			t.number("load", load)
		}
		if entry != 0 {
			t.number("entry", entry)
		}
		t.property("data", data)
		t.end()
	}
	loadables := "uboot\x00"
	image("uboot", "u-boot", "standalone", m.dram.Addr+0x0a000000, 0, uboot)
	image("atf", "arm-trusted-firmware", "firmware", at, at, tfa)
	if scp != 0 {
		image("scp", "", "firmware", scp, 0, tfa[:8000])
		loadables = "scp\x00" + loadables
	}
	image("fdt-1", "", "flat_dt", 0, 0, dtb[:6000])
	image("fdt-2", "", "flat_dt", 0, 0, dtb)
	t.end()
	t.begin("configurations")
	t.text("default", "config-1")
	for i, description := range []string{"another-board", name} {
		number := string('1' + rune(i))
		t.begin("config-" + number)
		t.text("description", description)
		t.text("firmware", "atf")
		t.property("loadables", []byte(loadables))
		t.text("fdt", "fdt-"+number)
		t.end()
	}
	t.end()
	t.end()
	return t.blob()
}

// tree is a flattened device tree that is written (Devicetree Specification v0.4, chapter 5), big-endian.
type tree struct{ structure, names []byte }

func (t *tree) word(v uint32) { t.structure = binary.BigEndian.AppendUint32(t.structure, v) }

func (t *tree) pad() {
	for len(t.structure)%4 != 0 {
		t.structure = append(t.structure, 0)
	}
}

func (t *tree) begin(name string) {
	t.word(1)
	t.structure = append(t.structure, name+"\x00"...)
	t.pad()
}

func (t *tree) end() { t.word(2) }

func (t *tree) property(name string, value []byte) {
	t.word(3)
	t.word(uint32(len(value)))
	t.word(uint32(len(t.names)))
	t.names = append(t.names, name+"\x00"...)
	t.structure = append(t.structure, value...)
	t.pad()
}

func (t *tree) text(name, value string) { t.property(name, []byte(value+"\x00")) }

func (t *tree) number(name string, value uint32) {
	t.property(name, binary.BigEndian.AppendUint32(nil, value))
}

func (t *tree) blob() []byte {
	t.word(9)
	const header, reserved = 40, 16
	structure := uint32(header + reserved)
	names := structure + uint32(len(t.structure))
	var b []byte
	for _, v := range []uint32{0xd00dfeed, names + uint32(len(t.names)), structure, names, header, 17, 16, 0, uint32(len(t.names)), uint32(len(t.structure))} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	b = append(b, make([]byte, reserved)...)
	return append(append(b, t.structure...), t.names...)
}
