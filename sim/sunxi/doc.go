// Package sunxi is a virtual board with an Allwinner SoC whose boot ROM waits for a host in FEL mode.
//
//	Board    one USB device, 1f3a:efe8: the AWUSB rounds and FEL's commands (fel.go)
//	Machine  memory and processor behind it: [SoC], or QEMU's
//
// A [SoC] has the memory map of a [Model], registers that hosts use, and a processor that interprets what it is told to
// execute (arm.go): register reads, the set-up of the MMU, the thunk around SPL. It executes what is sent, whoever sent
// it. Only SPL is not executed: when the processor comes to the start of an image with an eGON header, what mainline
// U-Boot's SPL does there is done at once (spl.go). U-Boot is not executed either: code in DRAM, or what a warm reset
// to AArch64 leads to, is where the ROM's part ends.
//
// The ROM keeps stacks and data in the memory that SPL is loaded to. Who overwrites these without putting them back has
// no ROM left to talk to, and so it is here.
//
// None of it shares code with snag's own, so that the two cannot agree on a mistake.
//
// Sources: sunxi-tools (fel.c, fel_lib.c, soc_info.c, thunks/fel-to-spl-thunk.S), Snagboot 3.0
// (snagrecover/protocols/fel.py, snagrecover/firmware/sunxi_fw), xfel (chips), U-Boot
// (arch/arm/include/asm/arch-sunxi/spl.h, arch/arm/mach-sunxi/board.c, tools/sunxi_egon.c), the ARM Architecture
// Reference Manual (ARM DDI 0406C). What the ROM does is known only by what its hosts do with it. Where the sources
// leave something open the model is strict, and what it found wrong is in [Report].Violations.
package sunxi
