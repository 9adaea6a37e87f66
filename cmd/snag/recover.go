package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"snag/event"
	"snag/internal/config"
	"snag/netsetup"
	"snag/recovery"
	"snag/socs"
	"snag/usb"
)

// recoverFlags are the flags of snag recover as they were typed.
type recoverFlags struct {
	soc                          string
	files, entries               []string
	usbPath, romUSB, splUSB      string
	uart                         string
	baud                         int
	netns, onWait, expect, logTo string
	timeout                      time.Duration
	json, verbose                bool
}

func newRecover() *cobra.Command {
	var f recoverFlags
	cmd := &cobra.Command{
		Use:   "recover --soc MODEL -f FIRMWARE.yaml",
		Short: "Bring a board up from its boot ROM",
		Long: `Waits for a board in recovery mode and sends it the firmware that its boot ROM,
and then each following stage, asks for. The firmware is checked first.

The board may be plugged in before or after the start. Without --usb-path it is
the one board of that SoC; several are an error that lists them.`,
		Example: `  snag recover --soc am335x -f beaglebone.yaml
  snag recover -s am3358 -F spl=u-boot-spl.bin -F u-boot=u-boot.img --usb-path 1-2.3
  snag recover -s am335x -f lab.yaml --usb-path 1-2 --on-wait 'relay cycle 3' --expect 0451:d022 --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.soc, "soc", "s", "", "SoC model, alias or family (snag list socs)")
	fl.StringArrayVarP(&f.files, "firmware-file", "f", nil, "firmware configuration, a YAML `file`; may be given several times")
	fl.StringArrayVarP(&f.entries, "firmware", "F", nil, "one firmware `entry`: \"spl=path\", or a dict as Snagboot takes it")
	fl.StringVar(&f.usbPath, "usb-path", "", "the board: its `port` (1-2.3), or the VID:PID it shows")
	fl.StringVar(&f.romUSB, "rom-usb", "", "`VID:PID` of the boot ROM, if not the usual one")
	fl.StringVar(&f.splUSB, "spl-usb", "", "`VID:PID` of SPL, if not the usual one")
	fl.StringVar(&f.uart, "uart", "", "recover over this `tty` instead of USB")
	fl.IntVar(&f.baud, "baudrate", 115200, "line rate of --uart")
	fl.StringVar(&f.netns, "netns", "", "look for the board's interfaces in this named network namespace (root only)")
	fl.DurationVar(&f.timeout, "timeout", recovery.DefaultTimeout, "give up after this `time` in all")
	fl.StringVar(&f.onWait, "on-wait", "", "shell `command` to run when the board is awaited: power relay, boot-mode switch")
	fl.StringVar(&f.expect, "expect", "none", "wait for this `VID:PID` on the port after the last stage: proof that U-Boot runs")
	fl.BoolVar(&f.json, "json", false, "print JSON lines (docs/json.md)")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "print what snag does beneath the stages too")
	fl.StringVar(&f.logTo, "log-file", "", "append a full log to this `file`")
	return cmd
}

func (f *recoverFlags) run(cmd *cobra.Command) error {
	display, err := f.display(cmd.OutOrStdout(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer display.Close()
	opt, err := f.options()
	if err != nil {
		display.Emit(event.Event{Time: time.Now(), SoC: f.soc, Body: event.Failed{Err: err, Hint: recovery.Hint(err), ExitCode: exitCode(err)}})
		return &shownError{err}
	}
	opt.Emit, opt.Log = display.Emit, display.Log
	if err := recovery.Run(cmd.Context(), opt); err != nil {
		return &shownError{err}
	}
	return nil
}

// options turns the flags into what the engine takes, and reads the firmware.
func (f *recoverFlags) options() (recovery.Options, error) {
	opt := recovery.Options{UART: f.uart, Baud: f.baud, NetNS: f.netns, Timeout: f.timeout, OnWait: f.onWait}
	if f.soc == "" {
		return opt, &recovery.UsageError{Err: errors.New("which SoC? --soc is missing"), Hint: "snag list socs shows the models; a family's name will do, for instance --soc am335x"}
	}
	var err error
	if opt.Model, err = socs.Lookup(f.soc); err != nil {
		return opt, err
	}
	if opt.Backend = recovery.BackendOf(opt.Model.Family); opt.Backend == nil {
		return opt, &recovery.UsageError{Err: fmt.Errorf("%s: the family %s is not built yet", opt.Model.Name, opt.Model.Family), Hint: "snag list socs shows which models can be recovered"}
	}
	if f.timeout <= 0 {
		return opt, &recovery.UsageError{Err: fmt.Errorf("--timeout %s: expected more than nothing", f.timeout)}
	}
	if f.netns != "" && os.Geteuid() != 0 {
		return opt, &netsetup.SetupError{Op: "look into network namespace " + f.netns, Reason: netsetup.ReasonNotPermitted, Err: errors.New("--netns is root's alone"), Hint: "run snag as root, or leave --netns out"}
	}
	expect := f.expect
	if expect == "none" {
		expect = ""
	}
	ids := []struct {
		flag, value string
		id          *usb.ID
	}{{"--rom-usb", f.romUSB, &opt.ROM}, {"--spl-usb", f.splUSB, &opt.SPL}, {"--expect", expect, &opt.Expect}}
	if strings.Contains(f.usbPath, ":") {
		ids = append(ids, struct {
			flag, value string
			id          *usb.ID
		}{"--usb-path", f.usbPath, &opt.ID})
	} else if f.usbPath != "" {
		if opt.Port, err = usb.ParsePort(f.usbPath); err != nil {
			return opt, &recovery.UsageError{Err: fmt.Errorf("--usb-path: %w", err)}
		}
	}
	for _, i := range ids {
		if i.value == "" {
			continue
		}
		if *i.id, err = usb.ParseID(i.value); err != nil {
			return opt, &recovery.UsageError{Err: fmt.Errorf("%s: %w", i.flag, err)}
		}
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
	return opt, err
}

type display struct {
	Emit func(event.Event)
	Log  *slog.Logger
}

func (d *display) Close() {}

func (f *recoverFlags) display(stdout, stderr io.Writer) (*display, error) {
	return &display{Emit: func(e event.Event) { fmt.Fprintf(stdout, "%s %s %s %+v\n", e.Port, e.Stage, e.Body.Kind(), e.Body) }, Log: slog.New(slog.NewTextHandler(stderr, nil))}, nil
}
