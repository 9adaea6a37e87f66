package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"snag/sim"
	"snag/sim/am335x"
	"snag/sim/virtual"
	"snag/usb"
)

func newSim() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Start a virtual board, to try firmware files and scripts without one",
		Long: `Starts a virtual board and, beside it, a command that recovers or flashes it; says in
the end what the board got, and what was wrong with that. These two need neither root
nor USB:

  snag sim am335x -- snag recover --soc am335x -f board.yaml
  snag sim uboot --carrier udp --listen 127.0.0.1:5554 -- snag flash --net udp:127.0.0.1 --mmc 0 --buffer 0x40000000 disk.img

The others are USB devices of this machine's kernel (as root: modprobe vhci-hcd), or
of another's by USB/IP. They have aliases: snag sim imx8mp, snag sim h616, ...`,
		Args: subcommands,
		RunE: showHelp, DisableFlagsInUseLine: true,
	}
	cmd.AddCommand(newSimAM335x(), newSimAmlogic(), newSimBCM(), newSimDFU(), newSimIMX(), newSimQualcomm(), newSimRockchip(), newSimSAMA5(), newSimSunxi(), newSimUBoot())
	return cmd
}

func newSimAM335x() *cobra.Command {
	var s sim.AM335x
	var gadget, splUSB, romUSB string
	var retry time.Duration
	cmd := &cobra.Command{
		Use:   "am335x [flags] [-- COMMAND ARGS...]",
		Short: "A virtual AM335x: boot ROM, SPL, and U-Boot's gadget",
		// They are one silicon.
		Aliases: []string{"am33xx", "am3352", "am3354", "am3356", "am3357", "am3358", "am3359"},
		Long: `Powers a virtual AM335x board, with the boot ROM's and SPL's own deadlines, and says
what it received.

With the kernel's virtual USB host controller (modprobe vhci-hcd, as root) the
board is a USB device of this machine. Without, it exists for COMMAND alone: its
interface and its sysfs entries are in namespaces made for it. That needs no root
and no USB, but the drivers of real USB devices have no part in it.

A virtual board does not execute what it receives.`,
		Example: `  snag sim am335x -- snag recover --soc am335x -f board.yaml
  snag sim am335x --fault reset:spl:100000 --loss 0.05 -- ./our-lab-script
  sudo snag sim am335x --carrier vhci --gadget 0451:d022`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := errors.Join(parseID(gadget, &s.Board.Gadget), parseID(splUSB, &s.Board.SPL), parseID(romUSB, &s.Board.ROM))
			if err != nil {
				return usage(cmd, err)
			}
			if retry > 0 {
				s.Board.ROMRetries = []time.Duration{retry}
			}
			return s.Run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	b, fl := &s.Board, cmd.Flags()
	fl.StringVar((*string)(&s.Carrier), "carrier", "", "vhci or veth (default: vhci where it is available)")
	fl.StringVar(&s.ExpectSPL, "expect-spl", "", "fail unless the ROM received exactly this `file`")
	fl.StringVar(&s.ExpectUBoot, "expect-uboot", "", "fail unless SPL received exactly this `file`")
	fl.StringVar(&s.Save, "save", "", "write what was received into this `directory`")
	fl.StringVar(&romUSB, "rom-usb", "", "`VID:PID` of the ROM")
	fl.StringVar(&splUSB, "spl-usb", "", "`VID:PID` of SPL")
	fl.StringVar(&gadget, "gadget", "", "`VID:PID` of a gadget that U-Boot shows when it runs")
	fl.BoolVar(&b.ECM, "ecm", false, "SPL offers CDC Ethernet alone, no RNDIS")
	fl.BoolVar(&b.BOOTP, "bootp", false, "SPL speaks plain BOOTP, not DHCP")
	fl.BoolVar(&b.NoOptions, "no-options", false, "SPL asks for no TFTP options")
	fl.IntVar(&b.Window, "windowsize", 0, "SPL's TFTP windowsize option")
	fl.DurationVar(&retry, "bootp-retry", 0, "time between the ROM's BOOTP requests (default: as the ROM, 4 s doubling)")
	fl.DurationVar(&b.SPLDelay, "spl-delay", 0, "time until SPL enumerates (default 1s)")
	fl.DurationVar(&b.SPLWindow, "spl-window", 0, "time that SPL waits for its link (default 3s)")
	fl.BoolVar(&b.SPLNever, "spl-never", false, "SPL never enumerates")
	fl.DurationVar(&b.Watchdog, "watchdog", 0, "power-cycle a board that is stuck, after this time")
	fl.Uint64Var(&b.Seed, "seed", 0, "seed of everything random")
	loss := fl.Float64("loss", 0, "chance that a frame is lost, each way (0 to 1)")
	delay := fl.Duration("delay", 0, "delay of each frame, each way")
	fl.Float64Var(&b.DuplicateIn, "duplicate", 0, "chance that a frame to the board arrives twice")
	simFlags(cmd, &s.Options, &b.Faults, am335x.ParseFault, "what goes wrong, as `KIND:STAGE:BYTES`: reset, unplug, error, lose (an ACK) or hang, at rom or spl, when that stage has so many bytes")
	cmd.PreRun = func(*cobra.Command, []string) {
		b.LossIn, b.LossOut, b.DelayIn, b.DelayOut = *loss, *loss, *delay, *delay
	}
	return cmd
}

// usbRun is a run of virtual boards that are USB devices from the first.
type usbRun interface {
	Generate(dir string) error
	Run(ctx context.Context, stdout, stderr io.Writer) error
}

// simUSB completes the command of such boards. It is called by any of names, its own among them, for which find selects the model; gadget is
// what U-Boot shows, if it shows anything. simFlags is to follow.
func simUSB(cmd *cobra.Command, run usbRun, o *sim.Options, gadget *usb.ID, names []string, find func(name string) error) {
	for _, name := range names {
		if name != cmd.Name() {
			cmd.Aliases = append(cmd.Aliases, name)
		}
	}
	var generate, id string
	fl := cmd.Flags()
	fl.StringVar((*string)(&o.Carrier), "carrier", "vhci", "vhci or usbip")
	fl.StringVar(&o.Listen, "listen", "127.0.0.1:3240", "`address` of the USB/IP server")
	fl.StringVar(&generate, "generate", "", "write test images for this board into a `directory`, and end")
	if gadget != nil {
		fl.StringVar(&id, "gadget", "", "`VID:PID` of a gadget that U-Boot, or what it starts, shows when it runs")
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if find != nil {
			if err := find(cmd.CalledAs()); err != nil {
				return err
			}
		}
		if err := parseID(id, gadget); err != nil {
			return usage(cmd, err)
		}
		if generate != "" {
			return run.Generate(generate)
		}
		return run.Run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
}

// simFlags gives a command that powers boards the flags and arguments that all of them have. help is that of --fault.
func simFlags(cmd *cobra.Command, o *sim.Options, faults *[]virtual.Fault, parse func(string) (virtual.Fault, error), help string) {
	var ports, kinds []string
	fl := cmd.Flags()
	fl.StringArrayVar(&ports, "port", nil, "plug a board in at this `port` (1-1); may be given several times")
	fl.BoolVar(&o.Once, "once", false, "without a command: end when every board has booted, failed or left")
	fl.BoolVar(&o.JSON, "json", false, "report as JSON")
	fl.StringArrayVar(&kinds, "fault", nil, help)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
			return usage(cmd, errors.New("the command to run beside the board comes after --"))
		}
		return nil
	}
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.Command = args
		for _, p := range ports {
			port, err := usb.ParsePort(p)
			if err != nil {
				return usage(cmd, err)
			}
			o.Ports = append(o.Ports, port)
		}
		for _, k := range kinds {
			fault, err := parse(k)
			if err != nil {
				return usage(cmd, err)
			}
			*faults = append(*faults, fault)
		}
		err := run(cmd, args)
		if failed, ok := errors.AsType[*sim.CommandError](err); ok {
			return &shownError{&exitError{failed.Status, err}}
		}
		return err
	}
}

// parseID sets an ID, unless the text is empty.
func parseID(text string, id *usb.ID) (err error) {
	if text != "" {
		*id, err = usb.ParseID(text)
	}
	return err
}
