package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"snag/event"
	"snag/sim/pty"
)

var update = flag.Bool("update", false, "rewrite the golden files and the examples of docs/json.md")

// story is a recovery that succeeds, and one that fails, with every kind of event that recoveries have.
func story() (good, bad []event.Event) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	at := func(ms int, port, stage string, b event.Body) event.Event {
		return event.Event{Time: start.Add(time.Duration(ms) * time.Millisecond), Port: port, SoC: "am3358", Stage: stage, Body: b}
	}
	rom := event.StageSummary{Stage: "rom", File: "out/u-boot-spl.bin", Bytes: 109728, Duration: 1240 * time.Millisecond}
	spl := event.StageSummary{Stage: "spl", File: "out/u-boot.img", Bytes: 1253120, Duration: 2400 * time.Millisecond, Retries: 2}
	good = []event.Event{
		at(0, "", "", event.Note{Text: "MLO: header removed"}),
		at(1, "", "", event.Waiting{For: "USB device 0451:6141", Deadline: 2 * time.Minute}),
		at(5000, "1-2.3", "", event.BoardSeen{ID: "0451:6141", Product: "AM335x USB", Device: "usb0"}),
		at(5010, "1-2.3", "rom", event.StageBegun{File: rom.File, Bytes: rom.Bytes}),
		at(5050, "1-2.3", "rom", event.Progress{Bytes: 512, Total: rom.Bytes, Rate: 12800}),
		at(5060, "1-2.3", "rom", event.Progress{Bytes: 1024, Total: rom.Bytes, Rate: 25600}), // too soon to be shown
		at(5610, "1-2.3", "rom", event.Progress{Bytes: 54864, Total: rom.Bytes, Rate: 91440}),
		at(5700, "1-2.3", "rom", event.Warning{Text: "the ROM asks for \"other.bin\""}),
		at(6210, "1-2.3", "rom", event.Progress{Bytes: rom.Bytes, Total: rom.Bytes, Rate: 91440}),
		at(6250, "1-2.3", "rom", event.StageDone{Summary: rom}),
		at(6300, "1-2.3", "", event.Waiting{For: "the next stage on USB port 1-2.3", Deadline: 30 * time.Second}),
		at(8000, "1-2.3", "", event.BoardSeen{ID: "0451:d022", Device: "usb1"}),
		at(8000, "1-2.3", "spl", event.StageBegun{File: spl.File, Bytes: spl.Bytes}),
		at(9200, "1-2.3", "spl", event.Progress{Bytes: 626560, Total: spl.Bytes, Rate: 522133.33}),
		at(10400, "1-2.3", "spl", event.Progress{Bytes: spl.Bytes, Total: spl.Bytes, Rate: 522133.33}),
		at(10400, "1-2.3", "spl", event.StageDone{Summary: spl}),
		at(10410, "1-2.3", "", event.Done{Duration: 10410 * time.Millisecond, Stages: []event.StageSummary{rom, spl}}),
	}
	bad = slices.Clone(good[:13])
	bad = append(bad, at(38000, "1-2.3", "spl", event.Failed{
		Err:      errors.New("send u-boot.img: expected a request for block 12, got nothing in 30 s"),
		Hint:     "reset the board and start again",
		ExitCode: 6, Duration: 38 * time.Second, Stages: []event.StageSummary{rom},
	}))
	return good, bad
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s (-update rewrites it): got\n%s\nwant\n%s", file, got, want)
	}
}

// A line per Write, so that the golden file shows what is drawn when.
type writes struct{ bytes.Buffer }

func (w *writes) Write(b []byte) (int, error) {
	fmt.Fprintf(&w.Buffer, "%q\n", b)
	return len(b), nil
}

func TestTerminal(t *testing.T) {
	good, bad := story()
	for _, tt := range []struct {
		name   string
		events []event.Event
		cols   int
		color  bool
	}{
		{"terminal-done", good, 100, true},
		{"terminal-failed", bad, 100, true},
		{"terminal-nocolor", bad, 100, false},
		{"terminal-60", good, 60, false},
		{"terminal-40", good, 40, false},
		{"terminal-20", good, 20, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var w writes
			term := NewTerminal(&w, func() int { return tt.cols }, tt.color)
			for _, e := range tt.events {
				term.Sink(e)
				if columns(term.live) >= tt.cols {
					t.Errorf("live line of %d columns: %q", columns(term.live), term.live)
				}
			}
			if err := term.Close(); err != nil {
				t.Error(err)
			}
			golden(t, tt.name, w.Bytes())
		})
	}
}

// A name of wide characters does not make the live line wrap, and what is known of a stage at work goes in an order.
func TestRoom(t *testing.T) {
	at := func(b event.Body) event.Event {
		return event.Event{Port: "1-2.3", SoC: "imx6q", Stage: "rom", Body: b}
	}
	const name = "启动加载程序 e\u0301 ｆｗ.bin"
	if got := columns(name); got != 23 {
		t.Errorf("%q: %d columns", name, got)
	}
	seen := map[string]bool{}
	for cols := 120; cols > 0; cols-- {
		for _, total := range []int64{2 << 20, -1} {
			term := NewTerminal(io.Discard, func() int { return cols }, false)
			for _, e := range []event.Body{event.Waiting{For: "板子 板子 板子 板子"}, event.StageBegun{File: name, Bytes: total}, event.Progress{Bytes: 1 << 20, Total: total, Rate: 1 << 10}} {
				term.Sink(at(e))
				if got := columns(term.live); got >= max(cols, 2) {
					t.Errorf("%d columns of %d: %q", got, cols, term.live)
				}
			}
			seen[strings.Join(strings.Fields(term.live), " ")] = true
		}
	}
	for _, want := range []string{
		"rom " + name + " 50% 1.0 MiB 1.0 KiB/s 17:04", "rom 50% 1.0 MiB 1.0 KiB/s 17:04", "rom 50% 1.0 KiB/s 17:04", "rom 50% 17:04", "rom 50%",
		"rom 1.0 MiB 1.0 KiB/s", "rom 1.0 MiB",
	} {
		if !seen[want] {
			t.Errorf("never drawn: %q", want)
		}
	}
}

// However it ends, the cursor is back, and nothing is drawn afterwards.
func TestTerminalGivesTheCursorBack(t *testing.T) {
	good, _ := story()
	for n := range len(good) + 1 {
		var w bytes.Buffer
		term := NewTerminal(&w, func() int { return 80 }, false)
		for _, e := range good[:n] {
			term.Sink(e)
		}
		term.Close()
		size := w.Len()
		term.Close()
		term.Sink(good[0])
		if hide, show := strings.Count(w.String(), hideCursor), strings.Count(w.String(), showCursor); hide != show || w.Len() != size {
			t.Errorf("after %d events: hidden %d times, shown %d times, %d bytes after the end", n, hide, show, w.Len()-size)
		}
	}
}

func TestLogAboveTheLiveLine(t *testing.T) {
	var w writes
	term := NewTerminal(&w, func() int { return 60 }, false)
	good, _ := story()
	for _, e := range good[2:5] {
		term.Sink(e)
	}
	fmt.Fprint(term, "one\ntwo \x1b[2J\n")
	term.Close()
	golden(t, "terminal-log", w.Bytes())
}

func TestPlain(t *testing.T) {
	good, bad := story()
	for name, events := range map[string][]event.Event{"plain-done": good, "plain-failed": bad} {
		var w bytes.Buffer
		p := NewPlain(&w)
		for _, e := range events {
			p.Sink(e)
		}
		golden(t, name, w.Bytes())
	}
}

func TestLog(t *testing.T) {
	_, bad := story()
	var w bytes.Buffer
	l := slog.New(slog.NewTextHandler(&w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	for _, e := range bad {
		Log(l)(e)
	}
	golden(t, "log", w.Bytes())
}

// Nothing that a board says reaches a terminal as it is.
func TestNothingSteersTheTerminal(t *testing.T) {
	evil := "\x1b[2J\x9b\u009b\x00\r\n\x7f\u202e\xff"
	bodies := []event.Body{
		event.Waiting{For: evil}, event.BoardSeen{ID: evil, Product: evil, Device: evil}, event.StageBegun{File: evil, Bytes: 2},
		event.Progress{Bytes: 1, Total: 2}, event.StageDone{Summary: event.StageSummary{File: evil}},
		event.Note{Text: evil}, event.Warning{Text: evil}, event.Fuse{Name: evil, State: evil}, event.Failed{Err: errors.New(evil), Hint: evil}, event.Done{},
	}
	for _, b := range bodies {
		var w, p bytes.Buffer
		term := NewTerminal(&w, func() int { return 200 }, false)
		plain := NewPlain(&p)
		for _, s := range []event.Sink{term.Sink, plain.Sink} {
			s(event.Event{Port: evil, SoC: evil, Stage: evil, Body: b})
		}
		term.Close()
		drawn := strings.NewReplacer(hideCursor, "", showCursor, "", clearRest, "", "\r", "", "\n", "").Replace(w.String())
		for _, s := range []string{drawn, strings.ReplaceAll(p.String(), "\n", "")} {
			if Printable(s) != s {
				t.Errorf("%s: %q", b.Kind(), s)
			}
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b[31m\u202e\xff\u009b")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Printable(s) {
			if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' {
				t.Errorf("%q became %q", s, Printable(s))
			}
		}
	})
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 109728: "107.2 KiB", 5 << 30: "5.0 GiB", math.MaxInt64: "8388608.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for want, p := range map[string]event.Progress{
		"0:02":    {Bytes: 50, Total: 150, Rate: 60},
		"0:00":    {Bytes: 5, Total: 5, Rate: 1},
		"1:00:00": {Total: 3600, Rate: 1},
		"-:--":    {Total: 5},
	} {
		if got := left(p); got != want {
			t.Errorf("%+v: %s, want %s", p, got, want)
		}
	}
	for _, p := range []event.Progress{{Total: 1, Rate: math.NaN()}, {Total: 1, Rate: math.Inf(1)}, {Total: math.MaxInt64, Rate: 1e-9}, {Bytes: 2, Total: 1, Rate: 1}} {
		if got := left(p); got != "-:--" {
			t.Errorf("%+v: %s", p, got)
		}
	}
}

func TestTotal(t *testing.T) {
	sent, back := event.StageSummary{Stage: "fastboot", Bytes: 1 << 20}, event.StageSummary{Stage: "verify", Bytes: 1 << 20}
	for want, stages := range map[string][]event.StageSummary{
		"1 stage, 1.0 MiB": {sent}, "2 stages, 2.0 MiB": {sent, sent}, "1 stage, 1.0 MiB, read back": {sent, back}, "read back": {back},
	} {
		if got := total(stages); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestConcurrentSinks(t *testing.T) {
	good, _ := story()
	term, plain, lines := NewTerminal(io.Discard, func() int { return 80 }, true), NewPlain(io.Discard), NewJSON(io.Discard)
	sink := Tee(term.Sink, plain.Sink, lines.Sink)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, e := range good {
				sink(e)
			}
		})
	}
	wg.Go(func() { fmt.Fprintln(term, "log") })
	wg.Wait()
}

func TestWriteErrors(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	good, _ := story()
	for name, c := range map[string]interface {
		Sink(event.Event)
		Close() error
	}{"terminal": NewTerminal(w, func() int { return 80 }, false), "plain": NewPlain(w), "json": NewJSON(w)} {
		for _, e := range good {
			c.Sink(e)
		}
		if c.Close() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

const jsonDoc = "../../docs/json.md"

// The examples of docs/json.md are what the code writes.
func TestJSONExamples(t *testing.T) {
	doc, err := os.ReadFile(jsonDoc)
	if err != nil {
		t.Fatal(err)
	}
	good, bad := story()
	i := 0
	got := regexp.MustCompile("(?s)```json\n.*?```").ReplaceAllFunc(doc, func([]byte) []byte {
		var w bytes.Buffer
		j := NewJSON(&w)
		events := [][]event.Event{good, bad[len(bad)-1:]}[i]
		i++
		for _, e := range events {
			j.Sink(e)
		}
		j.Sink(good[0]) // nothing follows the last line
		return []byte("```json\n" + w.String() + "```")
	})
	if i != 2 {
		t.Fatalf("%d examples in %s, want 2", i, jsonDoc)
	}
	if *update {
		if err := os.WriteFile(jsonDoc, got, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(got, doc) {
		t.Errorf("%s is not what the code writes (-update rewrites the examples); want\n%s", jsonDoc, got)
	}
}

// The tables of docs/json.md name every event and every field with its type.
func TestJSONTables(t *testing.T) {
	doc, err := os.ReadFile(jsonDoc)
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]map[string]string{} // by heading, field, type
	heading := ""
	row := regexp.MustCompile("^\\| `(\\w+)` \\| (\\w+) \\|")
	for l := range strings.Lines(string(doc)) {
		if strings.HasPrefix(l, "#") {
			heading = strings.Trim(l, "#` \n")
		}
		if m := row.FindStringSubmatch(l); m != nil {
			if documented[heading] == nil {
				documented[heading] = map[string]string{}
			}
			documented[heading][m[1]] = m[2]
		}
	}

	source, err := os.ReadFile("../../event/event.go")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, m := range regexp.MustCompile(`Kind\(\) string +{ return "(\w+)" }`).FindAllSubmatch(source, -1) {
		kinds[string(m[1])] = true
	}
	if len(kinds) < 9 {
		t.Fatalf("found %d kinds of events in event.go", len(kinds))
	}

	check := func(heading string, o map[string]any, skip map[string]string) {
		t.Helper()
		doc := documented[heading]
		for field, v := range o {
			if skip[field] == "" && doc[field] != typeName(v) {
				t.Errorf("%s: field %s: documented as %q, is %q", heading, field, doc[field], typeName(v))
			}
		}
		for field := range doc {
			if _, ok := o[field]; !ok {
				t.Errorf("%s: field %s is documented and not written", heading, field)
			}
		}
	}
	good, bad := story()
	burnt := event.Event{Body: event.Fuse{Name: "MAC_ADDR0", Bank: 9, Value: 0xccddeeff, Mask: 0xffffffff, Found: 0xccddeeff, State: "burnt"}}
	for _, e := range append(good, bad[len(bad)-1], burnt) {
		line, err := json.Marshal(object(e))
		if err != nil {
			t.Fatal(err)
		}
		var o map[string]any
		if err := json.Unmarshal(line, &o); err != nil {
			t.Fatal(err)
		}
		common := documented["Every event"]
		for field, typ := range common {
			if typeName(o[field]) != typ {
				t.Errorf("%s: field %s is %q, want %q", e.Body.Kind(), field, typeName(o[field]), typ)
			}
		}
		check(e.Body.Kind(), o, common)
		if stages, ok := o["stages"].([]any); ok {
			check("An element of `stages", stages[0].(map[string]any), nil)
		}
		delete(kinds, e.Body.Kind())
	}
	if len(kinds) > 0 {
		t.Errorf("the test has no event of the kinds %v", kinds)
	}
}

func typeName(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case float64:
		return "number"
	case []any:
		return "array"
	}
	return fmt.Sprintf("%T", v)
}

func TestEmptyStagesAreAnArray(t *testing.T) {
	var w bytes.Buffer
	NewJSON(&w).Sink(event.Event{Body: event.Failed{ExitCode: 3}})
	if !strings.Contains(w.String(), `"stages":[]`) || !strings.Contains(w.String(), `"exit_code":3`) {
		t.Error(w.String())
	}
}

// Lines are drawn anew only on terminals that can do that.
func TestIsTerminal(t *testing.T) {
	line, err := pty.Open()
	if err != nil {
		t.Skip(err)
	}
	defer line.Close()
	tty, err := os.OpenFile(line.TTY, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	for kind, want := range map[string]bool{"xterm": true, "linux": true, "dumb": false, "": false} {
		if got := IsTerminal(tty, func(string) string { return kind }); got != want {
			t.Errorf("TERM=%q: %v", kind, got)
		}
	}
	if null, err := os.Open(os.DevNull); err != nil || IsTerminal(null, func(string) string { return "xterm" }) {
		t.Errorf("%s is one: %v", os.DevNull, err)
	}
}
