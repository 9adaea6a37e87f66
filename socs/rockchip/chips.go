package rockchip

import (
	"slices"
	"strings"

	"snag/socs"
	"snag/usb"
)

// vendor is Rockchip's, old that of its first chips.
const (
	vendor = 0x2207
	old    = 0x071b
)

// chip is a model.
type chip struct {
	name string
	ids  []usb.ID // the first is the ROM's in all lists, the others in some
	// containers are what containers for it call it, by the recipes of rkbin (RKBOOT).
	containers string
	tag        string // that the first image has on media, and may have over USB; empty: none, or not known
	// plain is a ROM that takes sections as they are. Others decrypt them (rkbin: 471_RC4_OFF; U-Boot, doc/README.rockchip: "openssl rc4").
	plain bool
	arm64 bool // it has 64-bit processors
	// sram is how much of the internal memory the first image may have (U-Boot, tools/rkcommon.c); 0: not known, or that is a TPL's share.
	sram int
	dram uint32 // where the DRAM begins, if something hangs on that
}

func id(products ...uint16) (ids []usb.ID) {
	for _, p := range products {
		ids = append(ids, usb.ID{Vendor: vendor, Product: p})
	}
	return ids
}

// chips follow rkdeveloptool (RKScan.cpp) and xrock (rock.c) in their IDs.
var chips = []chip{
	{name: "px30", ids: id(0x330d), containers: "RKPX30 RK3326", arm64: true, tag: "RK33"},
	{name: "rk1808", ids: id(0x180a), containers: "RK180A", arm64: true, tag: "RK18"},
	{name: "rk27", ids: []usb.ID{{Vendor: old, Product: 0x3201}}, containers: "RK27"},
	{name: "rk28", ids: []usb.ID{{Vendor: old, Product: 0x3228}}, containers: "RK28"},
	{name: "rk2818", ids: id(0x281a), containers: "RK281X"},
	{name: "rk2918", ids: id(0x290a), containers: "RK29"},
	{name: "rk2928", ids: id(0x292a), containers: "RK292X"},
	{name: "rk3026", ids: id(0x292c), containers: "RK302A RK292X"},
	{name: "rk3036", ids: id(0x301a), containers: "RK303A RK3032", tag: "RK30"},
	{name: "rk3066", ids: id(0x300a, 0x310a), containers: "RK30", tag: "RK30", sram: 0x7800},
	{name: "rk3066b", ids: id(0x310a), containers: "RK30B RK30", tag: "RK30"},
	{name: "rk3126", ids: id(0x310d, 0x310c), containers: "RK312A", tag: "RK31"},
	{name: "rk3128", ids: id(0x310c), containers: "RK312A", tag: "RK31"},
	{name: "rk3168", ids: id(0x300b), containers: "RK300B RK30B"},
	{name: "rk3188", ids: id(0x310b), containers: "RK31", tag: "RK31", sram: 0x7800},
	{name: "rk3228", ids: id(0x320b), containers: "RK322A", tag: "RK32", sram: 0x7000},
	{name: "rk3288", ids: id(0x320a), containers: "RK320A RK32", tag: "RK32", sram: 0x8000},
	{name: "rk3308", ids: id(0x330e), containers: "RK3308", arm64: true, tag: "RK33", sram: 0x3f000},
	{name: "rk3328", ids: id(0x320c), containers: "RK322H", arm64: true, tag: "RK32", sram: 0x7800},
	{name: "rk3368", ids: id(0x330a), containers: "RK330A", arm64: true, tag: "RK33", sram: 0x7000},
	{name: "rk3399", ids: id(0x330c), containers: "RK330C", arm64: true, tag: "RK33", sram: 0x2e000},
	{name: "rk3506", ids: id(0x350f), containers: "RK350F", plain: true, sram: 0xb000},
	{name: "rk3528", ids: id(0x350c), containers: "RK3528", arm64: true, plain: true, sram: 0xf000},
	{name: "rk3562", ids: id(0x350d), containers: "RK3562", arm64: true, plain: true, sram: 0xf000},
	{name: "rk3568", ids: id(0x350a), containers: "RK3568", arm64: true, plain: true, sram: 0xf000},
	{name: "rk3576", ids: id(0x350e), containers: "RK3576", arm64: true, plain: true, sram: 0x7f000, dram: 0x40000000},
	{name: "rk3588", ids: id(0x350b), containers: "RK3588", arm64: true, plain: true, sram: 0xff000},
	{name: "rkcayman", ids: id(0x273a), containers: "RKCAYMAN"},
	{name: "rkcrown", ids: id(0x261a), containers: "RKCROWN"},
	{name: "rknano", ids: []usb.ID{{Vendor: old, Product: 0x3226}}, containers: "RKNANO"},
	{name: "rkpanda", ids: id(0x282b), containers: "RKPANDA"},
	{name: "rksmart", ids: id(0x262c), containers: "RKSMART"},
	{name: "rv1106", ids: id(0x110c), containers: "RK1106", plain: true},
	{name: "rv1108", ids: id(0x110a), containers: "RK110A", tag: "RK11"},
}

// takes tells whether a container that names this chip is for it.
func (c *chip) takes(name string) bool { return slices.Contains(strings.Fields(c.containers), name) }

// chipOf is a model's.
func chipOf(m socs.Model) *chip {
	for i := range chips {
		if chips[i].name == m.Name {
			return &chips[i]
		}
	}
	return &chip{name: m.Name} // none of ours
}

// identities are those of the ROMs. One ID may be several models', which nothing else tells apart.
func identities() (all []socs.Identity) {
	models := map[usb.ID][]string{}
	var order []usb.ID
	for _, c := range chips {
		for _, i := range c.ids {
			if models[i] == nil {
				order = append(order, i)
			}
			models[i] = append(models[i], c.name)
		}
	}
	for _, i := range order {
		all = append(all, socs.Identity{ID: i, Models: models[i]})
	}
	return all
}
