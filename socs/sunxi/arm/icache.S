@ Turns the instruction cache off and forgets what is in it: programs that are written over each other run as they are written.

	.include "common.inc"

	mrc	p15, 0, r0, c1, c0, 0		@ SCTLR
	bic	r0, r0, #1 << 12		@ instruction cache
	mcr	p15, 0, r0, c1, c0, 0
	mov	r0, #0
	mcr	p15, 0, r0, c7, c5, 0		@ ICIALLU
	barrier	r0
	bx	lr
