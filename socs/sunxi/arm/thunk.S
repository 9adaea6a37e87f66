@ Runs SPL in the memory that the boot ROM has its stacks and its data in.
@
@ The host has stored SPL at its place, but for the parts that belong where the ROM's areas are: those lie in backup areas. This
@ program exchanges the two, runs SPL as a function, and exchanges them again, so that the ROM finds everything as it left it. The
@ outcome stands in SPL's header, where SPL itself looks for how it was started: the text at 4 is then eGON.FEL.
@
@ Behind the program: SPL's address, then triples of an area, its backup and their size, ended by one of size 0.

	.include "common.inc"

	b	run
	.space	36
stack:						@ downwards; the ROM's own is about to be swapped away

run:	mov	r0, sp
	mrs	r1, cpsr
	adr	sp, stack
	stmfd	sp!, {r0, r1, r2, lr}
	orr	r1, r1, #0xc0			@ no IRQ, no FIQ: their stacks go, too
	msr	cpsr_c, r1
	ldr	r4, table

	mrc	p15, 0, r0, c1, c0, 0		@ SCTLR
	tst	r0, #1 << 2			@ data cache
	tsteq	r0, #1 << 12			@ instruction cache
	ldrne	r0, cached
	strne	r0, [r4, #8]
	bne	done

	bl	swap

	ldr	r0, seed			@ the checksum of the header: seed + all words - 2 * checksum = 0
	ldr	r1, [r4, #12]
	sub	r0, r0, r1, lsl #1
	ldr	r1, [r4, #16]			@ SPL's length
	add	r1, r1, r4
	mov	r2, r4
1:	ldr	r3, [r2], #4
	add	r0, r0, r3
	cmp	r2, r1
	blo	1b
	cmp	r0, #0
	ldrne	r0, bad
	strne	r0, [r4, #8]
	bne	2f

	ldr	r0, started
	str	r0, [r4, #8]
	barrier	r0
	blx	r4
2:	bl	swap				@ SPL keeps SP and nothing else

done:	ldmfd	sp, {r0, r1, r2, lr}
	mov	sp, r0
	msr	cpsr_cxsf, r1
	bx	lr

@ swap exchanges the areas. Clobbers r0 to r3, r5 and r12.
swap:	adr	r12, table + 4
1:	ldmia	r12!, {r1, r2, r3}
	cmp	r3, #0
	bxeq	lr
2:	ldr	r0, [r1]
	ldr	r5, [r2]
	str	r5, [r1], #4
	str	r0, [r2], #4
	subs	r3, r3, #4
	bne	2b
	b	1b

seed:	.word	0x5f0a6c39
started:.ascii	".FEL"
bad:	.ascii	".BAD"
cached:	.ascii	".???"
table:
