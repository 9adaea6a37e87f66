// Package bcm is virtual boards with a Broadcom SoC, as on the Raspberry Pi and its compute modules, in USB device boot
// mode: the boot ROM, which takes a second stage, and that stage, which asks the host for the files that it boots from.
//
// There is no description of the protocol. What is here follows Raspberry Pi's own host program (raspberrypi/usbboot,
// main.c, bootfiles.c, Readme.md), the order of requests that its issues 75, 306 and 370 and those of
// rpi-sb-provisioner (309, 338) show, and descriptors that its issues and those of raspberrypi/firmware (1184) show.
// Both stages have the same USB ID, and the index of the serial number in the device descriptor tells them apart: 0 or
// 3 is the ROM, 1 the second stage.
//
// The host sends something by a control request (40, 0) with its length in wValue and wIndex, and the bytes on a bulk
// endpoint; it reads by a control request (c0, 0). The ROM reads 24 bytes, a length and a signature, then so many
// bytes, and gives a status. The second stage gives messages of 260 bytes, a command (0: how long is the file, 1: send
// it, 2: done) and a name; a length of 0 says that there is no such file.
//
// The board executes nothing. Its second stage asks for what a real one does, looks for the kernel in boot.img as
// config.txt has it, with a FAT reader of its own, and [Report] tells what would have been started. It does not know
// what Raspberry Pi has signed: the ROM takes any file that is not text and not blank.
package bcm
