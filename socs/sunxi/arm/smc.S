@ Enters the secure state, on a board whose fuses make the ROM leave it.

	.include "common.inc"
	.arch	armv7-a
	.arch_extension	sec

	smc	#0
	bx	lr
