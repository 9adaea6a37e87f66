package bcm_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"snag/firmware/fat"
	"snag/firmware/firmwaretest"
	"snag/sim/bcm"
	"snag/socs"
	backend "snag/socs/bcm"
	"snag/socs/socstest"
)

func TestCheck(t *testing.T) {
	all := map[string]map[string][]byte{}
	for _, m := range bcm.Models() {
		all[m.Name] = bcm.Generate(m, 100_000, 1)
	}
	text := []byte("#!/bin/sh\necho hello world\n")
	image := func(files ...string) []byte {
		set := map[string][]byte{}
		for _, f := range files {
			set[f] = firmwaretest.Pattern(70_000)
		}
		return bcm.Disk(425_000, set)
	}
	for _, tc := range []struct {
		name string
		soc  string
		with map[string][]byte // instead of the model's own; nil: not at all
		says string            // the error
		find string            // a finding
	}{
		{name: "as it should be", soc: "bcm2711"},
		{name: "as it should be", soc: "bcm2712"},
		{name: "as it should be", soc: "bcm2835"},
		{name: "as it should be", soc: "bcm2837"},
		{name: "no bootfiles", soc: "bcm2711", with: map[string][]byte{"bootfiles": nil}, says: `firmware "bootfiles": missing: the boot ROM needs what is in it`},
		{name: "empty bootfiles", soc: "bcm2711", with: map[string][]byte{"bootfiles": {}}, says: "the file is empty"},
		{name: "text", soc: "bcm2711", with: map[string][]byte{"bootfiles": text}, says: "expected a tar archive, it is a text file"},
		{name: "cut", soc: "bcm2711", with: map[string][]byte{"bootfiles": all["bcm2711"]["bootfiles"][:5000]}, says: "tar: truncated: 2711/bootcode4.bin has 70001 bytes"},
		{name: "another model's", soc: "bcm2711", with: map[string][]byte{"bootfiles": all["bcm2712"]["bootfiles"]}, says: "it has no bootcode4.bin; its 2712/bootcode5.bin is for bcm2712"},
		{name: "no second stage", soc: "bcm2711", with: map[string][]byte{"bootfiles": bcm.Archive("2711", map[string][]byte{"mcb.bin": text})}, says: "it has no bootcode4.bin"},
		{name: "empty second stage", soc: "bcm2711", with: map[string][]byte{"bootfiles": bcm.Archive("2711", map[string][]byte{"bootcode4.bin": nil})}, says: "2711/bootcode4.bin has 0 bytes"},
		{name: "no directory", soc: "bcm2711", with: map[string][]byte{"bootfiles": bcm.Archive(".", map[string][]byte{"bootcode4.bin": {1, 0x80}, "mcb.bin": {2}})}},
		{name: "twice", soc: "bcm2711", with: map[string][]byte{"bootfiles": append(all["bcm2711"]["bootfiles"][:len(all["bcm2711"]["bootfiles"])-1024:len(all["bcm2711"]["bootfiles"])-1024],
			bcm.Archive("2711", map[string][]byte{"mcb.bin": {1}})...)}, find: "2711/mcb.bin is in the archive 2 times"},
		{name: "another slot", soc: "bcm2711", with: map[string][]byte{"spl": text}, says: `firmware "spl" (spl.bin): bcm2711 takes no such file`},

		{name: "no config", soc: "bcm2711", with: map[string][]byte{"config": nil}, says: `firmware "config": missing: without it the second stage does not ask for boot.img`},
		{name: "config without ramdisk", soc: "bcm2711", with: map[string][]byte{"config": []byte("boot_ramdisk=1\nboot_ramdisk = 0\n")}, find: "config.bin has no line boot_ramdisk=1"},
		{name: "config for a ramdisk", soc: "bcm2837", with: map[string][]byte{"config": []byte("boot_ramdisk=1\n")}, find: "config.bin has the line boot_ramdisk=1, and there is no boot.img"},
		{name: "config of bytes", soc: "bcm2711", with: map[string][]byte{"config": firmwaretest.Pattern(300)}, says: "expected text, it is nothing that snag knows"},
		{name: "empty config", soc: "bcm2711", with: map[string][]byte{"config": {}}, find: "has no line boot_ramdisk=1"},

		{name: "boot.img of text", soc: "bcm2711", with: map[string][]byte{"boot": text}, says: "no FAT file system: no boot sector with 55 aa at its end; it is a text file"},
		{name: "empty boot.img", soc: "bcm2711", with: map[string][]byte{"boot": {}}, says: "the file is empty"},
		{name: "boot.img that is cut", soc: "bcm2711", with: map[string][]byte{"boot": all["bcm2711"]["boot"][:300_000]}, says: "FAT: truncated: the boot sector announces"},
		{name: "boot.img without start4.elf", soc: "bcm2711", with: map[string][]byte{"boot": image("kernel8.img")}, find: "boot.img has no start4.elf"},
		{name: "boot.img without config.txt", soc: "bcm2712", with: map[string][]byte{"u-boot": nil, "boot": image("kernel8.img")}, find: "boot.img has no config.txt"},
		{name: "boot.img for an old chip", soc: "bcm2837", with: map[string][]byte{"boot": image("config.txt"), "config": []byte("boot_ramdisk=1")}, find: "not every bootcode.bin and start.elf"},
		{name: "full boot.img", soc: "bcm2712", with: map[string][]byte{"boot": image("config.txt", "1", "2", "3", "4", "kernel8.img")}, find: "kernel8.img gives way to U-Boot"},
		{name: "too full a boot.img", soc: "bcm2712", with: map[string][]byte{"boot": image("config.txt", "1", "2", "3", "4", "5")}, says: "U-Boot, of 50000 bytes, and config.txt do not fit"},
		{name: "signed", soc: "bcm2711", with: map[string][]byte{"bootfiles": bcm.Archive("2711", map[string][]byte{"bootcode4.bin": {1, 0x80}, "boot.sig": text})}, find: "boot.img is another file than the one that was signed"},

		{name: "empty u-boot", soc: "bcm2711", with: map[string][]byte{"u-boot": {}}, says: "the file is empty"},
		{name: "u-boot of text", soc: "bcm2711", with: map[string][]byte{"u-boot": text}, says: "expected a bare program, it is a text file"},
		{name: "u-boot as ELF", soc: "bcm2711", with: map[string][]byte{"u-boot": firmwaretest.ELF64(0x80000, text)}, says: "expected a bare program, it is an ELF file"},
		{name: "64 bits", soc: "bcm2836", with: map[string][]byte{"u-boot": all["bcm2837"]["u-boot"]}, says: "this SoC has no 64-bit processor"},
		{name: "32 bits for 64 alone", soc: "bcm2712", with: map[string][]byte{"u-boot": all["bcm2836"]["u-boot"]}, says: "this SoC starts programs of 64 bits alone"},
		{name: "u-boot of MIPS", soc: "bcm2711", with: map[string][]byte{"u-boot": append([]byte{0x3f, 1, 0, 0x10}, firmwaretest.Pattern(3000)...)}, find: "does not look like a program for ARM"},
		{name: "32 bits", soc: "bcm2711", with: map[string][]byte{"u-boot": all["bcm2836"]["u-boot"]}},
		{name: "u-boot that nothing starts", soc: "bcm2837", with: map[string][]byte{"config": nil}, says: "there is neither a boot.img that it could be put into nor a config.txt"},
	} {
		t.Run(tc.name+" "+tc.soc, func(t *testing.T) {
			files := maps.Clone(all[tc.soc])
			maps.Copy(files, tc.with)
			maps.DeleteFunc(files, func(_ string, b []byte) bool { return b == nil })
			before := fmt.Sprint(len(files["boot"]), bytes.Contains(files["boot"], []byte("snag")))
			sent, findings, err := backend.Backend{}.Check(socstest.Model(t, tc.soc), socstest.Firmware(files))
			if tc.says == "" != (err == nil) || !strings.Contains(fmt.Sprint(err), tc.says) && err != nil {
				t.Fatalf("%v, want %q", err, tc.says)
			}
			if e, ok := errors.AsType[*socs.FirmwareError](err); err != nil && (!ok || e.Hint == "") {
				t.Errorf("%v: no hint", err)
			}
			if tc.find != "" != (len(findings) > 0) && tc.says == "" && tc.name != "full boot.img" || tc.find != "" && !strings.Contains(fmt.Sprint(findings), tc.find) {
				t.Errorf("%v, want %q", findings, tc.find)
			}
			if after := fmt.Sprint(len(files["boot"]), bytes.Contains(files["boot"], []byte("snag"))); after != before {
				t.Error("what was given has changed")
			}
			if boot, uboot := sent["boot"].Data, files["u-boot"]; boot != nil && uboot != nil {
				d, err := fat.Open(boot)
				if err != nil {
					t.Fatal(err)
				}
				got, err := d.Read("u-boot.bin")
				config, err2 := d.Read("config.txt")
				want := map[bool]string{true: "arm_64bit=0", false: "arm_64bit=1"}[tc.name == "32 bits"]
				if !bytes.Equal(got, uboot) || err != nil || err2 != nil || !strings.HasSuffix(string(config), "\n[all]\nkernel=u-boot.bin\n"+want+"\n") {
					t.Errorf("U-Boot of %d bytes, %v; config.txt %q, %v", len(got), err, config[max(0, len(config)-100):], err2)
				}
			}
		})
	}
}

func FuzzCheck(f *testing.F) {
	disk := bcm.Disk(5000, map[string][]byte{"config.txt": []byte("x"), "kernel8.img": make([]byte, 2000)})
	archive := bcm.Archive("2711", map[string][]byte{"bootcode4.bin": {1}})
	f.Add(archive, disk, []byte("boot_ramdisk=1\n"), []byte("\x00\x00\x00\x14 U-Boot"))
	f.Add(bcm.Archive(".", map[string][]byte{"bootcode.bin": {1}, "config.txt": {'x'}}), []byte{}, []byte{}, []byte("\x00\x00\x00\xea"))
	f.Fuzz(func(t *testing.T, bootfiles, boot, config, uboot []byte) {
		for _, name := range []string{"bcm2711", "bcm2835"} {
			fw := socs.Firmware{}
			for slot, data := range map[string][]byte{"bootfiles": bootfiles, "boot": boot, "config": config, "u-boot": uboot} {
				if len(data) > 0 {
					fw[slot] = socs.Image{Data: data}
				}
			}
			sent, _, err := backend.Backend{}.Check(socs.Model{Name: name, Family: "bcm"}, fw)
			if (err == nil) != (sent != nil) {
				t.Error(sent, err)
			}
		}
	})
}
