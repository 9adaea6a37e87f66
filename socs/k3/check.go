package k3

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"snag/firmware"
	"snag/socs"
)

// checker looks at firmware as the stages would.
type checker struct {
	*chip
	socs.Checked
}

func (c *checker) refuse(slot string, img socs.Image, hint, format string, args ...any) {
	c.Errs = append(c.Errs, &socs.FirmwareError{Slot: slot, Path: img.Path, Err: fmt.Errorf(format, args...), Hint: hint})
}

// again is the hint for what is broken.
const again = "copy or build the file again"

// check looks at a model's firmware. The checker is nil for an unknown model.
func check(model socs.Model, fw socs.Firmware) (*checker, error) {
	chip, err := chipOf(model)
	if err != nil {
		return nil, err
	}
	c := &checker{chip: chip, Checked: socs.Checked{Sent: make(socs.Firmware)}}
	for _, slot := range slots {
		img, ok := fw[slot]
		switch {
		case !ok && (slot != slotSysfw || c.split):
			c.refuse(slot, img, "give "+c.wanted(), "missing: %s needs it", c.name)
		case !ok:
		case len(img.Data) == 0:
			c.refuse(slot, img, again, "the file is empty")
		default:
			errs := len(c.Errs)
			c.image(slot, img)
			if len(c.Errs) == errs {
				c.Sent[slot] = img
			}
		}
	}
	if _, ok := fw[slotSysfw]; ok && !c.split {
		c.Note(slotSysfw, "%s has its system firmware in tiboot3: sysfw is sent only if SPL asks for it", c.name)
	}
	return c, errors.Join(c.Errs...)
}

// wanted is the files that the chip takes, in words.
func (c *checker) wanted() string {
	s := slices.Clone(slots)
	if !c.split {
		s = slices.DeleteFunc(s, func(s string) bool { return s == slotSysfw })
	}
	return strings.Join(s, ", ")
}

// image looks at one file.
func (c *checker) image(slot string, img socs.Image) {
	is, what := c.identify(img.Data)
	if !slices.Contains(is, slot) {
		hint := fmt.Sprintf("give %s of a build for a board with %s", fileOf[slot], c.name)
		if len(is) > 0 {
			hint += fmt.Sprintf("; this file belongs under %q", is[0])
		}
		c.refuse(slot, img, hint, "expected %s, it is %s", c.kindOf(slot), what)
		return
	}
	if c.signed(slot) {
		c.certified(slot, img)
	} else if fit(img.Data) {
		f, err := firmware.ParseFIT(img.Data)
		if err != nil {
			c.refuse(slot, img, again, "%w", err)
			return
		}
		const dram = 0x80000000 // of all of them
		if load, ok := f.Below(dram); ok && slot == slotUBoot {
			c.refuse(slot, img, fmt.Sprintf("give %s of a build for a board with %s", fileOf[slot], c.name), "it is a FIT that loads to %#x, where %s has no DRAM", load, c.name)
			return
		}
	}
	if most, ok := rooms[slot]; ok && !c.signed(slot) && len(img.Data) > most {
		c.Warn(slot, "%s has %d bytes, and SPL's room for it is usually %d", img.Path, len(img.Data), most)
	}
	c.board(slot, img)
}

var fileOf = map[string]string{slotTiboot3: "tiboot3.bin", slotSysfw: "sysfw.itb", slotTispl: "tispl.bin", slotUBoot: "u-boot.img"}

// rooms is what the SPLs take of a file, at most (U-Boot, include/env/ti/k3_dfu.env).
var rooms = map[string]int{slotTispl: 0x200000, slotUBoot: 0x400000}

// signed reports whether the ROM loads a file.
func (c *chip) signed(slot string) bool { return slot == slotTiboot3 || slot == slotTispl && c.bl1 }

func (c *chip) kindOf(slot string) string {
	switch {
	case c.signed(slot):
		return "an image with an X.509 certificate for TI's ROM"
	case slot == slotUBoot:
		return "a FIT image with U-Boot"
	case slot == slotSysfw:
		return "a FIT image with the system firmware"
	}
	return "a FIT image with TF-A and SPL"
}

func fit(b []byte) bool { return bytes.HasPrefix(b, []byte("\xd0\x0d\xfe\xed")) }

// identify tells which slots a file may belong to, the likeliest first, and what it is. A FIT is known by what U-Boot's binman
// calls the images in it.
func (c *checker) identify(data []byte) (slots []string, what string) {
	info := firmware.Identify(data)
	what = info.String()
	switch {
	case info.Kind == firmware.KindUImage:
		return []string{slotUBoot}, what
	case fit(data):
		f, err := firmware.ParseFIT(data)
		if f == nil {
			return nil, fmt.Sprintf("%s (%v)", what, err)
		}
		has := func(names ...string) bool {
			return slices.ContainsFunc(f.Images, func(i firmware.FITImage) bool {
				return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(i.Name, n) })
			})
		}
		switch {
		case has("sysfw"):
			return []string{slotSysfw}, what + ", which has the system firmware"
		case has("spl", "atf") && c.bl1:
			return nil, what + ", which has SPL for another SoC"
		case has("spl", "atf"):
			return []string{slotTispl}, what + ", which has SPL"
		case has("uboot", "u-boot"):
			return []string{slotUBoot}, what + ", which has U-Boot"
		}
		return []string{slotTispl, slotUBoot, slotSysfw}, what
	}
	t, err := firmware.ParseTIImage(data)
	switch {
	case t == nil && bytes.HasPrefix(data, []byte("\x30\x82")):
		return nil, fmt.Sprintf("%s (%v)", what, err)
	case t == nil:
		return nil, what
	case !c.bl1:
		return []string{slotTiboot3}, what
	case bytes.Contains(data, []byte("U-Boot SPL ")):
		return []string{slotTispl}, what + ", which has SPL"
	}
	return []string{slotTiboot3, slotTispl}, what
}

// bootLoader is the type of what the ROM starts.
const bootLoader = 1

// certified looks at what the ROM is to load.
func (c *checker) certified(slot string, img socs.Image) {
	t, err := firmware.ParseTIImage(img.Data)
	if err != nil {
		c.refuse(slot, img, again, "%w", err)
		return
	}
	if t.Debug != nil && bytes.Count(t.Debug.UID, []byte{0}) < len(t.Debug.UID) {
		c.Note(slot, "%s is for one device alone: its certificate names the UID %x", img.Path, t.Debug.UID)
	}
	i := slices.IndexFunc(t.Components, func(c firmware.TIComponent) bool { return c.Type == bootLoader })
	switch {
	case i < 0:
		c.refuse(slot, img, fmt.Sprintf("give %s of a build for a board with %s", fileOf[slot], c.name), "its certificate has no boot loader for the ROM")
		return
	case slot != slotTiboot3:
		return
	}
	load := t.Components[i].Load
	var whose []string
	for _, other := range chips {
		if other.load.start <= load && load < other.load.end {
			whose = append(whose, other.name)
		}
	}
	switch {
	case slices.Contains(whose, c.name):
	case whose == nil:
		c.Warn(slot, "%s loads its first stage to %#x, where that of U-Boot goes to %#x on %s", img.Path, load, c.load.start, c.name)
	default:
		c.refuse(slot, img, "give tiboot3.bin of a build for a board with "+c.name, "it loads its first stage to %#x, which is where it goes on %s; expected %#x for %s",
			load, strings.Join(whose, ", "), c.load.start, c.name)
	}
}

// board looks for which SoCs the board descriptions in a file are.
func (c *checker) board(slot string, img socs.Image) {
	var others []string
	for _, name := range compatibles(img.Data) {
		if name == c.compatible {
			return
		}
		i := slices.IndexFunc(chips, func(o chip) bool { return o.compatible == name })
		if i >= 0 && !slices.Contains(others, chips[i].name) {
			others = append(others, chips[i].name)
		}
	}
	if others != nil {
		c.refuse(slot, img, fmt.Sprintf("give %s of a build for a board with %s", fileOf[slot], c.name), "it is for boards with %s, expected %s (%s)",
			strings.Join(others, " and "), c.name, c.compatible)
	}
}

// maxTrees bounds the search for device trees in a file.
const maxTrees = 64

// compatibles returns what the device trees in a file say of their boards.
func compatibles(data []byte) []string {
	var all []string
	off := 0
	for range maxTrees {
		i := bytes.Index(data[off:], []byte("\xd0\x0d\xfe\xed"))
		if i < 0 {
			break
		}
		off += i
		if t, err := firmware.ParseFDT(data[off:]); err == nil {
			b, _ := t.Root.Prop("compatible")
			for name := range bytes.SplitSeq(b, []byte{0}) {
				all = append(all, string(name))
			}
		}
		off += 4
	}
	return all
}
