// Package rockchip recovers boards with Rockchip SoCs.
//
// The maskrom takes sections by vendor requests on endpoint 0: for 0x471 into internal memory, where they are called
// and must return when they have set up the DRAM, and for 0x472 into DRAM, where they are started and do not return.
// What for 472 comes is U-Boot with its SPL in front, or Rockchip's USB plug, a server for the board's storage that
// shows the ROM's ID again. Both come from one loader container, or as a file each.
//
// chips.go knows the models, check.go makes sections of files, maskrom.go sends them, and plug.go asks a USB plug
// whether it runs.
//
// Sources: rkdeveloptool (RKComm.cpp, RKDevice.cpp, RKScan.cpp, boot_merger.h), xrock (rock.c, loader.c), collabora's
// rockusb, the recipes of Rockchip's rkbin (RKBOOT), and U-Boot (doc/README.rockchip, tools/rkcommon.c,
// arch/arm/dts/rockchip-u-boot.dtsi with ROCKCHIP_MASKROM_IMAGE).
package rockchip

import (
	"time"

	"snag/socs"
)

const family = "rockchip"

const (
	stageROM  = "rom"
	stagePlug = "plug"
)

const (
	slotLoader  = "loader"
	slotCode471 = "code471"
	slotCode472 = "code472"
)

// keyRC4 of a slot says whether its file is to be encrypted: "on" or "off".
const keyRC4 = "rc4"

// Backend recovers boards with Rockchip SoCs.
type Backend struct{}

var _ socs.Backend = Backend{}

// Family describes Rockchip's SoCs.
func (Backend) Family() socs.Family {
	return socs.Family{
		Name:        family,
		Title:       "Rockchip RK, RV and PX",
		Carriers:    []socs.Carrier{socs.USB},
		ROM:         identities(),
		Reenumerate: 30 * time.Second, // an RK3576 takes a little more than 3
		BootMode:    "maskrom button, or the clock or data line of the flash shorted at power-on; a board with nothing to boot from gets there by itself",
		Slots: []socs.Slot{
			{Name: slotLoader, Doc: "both stages in one: Rockchip's loader (rk..._loader_....bin, MiniLoaderAll.bin), or U-Boot's idbloader.img", Keys: []string{keyRC4}},
			{Name: slotCode471, Doc: "or the first stage: u-boot-rockchip-usb471.bin, u-boot-tpl.bin or Rockchip's rk..._ddr_....bin", Keys: []string{keyRC4}},
			{Name: slotCode472, Doc: "and the second: u-boot-rockchip-usb472.bin, u-boot-spl.bin or Rockchip's rk..._usbplug_....bin", Keys: []string{keyRC4}},
		},
	}
}
