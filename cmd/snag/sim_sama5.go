package main

import (
	"github.com/spf13/cobra"

	"snag/sim"
	"snag/sim/sama5"
	"snag/sim/usbdev"
)

func newSimSAMA5() *cobra.Command {
	var s sim.SAMA5
	var fullSpeed bool
	cmd := &cobra.Command{
		Use:   "sama5d2 [flags] [-- COMMAND ARGS...]",
		Short: "A virtual SAMA5 (its aliases are the others): the SAM-BA monitor, applets, and the start of U-Boot",
		Long: `Powers a virtual board with the chip that the command is called by: sama5d2, sama5d3
or sama5d4. The SAM-BA monitor in its boot ROM reads and writes memory, which has no
DRAM before Microchip's applets, or those that --generate makes, have been called in
their order. At the end it tells what the host's work amounts to and what was wrong
with it.

It takes the kernel's virtual USB host controller (modprobe vhci-hcd, as root), or
with --carrier usbip a client of the USB/IP protocol elsewhere.`,
		Example: `  sudo snag sim sama5d2 -- snag recover --soc sama5d2 -f board.yaml
  sudo snag sim sama5d3 --fault fail:rom:extram:0x0f -- ./our-lab-script
  snag sim sama5d4 --generate images`,
	}
	b, fl := &s.Board, cmd.Flags()
	simUSB(cmd, &s, &s.Options, &b.Gadget, sama5.Names(), func(name string) (err error) { b.Model, err = sama5.FindModel(name); return err })
	fl.BoolVar(&fullSpeed, "full-speed", false, "the board is behind a full-speed hub")
	fl.IntVar(&b.Preset, "preset", 0, "the board's memory, by the RAM applet's `number` (default 4 of sama5d2, 2 of the others)")
	fl.DurationVar(&b.Applet, "applet", 0, "how long each call of an applet takes (default 50ms)")
	fl.BoolVar(&b.Secure, "secure", false, "the chip is in secure mode")
	fl.BoolVar(&b.Binary, "binary", false, "another program has left the monitor in binary mode")
	fl.IntVar(&b.Midway, "midway", 0, "another program has yet to send so many `bytes`; a reset of the port ends that")
	fl.BoolVar(&b.Deaf, "deaf", false, "with --midway: nothing ends that")
	fl.BoolVar(&b.Stays, "stays", false, "U-Boot leaves the USB controller as it is")
	simFlags(cmd, &s.Options, &b.Faults, sama5.ParseFault, "what goes wrong, as `KIND:STAGE:WHEN`: fail (of an applet, with a status behind another colon), ignore (a call), mute, cut, wrong, long or endless (an answer), flip (a bit), nak (with a time), stall, hang, unplug or reset, at rom, at a number of bytes or at a command (N, V, w, W, S, G, id, lowlevel, extram, u-boot)")
	cmd.PreRun = func(*cobra.Command, []string) {
		if fullSpeed {
			b.Speed = usbdev.FullSpeed
		}
	}
	return cmd
}
