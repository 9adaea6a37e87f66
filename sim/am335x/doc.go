// Package am335x is a virtual board with a TI AM335x (Sitara) that starts from USB: its boot ROM,
// then U-Boot SPL, then what U-Boot shows on USB.
//
// ROM and SPL are network boot clients behind a USB network adapter ([usbdev.Ethernet]). Each asks by
// BOOTP or DHCP for an address and a file name and fetches the file by TFTP. The client here is
// written for this model alone: packet.go (Ethernet, ARP, IPv4, UDP), bootp.go, tftp.go and client.go
// (the exchange). It shares nothing with snag's servers, so that the two cannot agree on a mistake.
//
//	ROM --spl--> leaves the bus --> SPL --u-boot.img--> leaves the bus --> U-Boot's gadget, if any
//
// Sources: AM335x technical reference manual SPRUH73, chapter 26; captures of its ROM; the behaviour
// of U-Boot's net/bootp.c, net/tftp.c and drivers/usb/gadget/ether.c. Where the manual is vague
// the model is strict, and what it found wrong is in [Report].Violations.
//
// The model executes nothing: it records the bytes that each stage received.
package am335x
