// Package dfu is a virtual board with a chip that starts over DFU: STM32MP1 and MP2, TI's K3, Renesas' RZ/N1 and
// Xilinx' ZynqMP.
//
//	STM32MP   ROM --> TF-A (on the ROM's USB session, but for MP13) --> U-Boot's stm32prog
//	K3        ROM --> SPL on the R5 (AM65x and J721E: first without, then with system firmware) --> SPL on the A53 --> U-Boot
//	K3 AM62L  ROM --> ROM --> SPL on the A53 --> U-Boot
//	ZynqMP    ROM --> FSBL --> U-Boot
//	RZ/N1     ROM --> U-Boot
//
// It is also a DFU gadget with storage behind it, as U-Boot's dfu command or another product's has it (gadget.go),
// perhaps with a run-time mode before it, or with DfuSe.
//
// A board is one of [Models] with a [Config]. What its stages are is in models.go. device.go is their USB function,
// states.go the state machine of DFU 1.1 (section A.2) with what ROM, TF-A and U-Boot make of it; the FSBL has one of
// its own (fsbl.go). check.go looks at the files as far as the stages do, and generate.go makes files that pass. None
// of it shares code with snag's own, so that the two cannot agree on a mistake.
//
// Sources: U-Boot (drivers/usb/gadget/f_dfu.c, common/dfu.c, drivers/dfu/, include/env/ti/k3_dfu.env,
// arch/arm/mach-stm32mp/cmd_stm32prog), Trusted Firmware-A (plat/st/common/usb_dfu.c, stm32cubeprogrammer_usb.c,
// plat/st/stm32mp1/stm32mp1_usb_dfu.c, plat/st/stm32mp2/stm32mp2_usb_dfu.c), Xilinx's embeddedsw (zynqmp_fsbl,
// xfsbl_usb.c, xfsbl_dfu_util.c), ST's AN5275. The ROMs are known only by what their hosts do with them. Where the
// sources leave something open the model is strict, and what it found wrong is in [Report].Violations.
package dfu
