// Package rockchip is a virtual board with a Rockchip SoC, from the maskrom to what its second download starts.
//
//	maskrom --> Rockchip's USB plug, or U-Boot's gadget, or nothing on USB
//
// The maskrom takes vendor requests on endpoint 0: sections for 0x471 (to internal memory, called, must return) and
// 0x472 (to DRAM, which 471 has set up, and jumped to). A section is what comes in pieces of 4096 bytes until a shorter
// one; its CRC16 must come out as zero. ROMs of older SoCs decrypt what they then have. There is no answer but USB's: a
// section whose CRC16 is wrong is dropped without a word, and the next one is refused; what was decrypted though it
// should not be, or the other way round, is started and hangs.
//
// A board is one of [Models] with a [Config]. maskrom.go is the ROM, plug.go the server that a USB plug is, generate.go
// makes files, containers and ID blocks. None of it shares code with snag's own, so that the two cannot agree on a
// mistake.
//
// Sources: rkdeveloptool (RKComm.cpp, RKDevice.cpp, RKScan.cpp, boot_merger.h), xrock (rock.c, loader.c), Rockchip's
// rkbin (the recipes in RKBOOT), U-Boot (tools/rkcommon.c, arch/arm/dts/rockchip-u-boot.dtsi), and for what the ROM
// does with a wrong CRC16 what others measured on an RK3576. The ROMs are otherwise known only by what their hosts do
// with them. Where the sources leave something open the model is strict, and what it found wrong is in
// [Report].Violations.
package rockchip
