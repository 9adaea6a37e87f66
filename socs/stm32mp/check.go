package stm32mp

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"snag/firmware"
	"snag/socs"
)

// What the stages have room for (TF-A, plat/st/common/include/stm32mp_def.h and the settings' names).
const (
	maxFSBL = 1 << 20  // of the setting; the memory is less
	maxDDR  = 0xa000   // of the buffer; the setting's name says 32 KiB
	maxFIP  = 16 << 20 // of the setting
)

// ways are the slots that go together.
func (c *chip) ways() [][]string {
	if c.ddr {
		return [][]string{{slotTFA, slotFIPDDR, slotFIP}}
	}
	return [][]string{{slotTFA, slotFIP}, {slotTFA, slotUBoot}}
}

// waysText is ways in words.
func (c *chip) waysText() string {
	if c.ddr {
		return "tf-a, fip-ddr and fip"
	}
	return "tf-a and fip; or, if the first stage is U-Boot's SPL, tf-a and u-boot"
}

// checker looks at firmware as the stages would.
type checker struct {
	*chip
	socs.Checked
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
	refused := c.slots(fw)
	for _, s := range []struct {
		name string
		look func(slot string, data []byte, fw socs.Firmware) ([]byte, error)
	}{{slotTFA, c.fsbl}, {slotFIPDDR, c.ddrFIP}, {slotFIP, c.fip}, {slotUBoot, c.uboot}} {
		img, ok := fw[s.name]
		if !ok || slices.Contains(refused, s.name) {
			continue
		}
		data, err := img.Data, error(nil)
		if len(data) == 0 {
			err = socs.Refuse(again, "the file is empty")
		} else {
			data, err = s.look(s.name, data, fw)
		}
		img.Data = data
		c.Take(s.name, img, err)
	}
	return c, errors.Join(c.Errs...)
}

// slots looks at which files there are, and returns those that the chip takes none of.
func (c *checker) slots(fw socs.Firmware) (refused []string) {
	fail := func(slot, format string, args ...any) {
		c.Errs = append(c.Errs, &socs.FirmwareError{Slot: slot, Path: fw[slot].Path, Err: fmt.Errorf(format, args...), Hint: "give " + c.waysText()})
	}
	_, fip := fw[slotFIP]
	_, uboot := fw[slotUBoot]
	way := c.ways()[0]
	if uboot && !fip && !c.ddr {
		way = c.ways()[1]
	}
	for _, slot := range way {
		if _, ok := fw[slot]; !ok {
			fail(slot, "missing: %s needs it", c.name)
		}
	}
	for _, slot := range []string{slotTFA, slotFIPDDR, slotFIP, slotUBoot} {
		_, ok := fw[slot]
		switch {
		case !ok || slices.Contains(way, slot):
		case slices.ContainsFunc(c.ways(), func(w []string) bool { return slices.Contains(w, slot) }):
			fail(slot, "it does not go together with %s", strings.Join(way, " and "))
		default:
			fail(slot, "%s takes no such file", c.name)
			refused = append(refused, slot)
		}
	}
	return refused
}

// isSPL tells whether a first stage is U-Boot's SPL, by its banner.
func isSPL(payload []byte) bool { return bytes.Contains(payload, []byte("U-Boot SPL ")) }

// fsbl looks at the first stage.
func (c *checker) fsbl(slot string, data []byte, fw socs.Firmware) ([]byte, error) {
	img, err := firmware.ParseSTM32(data)
	switch {
	case img == nil:
		return nil, c.unlike(data, "a file with an STM32 header: tf-a-*-usb.stm32, or u-boot-spl.stm32", err)
	case !c.version(img):
		hint := "give tf-a-*.stm32 of a build for " + c.name
		if is := other(func(c *chip) bool { return c.version(img) }); is != "" {
			hint += "; this one is for " + is
		}
		return nil, socs.Refuse(hint, "its STM32 header is of version %d.%d, expected %s", img.Major, img.Minor, c.versionText())
	case err != nil:
		return nil, socs.Refuse(again, "%w", err)
	case img.Entry >= c.dram:
		return nil, socs.Refuse("give TF-A's BL2 (tf-a-*-usb.stm32) or u-boot-spl.stm32; U-Boot goes into the FIP",
			"it starts at %#x, which is DRAM: no first stage, but one that a first stage loads", img.Entry)
	case img.HeaderSize+len(img.Payload) > maxFSBL:
		return nil, socs.Refuse("give TF-A's BL2, which fits the internal memory", "it has %d bytes, the ROM takes %d at most", img.HeaderSize+len(img.Payload), maxFSBL)
	}
	_, uboot := fw[slotUBoot]
	fip, haveFIP := fw[slotFIP]
	spl := isSPL(img.Payload)
	if spl && haveFIP {
		c.Errs = append(c.Errs, &socs.FirmwareError{Slot: slotFIP, Path: fip.Path, Err: errors.New("the first stage is U-Boot's SPL, which starts no FIP"),
			Hint: "give u-boot.itb or u-boot.img of its build as " + slotUBoot + " instead"})
	}
	if spl && !bytes.Contains(img.Payload, []byte("dfu_alt_info")) {
		c.Warn(slot, "it is a U-Boot SPL with no DFU settings of its own: unless its build has CONFIG_SPL_DFU it will not ask for U-Boot over USB")
	}
	if !spl && uboot {
		c.Warn(slot, "no U-Boot SPL is recognised in it: only an SPL asks for what is given as %s", slotUBoot)
	}
	if img.Trailing > 0 {
		c.Note(slot, "%d bytes behind the image are not sent", img.Trailing)
	}
	if img.Encrypted {
		c.Note(slot, "it is encrypted: only boards with the key start it")
	}
	return data[:len(data)-img.Trailing], nil
}

func (c *chip) version(img *firmware.STM32Image) bool {
	return img.Major == c.major && c.minor <= img.Minor && img.Minor <= c.minorTo
}

func (c *chip) versionText() string {
	if c.minor == c.minorTo {
		return fmt.Sprintf("%d.%d", c.major, c.minor)
	}
	return fmt.Sprintf("%d.%d or %d.%d", c.major, c.minor, c.major, c.minorTo)
}

// ddrFIP looks at the memory controller's firmware.
func (c *checker) ddrFIP(slot string, data []byte, _ socs.Firmware) ([]byte, error) {
	const want = "fip-*-ddr.bin, a FIP with the firmware of the memory controller"
	f, err := firmware.ParseFIP(data)
	switch {
	case f == nil:
		return nil, c.unlike(data, want, err)
	case err != nil:
		return nil, socs.Refuse(again, "%w", err)
	}
	if _, ok := f.Entry("ddr-fw"); !ok {
		return nil, socs.Refuse("give "+want+"; one with U-Boot belongs under "+slotFIP, "it has no DDR_FW, but %s", contents(f))
	}
	if f.Size > maxDDR {
		return nil, socs.Refuse("give "+want+", and nothing else in it", "it has %d bytes, TF-A takes %d at most", f.Size, maxDDR)
	}
	return c.cut(slot, data, f), nil
}

// fip looks at what TF-A starts.
func (c *checker) fip(slot string, data []byte, _ socs.Firmware) ([]byte, error) {
	const want = "fip-*.bin with U-Boot"
	f, err := firmware.ParseFIP(data)
	switch {
	case f == nil:
		if img, err := firmware.ParseSTM32(data); img != nil && c.major == 1 {
			return c.oldSSBL(slot, data, img, err)
		}
		return nil, c.unlike(data, want, err)
	case err != nil:
		return nil, socs.Refuse(again, "%w", err)
	case f.Size > maxFIP:
		return nil, socs.Refuse("give "+want, "it has %d bytes, TF-A takes %d at most", f.Size, maxFIP)
	}
	need := []string{"nt-fw", "fw-config"}
	if c.ddr {
		need = append(need, "soc-fw")
	}
	if _, ok := f.Entry("nt-fw"); !ok {
		hint := "give " + want
		if _, ok := f.Entry("ddr-fw"); ok {
			hint += "; this one belongs under " + slotFIPDDR
			if !c.ddr {
				hint = "give " + want + "; firmware of the memory controller is for STM32MP2"
			}
		}
		return nil, socs.Refuse(hint, "it has no U-Boot (nt-fw), but %s", contents(f))
	}
	for _, name := range need[1:] {
		if _, ok := f.Entry(name); !ok {
			c.Warn(slot, "there is no %s in it, which TF-A of %s is known to want: it has %s", name, c.name, contents(f))
		}
	}
	return c.cut(slot, data, f), nil
}

// oldSSBL looks at U-Boot with a header of its own, which TF-A took before it had FIPs.
func (c *checker) oldSSBL(slot string, data []byte, img *firmware.STM32Image, err error) ([]byte, error) {
	switch {
	case err != nil:
		return nil, socs.Refuse(again, "%w", err)
	case img.Major != 1 || img.Entry < c.dram:
		return nil, socs.Refuse("give fip-*.bin with U-Boot; this file belongs under "+slotTFA, "it is a first stage: it starts at %#x", img.Entry)
	}
	c.Warn(slot, "it is U-Boot with an STM32 header instead of a FIP: only a TF-A from before FIPs (ST's ecosystem 2) starts it")
	return data[:len(data)-img.Trailing], nil
}

// cut is a FIP without what stands behind it.
func (c *checker) cut(slot string, data []byte, f *firmware.FIP) []byte {
	if n := len(data) - f.Size; n > 0 {
		c.Note(slot, "%d bytes behind the FIP are not sent", n)
	}
	return data[:f.Size]
}

// contents names what is in a FIP.
func contents(f *firmware.FIP) string {
	var s []string
	for _, e := range f.Entries {
		if e.Name != "" {
			s = append(s, e.Name)
		} else {
			s = append(s, e.Text)
		}
	}
	if s == nil {
		return "nothing"
	}
	return strings.Join(s, ", ")
}

// uboot looks at what SPL starts.
func (c *checker) uboot(slot string, data []byte, _ socs.Firmware) ([]byte, error) {
	const want = "u-boot.itb or u-boot.img of the SPL's build"
	switch firmware.Identify(data).Kind {
	case firmware.KindFIT:
		f, err := firmware.ParseFIT(data)
		if err != nil {
			return nil, socs.Refuse(again, "%w", err)
		}
		for _, i := range f.Images {
			if i.Arch != "" && i.Arch != c.arch && i.Type != "flat_dt" {
				return nil, socs.Refuse("give "+want, "the image %q of its FIT is for %s; %s is %s", i.Name, i.Arch, c.name, c.arch)
			}
		}
		if load, ok := f.Below(uint64(c.dram)); ok {
			return nil, socs.Refuse("give "+want, "it is a FIT that loads to %#x, where %s has no DRAM", load, c.name)
		}
	case firmware.KindUImage:
		u, err := firmware.ParseUImage(data)
		switch {
		case err != nil:
			return nil, socs.Refuse(again, "%w", err)
		case u.Arch != c.arch:
			return nil, socs.Refuse("give "+want, "it is a uImage for %s; %s is %s", u.Arch, c.name, c.arch)
		case u.Load < c.dram:
			return nil, socs.Refuse("give "+want, "it is a uImage that loads to %#x, where %s has no DRAM", u.Load, c.name)
		}
	default:
		return nil, c.unlike(data, want, nil)
	}
	return data, nil
}

// unlike refuses a file that is something else than what belongs in a slot.
func (c *checker) unlike(data []byte, want string, err error) error {
	hint := "give " + want
	if f, _ := firmware.ParseFIP(data); f != nil {
		slot := slotFIP
		if _, ok := f.Entry("ddr-fw"); ok {
			slot = slotFIPDDR
		}
		return socs.Refuse(hint+"; this file may belong under "+slot, "it is a firmware image package (FIP) with %s", contents(f))
	}
	if img, _ := firmware.ParseSTM32(data); img != nil {
		return socs.Refuse(hint+"; this file may belong under "+slotTFA, "it has an STM32 header, version %d.%d", img.Major, img.Minor)
	}
	info := firmware.Identify(data)
	if err != nil {
		return socs.Refuse(hint, "%w: it is %s", err, info)
	}
	return socs.Refuse(hint, "it is %s", info)
}
