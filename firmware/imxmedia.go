package firmware

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// What NXP's images have around them when they were made for, or taken from, a boot medium.

// FlexSPISize is what stands before the image on a NOR flash that a ROM boots from over FlexSPI.
const FlexSPISize = 0x1000

// FlexSPIHeader tells whether a FlexSPI configuration block stands in front of the image at an offset of the file, and
// where: "FCFB", or 0xc0ffee01 of i.MX8QM and 8QXP, at one of the places that uuu looks at
// (libuuu/rominfo.cpp, GetFlashHeaderSize). The image then begins FlexSPISize bytes later.
func FlexSPIHeader(data []byte, at int) (int, bool) {
	for _, off := range []int{0, 0x400, 0x1fc, 0x5fc} {
		if off += at; off < 0 || off > len(data)-4 {
			continue
		}
		if m := binary.LittleEndian.Uint32(data[off:]); m == 0xc0ffee01 || m == 0x42464346 {
			return off, true
		}
	}
	return 0, false
}

// The places at which ROMs look for a container set: U-Boot's include/imx_container.h, CONTAINER_HDR_*_OFFSET.
const (
	ContainersSD   = 0x8000      // SD cards and eMMC
	ContainersNOR  = FlexSPISize // NOR flash
	ContainersEMMC = 0           // boot partitions of an eMMC; USB
)

// FindContainers parses the container set of an image for USB, an eMMC, a NOR flash or an SD card, wherever of
// these places it is. As ParseContainers, it may return both a set and an error.
func FindContainers(data []byte) (*ContainerSet, error) {
	s, err := ParseContainers(data, ContainersEMMC)
	if s == nil {
		for _, at := range []int{ContainersNOR, ContainersSD} {
			if s, err := ParseContainers(data, at); s != nil {
				return s, err
			}
		}
	}
	return s, err
}

// burnTag ends the boot image within an image of a whole card, with the image's length in decimal and
// "END" behind it: meta-freescale's classes/uuu_bootloader_tag.bbclass.
const (
	burnTag      = "UUUBURNXXOEUZX7+A-XY5601QQWWZ"
	burnTagLimit = 8 << 20 // uuu looks no further
)

// FindBurnTag finds the boot image in an image of a whole card by the tag behind it.
func FindBurnTag(data []byte) (start, size int, ok bool) {
	head := data[:min(len(data), burnTagLimit)]
	at := bytes.Index(head, []byte(burnTag))
	if at < 0 {
		return 0, 0, false
	}
	digits, _, found := bytes.Cut(data[at+len(burnTag):min(len(data), at+len(burnTag)+16)], []byte("END"))
	n, err := strconv.ParseUint(string(digits), 10, 31)
	if !found || err != nil || int(n) > at || n == 0 {
		return 0, 0, false
	}
	return at - int(n), int(n), true
}
