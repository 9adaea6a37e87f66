package imx

import (
	"errors"
	"slices"
	"strings"

	"snag/firmware"
	"snag/socs"
)

// plan is what the stages are given.
type plan struct {
	images []image  // SDP ROMs: one, or a plugin and another
	stream *payload // streams
	second *payload // SPL's; nil if the first stage is the only one
}

// image is what an SDP ROM is given: from the IVT on.
type image struct {
	path   string
	ivt    *firmware.IVT
	header *firmware.FlashHeader // i.MX51: instead of the IVT
	data   []byte
	addr   uint32
	dcd    []firmware.DCDCommand
	rawDCD []byte // the same, as the ROM takes it; nil if there is none
	plugin bool
}

// payload is a file, or a part of one, that is written as it is.
type payload struct {
	path string
	data []byte
	addr uint32 // where SPL has to find it; 0 is where SPL chooses
	// search says that it is not known where in data U-Boot begins: the SPL must search (SDPV).
	search bool
	// end is how many bytes of data are used, 0 if that is not known: what stands behind U-Boot in a stream SPL may not
	// ask for.
	end int
}

// ways are the slots that go together, by what the ROM does.
func (c *chip) ways() [][]string {
	switch {
	case c.proto == stream:
		return [][]string{{slotFlash}}
	case !c.spl:
		return [][]string{{slotWithDCD}}
	case c.arm64:
		return [][]string{{slotFlash}, {slotSPL, slotUBoot}}
	}
	return [][]string{{slotWithDCD}, {slotSPL, slotUBoot}, {slotFlash}}
}

// waysText is ways in words.
func (c *chip) waysText() string {
	var s []string
	for _, w := range c.ways() {
		s = append(s, strings.Join(w, " and "))
	}
	return strings.Join(s, ", or ")
}

// checker looks at firmware as the stages would.
type checker struct {
	*chip
	socs.Checked
}

// again is the hint for what is broken.
const again = "copy or build the file again"

// check makes the plan for a model's firmware. The checker is nil for an unknown model.
func check(model socs.Model, fw socs.Firmware) (*checker, *plan, error) {
	chip, err := chipOf(model)
	if err != nil {
		return nil, nil, err
	}
	c := &checker{chip: chip, Checked: socs.Checked{Sent: make(socs.Firmware)}}
	refused := c.slots(fw)
	p := &plan{}
	for _, slot := range []string{slotWithDCD, slotSPL, slotFlash, slotUBoot} {
		img, ok := fw[slot]
		if !ok || slices.Contains(refused, slot) {
			continue
		}
		data, err := c.slot(p, slot, img)
		img.Data = data
		c.Take(slot, img, err)
	}
	return c, p, errors.Join(c.Errs...)
}

// slots looks at which files there are, and returns those that the chip takes none of.
func (c *checker) slots(fw socs.Firmware) (refused []string) {
	fail := func(slot, hint, format string, args ...any) {
		c.Take(slot, fw[slot], socs.Refuse(hint, format, args...))
	}
	hint := "give " + c.waysText()
	var way []string // the one that most of the files belong to
	given := 0
	for _, w := range c.ways() {
		n := 0
		for _, slot := range w {
			if _, ok := fw[slot]; ok {
				n++
			}
		}
		if n > given {
			way, given = w, n
		}
	}
	if way == nil {
		way = c.ways()[0]
	}
	for _, slot := range way {
		if _, ok := fw[slot]; !ok {
			fail(slot, hint, "missing: %s needs it", c.chip.name)
		}
	}
	for _, slot := range []string{slotWithDCD, slotSPL, slotUBoot, slotFlash} {
		_, ok := fw[slot]
		switch {
		case !ok || slices.Contains(way, slot):
		case slices.ContainsFunc(c.ways(), func(w []string) bool { return slices.Contains(w, slot) }):
			fail(slot, hint, "it does not go together with %s", strings.Join(way, " and "))
		default:
			fail(slot, hint, "%s takes no such file", c.chip.name)
			refused = append(refused, slot)
		}
	}
	return refused
}

// slot looks at one file, adds to the plan what its stages get, and returns the part of it that is used.
func (c *checker) slot(p *plan, slot string, img socs.Image) ([]byte, error) {
	switch {
	case len(img.Data) == 0:
		return nil, socs.Refuse(again, "the file is empty")
	case slot != slotUBoot:
		img.Data = c.boot(slot, img.Data)
	}
	switch {
	case slot == slotUBoot:
		second, err := c.uboot(img)
		if err != nil {
			return nil, err
		}
		p.second = second
		return second.data, nil
	case c.proto == stream:
		return c.streamed(p, img)
	case c.flashHeader:
		return c.oldImage(p, slot, img)
	}
	return c.vectored(p, slot, img)
}

// unlike refuses a file that is something else than what belongs in a slot.
func (c *checker) unlike(data []byte, want string, err error) error {
	info := firmware.Identify(data)
	hint := "give " + want + " of a build for a board with " + c.chip.name
	switch info.Kind {
	case firmware.KindFIT, firmware.KindUImage:
		if c.spl && c.proto == sdpHID {
			hint += "; this file may belong under " + slotUBoot
		}
	case firmware.KindBootStream:
		hint += "; boot streams (.sb) are for i.MX23 and 28"
	case firmware.KindFlashHeader:
		hint += "; images with a flash header are for i.MX51"
	case firmware.KindContainer:
		hint += "; containers are for i.MX8Q, 8ULP and 9x"
	case firmware.KindIVT:
		hint += "; images with an IVT are for i.MX5x to i.MX8M"
	}
	if err != nil {
		return socs.Refuse(hint, "%w: it is %s", err, info)
	}
	return socs.Refuse(hint, "it is %s", info)
}
