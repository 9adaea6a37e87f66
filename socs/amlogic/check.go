package amlogic

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"snag/firmware"
	"snag/socs"
)

// What the slots want.
const (
	wantBL2  = "give u-boot.bin.usb.bl2, which Amlogic's tools (aml_encrypt_gxl, gxlimg) make with the FIP of the board"
	wantFIP  = "give u-boot.bin.usb.tpl, which Amlogic's tools (aml_encrypt_gxl, gxlimg) make with BL2"
	wantG12  = "give the u-boot.bin that Amlogic's tools (aml_encrypt_g12a, aml_encrypt_g12b) make, with BL2 in front"
	wantCard = "give the file without the card's first sector: u-boot.bin, not u-boot.bin.sd.bin"
	again    = "copy or build the file again"
)

// Check implements socs.Backend. The images are sent as they are. A file in which nothing is recognised may be
// encrypted for a part with secure boot: that is let pass with a warning.
func (Backend) Check(model socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	chip, err := chipOf(model)
	if err != nil {
		return nil, nil, err
	}
	c := &socs.Checked{Sent: socs.Firmware{}}
	for slot, img := range fw {
		if !slices.Contains(chip.slots(), slot) {
			c.Take(slot, img, socs.Refuse("give "+strings.Join(chip.slots(), " and "), "%s, which is one of %s, takes no such file", model.Name, chip.name))
		}
	}
	for _, slot := range chip.slots() {
		img, ok := fw[slot]
		var err error
		switch {
		case !ok:
			err = socs.Refuse(map[string]string{slotBL2: wantBL2, slotUBoot: wantFIP, slotFIP: wantG12}[slot], "missing: %s, which is one of %s, needs it", model.Name, chip.name)
		case len(img.Data) == 0:
			err = socs.Refuse(again, "the file is empty")
		case slot == slotBL2:
			err = chip.checkBL2(c, img)
		case slot == slotUBoot:
			err = chip.checkFIP(c, img)
		default:
			err = chip.checkG12(c, img)
		}
		c.Take(slot, img, err)
	}
	if len(c.Errs) > 0 {
		return nil, c.Findings, errors.Join(c.Errs...)
	}
	return c.Sent, c.Findings, nil
}

// checkBL2 checks what the ROM of GX and AXG starts.
func (c *chip) checkBL2(f *socs.Checked, img socs.Image) error {
	room := int(c.parameters - c.bl2)
	if a, err := c.image(f, slotBL2, img, wantBL2); a == nil || err != nil {
		return err
	} else if a.Size > room && matchesFIP(img.Data[a.Size:]) {
		return socs.Refuse(wantBL2, "it is %s, for G12 and later", firmware.Identify(img.Data))
	}
	if len(img.Data) > room {
		return socs.Refuse(wantBL2, "it has %d bytes, and there is room for %d", len(img.Data), room)
	}
	return nil
}

// image checks that a file begins with a BL2. It returns nil for what may be encrypted.
func (c *chip) image(f *socs.Checked, slot string, img socs.Image, want string) (*firmware.AMLImage, error) {
	info := firmware.Identify(img.Data)
	switch info.Kind {
	case firmware.KindAML:
	case firmware.KindUnknown:
		f.Warn(slot, "%s: nothing is recognised in it, it may be encrypted for a part with secure boot; expected a BL2 (@AML at byte 16)", img.Path)
		return nil, nil
	case firmware.KindAMLCard:
		return nil, socs.Refuse(wantCard, "it is %s, expected a BL2 at its begin", info)
	default:
		return nil, socs.Refuse(want, "expected a BL2 (@AML at byte 16), it is %s", info)
	}
	a, err := firmware.ParseAML(img.Data)
	switch {
	case err != nil:
		return nil, socs.Refuse(again, "%w", err)
	case a.BL3:
		return nil, socs.Refuse(want, "expected a BL2, it is a BL31 or BL33")
	case a.Signed:
		f.Note(slot, "it is signed: snag cannot verify that")
	}
	return a, nil
}

// checkFIP checks what the BL2 of GX and AXG starts.
func (c *chip) checkFIP(f *socs.Checked, img socs.Image) error {
	load, err := address(img, keyLoad, c.fip)
	if err != nil {
		return err
	}
	if load != c.fip {
		f.Warn(slotUBoot, "%s is %#08x: BL2 is told to look at %#08x, in a block that nobody here understands whole", keyLoad, load, c.fip)
	}
	if most := int64(1<<32-int64(load)) &^ (fipBlock - 1); int64(len(img.Data)) > min(most, maxBlocks*fipBlock) {
		return socs.Refuse(wantFIP, "it has %d bytes, which do not fit in at %#08x", len(img.Data), load)
	}
	switch info := firmware.Identify(img.Data); info.Kind {
	case firmware.KindAMLFIP, firmware.KindFIP:
	case firmware.KindUnknown:
		f.Warn(slotUBoot, "%s: nothing is recognised in it, it may be encrypted for a part with secure boot; expected a FIP", img.Path)
		return nil
	case firmware.KindARM64:
		return socs.Refuse(wantFIP, "expected a FIP, it is %s, U-Boot alone", info)
	default:
		return socs.Refuse(wantFIP, "expected a FIP, it is %s", info)
	}
	return c.fipOf(f, slotUBoot, img.Data)
}

// fipOf checks a FIP, and what is in it as far as that can be read.
func (c *chip) fipOf(f *socs.Checked, slot string, b []byte) error {
	if firmware.Identify(b).Kind == firmware.KindFIP { // without the 16 bytes: GXBB's
		if _, err := firmware.ParseFIP(b); err != nil {
			return socs.Refuse(again, "%w", err)
		}
		return nil
	}
	fip, err := firmware.ParseAMLFIP(b)
	if err != nil {
		return socs.Refuse(again, "%w", err)
	}
	if fip.FIP == nil {
		return nil
	}
	for _, e := range fip.FIP.Entries {
		if _, err := firmware.ParseAML(e.Data); err != nil && firmware.Identify(e.Data).Kind == firmware.KindAML {
			return socs.Refuse(again, "%s in it: %w", e.Text, err)
		}
	}
	if _, ok := fip.FIP.Entry("nt-fw"); !ok {
		f.Warn(slot, "the FIP has no BL33, which is U-Boot")
	}
	return nil
}

// checkG12 checks what the ROM of G12 and SM1 takes the begin of, and BL2 the rest.
func (c *chip) checkG12(f *socs.Checked, img socs.Image) error {
	if _, err := address(img, keyBL2Load, c.bl2); err != nil {
		return err
	}
	a, err := c.image(f, slotFIP, img, wantG12)
	switch n := len(img.Data); {
	case err != nil:
		return err
	case a != nil && a.Size < g12BL2 && n <= g12BL2:
		return socs.Refuse(wantG12, "it is a BL2 alone, as for GX and AXG")
	case n <= g12BL2:
		return socs.Refuse(again, "it has %d bytes, expected more than BL2's %d", n, g12BL2)
	case n > g12File:
		return socs.Refuse(wantG12, "it has %d bytes, BL2 can be told of %d at most", n, g12File)
	case a == nil:
		return nil
	case a.Size != g12BL2:
		return socs.Refuse(wantG12, "its BL2 has %d bytes, expected %d", a.Size, g12BL2)
	case !matchesFIP(img.Data[g12BL2:]):
		f.Warn(slotFIP, "no FIP is recognised behind BL2, at %#x", g12BL2)
		return nil
	}
	return c.fipOf(f, slotFIP, img.Data[g12BL2:])
}

// matchesFIP tells whether a FIP as behind a BL2 is there.
func matchesFIP(b []byte) bool { return firmware.Identify(b).Kind == firmware.KindAMLFIP }

// address is the one that a key has, or another if there is no such key.
func address(img socs.Image, key string, other uint32) (uint32, error) {
	p, given := img.Params[key]
	if !given || p == nil {
		return other, nil
	}
	v, ok := img.Int(key)
	if text, isText := p.(string); isText {
		var err error
		v, err = strconv.ParseInt(text, 0, 64)
		ok = err == nil
	}
	if !ok {
		return 0, badAddress(key, p)
	}
	if v < 0 || v > 0xffffffff {
		return 0, badAddress(key, fmt.Sprintf("%#x", v))
	}
	return uint32(v), nil
}

func badAddress(key string, v any) error {
	return socs.Refuse("write "+key+" as a number: 0x200c000", "%s is %v, expected an address of 32 bits", key, v)
}
