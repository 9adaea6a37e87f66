// Package uboot is a model of U-Boot at work: a shell with its environment, memory, and storage behind its commands. It
// executes no code. The virtual board of package sim/fastboot has a [Machine] behind UCmd, ACmd, "oem run", flash and
// erase.
//
//	setenv, ${x} -> environment
//	mw, md, cmp, cp, crc32 -> memory <- download
//	mmc, gpt, part -> MMC: hardware partitions of blocks
//	mtd, nand, sf -> MTD: erase blocks, pages, bad blocks
//
// The shell is a table: [Machine.Commands] has what a board knows beyond the built-in ones, and shadows these.
// parse.go is the language, commands.go what needs no device, mmc.go, gpt.go and mtd.go the devices and their commands.
//
// Storage is sparse: what nobody wrote takes no memory. Numbers in commands are hexadecimal, as in U-Boot.
//
// Sources: U-Boot, common/cli_hush.c, cmd/{nvedit,mem,mmc,gpt,part,mtd,nand,sf,test,itest,setexpr}.c, disk/part_efi.c,
// common/hash.c; UEFI specification, section 5.3 (GPT). It shares nothing with what snag itself knows of storage.
package uboot
