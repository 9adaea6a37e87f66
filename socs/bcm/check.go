package bcm

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"

	"snag/firmware"
	"snag/firmware/fat"
	"snag/socs"
)

// Check implements socs.Backend. U-Boot is put into boot.img here, or into the files that the second stage asks for one by one, with config.txt
// changed to start it.
func (Backend) Check(model socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	k := &check{chip: chips[model.Name], fw: fw, Checked: socs.Checked{Sent: socs.Firmware{}}}
	if k.chip == nil {
		return nil, nil, fmt.Errorf("package bcm: no model %s", model.Name)
	}
	for slot, img := range fw {
		switch slot {
		case slotBootfiles, slotBoot, slotConfig, slotUBoot:
		default:
			k.Take(slot, img, socs.Refuse("give bootfiles, boot, config and u-boot", "%s takes no such file", model.Name))
		}
	}
	k.bootfiles()
	k.uboot()
	k.boot()
	k.config()
	if len(k.Errs) > 0 {
		return nil, k.Findings, errors.Join(k.Errs...)
	}
	return k.Sent, k.Findings, nil
}

// check is one Check.
type check struct {
	chip *chip
	fw   socs.Firmware
	socs.Checked

	archive *firmware.Bootfiles // nil: it is damaged, or missing
}

const copyAgain = "copy or build the file again"

// empty is why an empty file is refused.
func empty(img socs.Image) error {
	if len(img.Data) == 0 {
		return socs.Refuse(copyAgain, "the file is empty")
	}
	return nil
}

// bootfiles looks for the second stage in the archive.
func (k *check) bootfiles() {
	img, ok := k.fw[slotBootfiles]
	if !ok {
		k.Take(slotBootfiles, img, socs.Refuse("give bootfiles.bin of raspberrypi/usbboot, or a tar archive with "+k.chip.bootcode+" and what it asks for", "missing: the boot ROM needs what is in it"))
		return
	}
	archive, err := firmware.ParseBootfiles(img.Data)
	switch {
	case len(img.Data) == 0:
		err = empty(img)
	case archive == nil:
		err = socs.Refuse("give bootfiles.bin of raspberrypi/usbboot, or a tar archive with "+k.chip.bootcode+" and what it asks for",
			"expected a tar archive, it is %s (%w)", firmware.Identify(img.Data), err)
	case errors.Is(err, firmware.ErrTruncated):
		err = socs.Refuse(copyAgain, "%w", err)
	case err != nil:
		err = socs.Refuse("make the archive again", "%w", err)
	default:
		err = k.second(archive)
	}
	if err == nil {
		k.archive = archive
		for _, f := range archive.Files {
			if f.Again > 0 {
				k.Warn(slotBootfiles, "%s is in the archive %d times: the last one counts here, the first one for rpiboot", f.Name, f.Again+1)
			}
		}
	}
	k.Take(slotBootfiles, img, err)
}

// second looks at the second stage.
func (k *check) second(archive *firmware.Bootfiles) error {
	f, ok := archive.Find(k.chip.dir, k.chip.bootcode)
	if !ok {
		for name, other := range chips {
			if o, ok := archive.Find(other.dir, other.bootcode); ok {
				return socs.Refuse("give an archive with "+k.chip.dir+"/"+k.chip.bootcode, "it has no %s; its %s is for %s", k.chip.bootcode, o.Name, name)
			}
		}
		return socs.Refuse("give an archive with "+k.chip.dir+"/"+k.chip.bootcode, "it has no %s", k.chip.bootcode)
	}
	if len(f.Data) == 0 || int64(len(f.Data)) > math.MaxInt32 {
		return socs.Refuse("make the archive again", "%s has %d bytes", f.Name, len(f.Data))
	}
	return nil
}

// uboot looks at U-Boot.
func (k *check) uboot() {
	img, ok := k.fw[slotUBoot]
	if !ok {
		return
	}
	const want = "give u-boot.bin, as U-Boot's build makes it (rpi_arm64_defconfig, or one for the board)"
	err := empty(img)
	if err == nil {
		switch info := firmware.Identify(img.Data); {
		case info.Kind == firmware.KindARM64 && k.chip.arm32:
			err = socs.Refuse("give a U-Boot for 32-bit ARM", "it is %s, this SoC has no 64-bit processor", info)
		case info.Kind == firmware.KindARM && k.chip.arm64:
			err = socs.Refuse("give a U-Boot for 64-bit ARM (rpi_arm64_defconfig)", "it is %s, this SoC starts programs of 64 bits alone", info)
		case info.Kind == firmware.KindUnknown:
			k.Warn(slotUBoot, "%s does not look like a program for ARM: it is taken as it is", img.Path)
		case info.Kind != firmware.KindARM64 && info.Kind != firmware.KindARM:
			err = socs.Refuse(want, "expected a bare program, it is %s", info)
		}
	}
	_, boot := k.fw[slotBoot]
	if err == nil && !boot && k.archive != nil && !k.configured() {
		err = socs.Refuse("give config too, or boot", "there is neither a boot.img that it could be put into nor a config.txt that would start it")
	}
	k.Take(slotUBoot, img, err)
}

// configured says whether there is a config.txt.
func (k *check) configured() bool {
	_, ok := k.fw[slotConfig]
	if !ok && k.archive != nil {
		_, ok = k.archive.Find(k.chip.dir, nameConfig)
	}
	return ok
}

// settings is what makes config.txt start U-Boot; the last value of a setting counts.
func (k *check) settings() string {
	bit := 1
	if info := firmware.Identify(k.fw[slotUBoot].Data); k.chip.arm32 || info.Kind == firmware.KindARM {
		bit = 0
	}
	return fmt.Sprintf("\n# snag: start U-Boot\n[all]\nkernel=%s\narm_64bit=%d\n", nameUBoot, bit)
}

// boot looks at boot.img, and puts U-Boot into it.
func (k *check) boot() {
	img, ok := k.fw[slotBoot]
	if !ok {
		return
	}
	const want = "give an image of a disk with a FAT file system that has config.txt, kernel and device trees (boot.img of raspberrypi/usbboot's mass-storage-gadget64, say)"
	err := empty(img)
	if err == nil {
		img.Data = bytes.Clone(img.Data)
		var disk *fat.Disk
		if disk, err = fat.Open(img.Data); err != nil {
			hint := want
			if !errors.Is(err, fat.ErrNone) {
				hint = copyAgain
			}
			err = socs.Refuse(hint, "%w; it is %s", err, firmware.Identify(img.Data))
		} else if err = k.inject(disk.Volume); err == nil {
			k.look(disk.Volume)
		}
	}
	k.Take(slotBoot, img, err)
}

// kernels give way to U-Boot if there is no room for it.
var kernels = []string{"kernel8.img", "kernel_2712.img", "kernel7l.img", "kernel7.img", "kernel.img"}

// inject puts U-Boot into boot.img.
func (k *check) inject(v *fat.Volume) error {
	uboot, ok := k.fw[slotUBoot]
	if !ok || len(uboot.Data) == 0 {
		return nil
	}
	config, err := v.Read(nameConfig)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return socs.Refuse(copyAgain, "%w", err)
	}
	config = append(config, k.settings()...)
	before := v.Free()
	write := func() error { return errors.Join(v.Write(nameUBoot, uboot.Data), v.Write(nameConfig, config)) }
	err = write()
	for _, name := range kernels {
		if !errors.Is(err, fat.ErrNoRoom) {
			break
		}
		if !v.Has(name) {
			continue
		}
		if err := v.Remove(name); err != nil {
			return socs.Refuse(copyAgain, "%w", err)
		}
		k.Note(slotBoot, "%s gives way to U-Boot: there is no room for both in boot.img", name)
		err = write()
	}
	switch {
	case errors.Is(err, fat.ErrNoRoom):
		return socs.Refuse("make a larger boot.img", "U-Boot, of %d bytes, and config.txt do not fit: %d were free (%w)", len(uboot.Data), before, err)
	case err != nil:
		return socs.Refuse(copyAgain, "U-Boot does not go into it: %w", err)
	}
	if _, signed := k.find("boot.sig"); signed {
		k.Warn(slotBoot, "bootfiles has a boot.sig: with U-Boot in it, boot.img is another file than the one that was signed")
	}
	return nil
}

// find finds a file of the archive.
func (k *check) find(name string) (firmware.Bootfile, bool) {
	if k.archive == nil {
		return firmware.Bootfile{}, false
	}
	return k.archive.Find(k.chip.dir, name)
}

// look looks for what the SoC needs in boot.img.
func (k *check) look(v *fat.Volume) {
	if !v.Has(nameConfig) {
		k.Warn(slotBoot, "boot.img has no config.txt in its root directory")
	}
	if k.chip.dir == "2711" && !v.Has("start4.elf") && !v.Has("start4x.elf") && !v.Has("start4cd.elf") && !v.Has("start4db.elf") {
		k.Warn(slotBoot, "boot.img has no start4.elf, which BCM2711 needs")
	}
	if k.chip.old() {
		k.Warn(slotBoot, "not every bootcode.bin and start.elf of BCM2835 to 2837 asks for boot.img")
	}
}

// config looks at config.txt.
func (k *check) config() {
	img, given := k.fw[slotConfig]
	_, boot := k.fw[slotBoot]
	_, uboot := k.fw[slotUBoot]
	if !given {
		if b, ok := k.find(nameConfig); ok {
			img = socs.Image{Path: b.Name, Data: b.Data}
		} else if boot && k.archive != nil {
			k.Take(slotConfig, img, socs.Refuse("give a config.txt with the line boot_ramdisk=1", "missing: without it the second stage does not ask for boot.img"))
			return
		} else {
			return
		}
	}
	if info := firmware.Identify(img.Data); len(img.Data) > 0 && info.Kind != firmware.KindText {
		k.Take(slotConfig, img, socs.Refuse("give a config.txt", "expected text, it is %s", info))
		return
	}
	switch ramdisk := ramdisk(img.Data); {
	case boot && !ramdisk:
		k.Warn(slotConfig, "%s has no line boot_ramdisk=1: the second stage does not ask for boot.img", img.Path)
	case !boot && ramdisk:
		if _, ok := k.find(nameBoot); !ok {
			k.Warn(slotConfig, "%s has the line boot_ramdisk=1, and there is no boot.img", img.Path)
		}
	}
	if uboot && !boot {
		img.Data = append(bytes.Clone(img.Data), k.settings()...)
		given = true
	}
	if given {
		k.Sent[slotConfig] = img
	}
}

// ramdisk says whether config.txt asks for boot.img.
func ramdisk(config []byte) (on bool) {
	for line := range strings.Lines(string(config)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.TrimSpace(name) == "boot_ramdisk" {
			on = strings.TrimSpace(value) != "0"
		}
	}
	return on
}
