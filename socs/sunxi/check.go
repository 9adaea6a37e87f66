package sunxi

import (
	"bytes"
	"fmt"
	"path"
	"strings"

	"snag/firmware"
	"snag/socs"
)

// plan is what a board is sent.
type plan struct {
	socs.Checked
	force bool

	spl   []byte
	uboot *uboot // nil: SPL alone
}

// uboot is what is sent once SPL has set the DRAM up.
type uboot struct {
	parts []part
	entry uint32
	arm64 bool // what is at entry is started in AArch64
}

// part is a piece of memory.
type part struct {
	name string
	addr uint32
	data []byte
}

const (
	again  = "copy or build the file again"
	wanted = "give u-boot-sunxi-with-spl.bin as " + slotBoth + ", or sunxi-spl.bin as " + slotSPL + " and u-boot.img (of 64-bit parts the .itb) as " + slotUBoot
	forces = "give the build for this board; --force sends it all the same"
)

// dramStart is the lowest address at which Allwinner's SoCs have DRAM: A80; the others from 0x40000000 on, F1C100s from 0x80000000.
const dramStart = 0x20000000

// check looks at the firmware. chip is nil if the board has not told yet which it is: what needs it is left out then.
func check(chip *chip, fw socs.Firmware) *plan {
	p := &plan{Checked: socs.Checked{Sent: make(socs.Firmware)}, force: forced(fw)}
	both, haveBoth := fw[slotBoth]
	spl, haveSPL := fw[slotSPL]
	next, haveUBoot := fw[slotUBoot]
	slot, nextSlot := slotSPL, slotUBoot
	switch {
	case haveBoth && (haveSPL || haveUBoot):
		p.Take(slotBoth, both, socs.Refuse("give one or the other", "it has SPL and U-Boot, which are given apart as well"))
		return p
	case haveBoth:
		slot, nextSlot, spl, next = slotBoth, slotBoth, both, both
	case !haveSPL && haveUBoot:
		p.Take(slotSPL, spl, socs.Refuse("give sunxi-spl.bin of the same build as "+slotSPL, "missing: U-Boot goes into DRAM, which SPL sets up"))
		p.next(chip, nextSlot, next, "")
		return p
	case !haveSPL:
		p.Take(slotBoth, both, socs.Refuse(wanted, "missing: there is nothing to send"))
		return p
	}

	if at := p.ofCard(slot, spl.Data); at > 0 {
		if spl.Data = spl.Data[at:]; haveBoth {
			next.Data = spl.Data
		}
	}
	egon, err := p.first(chip, slot, spl)
	if err != nil {
		p.Take(slot, spl, err)
		if egon == nil || haveBoth {
			return p
		}
	}
	if off, behind := egon.UBoot(spl.Data); haveBoth {
		if behind != nil {
			p.Take(slot, spl, socs.Refuse("give u-boot-sunxi-with-spl.bin; or give this one as "+slotSPL+", alone to run SPL and no more", "%w", behind))
			return p
		}
		next.Data = next.Data[off:]
	} else if behind == nil {
		if haveUBoot {
			p.Note(slot, "the U-Boot behind SPL in it is not sent, that of %s is", slotUBoot)
		} else {
			p.Warn(slot, "the U-Boot behind SPL in it is not sent: give the file as %s", slotBoth)
		}
	}
	if err == nil {
		spl.Data = egon.Data
		p.spl = spl.Data
		p.Take(slotSPL, spl, nil)
	}
	if haveBoth || haveUBoot {
		p.next(chip, nextSlot, next, egon.DeviceTree)
	}
	return p
}

// next takes what SPL would load, which was given in a slot.
func (p *plan) next(chip *chip, slot string, img socs.Image, splTree string) {
	name, _ := img.Params[keyTree].(string)
	u, err := p.second(chip, slot, img, splTree, name)
	if err != nil {
		p.Take(slot, img, err)
		return
	}
	p.uboot = u
	p.Take(slotUBoot, img, nil)
}

// cards are where a card has SPL, behind an MBR or a GPT (U-Boot, doc/board/allwinner/sunxi.rst).
var cards = []int{8 << 10, 128 << 10}

// ofCard finds SPL in a file that is an image of a card; 0 if it is none.
func (p *plan) ofCard(slot string, data []byte) int {
	if firmware.Identify(data).Kind == firmware.KindEGON {
		return 0
	}
	for _, at := range cards {
		if len(data) > at && firmware.Identify(data[at:]).Kind == firmware.KindEGON {
			p.Note(slot, "the file is an image of a card: SPL begins at %#x of it", at)
			return at
		}
	}
	return 0
}

// forced reports whether the user wants it all the same.
func forced(fw socs.Firmware) bool {
	for _, img := range fw {
		if on, _ := img.Params[keyForce].(bool); on {
			return true
		}
	}
	return false
}

// first looks at SPL.
func (p *plan) first(chip *chip, slot string, img socs.Image) (*firmware.EGON, error) {
	if len(img.Data) == 0 {
		return nil, socs.Refuse(again, "the file is empty")
	}
	egon, err := firmware.ParseEGON(img.Data)
	info := firmware.Identify(img.Data)
	switch {
	case egon == nil && info.Kind == firmware.KindFIT:
		return nil, socs.Refuse("the FIT belongs under "+slotUBoot+", with sunxi-spl.bin of the same build as "+slotSPL, "there is no SPL in it: it is %s", info)
	case egon == nil && info.Kind == firmware.KindUImage:
		return nil, socs.Refuse("it belongs under "+slotUBoot+", with sunxi-spl.bin of the same build as "+slotSPL, "there is no SPL in it: it is %s", info)
	case egon == nil && bytes.HasPrefix(img.Data, []byte("TOC0.GLH")):
		return nil, socs.Refuse("give a build without CONFIG_SPL_IMAGE_TYPE_SUNXI_TOC0: FEL runs it on fused boards too", "it is %s, expected an eGON image", info)
	case egon == nil:
		return nil, socs.Refuse(wanted, "%w: it is %s", err, info)
	case err != nil:
		return nil, socs.Refuse(again, "%w", err)
	case !egon.SPL && !p.force:
		return egon, socs.Refuse(wanted+"; --force sends it all the same", "it is the vendor's boot0, expected U-Boot's SPL: nothing else returns to FEL when it has set the DRAM up")
	case egon.SPL && !egon.Header(1):
		return egon, socs.Refuse("build U-Boot 2015.10 or later, and no other's", "the version of SPL's header is %d.%d, expected 0.1 to 0.31", egon.Major, egon.Minor)
	case egon.Branch == "riscv":
		return egon, socs.Refuse("D1 and D1s (T113's RISC-V siblings) cannot be recovered by snag", "it is for RISC-V, expected ARM")
	case chip == nil:
		return egon, nil
	case uint64(len(egon.Data)) > uint64(chip.room()):
		return egon, socs.Refuse("give the SPL for this SoC", "SPL has %d bytes, %s has room for %d beside the boot ROM's own memory", len(egon.Data), chip.name, chip.room())
	}
	return egon, p.sameSoC(chip, slot, egon.DeviceTree)
}

// sameSoC refuses what is for another SoC, by the name of its device tree.
func (p *plan) sameSoC(chip *chip, slot, tree string) error {
	if chip == nil || tree == "" {
		return nil
	}
	switch of := chipOfTree(tree); {
	case of == nil:
		p.Warn(slot, "it is for %s, of which snag does not know whether that is an %s", tree, chip.name)
	case of != chip && p.force:
		p.Warn(slot, "it is for %s (%s), not for %s: sent all the same (--force)", tree, of.name, chip.name)
	case of != chip:
		return socs.Refuse(forces, "it is for %s (%s), not for %s", tree, of.name, chip.name)
	}
	return nil
}

// second looks at what SPL would load. Given are the device tree's name that SPL has, and the one that the user has chosen.
func (p *plan) second(chip *chip, slot string, img socs.Image, splTree, chosen string) (*uboot, error) {
	if len(img.Data) == 0 {
		return nil, socs.Refuse(again, "the file is empty")
	}
	var u *uboot
	var err error
	switch info := firmware.Identify(img.Data); info.Kind {
	case firmware.KindUImage:
		if chosen != "" {
			return nil, socs.Refuse("leave dt (--dt) out, or give a FIT", "the device tree %q cannot be chosen: it is %s, which has one at most", chosen, info)
		}
		u, err = p.legacy(chip, slot, img.Data)
	case firmware.KindFIT:
		u, err = p.fit(chip, slot, img.Data, splTree, chosen)
	default:
		return nil, socs.Refuse(wanted, "expected U-Boot as uImage or FIT, found %s", info)
	}
	if err != nil {
		return nil, err
	}
	if u.arm64 && chip != nil && chip.rvbar == 0 {
		return nil, socs.Refuse("give the build for this board", "it is for 64-bit ARM; %s is not, or it is not known how it is switched over", chip.name)
	}
	for _, part := range u.parts {
		if err := chip.spares(part); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// spares refuses what would overwrite the ROM's memory, or reach beyond all.
func (c *chip) spares(p part) error {
	start, end := uint64(p.addr), uint64(p.addr)+uint64(len(p.data))
	if end > 1<<32 {
		return socs.Refuse(again, "%s would go to %#08x to %#08x, beyond all memory", p.name, start, end)
	}
	if c == nil || start >= dramStart {
		return nil
	}
	for _, s := range c.swaps {
		if start < uint64(s.area+s.size) && uint64(s.area) < end {
			return socs.Refuse("give the build for this board", "%s would go to %#08x to %#08x, where the boot ROM of %s has its own memory (from %#x on)", p.name, start, end, c.name, s.area)
		}
	}
	return nil
}

// legacy looks at a uImage. It is started at its load address, as sunxi-fel and Snagboot do: its entry is 0 or the same.
func (p *plan) legacy(chip *chip, slot string, data []byte) (*uboot, error) {
	img, err := firmware.ParseUImage(data)
	switch {
	case err != nil:
		return nil, socs.Refuse(again, "%w", err)
	case img.Type != "firmware" || img.OS != "u-boot":
		return nil, socs.Refuse(wanted, "it is a uImage of type %s for %s, expected firmware for u-boot", img.Type, img.OS)
	case img.Arch != "arm":
		return nil, socs.Refuse(wanted, "it is a uImage for %s, expected arm", img.Arch)
	case img.Compression != "none":
		return nil, socs.Refuse("build it without compression", "it is compressed (%s), and there is nothing to unpack it on the board", img.Compression)
	case len(img.Data) == 0:
		return nil, socs.Refuse(again, "there is nothing in it")
	case img.Load < dramStart:
		return nil, socs.Refuse(wanted, "its load address is %#08x, which is no DRAM of Allwinner's", img.Load)
	}
	if err := p.compatible(chip, slot, img.Data); err != nil {
		return nil, err
	}
	return &uboot{parts: []part{{"U-Boot", img.Load, img.Data}}, entry: img.Load}, nil
}

// maxTrees bounds how many places in a program are tried that look like the beginning of a device tree.
const maxTrees = 16

// compatible refuses a U-Boot for another SoC, by the device tree in it.
func (p *plan) compatible(chip *chip, slot string, program []byte) error {
	if chip == nil {
		return nil
	}
	for range maxTrees {
		i := bytes.Index(program, []byte("\xd0\x0d\xfe\xed"))
		if i < 0 {
			return nil
		}
		tree, err := firmware.ParseFDT(program[i:])
		program = program[i+4:]
		if err != nil {
			continue
		}
		for _, name := range tree.Root.Texts("compatible") {
			if soc, ok := strings.CutPrefix(name, "allwinner,"); ok && chipOfTree(soc) != nil {
				return p.sameSoC(chip, slot, soc)
			}
		}
	}
	return nil
}

// fit looks at a FIT, and chooses one of its configurations.
func (p *plan) fit(chip *chip, slot string, data []byte, splTree, chosen string) (*uboot, error) {
	f, err := firmware.ParseFIT(data)
	if err != nil {
		return nil, socs.Refuse(again, "%w", err)
	}
	config, err := p.choose(f, slot, splTree, chosen)
	if err != nil {
		return nil, err
	}
	if err := p.sameSoC(chip, slot, config.Description); err != nil {
		return nil, err
	}
	find := func(name string) (*firmware.FITImage, error) {
		for i := range f.Images {
			if f.Images[i].Name == name {
				return &f.Images[i], nil
			}
		}
		return nil, socs.Refuse(again, "configuration %q of the FIT names an image %q that is not in it", config.Name, name)
	}
	var images []*firmware.FITImage
	names := config.Loadables
	if config.Firmware != "" {
		names = append([]string{config.Firmware}, names...)
	}
	for _, name := range names {
		img, err := find(name)
		if err != nil {
			return nil, err
		}
		images = append(images, img)
	}
	u := &uboot{}
	var entries []*firmware.FITImage
	var main *firmware.FITImage // U-Boot, which looks for its device tree right behind itself
	for _, img := range images {
		switch {
		case img.Compression != "" && img.Compression != "none":
			return nil, socs.Refuse("build it without compression", "image %q of the FIT is compressed (%s), and there is nothing to unpack it on the board", img.Name, img.Compression)
		case !img.HasLoad || img.Load >= 1<<32 || img.Entry >= 1<<32:
			return nil, socs.Refuse(again, "image %q of the FIT has no load address that fits into 32 bits", img.Name)
		}
		if img.HasEntry {
			entries = append(entries, img)
		}
		if main == nil || !isUBoot(main) && (isUBoot(img) || main.OS != "" && img.OS == "") {
			main = img
		}
		if len(img.Data) > 0 {
			u.parts = append(u.parts, part{fmt.Sprintf("image %q of the FIT", img.Name), uint32(img.Load), img.Data})
		}
	}
	switch {
	case len(images) == 0:
		return nil, socs.Refuse(again, "configuration %q of the FIT names neither firmware nor loadables", config.Name)
	case main.Load < dramStart:
		return nil, socs.Refuse(wanted, "image %q of the FIT loads to %#08x, which is no DRAM of Allwinner's", main.Name, main.Load)
	case len(entries) == 0: // then it is where the first is loaded to, to U-Boot's SPL as well
		u.entry, u.arm64 = uint32(images[0].Load), images[0].Arch == "arm64"
	case len(entries) > 1:
		p.Note(slot, "several images of the FIT have an entry; that of %q is taken", entries[0].Name)
		fallthrough
	default:
		u.entry, u.arm64 = uint32(entries[0].Entry), entries[0].Arch == "arm64"
	}
	if config.FDT != "" {
		tree, err := find(config.FDT)
		if err != nil {
			return nil, err
		}
		if tree.Compression != "" && tree.Compression != "none" {
			return nil, socs.Refuse("build it without compression", "image %q of the FIT is compressed (%s), and there is nothing to unpack it on the board", tree.Name, tree.Compression)
		}
		at := main.Load + uint64(len(main.Data))
		if at >= 1<<32 {
			return nil, socs.Refuse(again, "image %q of the FIT reaches beyond all memory", main.Name)
		}
		u.parts = append(u.parts, part{fmt.Sprintf("device tree %q of the FIT", tree.Name), uint32(at), tree.Data})
	}
	return u, nil
}

// isUBoot tells whether an image of a FIT says to be U-Boot.
func isUBoot(img *firmware.FITImage) bool { return strings.EqualFold(img.OS, "u-boot") }

// maxListed is how many device trees a message names.
const maxListed = 32

// choose finds the configuration: the user's choice by its description or name, else the one with SPL's device tree, the default, the first.
func (p *plan) choose(f *firmware.FIT, slot, splTree, chosen string) (*firmware.FITConfig, error) {
	if len(f.Configs) == 0 {
		return nil, socs.Refuse(again, "the FIT has no configurations")
	}
	by := func(is func(c *firmware.FITConfig) bool) *firmware.FITConfig {
		for i := range f.Configs {
			if is(&f.Configs[i]) {
				return &f.Configs[i]
			}
		}
		return nil
	}
	named := func(name string) *firmware.FITConfig {
		return by(func(c *firmware.FITConfig) bool { return path.Base(c.Description) == path.Base(name) })
	}
	var descriptions []string
	for _, c := range f.Configs[:min(len(f.Configs), maxListed)] {
		descriptions = append(descriptions, c.Description)
	}
	if chosen != "" {
		if c := named(chosen); c != nil {
			return c, nil
		}
		if c := by(func(c *firmware.FITConfig) bool { return c.Name == chosen }); c != nil {
			return c, nil
		}
		return nil, socs.Refuse("choose one that is in it, or leave dt (--dt) out", "the FIT has no device tree %q; it has %s", chosen, strings.Join(descriptions, ", "))
	}
	if c := named(splTree); splTree != "" && c != nil {
		p.Note(slot, "the device tree is that of SPL, %s", splTree)
		return c, nil
	}
	c := by(func(c *firmware.FITConfig) bool { return c.Name == f.Default })
	if c == nil {
		c = &f.Configs[0]
	}
	if len(f.Configs) > 1 {
		p.Warn(slot, "SPL does not say which device tree is the board's, or the FIT has none for it: taking %s of %s (--dt chooses)", c.Description, strings.Join(descriptions, ", "))
	}
	return c, nil
}
