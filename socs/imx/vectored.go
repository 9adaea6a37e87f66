package imx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"snag/firmware"
	"snag/socs"
)

// vectored plans the first stage of a ROM that takes an image with an IVT, and what follows it in the file.
func (c *checker) vectored(p *plan, slot string, img socs.Image) ([]byte, error) {
	want := map[string]string{slotWithDCD: "u-boot.imx or u-boot-dtb.imx", slotSPL: "SPL", slotFlash: c.flashName()}[slot]
	var first *firmware.IVT
	for from := 0; ; {
		v, err := firmware.FindIVT(img.Data, from)
		switch {
		case errors.Is(err, firmware.ErrTruncated):
			return nil, socs.Refuse(again, "%w", err)
		case err != nil && first != nil:
			return nil, socs.Refuse(again, "there is no image behind the plugin at %#x: %w", first.Offset, err)
		case err != nil:
			return nil, c.unlike(img.Data, want, err)
		}
		one, err := c.image(slot, img, v)
		if err != nil {
			return nil, err
		}
		if first == nil {
			first = v
			c.front(slot, v)
		}
		p.images = append(p.images, one)
		if !one.plugin {
			break
		}
		c.Note(slot, "the image at %#x is a plugin: the ROM runs it before it takes the image behind it", v.Offset)
		if from = v.Offset + firmware.IVTSize; len(p.images) == 2 {
			return nil, socs.Refuse(again, "two plugins in a row")
		}
	}
	if err := c.memory(slot, p.images); err != nil {
		return nil, err
	}
	last := p.images[len(p.images)-1].ivt
	switch slot {
	case slotFlash:
		// What stands behind has its place from the beginning of flash.bin, which on i.MX8MQ has the HDMI firmware in front.
		base := first.Offset
		if hdmi(first) {
			base = 0
		}
		second, err := c.behind(slot, img, base, last.Offset+firmware.IVTSize, last.End())
		p.second = second
		return img.Data[base:], err
	case slotWithDCD:
		if c.spl && bytes.Contains(p.images[len(p.images)-1].data, []byte("U-Boot SPL ")) {
			return nil, socs.Refuse("give it as "+slotSPL+", and U-Boot as "+slotUBoot+"; or, if U-Boot is in the same file, as "+slotFlash, "it is U-Boot's SPL, which needs U-Boot after it")
		}
	}
	return img.Data[first.Offset:min(last.End(), len(img.Data))], nil
}

// flashName is what flash-bin is called where it has an IVT.
func (c *chip) flashName() string {
	if c.arm64 {
		return "flash.bin"
	}
	return "u-boot-with-spl.imx"
}

// hdmi tells whether HDMI firmware stands in front of an image.
func hdmi(v *firmware.IVT) bool {
	return slices.ContainsFunc(v.Skipped, func(s firmware.SkippedIVT) bool { return s.HDMI })
}

// front tells what in front of the image is not sent.
func (c *checker) front(slot string, v *firmware.IVT) {
	switch {
	case hdmi(v):
		c.Note(slot, "the HDMI firmware in front of the image at %#x is not sent: the ROM takes it from storage only", v.Offset)
	case v.Offset > 0:
		c.Note(slot, "the image begins at %#x of the file (as in one for a card): what stands before it is not sent", v.Offset)
	}
}

// image checks what one IVT describes.
func (c *checker) image(slot string, img socs.Image, v *firmware.IVT) (image, error) {
	data, addr, err := v.Image(img.Data)
	if err != nil {
		return image{}, socs.Refuse(again, "%w", err)
	}
	one := image{path: img.Path, ivt: v, data: data, addr: addr, plugin: v.IsPlugin()}
	switch {
	case c.mx8m && v.Version == 0x40:
		c.Warn(slot, "its IVT is of version 0x40, expected 0x41 as images for i.MX8M have")
	case !c.mx8m && !c.mcu && v.Version == 0x41:
		return one, socs.Refuse(c.other(), "its IVT is of version 0x41: an image for i.MX8M, not for %s", c.chip.name)
	case v.Version != 0x40 && v.Version != 0x41 && !c.mcu:
		c.Warn(slot, "its IVT is of version %#02x, expected 0x40: some ROMs of i.MX RT know it", v.Version)
	}
	if hdmi(v) && !c.hdmi {
		return one, socs.Refuse(c.other(), "HDMI firmware stands in front of it, as in images for i.MX8MQ only")
	}
	if err := c.place(addr, len(data)); err != nil {
		return one, err
	}
	if err := c.entry(v.Entry); err != nil {
		return one, err
	}
	if err := c.program(data, v); err != nil {
		return one, err
	}
	if slot != slotWithDCD {
		if err := c.variables(data); err != nil {
			return one, err
		}
	}
	if one.dcd, one.rawDCD, err = c.findDCD(slot, img.Data, v); err != nil {
		return one, err
	}
	if err := cut(img.Data, v); err != nil {
		return one, err
	}
	return one, c.signature(slot, img.Data, v)
}

// cut compares the length of an image with what it announces. mkimage fills its files up to that, but for the room for
// a signature; before 2013 it rounded up to 4 KiB, as barebox does.
func cut(data []byte, v *firmware.IVT) error {
	end := int64(v.End())
	if v.CSF > v.Self {
		end = min(end, int64(v.Offset)+int64(v.CSF)-int64(v.Self))
	}
	const rounding = 0x1000
	if missing := end - int64(len(data)); missing >= rounding {
		return socs.Refuse(again, "the file is cut: %d of the %d bytes that its boot data announce are missing", missing, end)
	}
	return nil
}

func (c *checker) other() string {
	return "give an image built for a board with " + c.chip.name + ", or name the board's model with --soc"
}

// place checks where an image will lie.
func (c *checker) place(addr uint32, size int) error {
	end := uint64(addr) + uint64(size)
	for _, s := range slices.Concat(c.ocram, c.dram) {
		if s.start <= uint64(addr) && uint64(addr) < s.end {
			if end > s.end {
				return socs.Refuse("is this really a first stage? build it smaller", "its %d bytes at %#x do not fit: memory ends at %#x on %s", size, addr, s.end, c.chip.name)
			}
			return nil
		}
	}
	return socs.Refuse(c.other(), "it loads to %#x, where %s has no memory%s", addr, c.chip.name, c.fitting(addr))
}

// fitting names the other chips that have memory at an address; none if this one has some, too.
func (c *chip) fitting(addr uint32) string {
	if within(c.ocram, uint64(addr)) {
		return ""
	}
	var names []string
	for i := range chips {
		if c := &chips[i]; within(c.ocram, uint64(addr)) || within(c.dram, uint64(addr)) {
			names = append(names, c.name)
		}
	}
	if len(names) == 0 || len(names) > 8 {
		return ""
	}
	return ": it is for " + strings.Join(names, " or ")
}

// entry compares an SPL's entry point with those of the chips that it tells apart.
func (c *checker) entry(entry uint32) error {
	if len(c.entries) == 0 || slices.Contains(c.entries, entry) {
		return nil
	}
	var names []string
	for i := range chips {
		if slices.Contains(chips[i].entries, entry) {
			names = append(names, chips[i].name)
		}
	}
	if names == nil {
		return nil
	}
	return socs.Refuse(c.other(), "its entry point is %#x, that of %s; SPLs for %s have %#x", entry, strings.Join(names, " or "), c.chip.name, c.entries[0])
}

// program refuses what is for another kind of processor, by what stands at the entry point of an image.
func (c *checker) program(data []byte, v *firmware.IVT) error {
	code := data[v.Entry-v.Self:]
	arm, _ := firmware.ParseARM(code)
	switch arm64 := firmware.Identify(code).Kind == firmware.KindARM64; {
	case c.arm64 && arm.Vectors && !v.IsPlugin():
		return socs.Refuse(c.other(), "it is a program for 32-bit ARM; %s starts in 64 bits", c.chip.name)
	case !c.arm64 && arm64:
		return socs.Refuse(c.other(), "it is a program for 64-bit ARM, which %s is not", c.chip.name)
	}
	return nil
}

// variables refuses an SPL that has its variables where the chip has no DRAM: U-Boot's for i.MX6Q and its kin has them from
// 0x18200000 on (include/configs/imx6_spl.h, CONFIG_SPL_BSS_START_ADDR; other i.MX6 and 7: 0x88200000). Their addresses
// stand in its code, some fifty of them; a few words may look alike in any.
func (c *checker) variables(code []byte) error {
	const start, size, few = 0x18200000, 0x100000, 16
	if c.arm64 || within(c.dram, start) {
		return nil
	}
	n := 0
	for ; len(code) >= 4; code = code[4:] {
		if binary.LittleEndian.Uint32(code)-start < size {
			n++
		}
	}
	if n < few {
		return nil
	}
	return socs.Refuse(c.other(), "it has its variables from %#x on, where %s has no DRAM%s", start, c.chip.name, c.fitting(start))
}

// controllers are the registers of the DRAM controllers, by the reference manuals' memory maps.
var controllers = []struct {
	registers span
	models    string
}{
	{span{0x021b0000, 0x021b8000}, "imx6q imx6d imx6sl imx6sx imx6ul imx6ull imx6sll"},
	{span{0x307a0000, 0x307b0000}, "imx7d imx7s"},
	{span{0x40ab0000, 0x40ac0000}, "imx7ulp"},
	{span{0x3d400000, 0x3d800000}, "imx8mq imx8mm imx815 imx865"},
	{span{0x63fd9000, 0x63fda000}, "imx53"},
	{span{0x14000000, 0x14001000}, "imx50"},
	{span{0x400ae000, 0x400af000}, "vf610"},
	{span{0x402f0000, 0x402f4000}, "imxrt106x"},
}

// findDCD returns the DCD of an image, checked.
func (c *checker) findDCD(slot string, data []byte, v *firmware.IVT) ([]firmware.DCDCommand, []byte, error) {
	raw, err := v.DCDBytes(data)
	if err != nil {
		return nil, nil, socs.Refuse(again, "%w", err)
	}
	if raw == nil {
		// Where mkimage puts the DCD. An image to be signed for this way of loading has the DCD's address cleared
		// before it is signed, for the signature covers it (NXP's application note AN4581).
		const usual = firmware.IVTSize + 12 // behind the boot data
		raw = data[min(v.Offset+usual, len(data)):]
		commands, err := firmware.ParseDCD(raw)
		if v.CSF == 0 || err != nil {
			return nil, nil, nil
		}
		raw = raw[:int(raw[1])<<8|int(raw[2])]
		c.Note(slot, "its IVT knows no DCD, but one of %d bytes stands behind the boot data: it is executed", len(raw))
		return commands, raw, c.checkDCD(commands)
	}
	commands, err := firmware.ParseDCD(raw)
	if err != nil {
		return nil, nil, socs.Refuse(again, "%w", err)
	}
	return commands, raw, c.checkDCD(commands)
}

// checkDCD looks for signs that a DCD is for another SoC.
func (c *checker) checkDCD(commands []firmware.DCDCommand) error {
	for _, cmd := range commands {
		switch cmd.Op {
		case firmware.DCDNOP:
			continue
		case firmware.DCDUnlock:
			if c.proto == sdpBulk {
				return socs.Refuse("give an image whose DCD has no unlock command", "its DCD unlocks engine %#02x, which cannot be done over SDP of %s", cmd.Engine, c.chip.name)
			}
			continue
		}
		for _, m := range controllers {
			if uint64(cmd.Address) < m.registers.start || uint64(cmd.Address) >= m.registers.end || c.shares(m.models) {
				continue
			}
			return socs.Refuse(c.other(), "its DCD writes %#x, the memory controller of %s: it is not for %s", cmd.Address, strings.Join(fields(m.models), ", "), c.chip.name)
		}
	}
	return nil
}

// shares tells whether one of the models is the chip's.
func (c *chip) shares(models string) bool {
	return slices.ContainsFunc(fields(models), func(m string) bool { return slices.Contains(fields(c.models), m) })
}

// memory checks that there is DRAM where an image goes there.
func (c *checker) memory(slot string, images []image) error {
	last := images[len(images)-1]
	inDRAM := within(c.dram, uint64(last.addr)) && !within(c.ocram, uint64(last.addr))
	hasDCD := slices.ContainsFunc(images, func(i image) bool { return i.rawDCD != nil || i.plugin })
	switch {
	case inDRAM && slot != slotWithDCD:
		return socs.Refuse("give the SPL; an image like this goes under "+slotWithDCD, "it loads to %#x, which is DRAM: not an SPL", last.addr)
	case !inDRAM || hasDCD:
		return nil
	case last.ivt.CSF != 0:
		c.Warn(slot, "it loads to DRAM (%#x) and has no DCD to set that up", last.addr)
		return nil
	}
	return socs.Refuse("give u-boot.imx of a configuration with a DCD (CONFIG_IMX_CONFIG), or an SPL and u-boot", "it loads to DRAM (%#x) and has no DCD to set that up", last.addr)
}

// signature looks at what can be known of a signature.
func (c *checker) signature(slot string, data []byte, v *firmware.IVT) error {
	csf, err := v.CSFBytes(data)
	switch {
	case err != nil && errors.Is(err, firmware.ErrTruncated):
		// mkimage announces the place of a CSF that is appended only when the image is signed.
		c.Note(slot, "its IVT has a place for a signature, but the file ends before it: not signed")
		v.CSF = 0
		return nil
	case err != nil:
		c.Note(slot, "its IVT has a place for a signature, but there is none: %v", err)
		v.CSF = 0
		return nil
	case csf == nil:
		return nil
	}
	c.Note(slot, "it is signed: snag cannot verify by whom")
	if v.DCD != 0 && c.clear {
		c.Warn(slot, "it is signed and its IVT knows the DCD: an open part is sent the IVT without it, which spoils the signature; "+
			"on a closed part the DCD is left to be executed a second time. Sign an image whose DCD address is cleared")
	}
	return nil
}
