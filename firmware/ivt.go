package firmware

import (
	"encoding/binary"
	"fmt"
)

// Image vector table of i.MX50 to i.MX8M: i.MX 6Dual/6Quad reference manual, 8.7.1 "Image Vector Table
// and Boot Data"; U-Boot's include/imximage.h. Little-endian, but for the length.
//
//	offset size field
//	0      1    tag 0xd1
//	1      2    length 32, big-endian
//	3      1    version: 0x40, 0x41 (i.MX8M), 0x43 (some i.MX RT)
//	4      4    entry point
//	8      4    reserved
//	12     4    address of the DCD; 0 if there is none
//	16     4    address of the boot data
//	20     4    address of this table itself
//	24     4    address of the CSF; 0 if there is none
//	28     4    reserved
//
// The boot data:
//
//	offset size field
//	0      4    address that the image starts at, what stands before the table on the medium included
//	4      4    length from there
//	8      4    bit 0: a plugin; other bits: HDMI or DisplayPort firmware (i.MX8MQ)
//
// All addresses are those in the board's memory. The table's own ties them to the file.
const (
	IVTSize      = 32
	bootDataSize = 12

	maxIVTImage = 1 << 30

	tagIVT = 0xd1
	tagDCD = 0xd2
	tagCSF = 0xd4
)

// IVT is an image vector table with its boot data, both of which lie in the file.
type IVT struct {
	Offset       int  // of the table in the file
	Version      byte // 0x40 to 0x43
	Entry        uint32
	DCD          uint32 // address, 0 for none; see [IVT.DCDBytes]
	BootData     BootData
	Self         uint32 // where the table itself, and what follows it in the file, must be written
	CSF          uint32 // address, 0 for none; see [IVT.CSFBytes]
	BootDataAddr uint32

	// Skipped are the tables before this one that FindIVT found but did not take, at most 16.
	Skipped []SkippedIVT
}

// BootData is what the ROM must know to load an image from a medium.
type BootData struct {
	Start, Length uint32
	Plugin        uint32 // see [IVT.IsPlugin] and [IVT.IsHDMI]
}

// SkippedIVT is a table that starts no image.
type SkippedIVT struct {
	Offset int
	HDMI   bool   // it is that of the HDMI or DisplayPort firmware in front of an i.MX8MQ image
	Reason string // why it was not taken
}

const (
	maxSkipped = 16
	maxRefused = 1024 // first words of tables in files of other formats, before a search is given up
)

// FindIVT finds the first image at or after from that a ROM could start. It looks at every fourth byte, as
// uuu does (libuuu/sdp.cpp), and passes over the tables of the HDMI firmware, tables without boot data
// (which authenticate a second stage) and those that contradict themselves. The image behind a
// plugin is found by another call from the plugin's Offset + IVTSize. If there is none the error tells why the
// first table was refused, and is an [ErrTruncated] where it refers to bytes after the end of the file.
func FindIVT(data []byte, from int) (*IVT, error) {
	var skipped []SkippedIVT
	var refused error
	tries := 0
	for off := max(from, 0); off <= len(data)-IVTSize; off += 4 {
		if !isIVT(data[off:]) {
			continue
		}
		v, err := ParseIVT(data, off)
		switch {
		case err == nil && !v.IsHDMI():
			v.Skipped = skipped
			return v, nil
		case err == nil:
			skipped = addSkipped(skipped, SkippedIVT{off, true, "HDMI or DisplayPort firmware"})
		default:
			skipped = addSkipped(skipped, SkippedIVT{off, false, err.Error()})
			if refused == nil {
				refused = err
			}
		}
		if tries++; tries == maxRefused {
			break
		}
	}
	switch {
	case refused != nil:
		return nil, refused
	case len(skipped) > 0:
		return nil, fmt.Errorf("no IVT of an image: only that of HDMI firmware at %#x", skipped[0].Offset)
	}
	return nil, fmt.Errorf("no IVT (d1 00 20 40 or 41) in %d bytes from %#x on", max(len(data)-from, 0), from)
}

func addSkipped(s []SkippedIVT, v SkippedIVT) []SkippedIVT {
	if len(s) < maxSkipped {
		s = append(s, v)
	}
	return s
}

// isIVT tells whether a table's first word stands at the start of b.
func isIVT(b []byte) bool {
	return len(b) >= IVTSize && b[0] == tagIVT && b[1] == 0 && b[2] == IVTSize && b[3] >= 0x40 && b[3] <= 0x43
}

// ParseIVT reads the table at an offset of the file, and its boot data.
func ParseIVT(data []byte, off int) (*IVT, error) {
	if off < 0 || off > len(data) || !isIVT(data[off:]) {
		return nil, fmt.Errorf("no IVT at %#x: expected d1 00 20 40 to 43", off)
	}
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(data[off+i:]) }
	v := &IVT{
		Offset: off, Version: data[off+3], Entry: word(4), DCD: word(12), BootDataAddr: word(16), Self: word(20), CSF: word(24),
	}
	fail := func(format string, args ...any) (*IVT, error) {
		return nil, fmt.Errorf("IVT at %#x: "+format, append([]any{off}, args...)...)
	}
	switch {
	case v.Self == 0:
		return fail("it does not say its own address")
	case v.BootDataAddr == 0:
		return fail("it has no boot data: a table for authentication only")
	}
	b, err := v.bytes(data, v.BootDataAddr, bootDataSize)
	if err != nil {
		return fail("boot data: %w", err)
	}
	v.BootData = BootData{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])}
	d := v.BootData
	switch {
	case d.Start > v.Self || uint64(d.Start)+uint64(d.Length) < uint64(v.Self)+IVTSize:
		return fail("its own address %#x lies outside of the image of %#x bytes at %#x", v.Self, d.Length, d.Start)
	case d.Length > maxIVTImage || uint64(d.Start)+uint64(d.Length) > 1<<32:
		return fail("an image of %#x bytes at %#x: no such board has that much memory there", d.Length, d.Start)
	case v.Entry < d.Start || uint64(v.Entry) >= uint64(d.Start)+uint64(d.Length):
		return fail("the entry point %#x lies outside of the image of %#x bytes at %#x", v.Entry, d.Length, d.Start)
	}
	return v, nil
}

// IsPlugin tells whether the image is a program that the ROM calls, and that returns for the
// image of the next table to be loaded.
func (v *IVT) IsPlugin() bool { return v.BootData.Plugin&1 != 0 }

// IsHDMI tells whether the table is that of the HDMI or DisplayPort firmware which i.MX8MQ images
// begin with. uuu has the rule (libuuu/sdp.cpp): version 0x41, bits other than bit 0 in the plugin flag.
func (v *IVT) IsHDMI() bool { return v.Version == 0x41 && v.BootData.Plugin&^1 != 0 }

// Announced is how many bytes from Offset on belong to the image by its boot data. The file may have
// fewer: what an unsigned image leaves for a signature is counted too.
func (v *IVT) Announced() int { return int(v.BootData.Length - (v.Self - v.BootData.Start)) }

// End is the offset in the file at which the image ends by its boot data, and what follows it may begin.
func (v *IVT) End() int { return v.Offset + v.Announced() }

// Image returns the bytes to write, and the address to write them to, which is also the one to jump to:
// from the table to where the boot data says that the image ends, or to the end of the file if
// that comes first. It is an error if the entry point is not among them.
func (v *IVT) Image(data []byte) (image []byte, addr uint32, err error) {
	if v.Offset > len(data)-IVTSize {
		return nil, 0, fmt.Errorf("IVT at %#x: %w: the file has %#x bytes", v.Offset, ErrTruncated, len(data))
	}
	image = data[v.Offset:min(v.End(), len(data))]
	switch in := int64(v.Entry) - int64(v.Self); {
	case in < 0:
		return nil, 0, fmt.Errorf("IVT at %#x: the entry point %#x lies before the table at %#x, from which on the image is sent", v.Offset, v.Entry, v.Self)
	case in >= int64(len(image)):
		return nil, 0, fmt.Errorf("IVT at %#x: %w: the entry point %#x lies behind the file's last byte (%#x)", v.Offset, ErrTruncated,
			v.Entry, int64(v.Self)+int64(len(image))-1)
	}
	return image, v.Self, nil
}

// DCDBytes returns the device configuration data, header included; nil if there is none. Whether its
// commands are in order is [ParseDCD]'s to say.
func (v *IVT) DCDBytes(data []byte) ([]byte, error) {
	if v.DCD == 0 {
		return nil, nil
	}
	b, err := v.structure(data, v.DCD, tagDCD)
	if err != nil {
		return nil, fmt.Errorf("DCD: %w", err)
	}
	return b, nil
}

// CSFBytes returns the command sequence file, the commands alone without the certificates and
// signatures after them; nil if there is none.
func (v *IVT) CSFBytes(data []byte) ([]byte, error) {
	if v.CSF == 0 {
		return nil, nil
	}
	b, err := v.structure(data, v.CSF, tagCSF)
	if err != nil {
		return nil, fmt.Errorf("CSF: %w", err)
	}
	return b, nil
}

// structure returns what begins at an address with a tag, a big-endian length and a version.
func (v *IVT) structure(data []byte, addr uint32, tag byte) ([]byte, error) {
	h, err := v.bytes(data, addr, 4)
	if err != nil {
		return nil, err
	}
	if h[0] != tag || h[3]&0xf0 != 0x40 {
		return nil, fmt.Errorf("expected tag %02x and version 4x at %#x (byte %#x of the file), found % x", tag, addr, v.fileOffset(addr), h)
	}
	return v.bytes(data, addr, int(binary.BigEndian.Uint16(h[1:])))
}

// fileOffset is the place in the file of an address in memory. It may lie outside of the file.
func (v *IVT) fileOffset(addr uint32) int64 {
	return int64(v.Offset) + int64(addr) - int64(v.Self)
}

// bytes returns n bytes of the file by their address in memory.
func (v *IVT) bytes(data []byte, addr uint32, n int) ([]byte, error) {
	off := v.fileOffset(addr)
	if off < 0 {
		return nil, fmt.Errorf("address %#x lies before the file's first byte (%#x)", addr, int64(v.Self)-int64(v.Offset))
	}
	if off+int64(n) > int64(len(data)) {
		return nil, fmt.Errorf("%w: %d bytes at %#x are bytes %#x to %#x of a file of %#x", ErrTruncated, n, addr, off, off+int64(n)-1, len(data))
	}
	return data[off : off+int64(n)], nil
}
