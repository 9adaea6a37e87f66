// Package plan does several things with one board, as a file or a command line says: recover it, wait for a gadget,
// write a partition table, flash images, verify them, run U-Boot's commands, reset.
//
//	steps:
//	  - recover: {soc: imx8mp, firmware: board.yaml}
//	  - gpt: {mmc: 2, partitions: [{name: boot, size: 64M}, {name: root, size: -}]}
//	  - flash: {image: rootfs.img.zst, mmc: "2:root", verify: true}
//	  - reset
//
// [Load] parses such a file: every mistake is an [Error] with line and column, and all of them are told at once.
// [Plan.Check] looks for what the steps need on this machine; [Plan.DryRun] tells what would be done; [Plan.Run] does
// it. Package recovery finds, locks and follows the board: recover steps are legs of its run that the SoC's backend
// does, and what stands between them is a leg that a backend of this package does. A plan that needs no board (a disk
// or file by its path, or fastboot over a network) is run without it.
//
// A [Target] says where an image goes to; what writes there is package flash's: flash/fastboot, flash/dfu, flash/block.
//
// The pieces: step.go, flash.go, gpt.go and interactive.go (the steps), target.go (targets), parse.go and value.go (the
// file), check.go (what can be said without a board), run.go (the run), session.go (a leg of it), gadget.go (what the
// board shows), meter.go (progress), errors.go. Package plan/snagflash makes plans of Snagboot's commands. docs/plan.md
// has the file's every key.
package plan
