// Package qemu is the memory and the processor of a virtual board that executes what it receives.
//
// A [Machine] is QEMU's "sabrelite", an i.MX6Quad with 1 GiB of DRAM, held before its first instruction.
// A virtual boot ROM drives it through QEMU's debugger stub: it writes memory, device registers included,
// and jumps. From there on real firmware runs, and what it prints on its UARTs shows how far it came.
//
//	boot ROM's model - WriteMemory, Jump -> debugger stub - processor, OCRAM, DRAM, registers
//	                                                            |
//	test or terminal <---------------- Console ------------- UART1, UART2
//
// QEMU has no USB device controller for this SoC, so the USB side of U-Boot's SPL cannot be its own. An SPL,
// which is known by its place in on-chip RAM, runs until it has no more boot device to try; then its processor is
// held, and a model speaks for it: it writes the next stage into the memory that SPL has set up, and jumps.
//
// The debugger's protocol is in GDB's manual, appendix "GDB Remote Serial Protocol"; QEMU's own commands are in
// its docs/system/gdb.rst. Addresses are those of the i.MX 6Dual/6Quad reference manual (IMX6DQRM), chapter 2.
//
// QEMU ends with its Machine, with the context, or with this process, however that ends.
package qemu
