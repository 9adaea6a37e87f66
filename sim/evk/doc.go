// Package evk is a whole virtual board with an i.MX, as NXP's evaluation kits are: on one port come its boot ROM, its
// SPL, and an U-Boot as NXP builds it, whose fastboot has an eMMC, an SD card, NAND and NOR flash and the chip's fuses
// behind it.
//
//	imx.Board: ROM --> [SPL -->] U-Boot starts --> fastboot.Board: UCmd, flash --> uboot.Machine --> storage, ocotp.Array
//
// Nothing here speaks any protocol: a [Board] is put together from the models of other packages. What is received as
// U-Boot is not executed; any that the ROM or SPL starts becomes the same U-Boot here. A reset leads back to the ROM;
// storage and fuses keep what they have.
//
// Sources beyond those of the parts: NXP's U-Boot (uboot-imx, lf_v2022.04), include/configs/imx8mp_evk.h (emmc_dev,
// sd_dev, loadaddr), arch/arm/mach-imx/cmd_nandbcb.c, cmd_qspihdr.c.
package evk
