package main

import (
	"github.com/spf13/cobra"

	"snag/sim"
	"snag/sim/amlogic"
)

func newSimAmlogic() *cobra.Command {
	var s sim.Amlogic
	cmd := &cobra.Command{
		Use:   "s905x [flags] [-- COMMAND ARGS...]",
		Short: "A virtual Amlogic board (its aliases are the other models): boot ROM, BL2, and U-Boot's gadget",
		Long: `Powers a virtual board with an Amlogic SoC, of the model that the command is called
by: s905x, s912, a113x, a311d, s905d3, ... Its ROM and BL2 take what those of the
silicon take; at the end it tells what the host's work amounts to and what was wrong
with it.

It takes the kernel's virtual USB host controller (modprobe vhci-hcd, as root), or
with --carrier usbip a client of the USB/IP protocol elsewhere.

A virtual board does not execute what it receives.`,
		Example: `  sudo snag sim s905x -- snag recover --soc s905x -f board.yaml
  sudo snag sim a311d --fault hang:bl2:amlc -- ./our-lab-script
  snag sim s905d3 --generate images`,
	}
	b, fl := &s.Board, cmd.Flags()
	simUSB(cmd, &s, &s.Options, &b.Gadget, amlogic.Names(), func(name string) (err error) { b.Model, err = amlogic.FindModel(name); return err })
	fl.BoolVar(&b.Locked, "locked", false, "USB boot is protected by a password")
	fl.BoolVar(&b.Short, "short", false, "the ROM identifies itself by four bytes, as old ones do")
	fl.Uint8Var(&b.At, "at", 0, "the `stage` that the board is in: 8 for BL2, 16 for Amlogic's U-Boot")
	fl.BoolVar(&b.Leaves, "leaves", false, "G12, SM1: BL2 starts U-Boot without having told that it has everything")
	fl.DurationVar(&b.BL2Delay, "bl2-delay", 0, "time that BL2 takes to start (default 400ms)")
	fl.DurationVar(&b.DRAMDelay, "dram-delay", 0, "GX, AXG: time that BL2 takes to set up the DRAM (default 400ms)")
	simFlags(cmd, &s.Options, &b.Faults, amlogic.ParseFault, "what goes wrong, as `KIND:STAGE:WHEN`: stall, cut (answer), wrong (answer), mute, beyond, nothing or endless (what BL2 asks for), nak (with a time behind another colon), hang, unplug or reset, at rom or bl2, at a number of bytes or at a request (identify, write, run, large-write, amlc, data, amls)")
	return cmd
}
