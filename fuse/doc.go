// Package fuse burns MAC addresses into the fuses of i.MX SoCs, by U-Boot's command "fuse", over fastboot.
//
// Bits of fuses go from 0 to 1, once. So nothing is burnt that was not looked at before:
//
//	MAC addresses --> words (a Plan, by the SoC's layout)
//	U-Boot --> what the fuses are (sensed twice), what their shadow registers say, what is locked
//	both --> what is to be done about each word: nothing, burn it, or refuse all
//	confirmed --> "fuse prog", word after word, each sensed behind it
//
// [MAC] makes the [Plan] (layout.go has the SoCs' words and banks); [Backend] carries it out on a board that package
// recovery finds and follows. How fuses are read through U-Boot, which sends no output over fastboot, is in read.go;
// what is decided in decide.go; burn.go has the order of it all.
//
// Sources: the fuse maps and OCOTP chapters of NXP's reference manuals, IMX6DQRM, IMX6SDLRM, IMX6SLRM, IMX6SXRM,
// IMX6ULRM, IMX6ULLRM, IMX7DRM, IMX8MMRM, IMX8MNRM and IMX8MPRM; U-Boot, arch/arm/mach-imx/mac.c (how the words are
// read as addresses), cmd/fuse.c (the command and what it prints), drivers/misc/mxc_ocotp.c and the imx-regs.h of mx6,
// mx7 and imx8m (the controller), doc/README.fuse.
package fuse
