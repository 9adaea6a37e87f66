package ui

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"snag/event"
)

// Control sequences (ECMA-48, 8.3: EL, SGR; DEC private mode 25 shows the cursor).
const (
	clearRest  = "\x1b[K"
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	red        = "\x1b[31m"
	green      = "\x1b[32m"
	yellow     = "\x1b[33m"
	plain      = "\x1b[0m"
)

// Terminal draws on a terminal: one live line, which is the wait for a board or the stage at
// work, and above it a line for everything that is worth keeping. Every change is a single Write.
type Terminal struct {
	mu    sync.Mutex
	out   out
	cols  func() int
	color bool

	pace  pace
	file  string // of the stage at work
	live  string // what the live line shows; empty if there is none
	ended bool
}

// NewTerminal returns a Terminal that draws on w. cols is asked for the width before every line.
func NewTerminal(w io.Writer, cols func() int, color bool) *Terminal {
	return &Terminal{out: out{w: w}, cols: cols, color: color, pace: pace{period: 100 * time.Millisecond}}
}

// Sink is the event.Sink of t.
func (t *Terminal) Sink(e event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	switch b := e.Body.(type) {
	case event.Waiting:
		t.draw(text(b))
	case event.BoardSeen:
		t.keep("", where(e)+": "+text(b), "")
	case event.StageBegun:
		t.file = b.File
		t.draw(t.bar(e.Stage, event.Progress{Total: b.Bytes}))
	case event.Progress:
		if t.pace.due(e, b) {
			t.draw(t.bar(e.Stage, b))
		}
	case event.StageDone:
		t.keep(green, fmt.Sprintf("%-5s %s %s", Printable(e.Stage), sent(e.Stage), summary(b.Summary)), "")
	case event.Warning:
		t.keep(yellow, text(b), t.live)
	case event.Done:
		t.keep(green, text(b), "")
	case event.Failed:
		for i, l := range failure(e, b) {
			color := red
			if i > 0 {
				color = ""
			}
			t.keep(color, l, "")
		}
	default:
		t.keep("", text(b), t.live)
	}
}

// Write writes whole lines of something else, a log for instance, above the live line.
func (t *Terminal) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range strings.Lines(string(b)) {
		t.keep("", Printable(strings.TrimSuffix(l, "\n")), t.live)
	}
	return len(b), t.out.err
}

// Close removes the live line and gives the cursor back. It returns the first error of writing.
func (t *Terminal) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.ended = true
		if t.live != "" {
			t.live = ""
			t.out.write("\r" + clearRest + showCursor)
		}
	}
	return t.out.err
}

// draw makes line the live line.
func (t *Terminal) draw(line string) {
	line = t.cut(line)
	if line == t.live {
		return
	}
	s := "\r" + line + clearRest
	if t.live == "" {
		s = hideCursor + s
	}
	t.live = line
	t.out.write(s)
}

// keep writes a line that stays, and below it live, if there is any.
func (t *Terminal) keep(color, line, live string) {
	if color != "" && t.color {
		line = color + line + plain
	}
	s := line + clearRest + "\n" // long lines may wrap: nothing is lost
	if t.live != "" {
		s = "\r" + s
		if live == "" {
			s += showCursor
		} else {
			s += live + clearRest
		}
	}
	t.live = live
	t.out.write(s)
}

// bar is a stage at work, as wide as the terminal allows. Numbers have fixed places, so that nothing
// jumps:
//
//	spl   u-boot.img  [==========>         ]   51%  612.0 KiB    1.1 MiB/s   0:01
func (t *Terminal) bar(stage string, p event.Progress) string {
	part := 0.0
	if p.Total > 0 {
		part = min(1, max(0, float64(p.Bytes)/float64(p.Total)))
	}
	head := fmt.Sprintf("%-5s ", Printable(stage))
	percent := fmt.Sprintf("%3d%%", int(part*100))
	if p.Total < 0 { // only the end will tell
		percent = "    "
	}
	tail := fmt.Sprintf("%s %10s %10s/s %6s", percent, size(p.Bytes), size(int64(finite(p.Rate))), left(p))
	room := t.width() - utf8.RuneCountInString(head) - utf8.RuneCountInString(tail)
	name := Printable(t.file[strings.LastIndexByte(t.file, '/')+1:]) + "  "
	if n := utf8.RuneCountInString(name); n <= room {
		head += name
		room -= n
	}
	const least, most, frame = 8, 40, len("[]  ")
	if n := min(room-frame, most); n >= least {
		full := int(part * float64(n))
		head += "[" + strings.Repeat("=", full)
		if full < n {
			head += ">" + strings.Repeat(" ", n-full-1)
		}
		head += "]  "
	}
	return head + tail
}

// width leaves the last column free: some terminals wrap when it is written.
func (t *Terminal) width() int { return max(t.cols()-1, 1) }

func (t *Terminal) cut(line string) string {
	if r := []rune(line); len(r) > t.width() {
		return string(r[:t.width()])
	}
	return line
}
