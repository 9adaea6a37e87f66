package socs_test

import (
	"testing"
	"testing/synctest"

	"snag/recovery"
	"snag/sim/amlogic"
	"snag/sim/bcm"
	"snag/sim/dfu"
	"snag/sim/fastboot"
	"snag/sim/imx"
	"snag/sim/inproc"
	"snag/sim/qcom"
	"snag/sim/rockchip"
	"snag/sim/sama5"
	"snag/sim/sunxi"
	"snag/sim/usbdev"
	"snag/socs"
	"snag/socs/socstest"
)

// Boards are known by what their protocols demand of descriptors, and by no more: they come up with other numbers of
// interfaces, addresses of endpoints, releases and strings.
func TestDisguised(t *testing.T) {
	noNames := func(d *usbdev.Descriptors) { d.Manufacturer, d.Product, d.Serial = "", "", "" }
	foreign := func(d *usbdev.Descriptors) {
		d.Manufacturer, d.Product, d.Serial = "メーカー", "起動", "一二三"
	}
	slow := func(d *usbdev.Descriptors) {
		d.Speed, d.MaxPacket0 = usbdev.FullSpeed, 8
		for _, c := range d.Configs {
			for _, i := range c.Interfaces {
				for n := range i.Endpoints {
					i.Endpoints[n].MaxPacket = min(i.Endpoints[n].MaxPacket, 64)
				}
			}
		}
	}
	for _, tc := range []struct {
		name      string
		strings   func(*usbdev.Descriptors)
		release   uint16
		languages []byte
		twice     int // which device of the board enumerates twice
	}{
		{name: "first stage twice", twice: 1},
		{name: "second stage twice", twice: 2},
		{name: "numbers"},
		{name: "no strings", strings: noNames, release: 0x0666},
		{name: "foreign strings", strings: foreign, release: 0x1234, languages: []byte{6, 3, 0x11, 4, 0x09, 4}},
		{name: "full speed", strings: slow},
		{name: "no languages", languages: []byte{2, 3}},
		{name: "languages refused", languages: []byte{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			disguise := disguise{socstest.Disguise{Strings: tc.strings, Release: tc.release, Languages: tc.languages}, tc.twice}
			for _, m := range []string{"stm32mp13", "stm32mp15", "stm32mp25", "am625", "am62l3", "j721e", "rzn1", "zynqmp"} {
				v := found(dfu.FindModel(map[string]string{"am625": "am62x", "am62l3": "am62lx"}[m]))
				if v.Name == "" {
					v = found(dfu.FindModel(m))
				}
				fw := dfu.Generate(v, 60_000, 1)
				try(t, disguise, m, func() *dfu.Board { return made(dfu.New(dfu.Config{Model: v})) }, fw)
			}
			for m, slot := range map[string]string{"imx28": "flash-bin", "imx6ul": "u-boot-with-dcd", "imx8mm": "flash-bin", "imx8mp": "flash-bin", "imx8qxp": "flash-bin", "imx93": "flash-bin"} {
				cfg := imx.Config{Model: found(imx.FindModel(m))}
				images := made(imx.Generate(cfg, 300_000, 1))
				disguise := disguise
				if m == "imx8mm" || m == "imx8qxp" { // whose SPL is told by it
					disguise.Release = 0
				}
				try(t, disguise, m, func() *imx.Board { return made(imx.New(cfg)) }, map[string][]byte{slot: images.First})
			}
			for _, m := range []string{"h3", "a64"} {
				v := found(sunxi.FindModel(m))
				try(t, disguise, m, func() *sunxi.Board { return made(sunxi.New(sunxi.Config{Model: v})) }, map[string][]byte{"u-boot-with-spl": sunxi.Generate(v, 300_000, 1).Combined})
			}
			for _, m := range []string{"s905", "a113x", "a311d"} {
				v := found(amlogic.FindModel(m))
				try(t, disguise, m, func() *amlogic.Board { return made(amlogic.New(amlogic.Config{Model: v})) }, amlogic.Generate(v.Family, 200_000, 1))
			}
			for _, m := range []string{"rk3399", "rk3588"} {
				v := found(rockchip.FindModel(m))
				try(t, disguise, m, func() *rockchip.Board { return made(rockchip.New(rockchip.Config{Model: v})) }, map[string][]byte{"loader": rockchip.Generate(v, 20_000, 60_000, 1).Loader})
			}
			if tc.strings == nil { // the serial number's index tells its stages apart
				for _, m := range []string{"bcm2711", "bcm2837"} {
					v := found(bcm.FindModel(m))
					try(t, disguise, m, func() *bcm.Board { return made(bcm.New(bcm.Config{Model: v})) }, bcm.Generate(v, 100_000, 1))
				}
			}
			v := found(sama5.FindModel("sama5d2"))
			try(t, disguise, "sama5d2", func() *sama5.Board { return made(sama5.New(sama5.Config{Model: v})) }, sama5.Generate(v, 60_000, 1))
			q := qcom.Generate(60_000, 1)
			if tc.name != "full speed" { // its empty packets go by the size of its own
				try(t, disguise, "iq9075", func() *qcom.Board { return made(qcom.New(qcom.Config{})) }, map[string][]byte{"xbl": q.XBL, "u-boot": q.UBoot})
			}
			try(t, disguise, "keembay", func() *fastboot.Board { return made(fastboot.New(fastboot.Config{KeemBay: true})) }, map[string][]byte{"fip": fastboot.GenerateFIP(60_000, 1)})
		})
	}
}

// disguise is what is different with a board.
type disguise struct {
	socstest.Disguise
	twice int
}

// found is a model; the zero one if there is none.
func found[M any](m M, _ error) M { return m }

func made[B any](b B, err error) B {
	if err != nil {
		panic(err)
	}
	return b
}

// try recovers a board in disguise.
func try[R socstest.Report, B socstest.Board[R]](t *testing.T, disguise disguise, model string, plug func() B, files map[string][]byte) {
	t.Run(model, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fw := socstest.Firmware(files)
			params := map[string]map[string]any{
				"lowlevel": {}, "extram": {"preset": 4}, "u-boot": {"address": 0x26f00000},
			}
			if model == "sama5d2" {
				for slot, p := range params {
					fw[slot] = socs.Image{Path: fw[slot].Path, Data: fw[slot].Data, Params: p}
				}
			}
			m, backend, err := recovery.Lookup(model)
			if err != nil {
				t.Fatal(err)
			}
			host, board := inproc.New(), plug()
			disguise.Port = host.Port("251-1")
			ctx, unplug := socstest.Plug[R](t, &socstest.Glimpse{Port: disguise, Nth: disguise.twice}, board)
			defer unplug()
			o := socstest.Recover[R](t, ctx, host, board, recovery.Options{Backend: backend, Model: m, Firmware: fw, Port: "251-1"})
			o.Good(t)
		})
	})
}
