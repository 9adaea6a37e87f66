package inspect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"snag/firmware/firmwaretest"
	sim "snag/sim/am335x"
	"snag/sim/rockchip"
)

// file is a generated file.
type file struct {
	name string
	data []byte
}

// generated is what no Debian package has: one image for each format and layout, some damaged.
func generated(t testing.TB) []file {
	t.Helper()
	fit, err := os.ReadFile("../../socs/am335x/testdata/arm64.itb")
	if err != nil {
		t.Fatal(err)
	}
	ft := firmwaretest.Pattern
	uImage := sim.GenerateUBoot(3000, 1)
	spl := firmwaretest.IVT{Version: 0x41, Self: 0x7e0fc0, Before: 0x400, Entry: 0x40, Program: ft(3000)}
	hdmi := firmwaretest.IVT{Version: 0x41, Self: 0x7e0400, Before: 0x400, Entry: 0x40, Plugin: 2, Program: ft(1000)}
	plugin := firmwaretest.IVT{Version: 0x40, Self: 0x907400, Before: 0x400, Entry: 0x2c, Plugin: 1, Program: ft(1000)}
	signed := firmwaretest.IVT{Version: 0x40, Self: 0x177ff400, Before: 0x400, Entry: 0xc00, DCD: firmwaretest.SomeDCD, Program: ft(3000), CSF: firmwaretest.CSF(0x177ff400, 0x2000)}
	unsigned := signed
	unsigned.CSF, unsigned.Beyond = nil, 0x2000

	at := func(off int, parts ...[]byte) []byte { // each at the next multiple of off
		var b []byte
		for _, p := range parts {
			b = append(firmwaretest.Pad(b, (len(b)+off-1)/off*off), p...)
		}
		return b
	}
	mbr := firmwaretest.Pad(append(make([]byte, 510), 0x55, 0xaa), 0x8000)
	set := firmwaretest.SomeSet()
	second := firmwaretest.ContainerSet(firmwaretest.Container{Tag: 0x87, Images: []firmwaretest.Image{{At: 0x400, Data: ft(700), Load: 0x80200000, Flags: 0x143}}})
	v2 := firmwaretest.ContainerSet(
		firmwaretest.Container{Tag: 0x87, Version: 2, Images: []firmwaretest.Image{{At: 0xc000, Data: ft(100), Flags: 0x6}}},
		firmwaretest.Container{At: 0x4000, Tag: 0x82, Version: 2, Flags: 1, Images: []firmwaretest.Image{{At: 0xc400, Data: ft(100), Flags: 0x9b}}},
		firmwaretest.Container{At: 0x8000, Tag: 0x87, Version: 2, Flags: 2, Images: []firmwaretest.Image{
			{At: 0xc800, Data: ft(500), Load: 0x1ffc0000, Flags: 0x1023}, {At: 0xcc00, Data: ft(512), Flags: 8}}})
	flip := firmwaretest.Damage
	return append([]file{
		{"8mm/flash.bin", at(0x400, spl.Bytes(), fit)},
		{"8mq/flash.bin", at(0x400, make([]byte, 1024), hdmi.Bytes(), spl.Bytes(), fit)},
		{"8mm/flexspi.bin", at(0x1000, append(make([]byte, 0x400), "FCFB"...), spl.Bytes())},
		{"plugin.imx", append(plugin.Bytes(), spl.Bytes()...)},
		{"signed.imx", signed.Bytes()},
		{"unsigned.imx", unsigned.Bytes()},
		{"dcd-damaged.imx", flip(signed.Bytes(), 49)},
		{"cut.imx", signed.Bytes()[:3000]},
		{"51/u-boot.imx", firmwaretest.FlashHeader(0x977ff000, ft(999), [3]uint32{4, 0x73fa88a0, 0x200}, [3]uint32{1, 0x73fa8510, 0x20})},
		{"8qxp/flash.bin", at(0x400, set[:0x3400], second)},
		{"8qxp/damaged.bin", flip(set, 0x2810)},
		{"8qxp/cut.bin", set[:0x2900]},
		{"95/flash.bin", at(0x400, v2, fit)},
		{"93/card.wic", append(append(mbr, set...), fmt.Sprintf("UUUBURNXXOEUZX7+A-XY5601QQWWZ%dEND", len(set))...)},
		{"container.img", second},
		{"28/u-boot.sb", firmwaretest.SomeStream(make([]byte, 16))},
		{"28/owner.sb", flip(firmwaretest.SomeStream(ft(16)), 7*16)},
		{"28/damaged.sb", flip(firmwaretest.SomeStream(nil), 1000)},
		{"u-boot.img", append(uImage[:len(uImage):len(uImage)], "behind"...)},
		{"u-boot-damaged.img", flip(uImage, 2000)},
		{"u-boot-cut.img", uImage[:2000]},
		{"u-boot-header.img", flip(uImage, 30)},
		{"u-boot.itb", fit},
		{"u-boot-damaged.itb", flip(fit, len(fit)-8)},
		{"spl.bin", sim.GenerateSPL(2000, 1)},
		{"zero", make([]byte, 99)},
		{"notes.txt", []byte("no image\n")},
	}, slices.Concat(dfuImages(), qualcommImages(), rockchipImages())...)
}

// qualcommImages are Qualcomm's.
func qualcommImages() []file {
	ft := firmwaretest.Pattern
	xbl := firmwaretest.QualcommELF(7, 0x14680000, ft(3000), ft(200))
	mbn := firmwaretest.MBN{ID: 5, Version: 3, Load: 0x8f600000, Code: ft(900), Signature: ft(256), Certificate: ft(99)}
	sbl := mbn
	sbl.SBL, sbl.ID = true, 21
	return []file{
		{"iq9075/xbl.elf", xbl},
		{"iq9075/xbl-damaged.elf", firmwaretest.Damage(xbl, 0x2100)},
		{"iq9075/xbl-cut.elf", xbl[:0x1040]},
		{"emmc_appsboot.mbn", mbn.Bytes()},
		{"emmc_appsboot-cut.mbn", mbn.Bytes()[:1000]},
		{"sbl1.mbn", append(sbl.Bytes(), "behind"...)},
	}
}

// dfuImages are those of the families whose ROMs speak DFU, fastboot or FEL.
func dfuImages() []file {
	ft, flip := firmwaretest.Pattern, firmwaretest.Damage
	stm32 := firmwaretest.STM32{Version: [2]byte{2, 0}, Type: 0x10, Load: 0x2ffe0000, Entry: 0x2ffe0100, Payload: ft(900)}.Bytes()
	fip := firmwaretest.FIP(firmwaretest.FIPImage{UUID: firmwaretest.UUIDBL33, Data: sim.GenerateUBoot(1000, 1)}, firmwaretest.FIPImage{UUID: "00112233445566778899aabbccddeeff", Data: ft(50)})
	tiboot3 := firmwaretest.SomeTiboot3()
	spkg := firmwaretest.SPKG{Load: 0x20040000, Offset: 265, BLp: true, Padding: 1024, Program: ft(1000)}.Bytes()
	boot, merged := firmwaretest.SomeBoot(), firmwaretest.SomeBootMerged()
	egon := firmwaretest.EGON{Minor: 2, DeviceTree: "sun8i-h3-orangepi-pc", Program: ft(1000), UBoot: sim.GenerateUBoot(1000, 1)}.Bytes()
	return []file{
		{"mp13/tf-a.stm32", stm32},
		{"mp13/tf-a-damaged.stm32", flip(stm32, 700)},
		{"mp13/tf-a-cut.stm32", stm32[:700]},
		{"fip.bin", fip},
		{"fip-cut.bin", fip[:len(fip)-9]},
		{"am62x/tiboot3.bin", tiboot3},
		{"am62x/tiboot3-damaged.bin", flip(tiboot3, len(tiboot3)-300)},
		{"am62x/tiboot3-cut.bin", tiboot3[:len(tiboot3)-300]},
		{"am65x/tiboot3.bin", firmwaretest.TIBoot(0x41c00000, ft(500))},
		{"am65x/sysfw.bin", firmwaretest.TISigned(ft(400))},
		{"u-boot.bin.spkg", spkg},
		{"u-boot-damaged.bin.spkg", flip(spkg, 30)},
		{"zynqmp/boot.bin", boot},
		{"zynqmp/boot-merged.bin", merged},
		{"zynqmp/boot-damaged.bin", flip(boot, 0xc80+0x10)},
		{"zynqmp/boot-cut.bin", boot[:len(boot)-1000]},
		{"fsbl.elf", firmwaretest.ELF64(0xfffc0000, ft(300))},
		{"h3/u-boot-sunxi-with-spl.bin", egon},
		{"h3/u-boot-sunxi-with-spl-damaged.bin", flip(egon, 200)},
		{"h3/u-boot-sunxi-with-spl-cut.bin", egon[:1000]},
		{"h3/sunxi-spl.bin", egon[:1096]},
		{"h3/strange.bin", append(egon[:0x8000:0x8000], "something else"...)},
	}
}

// rockchipImages are those of Rockchip's SoCs: of one whose ROM decrypts, and of one whose ROM does not.
func rockchipImages() (all []file) {
	for _, name := range []string{"rk3399", "rk3588"} {
		m, err := rockchip.FindModel(name)
		if err != nil {
			panic(err)
		}
		i := rockchip.Generate(m, 5000, 9000, 1)
		all = append(all, file{name + "/loader.bin", i.Loader}, file{name + "/usb471.bin", i.Code471}, file{name + "/usb472.bin", i.Code472},
			file{name + "/idbloader.img", i.IDBlock}, file{name + "/loader-damaged.bin", firmwaretest.Damage(i.Loader, 4000)},
			file{name + "/loader-cut.bin", i.Loader[:9000]}, file{name + "/idbloader-damaged.img", firmwaretest.Damage(i.IDBlock, 4000)},
			file{name + "/idbloader-cut.img", i.IDBlock[:5000]})
		// u-boot-rockchip.bin has U-Boot behind the ID block.
		whole := firmwaretest.Pad(bytes.Clone(i.IDBlock), 0x8000)
		all = append(all, file{name + "/u-boot-rockchip.bin", append(whole, i.Code472[bytes.Index(i.Code472, []byte("\xd0\x0d\xfe\xed")):]...)})
	}
	return all
}

// TestGenerated holds them against testdata/generated.txt and, for one, testdata/generated.json.
func TestGenerated(t *testing.T) {
	var got bytes.Buffer
	for _, g := range generated(t) {
		r := Data(g.name, g.data)
		if err := r.Write(&got, true); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&got)
		inside(t, g.name, len(g.data), r.Parts)
		if g.name == "signed.imx" {
			b, err := json.MarshalIndent(r, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			compare(t, "generated.json", append(b, '\n'))
		}
	}
	compare(t, "generated.txt", got.Bytes())
}

func compare(t *testing.T, name string, got []byte) {
	t.Helper()
	golden := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s (go test -update):\n%s", golden, diff(t, golden, got))
	}
}

func FuzzData(f *testing.F) {
	for _, g := range append(generated(f), diskImages()...) {
		f.Add(g.data[:min(len(g.data), 4096)])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := Data("x", b)
		if len(r.Parts) == 0 && len(b) > 0 || r.Text == "" {
			t.Errorf("nothing said about %d bytes", len(b))
		}
		var text bytes.Buffer
		if err := r.Write(&text, true); err != nil {
			t.Error(err)
		}
		inside(t, "fuzz", len(b), r.Parts)
	})
}
