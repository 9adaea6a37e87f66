package zynqmp

import (
	"snag/firmware"
	"snag/socs"
)

// ocm is the internal memory, which the ROM takes the first stage into (UG1085, chapter 18).
const ocm = 256 << 10

// checker looks at firmware as the stages would.
type checker struct {
	socs.Checked
}

func (c *checker) refuse(slot string, img socs.Image, hint, format string, args ...any) {
	c.Take(slot, img, socs.Refuse(hint, format, args...))
}

const (
	again   = "copy or build the file again"
	wanted  = "give boot.bin as bootgen makes it: FSBL, PMU firmware, TF-A and U-Boot"
	smaller = "build FSBL with less in it (FSBL_*_EXCLUDE_VAL=1 for what the board does not have), or give a smaller one as " + slotFSBL
)

// check looks at the firmware, and makes the first stage of it.
func check(fw socs.Firmware) *checker {
	c := &checker{Checked: socs.Checked{Sent: make(socs.Firmware)}}
	boot, haveBoot := fw[slotBoot]
	fsbl, haveFSBL := fw[slotFSBL]
	var first []byte
	if !haveBoot {
		c.refuse(slotBoot, boot, wanted, "missing: FSBL takes the whole boot image")
	} else if f, z := c.image(slotBoot, boot); z != nil {
		c.whole(boot, z)
		first = f
	}
	if haveFSBL {
		f, z := c.image(slotFSBL, fsbl)
		if z != nil && z.Complete() {
			c.Note(slotFSBL, "it is a whole boot image: only FSBL and the PMU's firmware in it are sent to the ROM, %d of %d bytes", len(f), len(fsbl.Data))
		}
		c.first(slotFSBL, fsbl, f)
	} else if first != nil {
		c.first(slotBoot, socs.Image{Path: boot.Path}, first)
	}
	return c
}

// image reads a boot image, and takes its first stage out.
func (c *checker) image(slot string, img socs.Image) ([]byte, *firmware.ZynqMP) {
	if len(img.Data) == 0 {
		c.refuse(slot, img, again, "the file is empty")
		return nil, nil
	}
	first, z, err := firstStage(img.Data)
	switch {
	case err == nil && z.FSBL == 0:
		c.refuse(slot, img, wanted, "there is no FSBL in it")
	case err == nil:
		return first, z
	case z == nil:
		hint := wanted
		if slot == slotFSBL {
			hint = "give FSBL as a boot image (bootgen), not as an ELF file or a raw binary"
		}
		c.refuse(slot, img, hint, "%w: it is %s", err, firmware.Identify(img.Data))
	default:
		c.refuse(slot, img, again, "%w", err)
	}
	return nil, nil
}

// whole looks at the image that FSBL takes.
func (c *checker) whole(img socs.Image, z *firmware.ZynqMP) {
	switch {
	case z.Table == nil || len(z.Partitions) < 2:
		c.refuse(slotBoot, img, wanted+"; one with FSBL alone belongs under "+slotFSBL, "there is nothing in it for FSBL to load: it has no partition but FSBL's own")
	case !z.Complete():
		c.refuse(slotBoot, img, wanted+"; this one belongs under "+slotFSBL, "there is nothing in it but FSBL and PMU firmware (%d partitions)", len(z.Partitions))
	default:
		c.Sent[slotBoot] = img
	}
}

// first looks at what the ROM takes.
func (c *checker) first(slot string, img socs.Image, first []byte) {
	switch {
	case first == nil:
		return
	case len(first) > ocm:
		c.refuse(slot, img, smaller, "FSBL and the PMU's firmware with their headers have %d bytes, the internal memory %d", len(first), ocm)
		return
	}
	img.Data = first
	c.Sent[slotFSBL] = img
}
