@ Turns MMU, branch prediction and instruction cache on, with the translation table whose address stands behind the program.

	.include "common.inc"

	ldr	r1, table
	ldr	r2, client
	mov	r3, #0
	mcr	p15, 0, r2, c3, c0, 0		@ DACR: client of all domains
	mcr	p15, 0, r3, c2, c0, 2		@ TTBCR: TTBR0 alone
	mcr	p15, 0, r1, c2, c0, 0		@ TTBR0
	mcr	p15, 0, r3, c8, c7, 0		@ TLBIALL
	mcr	p15, 0, r3, c7, c5, 0		@ ICIALLU
	mcr	p15, 0, r3, c7, c5, 6		@ BPIALL
	barrier	r0
	mrc	p15, 0, r1, c1, c0, 0		@ SCTLR
	orr	r1, r1, #1 << 0			@ MMU
	orr	r1, r1, #1 << 11		@ branch prediction
	orr	r1, r1, #1 << 12		@ instruction cache
	mcr	p15, 0, r1, c1, c0, 0
	barrier	r0
	bx	lr
client:	.word	0x55555555
table:
