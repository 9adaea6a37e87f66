// Package ui tells people, scripts and log files what happens: the consumers of package event.
//
// [Terminal] draws on a terminal, [Plain] writes lines to anything else, [JSON] writes the lines that docs/json.md
// specifies, [Log] feeds a slog.Logger. Each has a Sink, safe for concurrent calls, and (but for Log) a Close for the
// end; [Tee] joins several, and [Display] those that a command's flags ask for. None reads a clock: times are those of
// the events.
//
// Names come from devices and from the network: on their way to a terminal all strings pass [Printable].
package ui

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"snag/event"
)

// Tee passes every event to all sinks, in their order.
func Tee(sinks ...event.Sink) event.Sink {
	return func(e event.Event) {
		for _, s := range sinks {
			s(e)
		}
	}
}

// IsTerminal reports whether f is a terminal on which [Terminal] can draw: one of a kind that is known (term(7)), and
// not a dumb one.
func IsTerminal(f *os.File, getenv func(string) string) bool {
	kind := getenv("TERM")
	return term.IsTerminal(int(f.Fd())) && kind != "" && kind != "dumb"
}

// Columns returns how wide f is, asked anew at every call; 80 if it does not say.
func Columns(f *os.File) func() int {
	return func() int {
		cols, _, err := term.GetSize(int(f.Fd()))
		if err != nil || cols <= 0 {
			return 80
		}
		return cols
	}
}

// Color reports whether the user lets programs use colour (no-color.org).
func Color(getenv func(string) string) bool { return getenv("NO_COLOR") == "" }

// Printable returns s without anything that steers a terminal: control characters, escapes, invalid
// UTF-8, marks that change the writing direction and other invisible characters become '?'.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// text says in words what happened, without where; empty for events that have their own presentation.
func text(body event.Body) string {
	switch b := body.(type) {
	case event.Waiting:
		return fmt.Sprintf("waiting for %s, at most %s", Printable(b.For), b.Deadline)
	case event.BoardSeen:
		s := strings.Join(strings.Fields(Printable(b.ID+" "+b.Product)), " ")
		if b.Device != "" {
			s += " (" + Printable(b.Device) + ")"
		}
		return strings.TrimSpace("board seen " + s)
	case event.StageBegun:
		return begun("sending", b)
	case event.Progress:
		if b.Total < 0 {
			return fmt.Sprintf("%s, %s/s", size(b.Bytes), size(int64(finite(b.Rate))))
		}
		return fmt.Sprintf("%s of %s, %s/s, %s left", size(b.Bytes), size(b.Total), size(int64(finite(b.Rate))), left(b))
	case event.StageDone:
		return sent(b.Summary.Stage) + " " + summary(b.Summary)
	case event.Note:
		return "note: " + Printable(b.Text)
	case event.Warning:
		return "warning: " + Printable(b.Text)
	case event.Fuse:
		return fmt.Sprintf("fuses %-9s bank %d word %d: 0x%08x; 0x%08x of 0x%08x: %s", Printable(b.Name), b.Bank, b.Word, b.Found, b.Value, b.Mask, Printable(b.State))
	case event.Done:
		if len(b.Stages) == 0 {
			return "done in " + seconds(b.Duration)
		}
		return fmt.Sprintf("done in %s: %s", seconds(b.Duration), total(b.Stages))
	}
	return body.Kind()
}

// verifying is the stage in which nothing is sent: what a board has is read back.
const verifying = "verify"

// sent is what was done with a stage's file.
func sent(stage string) string {
	if stage == verifying {
		return "read back"
	}
	return "sent"
}

// begun is what is being done with a file, whose length may not be known.
func begun(doing string, b event.StageBegun) string {
	s := doing + " " + Printable(b.File)
	if b.Bytes >= 0 {
		s += ", " + size(b.Bytes)
	}
	return s
}

// summary is "u-boot.img, 1.2 MiB in 3.4 s, 2 retries".
func summary(s event.StageSummary) string {
	out := fmt.Sprintf("%s, %s in %s", Printable(s.File), size(s.Bytes), seconds(s.Duration))
	switch s.Retries {
	case 0:
	case 1:
		out += ", 1 retry"
	default:
		out += fmt.Sprintf(", %d retries", s.Retries)
	}
	return out
}

// total is "2 stages, 845.0 KiB", and that this was read back.
func total(stages []event.StageSummary) string {
	var bytes int64
	var sent int
	for _, s := range stages {
		if s.Stage != verifying {
			bytes += s.Bytes
			sent++
		}
	}
	out := fmt.Sprintf("%d stages, %s", sent, size(bytes))
	if sent == 1 {
		out = "1 stage, " + size(bytes)
	}
	switch {
	case sent == 0:
		return "read back"
	case sent < len(stages):
		out += ", read back"
	}
	return out
}

// where is "am335x on 1-2.3, stage spl" as far as it is known.
func where(e event.Event) string {
	s := Printable(e.SoC)
	if e.Port != "" {
		s = strings.TrimSpace(s + " on " + Printable(e.Port))
	}
	if e.Stage != "" {
		s = strings.TrimPrefix(s+", stage "+Printable(e.Stage), ", ")
	}
	return s
}

// failure is the lines that tell of a failure: what and where, what was found already, what to do.
func failure(e event.Event, f event.Failed) []string {
	err := "unknown error"
	if f.Err != nil {
		err = f.Err.Error()
	}
	lines := strings.Split(err, "\n") // joined errors
	if w := where(e); w != "" {
		lines[0] = w + ": " + lines[0]
	}
	lines[0] = "failed: " + lines[0]
	if f.Hint != "" {
		for i, l := range strings.Split(f.Hint, "\n") {
			if i == 0 {
				l = "hint: " + l
			}
			lines = append(lines, l)
		}
	}
	for i, l := range lines {
		l = Printable(l)
		if i > 0 {
			l = "  " + l
		}
		lines[i] = l
	}
	return lines
}

// size is n in binary units, three to four digits.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	for _, unit := range []string{"KiB", "MiB", "GiB"} {
		if f /= 1024; f < 1024 {
			return fmt.Sprintf("%.1f %s", f, unit)
		}
	}
	return fmt.Sprintf("%.1f TiB", f/1024)
}

func seconds(d time.Duration) string {
	if d >= time.Minute {
		return d.Round(time.Second).String()
	}
	if d < 100*time.Millisecond {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// left is the time that the rest takes at the rate so far: "0:42".
func left(p event.Progress) string {
	rate := finite(p.Rate)
	if rate <= 0 || p.Total < p.Bytes {
		return "-:--"
	}
	s := math.Ceil(float64(p.Total-p.Bytes) / rate)
	if s >= 100*3600 {
		return "-:--"
	}
	d := int(s)
	if d >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", d/3600, d/60%60, d%60)
	}
	return fmt.Sprintf("%d:%02d", d/60, d%60)
}

func finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return f
}

// pace lets one progress event through per period, and a stage's first and last.
type pace struct {
	period time.Duration
	last   time.Time
	stage  string
}

func (p *pace) due(e event.Event, b event.Progress) bool {
	if e.Stage == p.stage && (b.Bytes < b.Total || b.Total < 0) && e.Time.Sub(p.last) < p.period && !e.Time.Before(p.last) {
		return false
	}
	p.stage, p.last = e.Stage, e.Time
	return true
}

// out remembers the first error of a writer and then stays silent.
type out struct {
	w   io.Writer
	err error
}

func (o *out) write(s string) {
	if o.err == nil {
		_, o.err = o.w.Write([]byte(s)) // one call, so that a terminal gets it whole
	}
}
