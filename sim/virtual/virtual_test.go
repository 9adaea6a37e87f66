package virtual

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/usbdev"
	"snag/usb"
)

type stage struct {
	Stage
	Commands []string       `json:"commands"`
	Counts   map[string]int `json:"counts"`
}

func (s *stage) Effects() string { return fmt.Sprintf("  %s\n", s.Commands) }

// port notes what happens to it.
type port struct {
	log  []string
	fail error // of Attach
}

func (p *port) Attach(_ context.Context, d usbdev.Device) error {
	p.log = append(p.log, "attach "+d.Descriptors().ID.String())
	return p.fail
}

func (p *port) AttachSame(_ context.Context, d usbdev.Device) error {
	p.log = append(p.log, "same "+d.Descriptors().ID.String())
	return p.fail
}

func (p *port) Detach() error {
	p.log = append(p.log, "detach")
	return nil
}

func gadget(product uint16) *usbdev.Gadget {
	return UBoot(usb.ID{Vendor: 1, Product: product}, "nobody")
}

// A board goes through its stages until nothing more happens by itself, once for each way in which a stage can end.
func TestRun(t *testing.T) {
	broken := errors.New("broken")
	for _, tc := range []struct {
		name     string
		ends     []error // of the ROM, one for each power cycle
		watchdog time.Duration
		fail     error
		outcome  Outcome
		why      string
		err      error
		took     time.Duration
	}{
		{name: "booted", ends: []error{nil}, outcome: Booted},
		{name: "reset", ends: []error{ErrReset, ErrReset, nil}, outcome: Booted, took: 2 * resetTime},
		{name: "unplugged", ends: []error{ErrUnplug}, outcome: Unplugged},
		{name: "stuck", ends: []error{broken}, outcome: Stuck, why: "rom: broken"},
		{name: "watchdog", ends: []error{broken, nil}, watchdog: time.Minute, outcome: Booted, took: time.Minute + resetTime},
		{name: "carrier", ends: []error{nil}, fail: broken, outcome: Unplugged, err: broken},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, p := New[*stage]("a", nil), &port{fail: tc.fail}
				b.Watchdog = tc.watchdog
				ctx, unplug := context.WithCancel(t.Context())
				ended := make(chan error)
				begun, cycle := time.Now(), 0
				go func() {
					ended <- b.Run(ctx, p, func(ctx context.Context) error {
						cycle++
						return b.Stage(ctx, p, StageROM, gadget(1), &stage{}, func(context.Context) error { return tc.ends[cycle-1] })
					})
				}()
				if tc.err == nil {
					<-b.Settled()
					unplug()
				}
				if err := <-ended; !errors.Is(err, tc.err) {
					t.Errorf("%v, want %v", err, tc.err)
				}
				unplug()
				r := b.Report()
				if r.Outcome != tc.outcome || r.Error != tc.why || r.Resets != len(tc.ends)-1 || len(r.Stages) != len(tc.ends) || time.Since(begun) != tc.took {
					t.Errorf("after %s: %+v", time.Since(begun), r)
				}
				if err := r.Err(); (err == nil) != (tc.outcome == Booted) {
					t.Error(err)
				}
				for i, s := range r.Stages {
					if end := tc.ends[i]; tc.err == nil && (s.Left.IsZero() || end != nil && s.Error != end.Error()) {
						t.Errorf("%+v, want %v", s, end)
					}
				}
				if p.log[len(p.log)-1] != "detach" {
					t.Errorf("%q", p.log)
				}
			})
		})
	}
}

// Stages keep their address if they are to, one may go on with the device of another, and mistakes are the stage's that
// runs.
func TestStages(t *testing.T) {
	b, p := New[*stage]("a", nil), &port{}
	b.SameAddress = true
	run := func(context.Context) error {
		b.Violation("mistake %d", 1)
		b.Violation("mistake %d", 1)
		return nil
	}
	for range 2 {
		if err := b.Stage(t.Context(), p, StageROM, gadget(1), &stage{Commands: []string{"go"}}, run); err != nil {
			t.Fatal(err)
		}
	}
	err := b.Stage(t.Context(), p, "spl", gadget(2), &stage{}, func(context.Context) error {
		b.Begin("spl2", nil, &stage{})
		return errors.New("broken")
	})
	if fmt.Sprint(err) != "spl2: broken" {
		t.Error(err)
	}
	r := b.Report()
	if want := "attach 0001:0001 detach attach 0001:0001 detach same 0001:0002 detach"; strings.Join(p.log, " ") != want {
		t.Errorf("%q, want %q", p.log, want)
	}
	if r.Last("spl2").Error != "broken" || r.Last("spl").ID != "0001:0002" || r.Last("gadget") != nil {
		t.Errorf("%+v", r)
	}
	if len(r.Violations) != 1 || r.Violations[0] != (Count{"rom: mistake 1", 4}) {
		t.Errorf("%v", r.Violations)
	}
	if got, want := r.Effects(), "rom\n  [go]\nspl\n  []\nspl2\n  []\nrunning\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A report does not change after it was returned, and has the times in milliseconds.
func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New[*stage]("a", nil)
		s := &stage{Commands: []string{"go"}, Counts: map[string]int{"go": 1}}
		b.Begin(StageROM, nil, s)
		time.Sleep(1500 * time.Microsecond)
		s.Received()
		text := func(r Report[*stage]) string {
			text, err := json.Marshal(r.Stages)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		r := b.Report()
		want := `[{"name":"rom","plugged":"2000-01-01T00:00:00Z","first_byte_ms":1.5,"last_byte_ms":1.5,"complete":false,"commands":["go"],"counts":{"go":1}}]`
		if got := text(r); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		b.Edit(func(r *Report[*stage]) {
			s := r.Stages[0]
			s.Error, s.Commands[0], s.Counts["go"] = "changed", "changed", 2
		})
		if got := text(r); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// A sum is made when the report is, once, and of what there was when it was asked for.
func TestSum(t *testing.T) {
	b, s, made := New[*stage]("a", nil), &stage{}, 0
	b.Begin(StageROM, nil, s)
	b.Edit(func(*Report[*stage]) {
		s.Sum(func(sum string) {
			made++
			s.Commands = append(s.Commands, sum)
		}, []byte("12345"), []byte("6789"))
	})
	if made != 0 || len(s.Commands) != 0 {
		t.Errorf("made before the report is: %q", s.Commands)
	}
	want := []string{SHA256([]byte("123456789"))}
	for range 2 {
		if got := b.Report().Last(StageROM).Commands; made != 1 || !slices.Equal(got, want) {
			t.Errorf("made %d times: %q, want %q", made, got, want)
		}
	}
}

// What is done several times in a row is one entry, and there is a bound to their number.
func TestLog(t *testing.T) {
	type entry struct {
		name string
		n    int
	}
	n := func(e *entry) *int { return &e.n }
	var list []entry
	for _, name := range []string{"a", "a", "b", "a", "a", "a"} {
		if !Log(&list, entry{name: name}, n) {
			t.Errorf("%s is left out", name)
		}
	}
	if want := []entry{{"a", 2}, {"b", 1}, {"a", 3}}; !slices.Equal(list, want) {
		t.Errorf("%v, want %v", list, want)
	}
	list = make([]entry, maxLog)
	if Log(&list, entry{name: "a"}, n) || len(list) != maxLog {
		t.Error("there is no bound")
	}
}

// Each fault is carried out once, in its stage.
func TestDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New[*stage]("a", []Fault{
			{Kind: NAK, Stage: "spl", At: 100}, {Kind: "own", Stage: "spl", At: 100}, {Kind: NAK, Stage: "spl", Command: "jump", For: time.Minute},
			{Kind: Reset, Stage: "spl", At: 200}, {Kind: Unplug, Stage: "spl", At: 300}, {Kind: Hang, Stage: "spl", Command: "jump"},
		})
		due := func(command string, n int, kind FaultKind, err error, took time.Duration) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			begun := time.Now()
			f, got := b.Due(ctx, command, n)
			if f.Kind != kind || !errors.Is(got, err) || time.Since(begun) != took {
				t.Errorf("%q %d: %s, %v after %s", command, n, f.Kind, got, time.Since(begun))
			}
		}
		b.Begin("rom", nil, &stage{})
		due("", 1000, "", nil, 0)
		b.Begin("spl", nil, &stage{})
		if n := b.Before(40, 1000); n != 60 {
			t.Errorf("%d bytes before the first fault", n)
		}
		due("", 99, "", nil, 0)
		due("", 100, "own", nil, 3*time.Second)
		due("", 100, "", nil, 0)
		due("", 300, Reset, ErrReset, 0)
		due("", 300, Unplug, ErrUnplug, 0)
		due("jump", 300, Hang, context.DeadlineExceeded, time.Hour)
		if r := b.Report(); r.Outcome != Stuck || r.Error != "spl: hangs by request" {
			t.Errorf("%+v", r)
		}
	})
}

var someFaults = Faults{Kinds: []FaultKind{"error", NAK}, Stages: []string{"rom"}, Commands: []string{"jump"}, Telling: "error"}

func TestParse(t *testing.T) {
	for s, want := range map[string]Fault{
		"nak:rom:4096":      {Kind: NAK, Stage: "rom", At: 4096},
		"nak:rom:jump:2s":   {Kind: NAK, Stage: "rom", Command: "jump", For: 2 * time.Second},
		"error:rom:0:0x0f":  {Kind: "error", Stage: "rom", Status: 15},
		"error:rom:jump:15": {Kind: "error", Stage: "rom", Command: "jump", Status: 15},
	} {
		if f, err := someFaults.Parse(s); f != want || err != nil {
			t.Errorf("%s: %+v, %v", s, f, err)
		}
	}
	for s, says := range map[string]string{
		"":               "expected KIND:STAGE:BYTES",
		"nak:rom":        "expected KIND:STAGE:BYTES",
		"nak:rom:1:2s:3": "expected KIND:STAGE:BYTES",
		"melt:rom:1":     "expected one of [error nak]",
		"nak:spl:1":      `at stage "spl": expected one of [rom]`,
		"nak:rom:-1":     `at "-1": expected a number of bytes, or one of [jump]`,
		"nak:rom:1:3":    "missing unit",
		"error:rom:1:2s": "invalid syntax",
		"error:rom:1:-1": "invalid syntax",
	} {
		if f, err := someFaults.Parse(s); !strings.Contains(fmt.Sprint(err), says) {
			t.Errorf("%s: %+v, %v, want %q", s, f, err, says)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("nak:rom:jump:2s")
	f.Add("error:rom:4096:3")
	f.Fuzz(func(t *testing.T, s string) {
		if fault, err := someFaults.Parse(s); err == nil && someFaults.Check(fault) != nil {
			t.Errorf("%+v", fault)
		}
	})
}
