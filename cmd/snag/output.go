package main

import (
	"context"
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

// dryRun prints what would be done, or tells of err, if the flags came to that. As JSON each line is a note.
func (f *outputFlags) dryRun(cmd *cobra.Command, print func(io.Writer) error, err error) error {
	switch {
	case f.JSON:
	case err != nil:
		return err
	default:
		return print(cmd.OutOrStdout())
	}
	return f.show(cmd, func(emit event.Sink, _ *slog.Logger) error {
		now := func(body event.Body) { emit(event.Event{Time: time.Now(), Body: body}) }
		var text strings.Builder
		if err == nil {
			err = print(&text)
		}
		if err != nil {
			now(failed(err))
			return err
		}
		for line := range strings.Lines(text.String()) {
			now(event.Note{Text: strings.TrimRight(line, "\n")})
		}
		now(event.Done{})
		return nil
	})
}

// show does what tells all of its end by events. Output that nobody could read is a failure too, but none that a board
// is left halfway for.
func (f *outputFlags) show(cmd *cobra.Command, do func(event.Sink, *slog.Logger) error) error {
	// Who is asked for the signal gets the error EPIPE instead, until the process ends.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	display, err := await(cmd.Context(), func() (*ui.Display, error) {
		return ui.NewDisplay(cmd.OutOrStdout(), cmd.ErrOrStderr(), os.Getenv, f.Options)
	})
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

// await does what may wait for the other end of a FIFO, unless ctx ends before. Then it waits on, for the process to
// end.
func await[T any](ctx context.Context, do func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	c := make(chan result, 1)
	go func() {
		value, err := do()
		c <- result{value, err}
	}()
	select {
	case r := <-c:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
