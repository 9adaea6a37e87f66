@ Loads the word whose address stands behind the program, and stores it there. The ROM would copy it byte by byte, which not all
@ registers bear.

	.include "common.inc"

	adr	r1, address
	ldr	r0, [r1]
	ldr	r0, [r0]
	str	r0, [r1]
	bx	lr
address:
