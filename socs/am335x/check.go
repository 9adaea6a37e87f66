package am335x

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"snag/firmware"
	"snag/netboot"
	"snag/socs"
)

// The two images, by the names of Snagboot's firmware files.
const (
	slotSPL   = "spl"
	slotUBoot = "u-boot"
)

// chip is what differs between the two generations that this package serves.
type chip struct {
	name string // as in the vendor class strings of ROM and SPL

	// The ROM stores what it downloads from entry on and starts it there. Above end lie its own
	// stack and data. AM335x TRM (SPRUH73), 26.1.3.2 "Public RAM Memory Map": download area
	// 0x402F0400 to 0x4030B800; for AM43xx the values of U-Boot's asm/arch-am33xx/omap.h
	// (NON_SECURE_SRAM_IMG_END) and of its SPL_MAX_SIZE.
	entry, end uint32

	// loads are U-Boot's SPL load addresses (ISW_ENTRY_ADDR): for ordinary devices, then others.
	loads []uint32

	// DRAM: TRM 2.1 "ARM Cortex-A8 Memory Map", EMIF0 SDRAM.
	ramLow, ramHigh uint64
}

var (
	chipAM335x = chip{
		name: "AM335x", entry: 0x402f0400, end: 0x4030b800,
		loads:  []uint32{0x402f0400, 0x40301950},
		ramLow: 0x80000000, ramHigh: 0xc0000000,
	}
	chipAM43xx = chip{
		name: "AM43xx", entry: 0x402f4000, end: 0x40337de0,
		loads:  []uint32{0x402f4000, 0x40300350, 0x403018e0},
		ramLow: 0x80000000, ramHigh: 0x100000000,
	}
)

const again = "copy or build the file again"

// spare is what should be left of the download area: U-Boot's SPL uses the last KiB as its scratch
// space (SRAM_SCRATCH_SPACE_ADDR in asm/arch-am33xx/omap.h) and would overwrite itself there.
const spare = 1024

func chipOf(m socs.Model) chip {
	if strings.HasPrefix(m.Name, "am43") {
		return chipAM43xx
	}
	return chipAM335x
}

// check looks at both images as the ROM and SPL would. The ROM wants the bare SPL over USB and
// over UART alike, so an MLO loses its headers; U-Boot must be an image that vouches for itself.
func check(model socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	c := checker{chip: chipOf(model), Checked: socs.Checked{Sent: socs.Firmware{}}}
	for _, slot := range []string{slotSPL, slotUBoot} {
		if img, ok := fw[slot]; !ok {
			c.Take(slot, img, socs.Refuse("an "+c.name+" needs both spl and u-boot", "missing"))
		}
	}
	if c.Errs != nil {
		return nil, nil, errors.Join(c.Errs...)
	}
	spl, uboot := fw[slotSPL], fw[slotUBoot]
	if err := swapped(spl, uboot); err != nil {
		c.Take(slotSPL, spl, err)
		return nil, nil, errors.Join(c.Errs...)
	}
	spl, err := c.spl(spl)
	c.Take(slotSPL, spl, err)
	c.Take(slotUBoot, uboot, c.uboot(uboot))
	for _, slot := range []string{slotSPL, slotUBoot} {
		if err := bootfile(fw[slot]); err != nil {
			c.Take(slot, fw[slot], err)
		}
	}
	if c.Errs != nil {
		return nil, c.Findings, errors.Join(c.Errs...)
	}
	return c.Sent, c.Findings, nil
}

// bootfile checks the name that the board is to be offered: it must fit the field of a BOOTP reply and be text.
func bootfile(img socs.Image) error {
	v, given := img.Params[keyBootfile]
	name, ok := v.(string)
	odd := func(r rune) bool { return r < ' ' || r == 0x7f }
	if !given || ok && name != "" && len(name) <= netboot.MaxBootFile && !strings.ContainsFunc(name, odd) {
		return nil
	}
	return socs.Refuse("leave "+keyBootfile+" out unless the SPL asks for a prefix (CONFIG_SYS_BOOTFILE_PREFIX); a number must stand in quotes",
		"%s: expected a name of 1 to %d bytes, got %q", keyBootfile, netboot.MaxBootFile, fmt.Sprint(v))
}

// swapped recognises the two files in each other's place.
func swapped(spl, uboot socs.Image) error {
	s, u := firmware.Identify(spl.Data), firmware.Identify(uboot.Data)
	if s.Kind != firmware.KindUImage && s.Kind != firmware.KindFIT || u.Kind != firmware.KindTIMemory && u.Kind != firmware.KindARM {
		return nil
	}
	return socs.Refuse("exchange the paths of spl and u-boot", "it is %s, and what is given as u-boot (%s) is %s: the two are swapped", s, uboot.Path, u)
}

type checker struct {
	chip
	socs.Checked
}

// spl checks the first stage and returns it as the ROM wants it.
func (c *checker) spl(img socs.Image) (socs.Image, error) {
	want := "give spl/u-boot-spl.bin or MLO of a U-Boot built for an " + c.name + " board"

	info := firmware.Identify(img.Data)
	switch info.Kind {
	case firmware.KindTIMemory:
		mlo, err := firmware.ParseMLO(img.Data)
		if err != nil {
			return img, socs.Refuse(again, "%w", err)
		}
		if !slices.Contains(c.loads, mlo.Load) {
			return img, socs.Refuse(want, "it is for %s (load address %#x), expected %#x for %s",
				firmware.TISoC(mlo.Load), mlo.Load, c.loads[0], c.name)
		}
		c.Note(slotSPL, "the file is an MLO for memory boot: its headers (%d bytes) are not sent, the ROM wants the bare SPL (%d bytes)",
			len(img.Data)-len(mlo.Data), len(mlo.Data))
		img.Data = mlo.Data
	case firmware.KindARM:
	case firmware.KindTISwapped:
		return img, socs.Refuse("give the MLO or u-boot-spl.bin from the same build", "it is %s", info)
	case firmware.KindUImage, firmware.KindFIT:
		return img, socs.Refuse(want+"; this file may belong under u-boot", "it is %s, not a first stage", info)
	case firmware.KindTISigned, firmware.KindUnknown:
		if info.Kind == firmware.KindUnknown && !strings.Contains(strings.ToUpper(filepath.Base(img.Path)), "HS_2ND") {
			break // whoever writes SPLs of his own knows better
		}
		c.Note(slotSPL, "the file is taken for a signed first stage of a high-security device: what is in it was not checked; "+
			"over USB and UART such a device wants the image named u-boot-spl_HS_2ND")
		return img, c.size(img)
	default:
		return img, socs.Refuse(want, "it is %s, not an SPL for %s", info, c.name)
	}

	if err := c.size(img); err != nil {
		return img, err
	}
	p, ok := firmware.ParseARM(img.Data)
	if !ok {
		if inner := firmware.Identify(img.Data); inner.Kind != firmware.KindUnknown {
			return img, socs.Refuse(want, "its program is %s, not an SPL for %s", inner, c.name)
		}
		c.Warn(slotSPL, "it does not begin with an instruction that an SPL begins with, and nothing in it says what it is: sent as it is")
		return img, nil
	}
	if p.Vectors && !c.linkedFor(p.Base) {
		if uint64(p.Base) >= c.ramLow {
			return img, socs.Refuse(want+"; U-Boot itself goes under u-boot, as u-boot.img", "it is %s: a program for DRAM, not an SPL", firmware.Identify(img.Data))
		}
		return img, socs.Refuse(want, "it is %s: a program for %s, expected %#x for %s",
			firmware.Identify(img.Data), firmware.TISoC(p.Base), c.loads[0], c.name)
	}
	return img, c.identity(img, p)
}

// linkedFor compares what the exception vectors tell, which is an address rounded down.
func (c *checker) linkedFor(base uint32) bool {
	return slices.ContainsFunc(c.loads, func(l uint32) bool { return l&^0x3ff == base })
}

// size holds a first stage against the ROM's download area.
func (c *checker) size(img socs.Image) error {
	limit := int(c.end - c.entry)
	switch n := len(img.Data); {
	case n > limit:
		return socs.Refuse("is this the SPL, and not U-Boot itself? If it is, build it smaller: fewer drivers, or "+
			"CONFIG_SPL_SYS_THUMB_BUILD, or fewer device trees in CONFIG_SPL_OF_LIST",
			"%d bytes are too many: the ROM of %s takes %d (%#x to %#x)", n, c.name, limit, c.entry, c.end)
	case n > limit-spare:
		c.Warn(slotSPL, "%d bytes fill the ROM's download area (%d bytes) but for %d: U-Boot's SPL uses the last %d bytes as scratch space and may overwrite itself",
			n, limit, limit-n, spare)
	}
	return nil
}

// identity looks for the vendor class string of SPL's network code (CONFIG_SPL_NET_VCI_STRING).
func (c *checker) identity(img socs.Image, p firmware.ARMProgram) error {
	has := func(chip chip) bool { return bytes.Contains(img.Data, []byte(chip.name+" U-Boot SPL")) }
	other := chipAM43xx
	if c.name == other.name {
		other = chipAM335x
	}
	switch {
	case has(c.chip):
	case has(other):
		return socs.Refuse("give the SPL of a U-Boot built for this board, or name the other model with --soc",
			"it calls itself %q: an SPL for %s, not for %s", other.name+" U-Boot SPL", other.name, c.name)
	case p.UBoot == "":
		c.Warn(slotSPL, "nothing in it says that it is a U-Boot SPL: sent as it is")
	default:
		c.Warn(slotSPL, "%s has no %q in it: an SPL without CONFIG_SPL_NET and CONFIG_SPL_USB_ETHER cannot fetch u-boot over USB; over UART it needs CONFIG_SPL_YMODEM_SUPPORT",
			p.UBoot, c.name+" U-Boot SPL")
	}
	return nil
}

// uboot checks the second stage.
func (c *checker) uboot(img socs.Image) error {
	want := "give u-boot.img of a U-Boot built for an " + c.name + " board"

	info := firmware.Identify(img.Data)
	switch info.Kind {
	case firmware.KindUImage:
		u, err := firmware.ParseUImage(img.Data)
		switch {
		case err != nil:
			return socs.Refuse(again, "%w", err)
		case u.Arch != "arm":
			return socs.Refuse(want, "it is %s; %s is arm", info, c.name)
		case u.Type != "firmware" && u.Type != "standalone" && u.Type != "kernel":
			return socs.Refuse(want, "it is %s of type %s, not a boot loader", info, u.Type)
		case !c.inRAM(uint64(u.Load)):
			return socs.Refuse(want, "it is %s that loads to %#x, where %s has no DRAM: it is for another SoC", info, u.Load, c.name)
		}
		if u.OS != "u-boot" {
			c.Warn(slotUBoot, "it is %s for %s, not U-Boot", info, u.OS)
		}
		c.otherBoard(u.Name)
	case firmware.KindFIT:
		f, err := firmware.ParseFIT(img.Data)
		if err != nil {
			return socs.Refuse(again, "%w", err)
		}
		for _, i := range f.Images {
			if i.Arch != "" && i.Arch != "arm" {
				return socs.Refuse(want, "its image %q is for %s; %s is arm", i.Name, i.Arch, c.name)
			}
			if i.Type == "firmware" || i.OS == "u-boot" {
				if i.HasLoad && !c.inRAM(i.Load) {
					return socs.Refuse(want, "its image %q loads to %#x, where %s has no DRAM: it is for another SoC", i.Name, i.Load, c.name)
				}
				c.otherBoard(i.Description)
			}
		}
		if len(f.Configs) == 0 {
			c.Warn(slotUBoot, "it is %s without configurations: SPL will find nothing to start in it", info)
		}
		for _, text := range f.Unverified() {
			c.Note(slotUBoot, "%s", text)
		}
	case firmware.KindTIMemory, firmware.KindTISwapped, firmware.KindTISigned:
		return socs.Refuse(want+"; this file may belong under spl", "it is %s, not U-Boot itself", info)
	case firmware.KindARM:
		return socs.Refuse("give u-boot.img from the same build: it has the header that SPL looks for", "it is %s without the header of a uImage or FIT", info)
	default:
		return socs.Refuse(want, "it is %s, neither a uImage nor a FIT", info)
	}
	return nil
}

func (c *checker) inRAM(addr uint64) bool { return addr >= c.ramLow && addr < c.ramHigh }

// otherBoard warns if U-Boot's own title of the image ("U-Boot 2025.01 for dra7xx board") names
// another SoC whose DRAM is at the same place.
func (c *checker) otherBoard(title string) {
	_, board, _ := strings.Cut(title, " for ")
	for _, soc := range []string{"am335x", "am43xx", "am57xx", "dra7xx", "omap3", "omap4", "omap5", "igep", "k2"} {
		if strings.HasPrefix(board, soc) && soc != strings.ToLower(c.name) {
			c.Warn(slotUBoot, "the image calls itself %q; the model is an %s", title, c.name)
		}
	}
}
