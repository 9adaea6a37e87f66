package imx

import (
	"encoding/binary"
	"errors"

	"snag/firmware"
	"snag/socs"
)

// fixedSecond is where U-Boot stands in the flash.bin of i.MX8MQ and 8MM by NXP's imx-mkimage, and where uuu looks for it
// if the SPL does not search: at 384 KiB of a card, 33 KiB of which are in front of the file. Mainline's binman puts it to
// 0x58000 on 8MQ. It is only used if the file does not tell.
const fixedSecond = 0x57c00

// uboot plans SPL's part where it is a file of its own.
func (c *checker) uboot(img socs.Image) (*payload, error) {
	p, err := c.secondStage(slotUBoot, img.Path, img.Data)
	if p != nil || err != nil {
		return p, err
	}
	v, err := firmware.FindIVT(img.Data, 0)
	if errors.Is(err, firmware.ErrTruncated) {
		return nil, socs.Refuse(again, "%w", err)
	} else if err != nil {
		return nil, c.unlike(img.Data, "u-boot.img", nil)
	}
	// SPL looks at the first byte of the table only and branches to the entry point, so the image must be where it
	// was linked for (U-Boot, f_sdp.c).
	data, addr, err := v.Image(img.Data)
	switch {
	case err != nil:
		return nil, socs.Refuse(again, "%w", err)
	case !within(c.dram, uint64(addr)):
		return nil, socs.Refuse("give u-boot.img or u-boot.imx; an SPL belongs under "+slotSPL, "its image loads to %#x, where %s has no DRAM%s", addr, c.chip.name, c.fitting(addr))
	}
	if err := c.program(data, v); err != nil {
		return nil, err
	}
	if raw, err := v.DCDBytes(img.Data); err == nil { // SPL does not execute it, but it tells the SoC
		commands, _ := firmware.ParseDCD(raw)
		if err := c.checkDCD(commands); err != nil {
			return nil, err
		}
	}
	if v.Offset > 0 {
		c.Note(slotUBoot, "the image begins at %#x of the file: what stands before it is not sent", v.Offset)
	}
	return &payload{path: img.Path, data: data, addr: addr}, nil
}

// secondStage plans what begins with a format that SPL knows; nil if it does not.
func (c *checker) secondStage(slot, path string, data []byte) (*payload, error) {
	arch := "arm"
	if c.arm64 {
		arch = "arm64"
	}
	switch secondKind(data) {
	case kindUImage:
		u, err := firmware.ParseUImage(data)
		switch {
		case err != nil:
			return nil, socs.Refuse(again, "%w", err)
		case u.Arch != arch:
			return nil, socs.Refuse(c.other(), "it is a uImage for %s; %s is %s", u.Arch, c.chip.name, arch)
		case !within(c.dram, uint64(u.Load)):
			return nil, socs.Refuse(c.other(), "it is a uImage that loads to %#x, where %s has no DRAM%s", u.Load, c.chip.name, c.fitting(u.Load))
		}
		// SPL does not move a legacy image: its data must lie at the load address, the header before that. At address 0
		// (where uuu would put it) it does so only if CONFIG_SDP_LOADADDR happens to be right. imx_usb does as is done here.
		n := len(data) - u.Trailing
		return &payload{path: path, data: data[:n], addr: u.Load - uint32(n-len(u.Data))}, nil
	case kindFIT:
		f, err := firmware.ParseFIT(data)
		if err != nil {
			return nil, socs.Refuse(again, "%w", err)
		}
		var loads []uint64
		for _, i := range f.Images {
			if i.Arch != "" && i.Arch != arch && i.Type != "flat_dt" {
				return nil, socs.Refuse(c.other(), "the image %q of its FIT is for %s; %s is %s", i.Name, i.Arch, c.chip.name, arch)
			}
			if i.HasLoad && len(i.Data) > 0 {
				loads = append(loads, i.Load)
			}
		}
		if err := c.reach(slot, loads); err != nil {
			return nil, err
		}
		for _, text := range f.Unverified() {
			c.Note(slot, "%s", text)
		}
		end := int(binary.BigEndian.Uint32(data[4:])) // the tree's size
		for _, i := range f.Images {
			end = max(end, i.Offset+len(i.Data))
		}
		return &payload{path: path, data: data, end: end}, nil
	case kindContainer:
		set, err := firmware.ParseContainers(data, 0)
		if err != nil {
			return nil, socs.Refuse(again, "%w", err)
		}
		end := 0
		for _, one := range set.Containers {
			end = max(end, one.Offset+one.Length)
			for _, i := range one.Images {
				end = max(end, i.Offset+i.Size)
			}
		}
		return &payload{path: path, data: data, end: end}, nil
	}
	return nil, nil
}

// behind plans SPL's part where it follows the first stage in one file, which begins at base. The first stage ends at end by what
// it says of itself, and begins at start.
func (c *checker) behind(slot string, img socs.Image, base, start, end int) (*payload, error) {
	off, ok := findSecond(img.Data, start, end)
	fixed := base + fixedSecond
	switch {
	case ok:
		c.Note(slot, "the second stage stands at %#x: %s", off, firmware.Identify(img.Data[off:]))
		return c.secondStage(slot, img.Path, img.Data[off:])
	case c.mx8m && end <= fixed && fixed < len(img.Data):
		c.Warn(slot, "no U-Boot is recognised behind the first stage, which ends at %#x: sending what stands at %#x, where imx-mkimage puts it", end, fixed)
		return &payload{path: img.Path, data: img.Data[fixed:], search: true}, nil
	case end < len(img.Data):
		c.Warn(slot, "no U-Boot is recognised behind the first stage, which ends at %#x: SPL has to search for it", end)
		return &payload{path: img.Path, data: img.Data[end:], search: true}, nil
	}
	return nil, socs.Refuse("give "+c.flashName()+", which has both; an SPL alone goes under "+slotSPL, "there is no U-Boot in it: the first stage takes all of its %d bytes", len(img.Data))
}

// second stages, by what SPL looks for.
type secondFormat int

const (
	kindNone secondFormat = iota
	kindUImage
	kindFIT
	kindContainer
)

// secondKind looks at the first bytes.
func secondKind(b []byte) secondFormat {
	if len(b) < 64 {
		return kindNone
	}
	switch {
	case binary.BigEndian.Uint32(b) == 0x27051956:
		return kindUImage
	case binary.BigEndian.Uint32(b) == 0xd00dfeed:
		return kindFIT
	case b[3] == 0x87 && (b[0] == 0 || b[0] == 2) && binary.LittleEndian.Uint16(b[1:])%4 == 0 && b[1]|b[2] != 0 && b[11] > 0 && b[11] <= 32:
		return kindContainer
	}
	return kindNone
}

// findSecond finds the second stage in a file: at every fourth byte, as SPL does, from the first stage's end on. A first
// stage that announces more room than it has (for its signature) is looked through, too.
func findSecond(data []byte, start, end int) (int, bool) {
	for off := (end + 3) &^ 3; off < len(data); off += 4 {
		if secondKind(data[off:]) != kindNone {
			return off, true
		}
	}
	for off := (start + 3) &^ 3; off < min(end, len(data)); off += 4 {
		switch secondKind(data[off:]) {
		case kindUImage:
			if _, err := firmware.ParseUImage(data[off:]); err == nil {
				return off, true
			}
		case kindFIT:
			if _, err := firmware.ParseFIT(data[off:]); err == nil {
				return off, true
			}
		}
	}
	return 0, false
}
