package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"snag/event"
	"snag/internal/ui"
	"snag/recovery"
)

// outputFlags say how a recovery is shown.
type outputFlags struct {
	ui.Options
}

func (f *outputFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.BoolVar(&f.JSON, "json", false, "print JSON lines (docs/json.md)")
	fl.BoolVarP(&f.Verbose, "verbose", "v", false, "print what snag does beneath the stages too")
	fl.StringVar(&f.LogFile, "log-file", "", "append a full log to this `file`")
}

// recover runs the engine, and shows what happens; or only err, if the flags came to that.
func (f *outputFlags) recover(cmd *cobra.Command, opt recovery.Options, err error) error {
	return f.show(cmd, func(emit event.Sink, log *slog.Logger) error {
		if err != nil {
			emit(event.Event{Time: time.Now(), SoC: opt.Model.Name, Body: failed(err)})
			return err
		}
		opt.Emit, opt.Log = emit, log
		return recovery.Run(cmd.Context(), opt)
	})
}

// show does what tells all of its end by events. Output that nobody could read is a failure too, but none that a board
// is left halfway for.
func (f *outputFlags) show(cmd *cobra.Command, do func(event.Sink, *slog.Logger) error) error {
	// Who is asked for the signal gets the error EPIPE instead, until the process ends.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	display, err := ui.NewDisplay(cmd.OutOrStdout(), cmd.ErrOrStderr(), os.Getenv, f.Options)
	if err != nil {
		return &recovery.UsageError{Err: fmt.Errorf("--log-file: %w", err)}
	}
	err = do(display.Sink, display.Log)
	switch unread := display.Close(); {
	case err == nil && unread != nil:
		return fmt.Errorf("it was done, but could not be told: standard output: %w", unread)
	case err != nil && unread == nil:
		return &shownError{err}
	}
	return err // main tells it on standard error
}
