package socs

import "snag/usb"

// Gadget is what a board may show that is past its boot stages: U-Boot or Linux offers something there.
type Gadget struct {
	ID   usb.ID
	Does string // "fastboot"
}

// Gadgets are those that boards are known to show after a recovery: uuu's table (libuuu/config.cpp; FB is U-Boot's
// fastboot, FBK that of a Linux kernel made for flashing), U-Boot's defaults (drivers/usb/gadget/Kconfig), Keem Bay's
// (Snagboot), Amlogic boards' (U-Boot's configurations) and the kernel's. An ID says little of the board behind it.
var Gadgets = []Gadget{
	{usb.ID{Vendor: 0x0525, Product: 0xa4a5}, "mass storage or fastboot"},
	{usb.ID{Vendor: 0x0525, Product: 0xa4a2}, "network"},
	{usb.ID{Vendor: 0x18d1, Product: 0x0d02}, "fastboot"},
	{usb.ID{Vendor: 0x18d1, Product: 0x4ee0}, "fastboot"},
	{usb.ID{Vendor: 0x3016, Product: 0x0001}, "fastboot"},
	{usb.ID{Vendor: 0x1fc9, Product: 0x0152}, "fastboot"},
	{usb.ID{Vendor: 0x0483, Product: 0x0afb}, "fastboot"},
	{usb.ID{Vendor: 0x8087, Product: 0xda00}, "fastboot"},
	{usb.ID{Vendor: 0x1b8e, Product: 0xfada}, "fastboot"},
	{usb.ID{Vendor: 0x1d6b, Product: 0x0104}, "composite gadget"},
	{usb.ID{Vendor: 0x066f, Product: 0x9afe}, "fastboot of a Linux kernel"},
	{usb.ID{Vendor: 0x066f, Product: 0x9bff}, "fastboot of a Linux kernel"},
	{usb.ID{Vendor: 0x1fc9, Product: 0x0153}, "fastboot of a Linux kernel"},
}
