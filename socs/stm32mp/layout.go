package stm32mp

import "encoding/binary"

// flashLayout is what TF-A of STM32MP15 up to version 3 of ST's ecosystem takes before what it starts. It uses nothing
// of it, so this one names nothing but the stages. The columns are option, phase, name, type, device and offset (ST's
// wiki, "STM32CubeProgrammer flashlayout"), behind an STM32 header of version 1 (ST's wiki, "STM32 header for binary
// files"), little-endian, all else 0:
//
//	off size                  off size
//	0   4    "STM2"           72  4    version, 0x00010000
//	68  4    sum of bytes     76  4    length
//	                          100 4    flags: not signed
func flashLayout() []byte {
	const rows = "-\t0x01\tfsbl1-boot\tBinary\tnone\t0x0\n-\t0x03\tssbl-boot\tBinary\tnone\t0x0\n"
	b := append(make([]byte, 256), rows...)
	var sum uint32
	for _, c := range b[256:] {
		sum += uint32(c)
	}
	copy(b, "STM2")
	le := binary.LittleEndian
	le.PutUint32(b[68:], sum)
	le.PutUint32(b[72:], 0x00010000)
	le.PutUint32(b[76:], uint32(len(rows)))
	le.PutUint32(b[100:], 1)
	return b
}
