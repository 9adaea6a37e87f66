package main

import (
	"github.com/spf13/cobra"

	"snag/plan"
	"snag/sim"
	"snag/sim/fastboot"
)

func newSimUBoot() *cobra.Command {
	var s sim.UBoot
	var gadget string
	sizes := map[string]*int64{"mmc": &s.MMC, "boot": &s.Boot, "nand": &s.NAND, "nor": &s.NOR}
	texts := map[string]*string{}
	cmd := &cobra.Command{
		Use:   "uboot [flags] [-- COMMAND ARGS...]",
		Short: "A virtual board on which U-Boot's fastboot runs, with storage behind it",
		Long: `Powers a virtual board that is past its boot ROM: U-Boot runs "fastboot usb 0" on it,
or "fastboot udp". It has an eMMC with boot partitions (mmc 0), NAND (spi-nand0) and
NOR flash (nor0), a shell for what fastboot has U-Boot run, and it forgets all of it
in the end, unless --save is given.

It takes the kernel's virtual USB host controller (modprobe vhci-hcd, as root), with
--carrier usbip a client of the USB/IP protocol elsewhere, with --carrier udp nothing.`,
		Example: `  sudo snag sim uboot -- snag flash --mmc 0 --buffer 0x40000000 disk.img
  snag sim uboot --carrier udp --listen 127.0.0.1:5554 --save after -- snag flash --net udp:127.0.0.1 --nor --mtd nor0 --erase-block 64k --buffer 0x40000000 u-boot.bin`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for name, text := range texts {
				n, err := plan.ParseSize(*text)
				if err != nil {
					return usage(cmd, err)
				}
				*sizes[name] = n
			}
			if err := parseID(gadget, &s.Board.ID); err != nil {
				return usage(cmd, err)
			}
			return s.Run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	b, fl := &s.Board, cmd.Flags()
	fl.StringVar((*string)(&s.Carrier), "carrier", "vhci", "vhci, usbip or udp")
	fl.StringVar(&s.Listen, "listen", "127.0.0.1:3240", "`address` of the USB/IP server, or of fastboot with --carrier udp")
	fl.StringVar(&s.Save, "save", "", "write what is on the storage in the end into a `directory`")
	fl.StringVar(&gadget, "gadget", "", "`VID:PID` of the gadget (default "+fastboot.ID.String()+")")
	for _, d := range []struct{ name, size, help string }{
		{"mmc", "256M", "size of the eMMC in `bytes`; 0: there is none"}, {"boot", "4M", "size of its boot partitions in `bytes`"},
		{"nand", "64M", "size of the NAND in `bytes`"}, {"nor", "16M", "size of the NOR flash in `bytes`"},
	} {
		texts[d.name] = fl.String(d.name, d.size, d.help)
	}
	fl.IntVar(&b.Buffer, "buffer", 0, "the largest download, in bytes (default 32 MiB)")
	fl.BoolVar(&b.NoUUU, "no-uuu", false, "U-Boot has neither UCmd nor ACmd")
	fl.BoolVar(&b.OEMRun, "oem-run", false, "U-Boot has oem run")
	fl.DurationVar(&b.Work, "work", 0, "how long flash, erase and U-Boot's commands take")
	simFlags(cmd, &s.Options, &b.Faults, fastboot.ParseFault, "what goes wrong, as `KIND:gadget:WHEN`: fail, empty, cut, wrong, size, long, infos, mute, nak, hang, stall, unplug or reset, at a number of bytes or at a command")
	return cmd
}
