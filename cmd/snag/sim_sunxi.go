package main

import (
	"github.com/spf13/cobra"

	"snag/sim"
	"snag/sim/sunxi"
)

func newSimSunxi() *cobra.Command {
	var s sim.Sunxi
	cmd := &cobra.Command{
		Use:   "h3 [flags] [-- COMMAND ARGS...]",
		Short: "A virtual Allwinner (its aliases are the other models): boot ROM in FEL mode, SPL, and U-Boot's gadget",
		Long: `Powers a virtual board with an Allwinner SoC whose boot ROM is in FEL mode, of the model that
the command is called by: h3, a10, a64, h616, t113-s3, ... It interprets the code that
the host has it execute, and does at once what U-Boot's SPL would do; at the end it
tells what the host's work amounts to and what was wrong with it. With --qemu memory
and processor are those of one of QEMU's machines, SPL and U-Boot run, and UART0, their
console, is on a pseudo-terminal.

It takes the kernel's virtual USB host controller (modprobe vhci-hcd, as root), or
with --carrier usbip a client of the USB/IP protocol elsewhere.`,
		Example: `  sudo snag sim h3 -- snag recover --soc h3 -f board.yaml
  sudo snag sim a64 --fault reset:rom:100000 -- ./our-lab-script
  sudo snag sim h3 --qemu
  snag sim h616 --generate images`,
	}
	b, fl := &s.Board, cmd.Flags()
	simUSB(cmd, &s, &s.Options, &b.Gadget, sunxi.Names(), func(name string) (err error) { b.Model, err = sunxi.FindModel(name); return err })
	fl.BoolVar(&s.QEMU, "qemu", false, "let the board execute what it receives (h3; a10 and r40 with QEMU 10; needs qemu-system-arm)")
	fl.Uint16Var(&b.SoC, "id", 0, "the SoC `ID` that the ROM tells")
	fl.BoolVar(&b.Fused, "fused", false, "the part is fused for secure boot")
	fl.BoolVar(&b.SecondDie, "second-die", false, "the later die of a SoC that has two (h616)")
	fl.BoolVar(&b.RISCV, "riscv", false, "the core is none of Arm's (D1, which tells r528's ID)")
	fl.BoolVar(&b.LateStatus, "late-status", false, "the ROM tells an execution's status when that has come back, not before")
	fl.BoolVar(&b.Lingers, "lingers", false, "the ROM's device stays on the bus when U-Boot runs")
	fl.BoolVar(&b.SPLHangs, "spl-hangs", false, "SPL never returns")
	fl.DurationVar(&b.SPLTime, "spl-time", 0, "how long SPL takes (default 50ms)")
	simFlags(cmd, &s.Options, &b.Faults, sunxi.ParseFault, "what goes wrong, as `KIND:rom:WHEN`: stall, state (with a number behind another colon), awus (status), magic or cut (of AWUS), mute, flip (a bit), nak (with a time), hang, unplug or reset, at a number of bytes or at a command (version, read, write, execute)")
	return cmd
}
