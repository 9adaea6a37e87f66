// Package sim runs virtual boards for people and scripts: it is what "snag sim" does.
//
// The device models and what carries them are in sub-packages:
//
//	usbdev    what a USB device is, to models and carriers; network gadgets
//	virtual   what every virtual board does: how to write a model
//	am335x    the model of an AM335x board
//	amlogic   the models of boards with an Amlogic SoC
//	bcm       the models of boards with a Broadcom SoC
//	imx       the models of i.MX boards
//	sunxi     the models of Allwinner's SoCs
//	dfu       the models of boards that start over DFU
//	fastboot  the model of a fastboot gadget, and of Keem Bay's ROM
//	qcom      the model of a Qualcomm board in EDL
//	rockchip  the models of boards with a Rockchip SoC
//	uboot     the model of U-Boot's shell, and of the storage behind it
//	sama5     the models of SAMA5 boards
//	ocotp     the model of the fuses of i.MX
//	ums       the model of U-Boot's mass storage
//	uart      the model of a board that is recovered over a serial line
//	evk       whole boards with an i.MX: ROM, SPL, U-Boot, storage and fuses
//	inproc    a USB host without a kernel
//	usbtest   what every transport to a device must do, as a test
//	usbip     USB/IP: transfers to a kernel, over any stream or TCP
//	vhci      plugs a device into the running kernel (root, module vhci-hcd)
//	pty       a serial line, as a pseudo-terminal
//	qemu      what executes firmware: a processor with memory and serial lines
//	sandbox   shows a network board to a command in private namespaces (no USB, no root)
package sim
