// Package fastboot is a virtual board that speaks fastboot: U-Boot's gadget (or its servers on TCP and UDP), and in
// front of it, if asked for, the boot ROM of Intel's Keem Bay, which takes a FIP by fastboot and starts it.
//
//	[Keem Bay's ROM --> leaves the bus -->] U-Boot's fastboot --> boot, continue, reboot
//
// A [Board] with a [Config] is plugged into a port ([Board.Run]) or served on sockets ([Board.ServeTCP],
// [Board.ServeUDP]). What it knows of fastboot is in stage.go, what carries the messages in usb.go, tcp.go and udp.go.
// It keeps partitions in memory and executes nothing; [Report] says what came. It shares nothing with snag's own
// client.
//
// Sources: U-Boot, drivers/fastboot/fb_command.c, fb_getvar.c, fb_mmc.c, drivers/usb/gadget/f_fastboot.c,
// net/fastboot_udp.c, net/fastboot_tcp.c; AOSP, system/core/fastboot/README.md; of Keem Bay's ROM nothing but
// Snagboot's recoveries/keembay.py is known, and of the FIP Trusted Firmware-A's
// include/tools_share/firmware_image_package.h.
package fastboot
