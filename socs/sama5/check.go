package sama5

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"snag/firmware"
	"snag/socs"
)

// noConsole has an applet write to no console.
const noConsole = 0xffffffff

// plan is what is done with the files.
type plan struct {
	socs.Checked
	chip     *chip
	lowlevel call
	extram   call
	address  uint32 // U-Boot's
}

// call are the arguments of an applet.
type call struct {
	console, ioSet uint32
	params         []uint32
}

const (
	again   = "copy or build the file again"
	applets = "give Microchip's applet-%s_%s-generic_sram.bin; it comes with SAM-BA 3, in qml/SAMBA/Device"
)

// makePlan checks the firmware.
func makePlan(model socs.Model, fw socs.Firmware) *plan {
	p := &plan{Checked: socs.Checked{Sent: socs.Firmware{}}, chip: find(model.Name)}
	if p.chip == nil {
		p.Take(slotUBoot, socs.Image{}, fmt.Errorf("%s is none of this family", model.Name))
		return p
	}
	for _, slot := range []string{slotLowlevel, slotExtram} {
		img := fw[slot]
		a, err := p.applet(slot, img, fw)
		c := call{params: []uint32{0}} // which is no preset: only SAM9X60's applet has some
		if err == nil {
			c.console, c.ioSet, err = p.console(img)
		}
		if err == nil && slot == slotExtram {
			var n uint32
			n, err = p.preset(a, img)
			c.params = []uint32{0, n} // the mode: there is one, "preset"
		}
		p.Take(slot, img, err)
		if slot == slotLowlevel {
			p.lowlevel = c
		} else {
			p.extram = c
		}
	}
	var err error
	p.address, err = p.uboot(fw)
	p.Take(slotUBoot, fw[slotUBoot], err)
	return p
}

// appletFile is how Microchip names applets.
var appletFile = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^applet-([a-z]+)_([a-z0-9]+)-`) })

// applet checks an applet.
func (p *plan) applet(slot string, img socs.Image, fw socs.Firmware) (*firmware.SAMBAApplet, error) {
	give := fmt.Sprintf(applets, slot, p.chip.model)
	if _, ok := fw[slot]; !ok {
		return nil, socs.Refuse(give, "missing: the boot ROM sets up neither clocks nor DRAM")
	}
	if len(img.Data) == 0 {
		return nil, socs.Refuse(again, "the file is empty")
	}
	a, err := firmware.ParseSAMBAApplet(img.Data)
	if err != nil {
		return nil, socs.Refuse(give, "it is %s (%w)", firmware.Identify(img.Data), err)
	}
	name := map[string]string{"Low-Level": slotLowlevel, "External RAM": slotExtram}[a.Name]
	m := appletFile().FindStringSubmatch(filepath.Base(img.Path))
	switch {
	case a.Load == dram:
		return nil, socs.Refuse(give, "the applet runs in DRAM, which is to be set up: expected one for the internal memory at %#x", p.chip.sram)
	case a.Load != p.chip.sram:
		return nil, socs.Refuse(give, "the applet is linked for %#x%s: expected %#x, where %s has its memory for applets", a.Load, whose(a.Load), p.chip.sram, p.chip.model)
	case len(img.Data) > int(p.chip.size):
		return nil, socs.Refuse(give, "the applet has %d bytes, the memory for it %d", len(img.Data), p.chip.size)
	case a.Name != "" && name != slot:
		return nil, socs.Refuse(give, "it is the applet %q, expected the one that %s", a.Name, map[string]string{slotLowlevel: "sets the clocks", slotExtram: "sets up the DRAM"}[slot])
	case m != nil && m[2] != p.chip.model:
		p.Warn(slot, "%s: by its name the applet is for %s", img.Path, m[2])
	}
	return a, nil
}

// whose says whose applets are loaded to an address.
func whose(load uint32) string {
	i := slices.IndexFunc(chips, func(c chip) bool { return c.sram == load })
	if i < 0 {
		return ""
	}
	return ", as for " + chips[i].model
}

// number is a key that is a number of 32 bits. There may be none.
func number(img socs.Image, key string) (n uint32, given bool, err error) {
	v, given := img.Params[key]
	i, ok := img.Int(key)
	switch {
	case !given:
		return 0, false, nil
	case !ok:
		return 0, true, socs.Refuse("write it without quotes", "%s is %q, expected a number", key, fmt.Sprint(v))
	case i < 0 || i > 0xffffffff:
		return 0, true, socs.Refuse("correct it", "%s is %d, expected a number of 32 bits", key, i)
	}
	return uint32(i), true, nil
}

// console is where an applet writes its messages.
func (p *plan) console(img socs.Image) (instance, set uint32, err error) {
	instance, given, err := number(img, "console_instance")
	if err != nil {
		return 0, 0, err
	}
	set, setGiven, err := number(img, "console_ioset")
	if err != nil {
		return 0, 0, err
	}
	switch {
	case !given && !setGiven, instance == noConsole, set == noConsole:
		return noConsole, noConsole, nil
	case !setGiven:
		set = 1
	}
	if !given || int64(instance) >= int64(len(p.chip.consoles)) || set < 1 || int64(set) > int64(p.chip.consoles[instance].sets) {
		return 0, 0, socs.Refuse(fmt.Sprintf("leave both out for none, or give one of the console_instances %s", p.chip.ports()),
			"console_instance %d with console_ioset %d is no console of %s: the applet would fail", instance, set, p.chip.model)
	}
	return instance, set, nil
}

// preset is the memory's number. What the applet says that it has decides.
func (p *plan) preset(a *firmware.SAMBAApplet, img socs.Image) (uint32, error) {
	has := func(n int) bool {
		return len(a.Presets) == 0 || slices.ContainsFunc(a.Presets, func(q firmware.AppletPreset) bool { return q.Number == n })
	}
	var can []int
	for n := range presets {
		if has(n) {
			can = append(can, n)
		}
	}
	hint := "name the board's memory; the applet has " + presetNames(can)
	v, ok := img.Params["preset"]
	if !ok {
		return 0, socs.Refuse(hint, "preset is missing: nothing tells the applet which memory the board has")
	}
	found := findPreset(v)
	among := slices.DeleteFunc(slices.Clone(found), func(n int) bool { return !has(n) })
	switch {
	case len(among) == 1:
		return uint32(among[0]), nil
	case len(among) > 1:
		return 0, socs.Refuse("say which: "+presetNames(among), "preset %q is %d presets", fmt.Sprint(v), len(among))
	case len(found) > 0:
		return 0, socs.Refuse(hint, "preset %q is none that this applet has", fmt.Sprint(v))
	}
	return 0, socs.Refuse(hint, "there is no preset %q", fmt.Sprint(v))
}

const wantUBoot = "give u-boot.bin, which runs from DRAM: built with SKIP_LOWLEVEL_INIT, without MMU"

// uboot checks U-Boot, and returns where it goes.
func (p *plan) uboot(fw socs.Firmware) (uint32, error) {
	img, ok := fw[slotUBoot]
	if !ok {
		return 0, socs.Refuse(wantUBoot, "missing: it is what is to run")
	}
	switch info := firmware.Identify(img.Data); info.Kind {
	case firmware.KindEmpty, firmware.KindBlank:
		return 0, socs.Refuse(again, "it is %s", info)
	case firmware.KindARM:
	case firmware.KindUnknown:
		p.Warn(slotUBoot, "%s does not look like a program for ARM: it is sent as it is", img.Path)
	default:
		return 0, socs.Refuse(wantUBoot, "it is %s", info)
	}
	program, _ := firmware.ParseARM(img.Data)
	address, given, err := number(img, "address")
	switch {
	case err != nil:
		return 0, err
	case !given && program.Vectors:
		address = program.Base
		p.Note(slotUBoot, "%s goes to %#x, which it is linked for", img.Path, address)
	case !given:
		return 0, socs.Refuse("give U-Boot's CONFIG_TEXT_BASE, mostly 0x26f00000", "address is missing, and the file does not tell what it is linked for")
	case address%4 != 0:
		return 0, socs.Refuse("give U-Boot's CONFIG_TEXT_BASE, mostly 0x26f00000", "address %#x is no multiple of 4", address)
	case program.Vectors && program.Base != address:
		p.Warn(slotUBoot, "%s is linked for %#x and goes to %#x: it may not start", img.Path, program.Base, address)
	}
	if address < dram || uint64(address)+uint64(len(img.Data)) > dramEnd {
		return 0, socs.Refuse("give U-Boot's CONFIG_TEXT_BASE, mostly 0x26f00000",
			"its %d bytes would go to %#x, outside the DRAM (%#x to %#x)", len(img.Data), address, uint32(dram), uint32(dramEnd-1))
	}
	return address, nil
}
