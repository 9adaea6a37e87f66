// Package fastboot is a client of the fastboot protocol: of U-Boot's gadget and servers, of Android's, and of the boot
// ROMs that speak a part of it.
//
// A command is one message of ASCII to the device; the device answers with messages whose first four bytes are a
// status:
//
//	off size
//	0   4    INFO, TEXT: text to show, more follows; OKAY: done, with a value; FAIL: refused, with a reason; DATA: 8 hex digits follow
//	4   -    text, up to 252 bytes; U-Boot's end at 60
//
// Only "download" is answered by DATA, with as many bytes as the device now awaits; behind them comes another status.
//
// A [Client] knows the commands, over any [Transport]: [OpenUSB] (a bulk endpoint each way), [NewTCP] and [NewUDP]
// (both port 5554). No wait is without a deadline, and what a device may say is bounded in length and number. A client
// that met anything but an answer of the protocol is out of step with its device, and refuses all that follows.
//
// What writes images through it is package flash/fastboot.
//
// Sources: AOSP system/core/fastboot/README.md (USB, TCP, UDP); U-Boot doc/android/fastboot.rst,
// doc/android/fastboot-protocol.rst, drivers/fastboot, drivers/usb/gadget/f_fastboot.c, net/fastboot_udp.c,
// net/fastboot_tcp.c; NXP's uuu, libuuu/fastboot.cpp.
package fastboot
