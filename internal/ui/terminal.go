package ui

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

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
	s := line + "\n" // long lines may wrap: nothing is lost
	if t.live != "" {
		// Cleared first: behind a line as wide as the terminal, EL takes its last character away.
		s = "\r" + clearRest + s
		if live = t.cut(live); live == "" {
			s += showCursor
		} else {
			s += live
		}
	}
	t.live = live
	t.out.write(s)
}

// bar is a stage at work, as wide as the terminal allows. Numbers have fixed places, so that nothing
// jumps:
//
//	spl   u-boot.img  [==========>         ]   51%  612.0 KiB    1.1 MiB/s   0:01
//
// Where there is no room for all of it the bar goes first, then the file's name, the bytes, the rate.
func (t *Terminal) bar(stage string, p event.Progress) string {
	part := 0.0
	if p.Total > 0 {
		part = min(1, max(0, float64(p.Bytes)/float64(p.Total)))
	}
	head := fmt.Sprintf("%-5s ", Printable(stage))
	percent, bytes := fmt.Sprintf("%3d%%", int(part*100)), fmt.Sprintf(" %10s", size(p.Bytes))
	rate, rest := fmt.Sprintf(" %10s/s", size(int64(finite(p.Rate)))), fmt.Sprintf(" %6s", left(p))
	tails := []string{percent + bytes + rate + rest, percent + rate + rest, percent + rest, percent}
	if p.Total < 0 { // only the end will tell
		tails = []string{"    " + bytes + rate + rest, bytes + rate, bytes}
	}
	room := t.width() - columns(head)
	fits := slices.IndexFunc(tails, func(s string) bool { return columns(s) <= room })
	if fits < 0 {
		fits = len(tails) - 1
	}
	tail := tails[fits]
	room -= columns(tail)
	name := Printable(t.file[strings.LastIndexByte(t.file, '/')+1:]) + "  "
	if n := columns(name); n <= room {
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

// cut returns what of line the terminal has room for.
func (t *Terminal) cut(line string) string {
	room := t.width()
	for i, r := range line {
		if room -= width(r); room < 0 {
			return line[:i]
		}
	}
	return line
}

// columns is the room that s takes on a terminal.
func columns(s string) (n int) {
	for _, r := range s {
		n += width(r)
	}
	return n
}

// width is the columns of a character: none of a mark that combines, two of those that UAX #11 has as wide (W, F). What
// is between the ranges and narrow counts as wide too: a line that is too short does no harm.
func width(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case r >= 0x1100 && r < 0x1160, r >= 0x231a && r < 0x2400, r >= 0x25fd && r < 0x27c0, r >= 0x2b1b && r < 0x2b56, r >= 0x2e80 && r < 0xa4d0,
		r >= 0xa960 && r < 0xa980, r >= 0xac00 && r < 0xd7a4, r >= 0xf900 && r < 0xfb00, r >= 0xfe10 && r < 0xfe70, r >= 0xff01 && r < 0xff61,
		r >= 0xffe0 && r < 0xffe7, r >= 0x16fe0 && r < 0x1b300, r >= 0x1f000 && r < 0x20000, r >= 0x20000 && r < 0x40000:
		return 2
	}
	return 1
}
