package firmware

import (
	"bytes"
	"encoding/binary"
)

// ARMProgram is what can be told of a bare 32-bit ARM program.
type ARMProgram struct {
	// Vectors says that it begins with the exception vectors that U-Boot and its SPL have: a branch,
	// seven loads of the program counter, and the seven addresses that they load.
	Vectors bool
	// Base is the address that the program is linked for, as the vectors tell it, rounded down to 1 KiB.
	Base uint32
	// UBoot is the banner, if there is one: "U-Boot SPL 2025.01" or "U-Boot 2025.01".
	UBoot string
}

const (
	armBranch = 0xea // top byte of an unconditional branch
	armLoadPC = 0xe59ff014
)

// ParseARM looks at a bare ARM program. It reports false for what does not begin with an
// instruction that such programs begin with: a branch, or a load from beside the program counter.
func ParseARM(b []byte) (ARMProgram, bool) {
	var p ARMProgram
	if len(b) < 64 {
		return p, false
	}
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	if w := word(0); w>>24 != armBranch && w>>16 != armLoadPC>>16 {
		return p, false
	}
	p.Vectors = true
	for i := 1; i < 8; i++ {
		p.Vectors = p.Vectors && word(i) == armLoadPC
	}
	if p.Vectors {
		p.Base = word(8) &^ 0x3ff
	}
	p.UBoot = banner(b)
	return p, true
}

// banner finds U-Boot's version string: "U-Boot", perhaps "SPL", a version that begins with the year.
func banner(b []byte) string {
	for _, name := range []string{"U-Boot SPL 20", "U-Boot 20"} {
		if i := bytes.Index(b, []byte(name)); i >= 0 {
			s := b[i:min(i+64, len(b))]
			if j := bytes.IndexAny(s, "\x00\n("); j >= 0 {
				s = s[:j]
			}
			return printable(string(bytes.TrimSpace(s)))
		}
	}
	return ""
}

// isUBootARM64 knows programs of U-Boot's by what arch/arm/cpu/armv8/start.S has behind the first branch: where it is
// linked to (8 bytes at 8), and from there on the end of the image, and beginning and end of what is cleared. A TPL has
// no other name.
func isUBootARM64(b []byte) bool {
	if len(b) < 40 {
		return false
	}
	word := func(off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
	base, end, start, stop := word(8), word(16), word(24), word(32)
	return base&0xfff == 0 && base < 1<<40 && end >= 40 && end <= uint64(len(b)) && start >= end && start <= stop && stop < 1<<40
}
