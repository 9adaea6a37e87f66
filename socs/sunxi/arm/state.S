@ Stores SCTLR and, if the MMU is on, DACR, TTBCR and TTBR0 behind itself.

	.include "common.inc"

	adr	r3, result
	mrc	p15, 0, r0, c1, c0, 0		@ SCTLR
	mov	r1, #0
	mov	r2, #0
	mov	r12, #0
	tst	r0, #1				@ MMU
	mrcne	p15, 0, r1, c3, c0, 0		@ DACR
	mrcne	p15, 0, r2, c2, c0, 2		@ TTBCR
	mrcne	p15, 0, r12, c2, c0, 0		@ TTBR0
	stmia	r3, {r0, r1, r2, r12}
	bx	lr
result:
