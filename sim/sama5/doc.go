// Package sama5 is a virtual board with Microchip's SAMA5D2, SAMA5D3 or SAMA5D4: the SAM-BA monitor in the boot ROM, as
// a CDC ACM device, the applets that it runs, and U-Boot, which it starts in DRAM.
//
//	ROM: monitor --lowlevel--> clocks --extram--> DRAM --G--> leaves the bus [--> U-Boot's gadget]
//
// A [Board] with a [Config] is plugged into a port ([Board.Run]). device.go has the USB device, monitor.go the
// commands, machine.go the memory and what an applet does to it; nothing is executed. A board is as strict as a real
// one: reading or writing where there is nothing, or DRAM before an applet has set it up, is a data abort, after which
// nothing answers. [Report] says what came. It shares nothing with snag's own client.
//
// Sources: the data sheets (SAMA5D2, DS60001476; SAMA5D3, DS60001609; SAMA5D4, DS60001525), chapter "Standard Boot
// Strategies", "SAM-BA Monitor"; SAM-BA 3.3.1 (src/plugins/connection/serial, src/plugins/device);
// atmel-software-package (samba_applets).
package sama5
