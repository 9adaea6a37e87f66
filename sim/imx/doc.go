// Package imx is a virtual board with an NXP i.MX that starts from USB: its boot ROM, then U-Boot SPL
// where the board has one, then what U-Boot shows on USB.
//
//	ROM (SDP by HID or bulk, or an SDPS stream) --> leaves the bus --> SPL (SDPU, SDPV) --> U-Boot's gadget
//
// A board is one of [Models] with a [Config]. Its USB function is in device.go; what speaks over it is
// sdp.go (the command protocol of the ROMs of i.MX50 to 8MM, with dcd.go and hab.go), sdps.go (the
// stream of i.MX28, 8Q, 8MN, 8MP, 8ULP and 9x) and spl.go (U-Boot's drivers/usb/gadget/f_sdp.c). Memory
// and processor are a [Machine]; the default one, [Memory], stores and executes nothing.
//
// image.go reads the image formats and generate.go writes test images. They share nothing with snag's
// own code, so that the two cannot agree on a mistake.
//
// Sources: the serial downloader and boot image chapters of the reference manuals (IMX6DQRM,
// IMX6ULLRM, IMX7DRM, IMX8MMRM), as quoted by and compared with NXP's uuu (libuuu/config.cpp, rominfo.cpp,
// sdp.cpp, sdps.cpp), Boundary Devices' imx_usb_loader (imx_sdp.c, sdp.c, imx_usb.c) and U-Boot (f_sdp.c,
// arch/arm/mach-imx/spl_imx_romapi.c, image-container.c). Where they leave something open the model is
// strict, and what it found wrong is in [Report].Violations. [Model].ProvenBy tells which peer
// has recovered which model.
package imx
