package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"snag/internal/config"
	"snag/netsetup"
	"snag/recovery"
	"snag/socs"
	"snag/usb"
	"snag/usb/usbfs"
)

// recoverFlags are the flags of snag recover as they were typed.
type recoverFlags struct {
	soc                     string
	files, entries          []string
	usbPath, romUSB, splUSB string
	uart                    string
	baud                    int
	net, netns              string
	onWait, expect          string
	dt                      string
	force                   bool
	timeout                 time.Duration
	outputFlags
}

func newRecover() *cobra.Command {
	var f recoverFlags
	cmd := &cobra.Command{
		Use:   "recover --soc MODEL -f FIRMWARE.yaml",
		Short: "Bring a board up from its boot ROM",
		Long: `Waits for a board in recovery mode and sends it the firmware that its boot ROM,
and then each following stage, asks for. The firmware is checked first.

The board may be plugged in before or after the start. Without --usb-path it is
the one board of that SoC; several are an error that lists them, also if the
second one comes up to two seconds later.`,
		Example: `  snag recover --soc am335x -f beaglebone.yaml
  snag recover -s am3358 -F spl=u-boot-spl.bin -F u-boot=u-boot.img --usb-path 1-2.3
  snag recover -s am335x -f lab.yaml --usb-path 1-2 --on-wait 'relay cycle 3' --expect 0451:d022 --json`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.soc, "soc", "s", "", "SoC `model`, alias or family (snag list socs)")
	fl.StringArrayVarP(&f.files, "firmware-file", "f", nil, "firmware configuration, a YAML `file`; may be given several times")
	fl.StringArrayVarP(&f.entries, "firmware", "F", nil, "one firmware `entry`: \"spl=path\", or a dict as Snagboot takes it")
	fl.StringVar(&f.usbPath, "usb-path", "", "the board: its `port` (1-2.3), or the VID:PID it shows")
	fl.StringVar(&f.romUSB, "rom-usb", "", "`VID:PID` of the boot ROM, if not the usual one")
	fl.StringVar(&f.splUSB, "spl-usb", "", "`VID:PID` of SPL, if not the usual one")
	fl.StringVar(&f.uart, "uart", "", "recover over this `tty` instead of USB")
	fl.IntVar(&f.baud, "baudrate", 115200, "line `rate` of --uart")
	fl.StringVar(&f.net, "net", "auto", "`who` drives a board that is a network adapter: kernel, user (snag itself) or auto")
	fl.StringVar(&f.netns, "netns", "", "look for the board's interfaces in the network namespace of this `name` (root only)")
	fl.DurationVar(&f.timeout, "timeout", recovery.DefaultTimeout, "give up after this `time` in all")
	fl.StringVar(&f.onWait, "on-wait", "", "shell `command` to run when the board is awaited: power relay, boot-mode switch")
	fl.StringVar(&f.expect, "expect", "none", "wait for this `VID:PID` on the port after the last stage: proof that U-Boot runs")
	fl.StringVar(&f.dt, "dt", "", "`name` of the device tree to take from a FIT with several (sunxi)")
	fl.BoolVar(&f.force, "force", false, "send firmware that is for another SoC, as far as snag can tell (sunxi)")
	f.outputFlags.add(cmd)
	// What only a board on a USB port has.
	for _, flag := range []string{"usb-path", "rom-usb", "spl-usb", "net", "netns", "expect"} {
		cmd.MarkFlagsMutuallyExclusive("uart", flag)
	}
	return cmd
}

func (f *recoverFlags) run(cmd *cobra.Command) error {
	opt, err := f.options()
	return f.recover(cmd, opt, err)
}

// options turns the flags into what the engine takes, and reads the firmware.
func (f *recoverFlags) options() (recovery.Options, error) {
	opt := recovery.Options{UART: f.uart, Baud: f.baud, NetNS: f.netns, Timeout: f.timeout, OnWait: f.onWait, USB: usbfs.Host{Quick: true}}
	if f.soc == "" {
		return opt, &recovery.UsageError{Err: errors.New("which SoC? --soc is missing"), Hint: "snag list socs shows the models; a family's name will do, for instance --soc am335x"}
	}
	var err error
	if opt.Model, opt.Backend, err = lookup(f.soc); err != nil {
		return opt, err
	}
	if f.timeout <= 0 {
		return opt, &recovery.UsageError{Err: fmt.Errorf("--timeout %s: expected more than nothing", f.timeout)}
	}
	if f.baud <= 0 {
		return opt, &recovery.UsageError{Err: fmt.Errorf("--baudrate %d: expected more than nothing", f.baud)}
	}
	if opt.Net, err = recovery.ParseNet(f.net); err != nil {
		return opt, &recovery.UsageError{Err: fmt.Errorf("--net %w", err)}
	}
	if opt.Net == recovery.NetUser && f.netns != "" {
		return opt, &recovery.UsageError{Err: errors.New("--net user uses no network namespace: leave --netns out")}
	}
	if f.netns != "" && os.Geteuid() != 0 {
		return opt, &netsetup.SetupError{Op: "look into network namespace " + f.netns, Reason: netsetup.ReasonNotPermitted, Err: errors.New("--netns is root's alone"), Hint: "run snag as root, or leave --netns out"}
	}
	expect := f.expect
	if expect == "none" {
		expect = ""
	}
	for _, i := range []struct {
		flag, value string
		id          *usb.ID
	}{{"--rom-usb", f.romUSB, &opt.ROM}, {"--spl-usb", f.splUSB, &opt.SPL}, {"--expect", expect, &opt.Expect}} {
		if err := parseID(i.value, i.id); err != nil {
			return opt, &recovery.UsageError{Err: fmt.Errorf("%s: %w", i.flag, err)}
		}
	}
	if f.usbPath != "" {
		if opt.Port, opt.ID, err = usb.ParseBoard(f.usbPath); err != nil {
			return opt, &recovery.UsageError{Err: fmt.Errorf("--usb-path: %w", err)}
		}
	}
	if len(f.files)+len(f.entries) == 0 {
		return opt, &recovery.UsageError{Err: errors.New("no firmware given: name it in a file (-f firmware.yaml) or as an argument (-F spl=u-boot-spl.bin)"), Hint: templatesFor(opt.Model.Family)}
	}
	var sources []config.Source
	for _, file := range f.files {
		sources = append(sources, config.Source{File: file})
	}
	for _, entry := range f.entries {
		sources = append(sources, config.Source{Arg: entry})
	}
	opt.Firmware, err = config.Load(sources, opt.Backend.Family().Slots)
	var problems config.Problems
	if errors.As(err, &problems) {
		code := recovery.ExitFirmware
		if problems.Malformed() {
			code = recovery.ExitUsage
		}
		return opt, &exitError{code, err}
	}
	if err != nil {
		return opt, err
	}
	for flag, value := range map[string]any{"dt": f.dt, "force": f.force} {
		if value != "" && value != false && !config.Set(opt.Firmware, opt.Backend.Family().Slots, flag, value) {
			return opt, &recovery.UsageError{Err: fmt.Errorf("--%s: this firmware of %s has no such choice", flag, opt.Model.Name), Hint: "leave it out"}
		}
	}
	return opt, nil
}

// lookup finds a model and what recovers it.
func lookup(soc string) (socs.Model, socs.Backend, error) {
	model, backend, err := recovery.Lookup(soc)
	if unknown, ok := errors.AsType[*socs.UnknownModelError](err); ok && len(unknown.Near) == 0 {
		if name := config.TemplateOf(soc); name != "" {
			model, about := config.About(name)
			err = &recovery.UsageError{Err: err, Hint: fmt.Sprintf("a board's name? snag template %s is for --soc %s: %s", name, model, about)}
		}
	}
	return model, backend, err
}

// templatesFor says how to get a firmware file for a model or a family.
func templatesFor(model string) string {
	names := config.TemplatesFor(model)
	if names == nil {
		return ""
	}
	return "a file to start from: snag template NAME > board.yaml, where NAME is " + strings.Join(names, ", ")
}
