@ Enables the second level cache of a Cortex-A8 (ACTLR bit 1, ARM DDI 0344K, 3.2.26), as the ROM does not.

	.include "common.inc"

	mrc	p15, 0, r0, c1, c0, 1		@ ACTLR
	orr	r0, r0, #1 << 1
	mcr	p15, 0, r0, c1, c0, 1
	barrier	r0
	bx	lr
