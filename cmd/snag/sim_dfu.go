package main

import (
	"github.com/spf13/cobra"

	"snag/sim"
	"snag/sim/dfu"
)

func newSimDFU() *cobra.Command {
	var s sim.DFU
	cmd := &cobra.Command{
		Use:   "stm32mp15 [flags] [-- COMMAND ARGS...]",
		Short: "A virtual STM32MP (its aliases are others that start over DFU: K3, ZynqMP, RZ/N1): from boot ROM to U-Boot",
		Long: `Powers a virtual board that starts over DFU, of the model that the command is called
by: stm32mp13, stm32mp25, am62x, j721e, zynqmp, rzn1, ... Its stages keep to the
state machine of DFU as their sources do; at the end it tells what the host's work
amounts to and what was wrong with it. Called by the name dfu it is a gadget like that
of U-Boot's dfu command, with storage (boot, rootfs, and a file, uImage) behind it.

It takes the kernel's virtual USB host controller (modprobe vhci-hcd, as root), or
with --carrier usbip a client of the USB/IP protocol elsewhere.`,
		Example: `  sudo snag sim stm32mp15 -- snag recover --soc stm32mp15 -f board.yaml
  sudo snag sim am62x --fault error:spl-r5:100000:3 -- ./our-lab-script
  snag sim zynqmp --generate images`,
	}
	b, fl := &s.Board, cmd.Flags()
	simUSB(cmd, &s, &s.Options, nil, dfu.Names(), func(name string) (err error) { b.Model, err = dfu.FindModel(name); return err })
	fl.StringVar((*string)(&b.SPL), "spl", "combined", "K3: the age of SPL, which is combined (it offers tispl.bin and u-boot.img), old (and needs no second session) or next (it offers the next stage only)")
	fl.BoolVar(&b.Twice, "twice", false, "K3: the ROM wants its file twice")
	fl.BoolVar(&b.OldTFA, "old-tf-a", false, "STM32MP15: TF-A wants a flash layout first")
	fl.BoolVar(&b.OldFSBL, "old-fsbl", false, "ZynqMP: an FSBL of 2017")
	fl.BoolVar(&b.EarlyLeave, "early", false, "the ROM starts its file before it has told the status")
	fl.BoolVar(&b.AnyFile, "any-file", false, "every file is taken for the right one")
	fl.DurationVar(&b.Block, "block", 0, "how long each block keeps a stage busy")
	fl.DurationVar(&b.Manifest, "manifest", 0, "how long the end of each file does")
	fl.DurationVar(&b.StageDelay, "stage-delay", 0, "time until the next stage enumerates (default 300ms)")
	fl.StringVar((*string)(&b.RunTime), "run-time", "", "dfu: it is in run-time mode first, and \"detaches\" or \"waits for reset\" at DETACH")
	fl.DurationVar(&b.Drain, "drain", 0, "dfu: how long it takes to write a full buffer of 8 MiB to storage")
	fl.BoolVar(&b.NoUpload, "no-upload", false, "dfu: nothing can be read back")
	fl.StringVar(&b.Never, "never", "", "a `stage` that never enumerates")
	fl.StringArrayVar(&b.Missing, "missing", nil, "the `name` of an alternate setting that no stage has; may be given several times")
	simFlags(cmd, &s.Options, &b.Faults, dfu.ParseFault, "what goes wrong, as `KIND:STAGE:WHEN`: error (with a status behind another colon), busy, nak (with a time), lie (of the time), flip (a bit, dfu only), stall, hang, unplug or reset, at rom, rom2, tfa, u-boot, sysfw, spl-r5, spl-a53, fsbl, app or gadget, at a number of bytes or at the end of a file (manifest)")
	return cmd
}
