// Package amlogic is a virtual board with an Amlogic SoC in USB boot mode, from S905 to S905D3: its ROM, the BL2 that
// the ROM starts, and what that does with the rest until U-Boot runs. All of it is one enumeration, as it is on the
// silicon.
//
//	GX, AXG:   ROM takes BL2 --> BL2 sets up the DRAM, as the parameter block says --> takes BL2 again and the FIP --> U-Boot
//	G12, SM1:  ROM takes BL2, the first 64 KiB of u-boot.bin --> BL2 asks for pieces of u-boot.bin (AMLC) --> U-Boot
//
// A [Board] with a [Config] is plugged into a port ([Board.Run]). rom.go has the requests that both kinds know, and
// what runs on GX and AXG; fetch.go has the BL2 of G12; image.go reads what a BL2 reads of the files. It executes
// nothing; [Report] says what came. It shares nothing with snag's own client and its parsers.
//
// Sources: pyamlboot (PROTOCOL.md, boot.py, boot-g12.py, pyamlboot/pyamlboot.py, optimus.py), which was made by
// listening to Amlogic's tool; Amlogic's U-Boot of 2015,
// arch/arm/cpu/armv8/common/firmware/plat/gxb/crypto/secureboot.c, for "@AML" images; gxlimg (amlcblk.c, amlsblk.c) for
// what the FIP has; Snagboot 3.0 (recoveries/amlogic.py) for the models.
package amlogic
