// Package uuu runs the scripts of NXP's uuu ("universal update utility", the mfgtools) as they are.
//
// A script is lines of a protocol and a command:
//
//	uuu_version 1.2.39
//	SDPS: boot -f flash.bin
//	FB: ucmd setenv fastboot_dev mmc
//	FB[-t 60000]: flash -raw2sparse all image.wic
//	FB: done
//
// The protocol is what the board speaks at a stage: its boot ROM (SDP, SDPS), U-Boot's SPL (SDPU, SDPV), U-Boot (FB), a
// Linux made for flashing (FBK). Whatever enumerates on the board's port is looked up in a table of USB IDs, which CFG
// lines may change; all lines of its protocol are run, in their order; then the next enumeration is awaited, until a
// "done" is met.
//
// [Load] finds a script, be it a file, a directory, a zip archive, one of the built-in ones or a single command, fills
// in its arguments and parses it: every mistake is an [Error] with line and column, and is found before a board is
// touched. A [Backend] carries it out; it is one as any SoC family's, so package recovery finds, locks and follows the
// board. socs/imx talks to ROM and SPL, usb/fastboot to U-Boot, flash/image reads what is flashed. [Script.DryRun]
// tells what would be sent.
//
// The pieces: load.go and args.go (scripts), parse.go (lines), file.go (the files that scripts name), device.go (the
// table), common.go, rom.go, fb.go, flash.go, sparse.go, fbk.go (the commands), backend.go (the run), dryrun.go, and
// builtin/ (the built-in scripts).
//
// Sources: NXP's UUU.pdf and uuu's snippets of help (uuu -H); libuuu/cmd.cpp (lines, common commands, arguments),
// config.cpp and rominfo.cpp (the table), sdp.cpp, sdps.cpp, fastboot.cpp, buffer.cpp (paths); U-Boot,
// doc/android/fastboot.rst. docs/uuu.md has every command.
package uuu
