package main

import (
	"github.com/spf13/cobra"

	"snag/sim"
	"snag/sim/qcom"
)

func newSimQualcomm() *cobra.Command {
	var s sim.Qualcomm
	cmd := &cobra.Command{
		Use:   "iq9075 [flags] [-- COMMAND ARGS...]",
		Short: "A virtual Qualcomm IQ-9075 in EDL: boot ROM, XBL, and U-Boot's gadget",
		Long: `Powers a virtual board in Qualcomm's Emergency Download mode, which asks for images by
Sahara: the ROM for number 13, XBL then for number 5. It reads ELF and MBN files as a
loader does, and verifies the hashes that they have; at the end it tells what the
host's work amounts to and what was wrong with it.

It takes the kernel's virtual USB host controller (modprobe vhci-hcd, as root), or
with --carrier usbip a client of the USB/IP protocol elsewhere.

A virtual board does not execute what it receives.`,
		Example: `  sudo snag sim iq9075 -- snag recover --soc iq9075 -f board.yaml
  sudo snag sim iq9075 --fault error:xbl:end:0x21 -- ./our-lab-script
  sudo snag sim iq9075 --single -- qdl prog_firehose.elf patch.xml
  snag sim iq9075 --generate images`,
	}
	b, fl := &s.Board, cmd.Flags()
	simUSB(cmd, &s, &s.Options, &b.Gadget, nil, nil)
	fl.StringVar((*string)(&b.Mode), "mode", "", "what the board does when it is plugged in: memory-debug (it holds a crash dump), command or firehose (default: it waits for an image)")
	fl.BoolVar(&b.Single, "single", false, "the first image is a programmer, and the last; it speaks Firehose")
	fl.BoolVar(&b.Pending, "pending", false, "with --single: the ROM says that more images are to come, as MSM8916's")
	fl.BoolVar(&b.Eaten, "eaten", false, "another program has read the first HELLO")
	fl.BoolVar(&b.Wide, "wide", false, "it asks by READ_DATA64")
	fl.BoolVar(&b.Signed, "signed", false, "it takes no ELF file without a hash segment")
	fl.IntVar(&b.Piece, "piece", 0, "the most that it asks for at once, in `bytes` (default 1 MiB)")
	fl.BoolVar(&b.Reenumerate, "re-enumerate", false, "XBL leaves the bus before it asks for more")
	fl.DurationVar(&b.Delay, "delay", 0, "time from an image's end until it shows that it runs (default 300ms)")
	fl.StringVar(&b.Never, "never", "", "a `stage` that does not start: xbl")
	simFlags(cmd, &s.Options, &b.Faults, qcom.ParseFault, "what goes wrong, as `KIND:STAGE:WHEN`: error (with a status behind another colon), cut, short, long, lie, wrong, other (image), range, again, hello, debug, early, stall, nak (with a time), hang, unplug or reset, at rom or xbl, at a number of bytes or at a packet (hello, end, done)")
	return cmd
}
