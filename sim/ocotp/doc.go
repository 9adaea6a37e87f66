// Package ocotp is a model of the fuses of an i.MX and of their controller, the On-Chip OTP Controller:
//
//	prog --> fuses --sense-->
//	          | at a reset
//	override --> shadow registers --read-->
//
// A bit that is burnt stays so. The shadow registers are loaded from the fuses at a reset only, and may be written;
// bits of the LOCK word keep words from being burnt, or their shadow registers from being written, from the next reset
// on.
//
// An [Array] outlives power cycles; [Array.Power] is one. [Array.Command] is U-Boot's command "fuse" on it, as package
// sim/uboot has commands, [Array.Register] its registers.
//
// Sources: the OCOTP chapters and fuse maps of NXP's reference manuals (IMX6DQRM, IMX6ULLRM, IMX7DRM, IMX8MMRM,
// IMX8MPRM); U-Boot, cmd/fuse.c and drivers/misc/mxc_ocotp.c. It shares nothing with snag's package fuse.
package ocotp
