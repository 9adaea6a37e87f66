package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// Legacy U-Boot image header: include/image.h of U-Boot, struct legacy_img_hdr. Big-endian.
//
//	offset size field
//	0      4    magic 0x27051956
//	4      4    CRC-32 of this header with these four bytes zero
//	8      4    time of creation, seconds since 1970
//	12     4    size of the data after the header
//	16     4    load address
//	20     4    entry point
//	24     4    CRC-32 of the data
//	28     1    operating system
//	29     1    architecture
//	30     1    image type
//	31     1    compression
//	32     32   name, padded with NUL
const (
	uImageMagic      = 0x27051956
	uImageHeaderSize = 64
)

// UImage is a legacy U-Boot image.
type UImage struct {
	Name        string
	Time        time.Time
	Load, Entry uint32

	OS, Arch, Type, Compression string // as mkimage names them: "u-boot", "arm", "firmware", "none"

	Data     []byte // what the header describes; part of the parsed slice
	Trailing int    // bytes after it
}

// ParseUImage reads a legacy image, and verifies its checksums. The error says which of its promises the file breaks;
// an [ErrTruncated] in it means that bytes are missing at the end. If it is the data alone that is
// wrong, what the header says is returned beside the error.
func ParseUImage(b []byte) (*UImage, error) {
	if len(b) < 4 || binary.BigEndian.Uint32(b) != uImageMagic {
		return nil, errors.New("no legacy uImage: it does not begin with 27 05 19 56")
	}
	if len(b) < uImageHeaderSize {
		return nil, fmt.Errorf("uImage: %w: %d bytes, the header alone has %d", ErrTruncated, len(b), uImageHeaderSize)
	}
	h := b[:uImageHeaderSize]
	want := binary.BigEndian.Uint32(h[4:])
	got := crc32.ChecksumIEEE(h[:4])
	got = crc32.Update(got, crc32.IEEETable, []byte{0, 0, 0, 0})
	got = crc32.Update(got, crc32.IEEETable, h[8:])
	if got != want {
		return nil, fmt.Errorf("uImage: header checksum is %08x, the header says %08x", got, want)
	}
	size := binary.BigEndian.Uint32(h[12:])
	data := b[uImageHeaderSize:]
	data = data[:min(uint64(size), uint64(len(data)))]
	u := &UImage{
		Name:        printable(string(bytes.TrimRight(h[32:64], "\x00"))),
		Time:        time.Unix(int64(binary.BigEndian.Uint32(h[8:])), 0).UTC(),
		Load:        binary.BigEndian.Uint32(h[16:]),
		Entry:       binary.BigEndian.Uint32(h[20:]),
		OS:          nameOf(uImageOS, h[28]),
		Arch:        nameOf(uImageArch, h[29]),
		Type:        nameOf(uImageType, h[30]),
		Compression: nameOf(uImageComp, h[31]),
		Data:        data,
		Trailing:    len(b) - uImageHeaderSize - len(data),
	}
	if uint64(size) > uint64(len(data)) {
		return u, fmt.Errorf("uImage: %w: the header announces %d bytes of data, the file has %d", ErrTruncated, size, len(data))
	}
	if got, want := crc32.ChecksumIEEE(u.Data), binary.BigEndian.Uint32(h[24:]); got != want {
		return u, fmt.Errorf("uImage: data checksum is %08x, the header says %08x", got, want)
	}
	return u, nil
}

// The numbers of include/image.h of U-Boot with mkimage's names for them; those that a board's
// firmware may bear, the others are shown as numbers.
var (
	uImageOS = map[byte]string{
		0: "invalid", 2: "netbsd", 5: "linux", 14: "vxworks", 16: "qnx", 17: "u-boot", 18: "rtems",
		20: "unity", 22: "ose", 23: "plan9", 24: "openrtos", 25: "arm-trusted-firmware", 26: "tee", 27: "opensbi", 28: "efi",
	}
	uImageArch = map[byte]string{
		0: "invalid", 2: "arm", 3: "x86", 5: "mips", 6: "mips64", 7: "ppc", 12: "m68k", 14: "microblaze", 15: "nios2",
		17: "avr32", 19: "sandbox", 21: "openrisc", 22: "arm64", 23: "arc", 24: "x86_64", 25: "xtensa", 26: "riscv",
	}
	uImageType = map[byte]string{
		0: "invalid", 1: "standalone", 2: "kernel", 3: "ramdisk", 4: "multi", 5: "firmware", 6: "script", 7: "filesystem",
		8: "flat_dt", 9: "kwbimage", 10: "imximage", 12: "omapimage", 13: "aisimage", 14: "kernel_noload", 15: "pblimage",
		16: "ramdisk_raw", 17: "loadable", 22: "lpc32xximage", 25: "atmelimage",
	}
	uImageComp = map[byte]string{0: "none", 1: "gzip", 2: "bzip2", 3: "lzma", 4: "lzo", 5: "lz4", 6: "zstd"}
)

func nameOf(names map[byte]string, n byte) string {
	if s, ok := names[n]; ok {
		return s
	}
	return fmt.Sprintf("number %d", n)
}
