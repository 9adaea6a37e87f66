package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"snag/sim"
	"snag/sim/imx"
)

func newSimIMX() *cobra.Command {
	var s sim.IMX
	var gadget, splUSB, splBCD, generate string
	cmd := &cobra.Command{
		Use:   "imx6q [flags] [-- COMMAND ARGS...]",
		Short: "A virtual i.MX (its aliases are the other models): boot ROM, SPL, and U-Boot's gadget",
		Long: `Powers a virtual board with an i.MX, of the model that the command is called by:
imx6q, imx28, imx53, imx8mm, imx93, ... Its ROM is as strict as the silicon's; at
the end it tells what the host's work amounts to and what was wrong with it.

It takes the kernel's virtual USB host controller (modprobe vhci-hcd, as root), or
with --carrier usbip a client of the USB/IP protocol elsewhere.

A virtual board does not execute what it receives, unless --qemu gives it memory and
processor of QEMU's machine sabrelite, an i.MX6Quad. Then UART1 and UART2 are on
pseudo-terminals; which of the two is the console is the firmware's choice.`,
		Example: `  sudo snag sim imx6q -- snag recover --soc imx6q -f board.yaml
  sudo snag sim imx8mm --fault reset:rom:100000 -- ./our-lab-script
  sudo snag sim imx6q --qemu
  sudo snag sim imx6q --qemu --spl sdpv --spl-finds none
  sudo snag sim imx8mp --fastboot -- snag run emmc_all flash.bin image.wic
  snag sim imx93 --generate images`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if s.Board.Model, err = imx.FindModel(cmd.CalledAs()); err != nil {
				return err
			}
			if err := errors.Join(parseID(gadget, &s.Board.Gadget), parseID(splUSB, &s.Board.SPLID)); err != nil {
				return usage(cmd, err)
			}
			if splBCD != "" {
				bcd, err := strconv.ParseUint(splBCD, 16, 16)
				if err != nil {
					return usage(cmd, fmt.Errorf("bcdDevice %q: expected four hexadecimal digits", splBCD))
				}
				s.Board.SPLRelease = uint16(bcd)
			}
			if generate != "" {
				return s.Generate(generate)
			}
			return s.Run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	for _, name := range imx.Names() {
		if name != "imx6q" {
			cmd.Aliases = append(cmd.Aliases, name)
		}
	}
	b, fl := &s.Board, cmd.Flags()
	fl.StringVar((*string)(&s.Carrier), "carrier", "vhci", "vhci or usbip")
	fl.StringVar(&s.Listen, "listen", "127.0.0.1:3240", "`address` of the USB/IP server")
	fl.BoolVar(&s.QEMU, "qemu", false, "let the board execute what it receives (imx6q; needs qemu-system-arm)")
	fl.BoolVar(&s.Fastboot, "fastboot", false, "U-Boot has a fastboot, with eMMC, card, NAND, NOR and fuses behind it")
	fl.StringVar(&generate, "generate", "", "write test images for this board into a `directory`, and end")
	fl.BoolVar(&b.Closed, "closed", false, "the part runs signed images only")
	fl.BoolVar(&b.OutEP, "interrupt-out", false, "the ROM has an interrupt OUT endpoint")
	fl.StringVar((*string)(&b.SPL), "spl", "", "what SPL serves: none, sdpu or sdpv (default: as usual for the SoC)")
	fl.StringVar(&b.SPLFinds, "spl-finds", "", "what SPL was built to find: fit, container or none")
	fl.StringVar(&splUSB, "spl-usb", "", "`VID:PID` of SPL")
	fl.StringVar(&splBCD, "spl-bcd", "", "bcdDevice of SPL, in `hex`")
	fl.StringVar(&gadget, "gadget", "", "`VID:PID` of a gadget that U-Boot shows when it runs")
	fl.DurationVar(&b.SPLDelay, "spl-delay", 0, "time until SPL enumerates (default 300ms)")
	fl.BoolVar(&b.SPLNever, "spl-never", false, "SPL never enumerates")
	fl.DurationVar(&b.StreamPause, "stream-pause", 0, "time until SPL asks the ROM for more of a stream")
	simFlags(cmd, &s.Options, &b.Faults, imx.ParseFault, "what goes wrong, as `KIND:STAGE:WHEN`: stall, nak (with a time behind another colon), hang, hab (word), status (word), cut (answer), id (of a report), mute, unplug or reset, at rom, romapi or spl, at a number of bytes or at a command (write-file, dcd, jump, ...)")
	return cmd
}
