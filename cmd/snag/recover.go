package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"snag/event"
	"snag/internal/config"
	"snag/internal/ui"
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

// outputFlags say how a recovery is shown.
type outputFlags struct {
	json, verbose bool
	logTo         string
}

func (f *outputFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.BoolVar(&f.json, "json", false, "print JSON lines (docs/json.md)")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "print what snag does beneath the stages too")
	fl.StringVar(&f.logTo, "log-file", "", "append a full log to this `file`")
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

func (f *recoverFlags) run(cmd *cobra.Command) (err error) {
	emit, log, done, err := f.display(cmd.OutOrStdout(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer func() { err = done(err) }()
	opt, err := f.options()
	if err != nil {
		emit(event.Event{Time: time.Now(), SoC: opt.Model.Name, Body: failed(err)})
		return &shownError{err}
	}
	opt.Emit, opt.Log = emit, log
	if err := recovery.Run(cmd.Context(), opt); err != nil {
		return &shownError{err}
	}
	return nil
}

// options turns the flags into what the engine takes, and reads the firmware.
func (f *recoverFlags) options() (recovery.Options, error) {
	opt := recovery.Options{UART: f.uart, Baud: f.baud, NetNS: f.netns, Timeout: f.timeout, OnWait: f.onWait, USB: usbfs.Host{}}
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
	switch opt.Net = recovery.Net(f.net); {
	case f.net == "auto":
		opt.Net = recovery.NetAuto
	case opt.Net != recovery.NetKernel && opt.Net != recovery.NetUser:
		return opt, &recovery.UsageError{Err: fmt.Errorf("--net %s: expected auto, kernel or user", f.net)}
	case opt.Net == recovery.NetUser && f.netns != "":
		return opt, &recovery.UsageError{Err: errors.New("--net user uses no network namespace: leave --netns out")}
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
		if hint := boardCalled(soc); hint != "" {
			return model, nil, &recovery.UsageError{Err: err, Hint: hint}
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

// boardCalled says which SoC a board has that was taken for one.
func boardCalled(word string) string {
	for _, name := range config.Templates() {
		model, about := config.About(name)
		if plain := strings.NewReplacer(" ", "", "-", "", "_", ""); len(word) > 3 && strings.Contains(strings.ToLower(plain.Replace(name+about)), strings.ToLower(plain.Replace(word))) {
			return fmt.Sprintf("a board's name? snag template %s is for --soc %s: %s", name, model, about)
		}
	}
	return ""
}

// display says where events go: to a terminal, as plain lines or as JSON, and to the log file. done
// ends it, and returns how the command ends that would have ended with an error or nil: output that nobody could
// read is a failure too, but none that a board is left halfway for.
func (f *outputFlags) display(stdout, stderr io.Writer) (emit event.Sink, log *slog.Logger, done func(error) error, err error) {
	// Who is asked for the signal gets the error EPIPE instead, until the process ends.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	var d struct {
		sink  event.Sink
		close func() error
	}
	verbose := stderr
	if tty, ok := stdout.(*os.File); f.json {
		j := ui.NewJSON(stdout)
		d.sink, d.close = j.Sink, j.Close
	} else if ok && ui.IsTerminal(tty, os.Getenv) {
		t := ui.NewTerminal(tty, ui.Columns(tty), ui.Color(os.Getenv))
		d.sink, d.close, verbose = t.Sink, t.Close, t
	} else {
		p := ui.NewPlain(stdout)
		d.sink, d.close = p.Sink, p.Close
	}
	var handlers []slog.Handler
	if f.verbose {
		handlers = append(handlers, slog.NewTextHandler(verbose, nil))
	}
	emit, done = d.sink, func(err error) error { return unread(err, d.close()) }
	if f.logTo != "" {
		file, err := os.OpenFile(f.logTo, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
		if err != nil {
			return nil, nil, nil, &recovery.UsageError{Err: fmt.Errorf("--log-file: %w", err)}
		}
		written := &firstError{w: file}
		handler := slog.NewTextHandler(written, &slog.HandlerOptions{Level: slog.LevelDebug})
		handlers = append(handlers, handler)
		emit = ui.Tee(d.sink, ui.Log(slog.New(handler)))
		show := done
		done = func(err error) error {
			if lost := errors.Join(written.err, file.Close()); lost != nil {
				fmt.Fprintf(stderr, "snag: warning: the log is not whole: --log-file: %v\n", lost)
			}
			return show(err)
		}
	}
	return emit, slog.New(slog.NewMultiHandler(handlers...)), done, nil
}

// unread adds to the end of a command that its output could not be written. What was to be shown there is told on standard error then.
func unread(err, output error) error {
	if output == nil {
		return err
	}
	if err == nil {
		return fmt.Errorf("it was done, but could not be told: standard output: %w", output)
	}
	if shown, ok := errors.AsType[*shownError](err); ok {
		return shown.error
	}
	return err
}

// firstError is a writer that remembers its first error. It is the handler that serializes what is written.
type firstError struct {
	w   io.Writer
	err error
}

func (f *firstError) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if f.err == nil {
		f.err = err
	}
	return n, err
}
