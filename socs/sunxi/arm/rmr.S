@ Has the processor start again in AArch64. Behind the program: the address of the reset vector's register, and the vector.

	.include "common.inc"
	.arch	armv8-a

	adr	r1, vector
	ldmia	r1, {r0, r1}
	str	r1, [r0]
	dsb	sy
	isb
	mrc	p15, 0, r0, c12, c0, 2		@ RMR (ARM DDI 0487, G8.2.123)
	orr	r0, r0, #3			@ AArch64, reset request
	mcr	p15, 0, r0, c12, c0, 2
	isb
1:	wfi
	b	1b
vector:
