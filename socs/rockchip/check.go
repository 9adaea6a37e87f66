package rockchip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"snag/firmware"
	"snag/socs"
)

// section is what the ROM is sent by one request.
type section struct {
	slot    string
	path    string
	name    string // for people
	request uint16 // 0x471 or 0x472
	data    []byte // as it is sent, but for the CRC16
	delay   time.Duration
	plug    bool // Rockchip's USB plug
}

// maxSection bounds files; DRAM is larger.
const maxSection = 256 << 20

const (
	again     = "copy or build the file again"
	elsewhere = "check --soc, and that the file is for this board"
	newBoot   = "for U-Boot from memory build it with board/rockchip/rockchip-ramboot.config, and give its two files as code471 and code472"
)

// Check implements socs.Backend. The files are sent as they are, or encrypted.
func (Backend) Check(model socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	_, findings, err := sections(chipOf(model), fw)
	if err != nil {
		return nil, nil, err
	}
	return fw, findings, nil
}

// sections makes them of the files, in the order in which they are sent.
func sections(c *chip, fw socs.Firmware) ([]section, []socs.Finding, error) {
	k := &checker{chip: c, fw: fw}
	_, loader := fw[slotLoader]
	_, first := fw[slotCode471]
	_, second := fw[slotCode472]
	for slot := range fw {
		if slot != slotLoader && slot != slotCode471 && slot != slotCode472 {
			k.refuse(slot, "give "+slotLoader+", or "+slotCode471+" and "+slotCode472, "no Rockchip SoC takes such a file")
		}
	}
	switch {
	case loader && (first || second):
		k.refuse(slotLoader, "leave out one or the other", "%s has both stages: there is no use for %s and %s beside it", slotLoader, slotCode471, slotCode472)
	case loader:
		k.loader()
	case !first && !second:
		k.refuse(slotLoader, "give a loader, or U-Boot's u-boot-rockchip-usb471.bin and u-boot-rockchip-usb472.bin as code471 and code472", "missing: the ROM needs it, or code471 and code472")
	case !first:
		k.refuse(slotCode471, "give u-boot-rockchip-usb471.bin, u-boot-tpl.bin or Rockchip's DDR blob, which sets up the DRAM", "missing: the ROM needs it before code472")
		k.code(slotCode472, 0x472)
	default:
		k.code(slotCode471, 0x471)
		if second {
			k.code(slotCode472, 0x472)
		} else {
			k.Warn(slotCode471, "there is no code472: the board gets no further than code471 does from internal memory")
		}
	}
	if len(k.Errs) > 0 {
		return nil, nil, errors.Join(k.Errs...)
	}
	return k.sections, k.Findings, nil
}

// checker collects what there is to say of the files.
type checker struct {
	chip     *chip
	fw       socs.Firmware
	sections []section
	socs.Checked
}

func (k *checker) refuse(slot, hint, format string, args ...any) {
	k.Take(slot, k.fw[slot], socs.Refuse(hint, format, args...))
}

// whole looks at what all files must have.
func (k *checker) whole(slot string) bool {
	switch n := len(k.fw[slot].Data); {
	case n == 0:
		k.refuse(slot, again, "the file is empty")
	case n > maxSection:
		k.refuse(slot, "give what U-Boot's build or Rockchip makes for the ROM", "it has %d bytes, expected %d at most", n, maxSection)
	default:
		return true
	}
	return false
}

// encrypts tells whether the ROM wants a slot's code encrypted.
func (k *checker) encrypts(slot string) bool {
	switch v := k.fw[slot].Params[keyRC4]; v {
	case nil:
		return !k.chip.plain
	case "on", true:
		return true
	case "off", false:
		return false
	default:
		k.refuse(slot, "write rc4: on, or rc4: off", "%s is %v, expected on or off", keyRC4, v)
		return false
	}
}

// add adds code that is not encrypted as a section.
func (k *checker) add(slot, name string, request uint16, code []byte) {
	s := section{slot: slot, path: k.fw[slot].Path, name: name, request: request, data: code, plug: request == 0x472 && firmware.RockchipPlug(code)}
	if k.encrypts(slot) {
		s.data = firmware.RockchipRC4(code)
	}
	k.fits(s)
	k.sections = append(k.sections, s)
}

// fits refuses what is larger than the internal memory.
func (k *checker) fits(s section) {
	if n := len(s.data); s.request == 0x471 && k.chip.sram > 0 && n > k.chip.sram {
		k.refuse(s.slot, "give a first stage for this SoC: it sets up the DRAM and is small", "%s has %d bytes, which is more than the %d that %s has internal memory for", s.name, n, k.chip.sram, k.chip.name)
	}
}

// loader reads a container or an ID block.
func (k *checker) loader() {
	img := k.fw[slotLoader]
	if !k.whole(slotLoader) {
		return
	}
	const hint = "give a loader that was packed for this SoC (rk..._loader_....bin, MiniLoaderAll.bin), or U-Boot's idbloader.img"
	switch info := firmware.Identify(img.Data); info.Kind {
	case firmware.KindRKLoader:
		k.container(img)
	case firmware.KindRKIDBlock:
		k.idBlock(img)
	default:
		if _, ok := firmware.RockchipCode(img.Data); ok {
			k.refuse(slotLoader, "a file with one stage goes under code471 or code472", "expected a loader container or an ID block, it is %s", info)
			return
		}
		k.refuse(slotLoader, hint, "expected a loader container or an ID block, it is %s", info)
	}
}

// container takes the sections of a loader container, which are sent as they are: the packer has encrypted them for the
// ROMs that decrypt.
func (k *checker) container(img socs.Image) {
	l, err := firmware.ParseRockchipLoader(img.Data)
	switch {
	case err != nil:
		k.refuse(slotLoader, again, "%w", err)
		return
	case !k.chip.takes(l.Chip):
		k.refuse(slotLoader, elsewhere, "the loader is for %s, %s takes %s", l.Chip, k.chip.name, k.chip.containers)
		return
	case len(l.Code471) == 0:
		k.refuse(slotLoader, "give a loader that can be downloaded, not one for flash alone", "the loader has nothing for 471")
		return
	case img.Params[keyRC4] != nil:
		k.refuse(slotLoader, "leave rc4 out", "what a loader container has is sent as it is: rc4 is for other files")
		return
	}
	if l.Signed {
		k.Note(slotLoader, "the loader says that it is signed, which is not verified here")
	}
	for _, t := range []struct {
		request uint16
		list    []firmware.RockchipEntry
	}{{0x471, l.Code471}, {0x472, l.Code472}} {
		for _, e := range t.list {
			if len(e.Data) == 0 { // rkdeveloptool leaves it out
				continue
			}
			code := e.Data[:min(len(e.Data), 64)] // its beginning is enough
			if !k.chip.plain {
				code = firmware.RockchipRC4(code)
			}
			s := section{slot: slotLoader, path: img.Path, name: e.Name, request: t.request, data: e.Data, delay: min(e.Delay, maxDelay), plug: t.request == 0x472 && firmware.RockchipPlug(code)}
			k.fits(s)
			k.sections = append(k.sections, s)
		}
	}
}

// maxDelay bounds the delays that a container wants: the recipes have 1 ms, and one of them 2 s.
const maxDelay = 10 * time.Second

// idBlock takes the two images that a ROM loads from media: they are what it takes over USB.
func (k *checker) idBlock(img socs.Image) {
	d, err := firmware.ParseRockchipIDBlock(img.Data)
	if err != nil {
		k.refuse(slotLoader, again, "%w", err)
		return
	}
	if d.Tag != "" && k.chip.tag != "" && d.Tag != k.chip.tag || d.Version == 2 != k.chip.plain || foreign(k.chip, d.Images[0].Data) {
		what := fmt.Sprintf("an ID block of version %d", d.Version)
		if d.Tag != "" {
			what += ", tagged " + d.Tag
		}
		k.refuse(slotLoader, elsewhere, "it is %s, which is for another SoC than %s", what, k.chip.name)
		return
	}
	for _, i := range d.Images {
		if soc := k.other(i.Data); soc != "" {
			k.refuse(slotLoader, elsewhere, "a device tree in it is for %s, not for %s", soc, k.chip.name)
			return
		}
	}
	k.add(slotLoader, "first image of the ID block", 0x471, d.Images[0].Data)
	if len(d.Images) > 1 {
		k.add(slotLoader, "second image of the ID block", 0x472, d.Images[1].Data)
	}
	switch {
	case len(d.Images) == 1:
		k.Warn(slotLoader, "there is one image only, in internal memory: SPL, or a TPL that finds nothing after it. It loads what follows from the board's storage; %s", newBoot)
	default:
		k.Warn(slotLoader, "SPL gets the DRAM, but no U-Boot over USB: it loads that from the board's storage; %s", newBoot)
	}
}

// code takes a file for one request.
func (k *checker) code(slot string, request uint16) {
	img := k.fw[slot]
	if !k.whole(slot) {
		return
	}
	want := map[uint16]string{0x471: "give u-boot-rockchip-usb471.bin, u-boot-tpl.bin or Rockchip's DDR blob", 0x472: "give u-boot-rockchip-usb472.bin, u-boot-spl.bin or Rockchip's USB plug"}[request]
	info := firmware.Identify(img.Data)
	tag, code := firmware.RockchipCode(img.Data)
	if !code { // it may have been encrypted beforehand
		if t, ok := firmware.RockchipCode(firmware.RockchipRC4(img.Data[:min(len(img.Data), 64)])); ok && info.Kind == firmware.KindUnknown {
			k.encrypted(slot, request, t)
			return
		}
	}
	switch {
	case info.Kind == firmware.KindRKLoader || info.Kind == firmware.KindRKIDBlock:
		k.refuse(slot, "give it as loader, alone", "it is %s", info)
	case info.Kind == firmware.KindFIT || info.Kind == firmware.KindUImage:
		k.refuse(slot, want+", which has SPL in front", "it is %s: the ROM does not start that", info)
	case !code || info.Kind == firmware.KindEGON:
		k.refuse(slot, want, "expected code that begins with a branch or a tag, it is %s", info)
	case tag != "" && tag != k.chip.tag && k.chip.tag != "", tag != "" && k.chip.plain:
		k.refuse(slot, elsewhere, "its tag is %s, that of %s is %q", tag, k.chip.name, k.chip.tag)
	case foreign(k.chip, img.Data):
		k.refuse(slot, elsewhere, "it is a program for 64-bit ARM, which %s is not", k.chip.name)
	case proper(img.Data):
		k.refuse(slot, want, "it is U-Boot itself, which SPL starts (%s)", info)
	case k.other(img.Data) != "":
		k.refuse(slot, elsewhere, "the device tree in it is for %s, not for %s", k.other(img.Data), k.chip.name)
	default:
		k.about(slot, request, img.Data)
		k.add(slot, img.Path, request, img.Data)
	}
}

// foreign tells whether code begins with a branch of 64-bit ARM, and the chip has none.
func foreign(c *chip, b []byte) bool {
	tag, ok := firmware.RockchipCode(b)
	return ok && !c.arm64 && binary.LittleEndian.Uint32(b[len(tag):])>>26 == 0b000101
}

// other names the SoC that code is for by the device tree in it, if that is another one.
func (k *checker) other(code []byte) (name string) {
	behind(code, fdtMagic, func(b []byte) bool {
		t, err := firmware.ParseFDT(b)
		if err != nil {
			return false
		}
		for _, text := range t.Root.Texts("compatible") {
			soc, ours := strings.CutPrefix(text, "rockchip,")
			m, err := socs.Lookup(soc)
			if !ours || err != nil || m.Family != family {
				continue
			}
			if c := chipOf(m); c.containers != k.chip.containers {
				name = c.name
			}
			return true
		}
		return false
	})
	return name
}

// proper tells whether code is U-Boot without an SPL in front, by what it calls itself.
func proper(b []byte) bool {
	first := bytes.Contains(b, []byte("U-Boot SPL 20")) || bytes.Contains(b, []byte("U-Boot TPL 20"))
	return !first && bytes.Contains(b, []byte("U-Boot 20")) && !firmware.RockchipPlug(b) && !payload(b)
}

// encrypted takes a file that was encrypted beforehand ("openssl rc4" in U-Boot's doc/README.rockchip) as it is.
func (k *checker) encrypted(slot string, request uint16, tag string) {
	if k.chip.plain {
		k.refuse(slot, "give the file as it was before it was encrypted", "it is encrypted, which %s does not undo", k.chip.name)
		return
	}
	if tag != "" && tag != k.chip.tag && k.chip.tag != "" {
		k.refuse(slot, elsewhere, "its tag is %s, that of %s is %q", tag, k.chip.name, k.chip.tag)
		return
	}
	img := k.fw[slot]
	k.Note(slot, "it is encrypted already, and sent as it is")
	s := section{slot: slot, path: img.Path, name: img.Path, request: request, data: img.Data, plug: request == 0x472 && firmware.RockchipPlug(firmware.RockchipRC4(img.Data[:min(len(img.Data), 64)]))}
	k.fits(s)
	k.sections = append(k.sections, s)
}

// about warns of code for 472 that starts, but gets no further.
func (k *checker) about(slot string, request uint16, b []byte) {
	if request != 0x472 || firmware.RockchipPlug(b) {
		return
	}
	if !payload(b) {
		k.Warn(slot, "there is no U-Boot behind SPL, which will load it from the board's storage; %s", newBoot)
	}
	if k.chip.dram != 0 && len(b) >= 16 {
		// A program of U-Boot's for 64 bits has the address that it is linked to here.
		if base := binary.LittleEndian.Uint64(b[8:]); base > uint64(k.chip.dram) && base < uint64(k.chip.dram)+1<<30 {
			k.Warn(slot, "SPL says that it is linked to %#x, where it is not started: %s starts it at %#x", base, k.chip.name, k.chip.dram)
		}
	}
}

// maxTries bounds how many places are looked at that may begin such an image.
const maxTries = 64

const fdtMagic = "\xd0\x0d\xfe\xed"

// payload tells whether U-Boot is behind SPL, as a FIT or a legacy image: at a multiple of 4 bytes, and no mere
// constant in its code.
func payload(b []byte) bool {
	return behind(b, fdtMagic, func(b []byte) bool {
		t, err := firmware.ParseFDT(b)
		return err == nil && t.IsFIT()
	}) || behind(b, "\x27\x05\x19\x56", func(b []byte) bool {
		u, err := firmware.ParseUImage(b)
		return err == nil && u != nil
	})
}

// behind tells whether something that begins with a magic number is in code.
func behind(b []byte, magic string, is func([]byte) bool) bool {
	for off, tries := 0, 0; tries < maxTries; off, tries = off+1, tries+1 {
		n := bytes.Index(b[off:], []byte(magic))
		if n < 0 {
			return false
		}
		if off += n; off%4 == 0 && is(b[off:]) {
			return true
		}
	}
	return false
}
