package ui

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"snag/event"
)

// Options say how a [Display] shows what happens.
type Options struct {
	JSON    bool   // the lines of docs/json.md, in the place of what is for people
	Verbose bool   // log records too
	LogFile string // to which everything is appended; empty: none
}

// Display is where a command's events and log records go: standard output has the events, on a terminal, as plain lines
// or as JSON; standard error the log records, unless a terminal draws both; the log file all of it.
type Display struct {
	Sink event.Sink
	Log  *slog.Logger

	close  func() error
	stderr io.Writer
	file   *logFile // nil: there is none
}

// NewDisplay returns what shows events on stdout. Close ends it. The error is of the log file, which cannot be opened.
func NewDisplay(stdout, stderr io.Writer, getenv func(string) string, opt Options) (*Display, error) {
	d := &Display{stderr: stderr}
	records := stderr
	if tty, ok := stdout.(*os.File); opt.JSON {
		j := NewJSON(stdout)
		d.Sink, d.close = j.Sink, j.Close
	} else if ok && IsTerminal(tty, getenv) {
		t := NewTerminal(tty, Columns(tty), Color(getenv))
		d.Sink, d.close, records = t.Sink, t.Close, t
	} else {
		p := NewPlain(stdout)
		d.Sink, d.close = p.Sink, p.Close
	}
	var handlers []slog.Handler
	if opt.Verbose {
		handlers = append(handlers, slog.NewTextHandler(records, nil))
	}
	if opt.LogFile != "" {
		file, err := os.OpenFile(opt.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
		if err != nil {
			return nil, err
		}
		d.file = &logFile{File: file}
		handler := slog.NewTextHandler(d.file, &slog.HandlerOptions{Level: slog.LevelDebug})
		handlers = append(handlers, handler)
		d.Sink = Tee(d.Sink, Log(slog.New(handler)))
	}
	d.Log = slog.New(slog.NewMultiHandler(handlers...))
	return d, nil
}

// Close returns the first error of standard output. A log that is not whole is only warned of: no board is left halfway
// for it.
func (d *Display) Close() error {
	if d.file != nil {
		if lost := errors.Join(d.file.err, d.file.Close()); lost != nil {
			fmt.Fprintf(d.stderr, "snag: warning: the log is not whole: --log-file: %v\n", lost)
		}
	}
	return d.close()
}

// logFile remembers its first error, and goes on: there may be room again. It is the handler that serializes what is
// written.
type logFile struct {
	*os.File
	err error
}

func (f *logFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	if f.err == nil {
		f.err = err
	}
	return n, err
}
