package ui

import (
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"snag/event"
)

// Plain writes a line per event, for output that is no terminal.
type Plain struct {
	mu   sync.Mutex
	out  out
	pace pace
}

// NewPlain returns a Plain that writes to w.
func NewPlain(w io.Writer) *Plain {
	return &Plain{out: out{w: w}, pace: pace{period: 10 * time.Second}}
}

// Sink is the event.Sink of p. Of a stage's progress it writes a line in 10 s.
func (p *Plain) Sink(e event.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch b := e.Body.(type) {
	case event.Progress:
		// the beginning and the end have lines of their own
		if p.pace.stage == e.Stage && (b.Bytes < b.Total || b.Total < 0) && p.pace.due(e, b) {
			p.line(e)
		}
	case event.StageBegun:
		p.pace.stage, p.pace.last = e.Stage, e.Time
		if e.Stage == verifying {
			p.write(e, begun("reading back", b))
			return
		}
		p.line(e)
	case event.Failed:
		p.out.write(strings.Join(failure(e, b), "\n") + "\n")
	default:
		p.line(e)
	}
}

func (p *Plain) line(e event.Event) { p.write(e, text(e.Body)) }

func (p *Plain) write(e event.Event, text string) {
	w := where(e)
	if w != "" {
		w += ": "
	}
	p.out.write(w + text + "\n")
}

// Close returns the first error of writing.
func (p *Plain) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.err
}

// Log returns a sink that logs every event but the progress of stages.
func Log(l *slog.Logger) event.Sink {
	return func(e event.Event) {
		args := []any{"port", e.Port, "soc", e.SoC, "stage", e.Stage}
		switch b := e.Body.(type) {
		case event.Progress:
		case event.Warning:
			l.Warn(b.Text, args...)
		case event.Note:
			l.Info(b.Text, args...)
		case event.Failed:
			l.Error("failed", append(args, "error", b.Err, "hint", b.Hint, "exit_code", b.ExitCode)...)
		default:
			l.Info(text(b), args...)
		}
	}
}
