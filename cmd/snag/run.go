package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"snag/recovery"
	"snag/usb"
	"snag/usb/usbfs"
	"snag/uuu"
)

// runFlags are the flags of snag run as they were typed.
type runFlags struct {
	outputFlags
	usbPath       string
	timeout, wait time.Duration
	env           []string
	dry, show     bool
	shell         bool
}

func newRun() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run SCRIPT|BUILT-IN [ARGUMENT...]",
		Short: "Run a script of NXP's uuu",
		Long: `Runs a script of NXP's uuu as it is: it starts the boot loader that the script names
on a board that is in its boot ROM, and goes on with what its lines tell U-Boot.

SCRIPT is a file, a directory or a zip archive with uuu.auto in it, or one of these:

` + builtinHelp() + `
or a single command ("snag run FB: ucmd version"), or a boot loader, which is only
started. Flags stand before SCRIPT. What of the language is known: docs/uuu.md.`,
		Example: `  snag run emmc_all flash.bin image.wic
  snag run --dry-run vendor/uuu.auto
  snag run --usb-path 1-2.3 --json factory.zip`,
		Args: arguments(1, -1), ValidArgsFunction: completeScript,
		RunE: f.run,
	}
	fl := cmd.Flags()
	fl.SetInterspersed(false)
	fl.StringVar(&f.usbPath, "usb-path", "", "the board: its `port` (1-2.3), or the VID:PID it shows")
	fl.DurationVar(&f.timeout, "timeout", time.Hour, "give up after this `time` in all")
	fl.DurationVar(&f.wait, "wait", recovery.DefaultTimeout, "give up if no board appears within this `time`")
	fl.StringArrayVarP(&f.env, "env", "e", nil, "`NAME=VALUE` of what @NAME@ is in the script, before the environment")
	fl.BoolVar(&f.dry, "dry-run", false, "print what would be sent, and touch no board")
	fl.BoolVar(&f.show, "show", false, "print the text of a built-in script")
	fl.BoolVar(&f.shell, "allow-shell", false, "let the script run commands of this machine")
	f.outputFlags.add(cmd)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if _, option, ok := strings.Cut(err.Error(), " in "); ok && uuuOptions[option] != "" {
			err = fmt.Errorf("%w (uuu's option: %s)", err, uuuOptions[option])
		}
		return flagError(cmd, err)
	})
	return cmd
}

// uuuOptions is what to do instead of typing an option of uuu's.
var uuuOptions = map[string]string{
	"-b": "a script's name or file does without", "-brun": "a script's name or file does without", "-bshow": "--show",
	"-d": "a run is for one board: repeat it", "-dm": "leave it out", "-V": "-v", "-dry": "--dry-run", "-m": "--usb-path BUS-PORT.PORT", "-ms": "--usb-path BUS-PORT.PORT",
	"-t": "--wait TIME", "-T": "--timeout TIME", "-pp": "leave it out", "-bmap": "flash -raw2sparse takes a block map that is there", "-no-bmap": "in the script: flash -raw2sparse -no-bmap",
	"-s": "snag run FB: ucmd COMMAND", "-lsusb": "snag list boards", "-udev": "snag udev", "-H": "--help",
}

// builtinHelp lists the built-in scripts.
func builtinHelp() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, name := range uuu.Builtins() {
		args, doc := uuu.Usage(name)
		fmt.Fprintf(w, "  %s %s\t%s\n", name, args, doc)
	}
	_ = w.Flush() // to a string
	return b.String()
}

func (f *runFlags) run(cmd *cobra.Command, args []string) error {
	if f.show {
		text, ok := uuu.Builtin(args[0])
		if !ok {
			return &recovery.UsageError{Err: fmt.Errorf("no built-in script %q%s (known: %s)", args[0], meant(args[0], uuu.Builtins()), strings.Join(uuu.Builtins(), ", "))}
		}
		_, err := fmt.Fprint(cmd.OutOrStdout(), text)
		return err
	}
	if f.dry {
		script, err := await(cmd.Context(), func() (*uuu.Script, error) { return f.load(args) })
		return f.outputFlags.dryRun(cmd, script.DryRun, err)
	}
	opt, err := await(cmd.Context(), func() (recovery.Options, error) { return f.options(args) })
	return f.recover(cmd, opt, err)
}

// load loads the script.
func (f *runFlags) load(args []string) (*uuu.Script, error) {
	script, err := uuu.Load(args[0], args[1:])
	if err != nil {
		e := &recovery.UsageError{Err: err}
		if slices.ContainsFunc(args[1:], func(s string) bool { return strings.HasPrefix(s, "--") }) {
			e.Hint = "flags stand before the script"
		}
		return nil, e
	}
	return script, nil
}

// options turns the flags into what the engine takes.
func (f *runFlags) options(args []string) (recovery.Options, error) {
	opt := recovery.Options{Timeout: f.timeout, Wait: f.wait, USB: usbfs.Host{Quick: true}}
	if f.timeout <= 0 || f.wait <= 0 {
		return opt, &recovery.UsageError{Err: fmt.Errorf("--timeout %s and --wait %s: expected more than nothing", f.timeout, f.wait)}
	}
	for _, e := range f.env {
		if !strings.Contains(e, "=") {
			return opt, &recovery.UsageError{Err: fmt.Errorf("--env %s: expected NAME=VALUE", e)}
		}
	}
	if f.usbPath != "" {
		var err error
		if opt.Port, opt.ID, err = usb.ParseBoard(f.usbPath); err != nil {
			return opt, &recovery.UsageError{Err: fmt.Errorf("--usb-path: %w", err)}
		}
	}
	script, err := f.load(args)
	if err != nil {
		return opt, err
	}
	opt.Backend = uuu.Backend{Script: script, Getenv: f.getenv, Shell: f.shell}
	return opt, nil
}

// getenv is the value of --env, or of the environment.
func (f *runFlags) getenv(name string) string {
	for _, e := range slices.Backward(f.env) {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return os.Getenv(name)
}
