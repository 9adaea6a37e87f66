package sama5

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
)

// presets are the memories that Microchip's RAM applets of softpack 2.17 have, by their numbers.
var presets = map[int]string{
	0: "4 x MT47H128M8", 1: "MT47H64M16", 2: "2 x MT47H128M16", 3: "2 x MT42L128M16", 4: "2 x MT41K128M16", 5: "EDF8164A3MA",
	8: "W971GG6SB", 9: "W972GG6KB", 11: "1 x MT41K128M16", 12: "W972GG6KB_16", 13: "AD220032D", 14: "AD210032D", 15: "W9712G6KB", 16: "W9751G6KB",
}

// Presets are the numbers of the memories that the chip's RAM applet has, as Microchip builds it.
func (m Model) Presets() []int {
	if m.Name == "sama5d2" {
		return []int{0, 1, 2, 3, 4, 5, 8, 9, 11, 12, 13, 14, 15, 16}
	}
	return []int{0, 1, 2, 3, 8, 9, 12}
}

// Generate makes the files that a board starts with, by the names that snag has for them: "lowlevel", "extram" and
// "u-boot", which has size bytes of noise. They are as much as the board and those who check such files look at, and
// start nothing: Microchip's applets may not be passed on.
func Generate(m Model, size int, seed uint64) map[string][]byte {
	r := rand.New(rand.NewPCG(seed, 0))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	ram := "External RAM already configured.\r\n\x00"
	for _, n := range m.Presets() {
		ram += fmt.Sprintf("Preset %d (%s)\r\n\x00", n, presets[n])
	}
	return map[string][]byte{
		CallLowlevel: applet(m, "Low-Level", noise(9000), "Clocks are already configured.\r\n\x00"),
		CallExtram:   applet(m, "External RAM", noise(11000), ram),
		StartUBoot:   GenerateUBoot(0x26f00000, noise(size)),
	}
}

func applet(m Model, name string, code []byte, texts string) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xea000021) // b entry
	b = append(b, make([]byte, 128)...)
	b = le.AppendUint32(b, m.sram+headerSize)
	b = le.AppendUint32(b, 1)
	b = append(b, code...)
	b = fmt.Appendf(b, "\r\nApplet '%s' from softpack 2.17 (v2.17).\r\n\x00%s", name, texts)
	return append(b, make([]byte, -len(b)&3)...)
}

// GenerateUBoot makes a U-Boot that is linked for an address.
func GenerateUBoot(base uint32, body []byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xea0000be) // b reset
	for range 7 {
		b = le.AppendUint32(b, 0xe59ff014) // ldr pc, [pc, #20]
	}
	for i := range uint32(7) {
		b = le.AppendUint32(b, base+0x60+0x20*i)
	}
	b = le.AppendUint32(b, 0xdeadbeef)
	return slices.Concat(b, []byte("U-Boot 2026.10 (Oct 05 2026 - 12:00:00 +0000)\x00"), body)
}
