package main

import (
	"github.com/spf13/cobra"

	"snag/sim"
	"snag/sim/rockchip"
)

func newSimRockchip() *cobra.Command {
	var s sim.Rockchip
	cmd := &cobra.Command{
		Use:   "rk3399 [flags] [-- COMMAND ARGS...]",
		Short: "A virtual Rockchip board (its aliases are the other models): maskrom, and USB plug",
		Long: `Powers a virtual board with a Rockchip SoC, of the model that the command is called
by: rk3399, rk3588, px30, rk3288, ... Its ROM takes what is downloaded as rkdeveloptool
and U-Boot's documents have it; at the end it tells what the host's work amounts to and
what was wrong with it. A loader container starts Rockchip's USB plug, which shows the
ROM's USB ID again.

It takes the kernel's virtual USB host controller (modprobe vhci-hcd, as root), or
with --carrier usbip a client of the USB/IP protocol elsewhere.

A virtual board does not execute what it receives.`,
		Example: `  sudo snag sim rk3399 -- snag recover --soc rk3399 -f board.yaml
  sudo snag sim rk3588 --fault crc:rom:4096 -- ./our-lab-script
  sudo snag sim rk3399 -- rkdeveloptool db loader.bin
  snag sim rk3399 --generate images`,
	}
	b, fl := &s.Board, cmd.Flags()
	simUSB(cmd, &s, &s.Options, &b.Gadget, rockchip.Names(), func(name string) (err error) { b.Model, err = rockchip.FindModel(name); return err })
	fl.BoolVar(&b.Loader, "loader", false, "the board is in its vendor's loader, not in its ROM")
	fl.BoolVar(&b.PlainPlug, "plain-plug", false, "the USB plug shows bcdUSB 2.00, as the ROM does")
	fl.BoolVar(&b.AnyCode, "any-code", false, "the ROM starts whatever it received")
	fl.BoolVar(&b.EarlyLeave, "early", false, "the ROM jumps before the host has the status of the last piece")
	fl.BoolVar(&b.Stays, "stays", false, "U-Boot leaves USB alone: the device stays on the bus and answers nothing")
	fl.BoolVar(&b.Ignored, "ignored", false, "the ROM does not start what 472 loaded")
	fl.BoolVar(&b.NeverPlug, "never", false, "the USB plug never shows on the bus")
	fl.DurationVar(&b.Piece, "piece", 0, "how long the ROM takes for each piece of 4096 bytes")
	fl.DurationVar(&b.Init, "init", 0, "how long what 471 loaded takes to set up the DRAM (default 1ms)")
	fl.DurationVar(&b.PlugDelay, "plug-delay", 0, "time until the USB plug, or the gadget, enumerates (default 300ms)")
	simFlags(cmd, &s.Options, &b.Faults, rockchip.ParseFault, "what goes wrong, as `KIND:STAGE:WHEN`: stall, crc (of the section), nak (with a time behind another colon), hang, mute, unplug or reset, at rom, at a number of bytes or at 0x471, 0x472 (the end of a section) or jump; fail, cut, wrong, mute and the others at plug, at its commands ready and chip")
	return cmd
}
