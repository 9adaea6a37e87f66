package ui

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"snag/event"
)

// Events go to standard output, log records to standard error, both to the log, which is added to.
func TestDisplay(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	for i, opt := range []Options{{JSON: true, LogFile: log}, {Verbose: true, LogFile: log}} {
		var stdout, stderr bytes.Buffer
		d, err := NewDisplay(&stdout, &stderr, os.Getenv, opt)
		if err != nil {
			t.Fatal(err)
		}
		d.Sink(event.Event{Body: event.Note{Text: "hello"}})
		d.Log.Debug("a detail")
		d.Log.Info("beneath")
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if got := stdout.String(); strings.HasPrefix(got, "{") != opt.JSON || !strings.Contains(got, "hello") || strings.Contains(got, "beneath") {
			t.Errorf("%+v: standard output has %q", opt, got)
		}
		if got := stderr.String(); strings.Contains(got, "beneath") != opt.Verbose || strings.Contains(got, "detail") {
			t.Errorf("%+v: standard error has %q", opt, got)
		}
		logged, err := os.ReadFile(log)
		if got := string(logged); err != nil || strings.Count(got, "hello") != i+1 || strings.Count(got, "beneath") != i+1 || strings.Count(got, "detail") != i+1 {
			t.Errorf("%v, the log has %q", err, got)
		}
	}
}

// A log that cannot be opened is an error; one that is not whole is warned of; output that is not is an error at the
// end.
func TestDisplayFails(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if _, err := NewDisplay(&stdout, &stderr, os.Getenv, Options{LogFile: filepath.Join(t.TempDir(), "none", "log")}); err == nil {
		t.Error("a log in no directory was opened")
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	for _, file := range []string{"", "/dev/full"} {
		d, err := NewDisplay(full, &stderr, os.Getenv, Options{LogFile: file})
		if err != nil {
			t.Fatal(err)
		}
		d.Sink(event.Event{Body: event.Note{Text: "hello"}})
		if err := d.Close(); err == nil {
			t.Error("nobody is told that the output was lost")
		}
		if warned := strings.Contains(stderr.String(), "the log is not whole"); warned != (file != "") {
			t.Errorf("it said %q", &stderr)
		}
	}
}
