// Package ums is a virtual board that U-Boot's "ums" command runs on: a USB mass storage gadget whose logical units are
// what the board has of eMMC and SD cards.
//
// A [Board] with a [Config] is plugged into a port ([Board.Run]). On the virtual host controller the kernel's own
// usb-storage and sd bind to it, and there is a /dev/sdX. device.go is the Bulk-Only Transport, scsi.go the commands,
// storage.go what keeps the bytes: in memory, only what is not zero. Its storage may be smaller than it says, lose
// writes, have bad blocks, and come later; the cable may be pulled at any byte. [Report] says what the host did. A
// host's eject ends it, as it ends U-Boot's command.
//
// Sources: USB Mass Storage Class, Bulk-Only Transport 1.0; SPC-2 and SBC-2 of T10; U-Boot,
// drivers/usb/gadget/f_mass_storage.c and storage_common.c, of which the commands, the answers and the strings are.
package ums
