package main

import (
	"github.com/spf13/cobra"

	"snag/sim"
	"snag/sim/bcm"
)

func newSimBCM() *cobra.Command {
	var s sim.BCM
	cmd := &cobra.Command{
		Use:   "bcm2711 [flags] [-- COMMAND ARGS...]",
		Short: "A virtual Raspberry Pi (its aliases are other SoCs of Broadcom's): from boot ROM to kernel",
		Long: `Powers a virtual board in USB device boot mode, of the SoC that the command is called
by: bcm2711, bcm2712, bcm2835, bcm2836, bcm2837. The boot ROM takes a second stage,
that asks for its files, and at the end the board tells what it was sent, what it would
have started, and what was wrong with the host.

It takes the kernel's virtual USB host controller (modprobe vhci-hcd, as root), or
with --carrier usbip a client of the USB/IP protocol elsewhere.

A virtual board does not execute what it receives.`,
		Example: `  sudo snag sim bcm2711 -- snag recover --soc bcm2711 -f board.yaml
  sudo snag sim bcm2712 --fault reset:bootcode:100000 -- ./our-lab-script
  snag sim bcm2712 --generate images`,
	}
	b, fl := &s.Board, cmd.Flags()
	simUSB(cmd, &s, &s.Options, &b.Gadget, bcm.Names(), func(name string) (err error) { b.Model, err = bcm.FindModel(name); return err })
	fl.BoolVar(&b.Started, "started", false, "the second stage runs already")
	fl.BoolVar(&b.TwoInterfaces, "two-interfaces", false, "the first interface is a disk's, as on a CM3")
	fl.BoolVar(&b.EarlyLeave, "early", false, "the ROM starts the second stage before it has told the status")
	fl.BoolVar(&b.Signed, "signed", false, "boot.img has to have a signature, boot.sig")
	fl.BoolVar(&b.Files, "files", false, "no boot.img: kernel and device tree are asked for one by one")
	fl.BoolVar(&b.Metadata, "metadata", false, "the second stage tells of the board")
	fl.BoolVar(&b.NoDone, "no-done", false, "the second stage leaves without saying that it is done")
	fl.BoolVar(&b.BootcodeNever, "bootcode-never", false, "the second stage does not start")
	fl.DurationVar(&b.Verify, "verify", 0, "how long the ROM looks at the second stage (default 100ms)")
	fl.DurationVar(&b.StageDelay, "stage-delay", 0, "time until the second stage enumerates (default 300ms)")
	simFlags(cmd, &s.Options, &b.Faults, bcm.ParseFault, "what goes wrong, as `KIND:STAGE:WHEN`: status (with its value behind another colon), stall, short, unknown, escape, endless, early, unnamed, nak (with a time), hang, unplug or reset, at rom or bootcode, at a number of bytes of files or at a point (message, bootcode, status; size, read, done)")
	return cmd
}
