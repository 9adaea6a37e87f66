// Command snag brings dead embedded boards back over USB.
//
// This package is the command line only: a file per subcommand, flags in, calls out. What the
// commands do lives in recovery, flash, uuu, fuse, firmware/inspect, internal/setup, internal/config and sim.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"snag/event"
	"snag/internal/ui"
	"snag/netsetup"
	"snag/recovery"
	"snag/sim/sandbox"
)

// version is set by the build (Makefile).
var version = "development build"

func main() {
	spareProcessor()
	lateCollection()
	sandbox.Init() // does not return in the process that a simulated board's sandbox starts
	if netsetup.WorkerMain() {
		return
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// spareProcessor has Go's scheduler count two processors where there is one. With a single one it takes that away from a
// goroutine in every system call that outlasts a turn of its monitor, 20 µs, and wakes a thread for nothing (retake in
// runtime/proc.go), and package usbfs has none that it could wait with for a transfer. What the user has set stays.
func spareProcessor() {
	if runtime.GOMAXPROCS(0) == 1 && os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2)
	}
}

// lateCollection has the first collection of garbage when there are 16 MB instead of 4, and those behind it as ever. All
// of an AM335x's recovery allocates little more than 4, and collecting them once took 50 to 120 ms of an emulated
// processor, when a board waited for its link. What the user has set stays.
func lateCollection() {
	if os.Getenv("GOGC") != "" {
		return
	}
	before := debug.SetGCPercent(400)
	runtime.AddCleanup(new([32]*byte), func(percent int) { debug.SetGCPercent(percent) }, before)
}

// run is the whole program but for the process around it.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signalContext()
	defer stop()
	root := newRoot(args...)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	started := noteStart(root)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return recovery.ExitDone
	}
	if !*started { // what cobra finds wrong is the command line
		if c, rest, _ := root.Find(args); c.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
			cmd, err = c, subcommands(c, rest) // that there is no such command is why its flags are not known
		}
		if usageErr := (*recovery.UsageError)(nil); !errors.As(err, &usageErr) {
			err = usage(cmd, err)
		}
	}
	var shown *shownError
	if !errors.As(err, &shown) {
		if slices.Contains([]string{"recover", "run", "flash", "mac"}, cmd.Name()) && slices.ContainsFunc(args, asksJSON) {
			ui.NewJSON(stdout).Sink(event.Event{Time: time.Now(), Body: failed(err)})
		}
		fmt.Fprintf(stderr, "snag: %v\n", err)
		if hint := recovery.Hint(err); hint != "" {
			fmt.Fprintf(stderr, "hint: %s\n", hint)
		}
	}
	return exitCode(err)
}

// asksJSON reports whether an argument is the flag --json, set. What is wrong with the command line may have kept it from
// being parsed.
func asksJSON(arg string) bool {
	value, ok := strings.CutPrefix(arg, "--json=")
	set, err := strconv.ParseBool(value)
	return arg == "--json" || ok && err == nil && set
}

// noteStart returns what becomes true when a command's own code begins to run.
func noteStart(cmd *cobra.Command) *bool {
	started := new(bool)
	var wrap func(*cobra.Command)
	wrap = func(c *cobra.Command) {
		if run := c.RunE; run != nil {
			c.RunE = func(c *cobra.Command, args []string) error {
				*started = true
				return run(c, args)
			}
		}
		for _, sub := range c.Commands() {
			wrap(sub)
		}
	}
	wrap(cmd)
	return started
}

// failed is the last event of a recovery that ended before it began.
func failed(err error) event.Failed {
	return event.Failed{Err: err, Hint: recovery.Hint(err), ExitCode: exitCode(err)}
}

// exitCode adds to the engine's codes what cobra finds wrong with the command line.
func exitCode(err error) int {
	var code *exitError
	if errors.As(err, &code) {
		return code.code
	}
	return recovery.ExitCode(err)
}

// shownError is an error that the display has told already.
type shownError struct{ error }

func (e *shownError) Unwrap() error { return e.error }

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// signalContext ends with recovery.ErrInterrupted at the first signal that asks snag to stop; a
// second one ends the process the hard way, which leaves nothing behind either. A signal that the caller
// had ignored (nohup) stays so.
func signalContext() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() {
		if _, ok := <-signals; ok {
			signal.Stop(signals)
			cancel(recovery.ErrInterrupted)
		}
	}()
	return ctx, func() { signal.Stop(signals); cancel(nil) }
}

// newRoot makes the command snag for a command line: with the command that args begin with alone, or if they begin with
// none with all. Who asks for a recovery need not wait until the others have been made.
func newRoot(args ...string) *cobra.Command {
	root := &cobra.Command{
		Use:   "snag",
		Short: "Bring dead embedded boards back over USB",
		Long: `snag brings dead embedded boards back over USB: the SoC's boot ROM asks its
host for firmware, snag answers.

The two commands that most people need:

  sudo snag setup                               once: the right to do it without root
  snag recover --soc am335x -f board.yaml       whenever a board is dead

No board.yaml yet, another SoC, or something does not work:

  snag template am335x-beaglebone-black > board.yaml
  snag list socs
  snag doctor

Exit codes: 0 done, 1 failed, 2 usage, 3 no board in time, 4 no permission or no
setup, 5 firmware refused, 6 board or protocol error, 130 interrupted.`,
		Args:              subcommands,
		PersistentPreRunE: namesBoard,
		RunE:              showHelp,
		Version:           version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true, DisableFlagsInUseLine: true,
	}
	root.SetVersionTemplate(versionLine())
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(newHelp())
	commands := map[string]func() *cobra.Command{
		"recover": newRecover, "run": newRun, "flash": newFlash, "inspect": newInspect, "list": newList, "template": newTemplate,
		"setup": newSetup, "doctor": newDoctor, "udev": newUdev, "sim": newSim, "bmap": newBmap, "fuse": newFuse, "version": newVersion,
		"man": newMan,
	}
	if len(args) > 0 && commands[args[0]] != nil && args[0] != "man" { // whose pages are about all
		commands = map[string]func() *cobra.Command{args[0]: commands[args[0]]}
	}
	for _, add := range commands {
		root.AddCommand(add())
	}
	completeFlags(root)
	return root
}
