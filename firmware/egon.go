package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Allwinner's eGON image, which the boot ROMs load first: U-Boot's include/sunxi_image.h and tools/sunxi_egon.c.
// Little-endian.
//
//	offset size field
//	0      4    branch over the header
//	4      8    "eGON.BT0"
//	12     4    checksum: the sum of all words with 0x5f0a6c39 in this place
//	16     4    length of the whole image, a multiple of four
//	20     3    "SPL": what follows is U-Boot's; a vendor's boot0 has its own
//	23     1    version of that: 3 bits major, 5 bits minor
//	24     4    address of a script, written by a host over FEL
//	28     4    its length, if it is text
//	32     4    offset of the name of the device tree, from version 0.2 on; 0: none
//	36     4    DRAM in MiB, from version 0.3 on, written by SPL
//	40     4    where it was loaded from, written by the ROM
//	44     52   strings
//	96          program
//
// U-Boot follows where the ROM's media have it: at 32 KiB, or behind an SPL that is longer.
const (
	egonMagic   = "eGON.BT0"
	egonSeed    = 0x5f0a6c39
	egonHeader  = 32 // as far as a vendor's is the same
	egonUBootAt = 0x8000
)

// EGON is an eGON image.
type EGON struct {
	Data     []byte // the whole image with its header; part of the parsed slice
	Checksum uint32
	Sum      uint32 // what the checksum should be
	Branch   string // whose branch it begins with: "arm", "riscv", or ""

	// Of U-Boot's SPL. One for 64-bit parts begins in 32-bit mode as well.
	SPL          bool
	Major, Minor int
	DeviceTree   string // name of the board's, without ".dtb"; empty if it has none
}

// ParseEGON reads the eGON image at the start of b, and verifies its checksum. The error says what is wrong with it; an
// [ErrTruncated] in it means that bytes are missing at the end. What the header says is returned beside an error about
// the rest.
func ParseEGON(b []byte) (*EGON, error) {
	if !isEGON(b) {
		return nil, fmt.Errorf("no eGON image: it has no %q at byte 4", egonMagic)
	}
	if len(b) < egonHeader {
		return nil, fmt.Errorf("eGON image: %w: %d bytes, the header alone has %d", ErrTruncated, len(b), egonHeader)
	}
	le := binary.LittleEndian
	length := le.Uint32(b[16:])
	e := &EGON{Data: b[:min(uint64(length), uint64(len(b)))], Checksum: le.Uint32(b[12:])}
	switch {
	case b[3] == armBranch:
		e.Branch = "arm"
	case b[0]&0x7f == 0x6f: // JAL
		e.Branch = "riscv"
	}
	if string(b[20:23]) == "SPL" {
		e.SPL, e.Major, e.Minor = true, int(b[23]>>5), int(b[23]&31)
	}
	e.DeviceTree = e.deviceTree()
	switch {
	case length%4 != 0 || length < egonHeader:
		return e, fmt.Errorf("eGON image: its length is %d, expected a multiple of four from %d on", length, egonHeader)
	case uint64(length) > uint64(len(b)):
		return e, fmt.Errorf("eGON image: %w: the header announces %d bytes, the file has %d", ErrTruncated, length, len(b))
	}
	e.Sum = egonSeed - e.Checksum
	for w := e.Data; len(w) > 0; w = w[4:] {
		e.Sum += le.Uint32(w)
	}
	if e.Sum != e.Checksum {
		return e, fmt.Errorf("eGON image: checksum is %08x, the header says %08x", e.Sum, e.Checksum)
	}
	return e, nil
}

func isEGON(b []byte) bool { return matches(b, 4, egonMagic) }

// Header reports whether SPL's header has the fields of a version, which a host and SPL talk through.
func (e *EGON) Header(minor int) bool { return e.SPL && e.Major == 0 && e.Minor >= minor }

// deviceTree is the name that the header points to.
func (e *EGON) deviceTree() string {
	if !e.Header(2) || len(e.Data) < 36 {
		return ""
	}
	off := uint64(binary.LittleEndian.Uint32(e.Data[32:]))
	if off == 0 || off >= uint64(len(e.Data)) {
		return ""
	}
	name := e.Data[off:min(off+maxText, uint64(len(e.Data)))]
	end := bytes.IndexByte(name, 0)
	if end < 0 {
		return ""
	}
	return printable(string(name[:end]))
}

// ErrNoUBoot says that nothing follows an SPL.
var ErrNoUBoot = errors.New("there is no U-Boot behind SPL in it")

// UBoot finds U-Boot in a file that begins with the image: u-boot-sunxi-with-spl.bin. The offset is where it belongs,
// whatever stands there; the error is [ErrNoUBoot] if nothing does.
func (e *EGON) UBoot(b []byte) (off int, err error) {
	off = max(len(e.Data), egonUBootAt)
	if off >= len(b) || b[off] == 0 && uniform(b[off:]) {
		return off, ErrNoUBoot
	}
	return off, nil
}
