@ Turns MMU, branch prediction and instruction cache off. The ROM's map is one to one.

	.include "common.inc"

	mrc	p15, 0, r0, c1, c0, 0		@ SCTLR
	bic	r0, r0, #1 << 12		@ instruction cache
	bic	r0, r0, #1 << 11		@ branch prediction
	bic	r0, r0, #1 << 0			@ MMU
	mcr	p15, 0, r0, c1, c0, 0
	barrier	r0
	bx	lr
