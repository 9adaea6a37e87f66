// Package socstest recovers virtual boards in the tests of the families: a board of package [snag/sim/virtual] on a
// port of a host without a kernel ([inproc]), by [recovery.Run] with the family's backend.
//
// A test makes the board and the options, in a bubble of its own time, and looks at the [Outcome]:
//
//	synctest.Test(t, func(t *testing.T) {
//		board, err := dfu.New(dfu.Config{Model: m, Faults: socstest.Faults(t, dfu.ParseFault, "stall:rom:4096")})
//		...
//		o := socstest.Run(t, inproc.New(), board, recovery.Options{Backend: zynqmp.Backend{}, Model: socstest.Model(t, "zynqmp"), Firmware: fw, Port: "205-1"})
//		o.Ends(t, 6, "refused with a stall", 5*time.Second)
//	})
//
// [Run] is [Plug] and [Recover], for tests that do something in between. [Play] does that for a table of boards that
// are wrong.
package socstest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/recovery"
	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/socs"
)

// Board is a virtual board with its report.
type Board[R Report] interface {
	Run(ctx context.Context, port usbdev.Port) error
	Settled() <-chan struct{}
	Report() R
}

// Report is a [virtual.Report] of whatever family.
type Report interface{ Err() error }

// Outcome is what came of a recovery.
type Outcome[R Report] struct {
	Attempt
	Report R
}

// Attempt is a recovery as the host sees it.
type Attempt struct {
	Err    error
	Events []event.Event
	Took   time.Duration
}

// Model is a model by name.
func Model(t testing.TB, name string) socs.Model {
	t.Helper()
	m, err := socs.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Firmware is files by slot, with paths made up from that.
func Firmware(files map[string][]byte) socs.Firmware {
	fw := socs.Firmware{}
	for slot, data := range files {
		fw[slot] = socs.Image{Path: slot + ".bin", Data: data}
	}
	return fw
}

// Faults reads faults, several by space.
func Faults(t testing.TB, parse func(string) (virtual.Fault, error), s string) (faults []virtual.Fault) {
	t.Helper()
	for f := range strings.FieldsSeq(s) {
		fault, err := parse(f)
		if err != nil {
			t.Fatal(err)
		}
		faults = append(faults, fault)
	}
	return faults
}

// Case is a board that is wrong, and how its recovery ends.
type Case[C any] struct {
	Model  string // where it is not the same in all cases
	Faults string // several, by space
	Config C      // what else is wrong
	Code   int
	Says   string        // the error, or else the events
	Hint   string        // part of the error's
	Most   time.Duration // of the whole recovery
	Unseen bool          // it goes wrong when the board has everything, which no host can tell: its report does not count
}

// Play recovers the boards by run, each in a bubble of its own time, and fails the test unless all end as
// [Outcome.Ends] has it.
func Play[C any, R Report](t *testing.T, parse func(string) (virtual.Fault, error), cases []Case[C],
	run func(*testing.T, Case[C], []virtual.Fault) *Outcome[R]) {
	t.Helper()
	for _, c := range cases {
		name := strings.TrimSpace(c.Model + " " + c.Faults)
		if c.Faults == "" {
			name = strings.TrimSpace(c.Model + " " + c.Says)
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := run(t, c, Faults(t, parse, c.Faults))
				if c.Unseen {
					o.ends(t, 0, c.Says, c.Most)
				} else {
					o.Ends(t, c.Code, c.Says, c.Most)
				}
				if hint := recovery.Hint(o.Err); !strings.Contains(hint, c.Hint) {
					t.Errorf("hint %q, want %q", hint, c.Hint)
				}
			})
		})
	}
}

// Run plugs a board into opt.Port of the host, recovers it, and unplugs it.
func Run[R Report](t *testing.T, host *inproc.Host, board Board[R], opt recovery.Options) *Outcome[R] {
	t.Helper()
	ctx, unplug := Plug(t, host.Port(opt.Port), board)
	defer unplug()
	return Recover(t, ctx, host, board, opt)
}

// Plug plugs a board in. unplug ends the context, and returns when the board has left.
func Plug[R Report](t *testing.T, port usbdev.Port, board Board[R]) (ctx context.Context, unplug func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := board.Run(ctx, port); err != nil {
			t.Error(err)
		}
	})
	return ctx, func() {
		cancel()
		running.Wait()
	}
}

// Recover recovers a board that is plugged in. If that goes well, the report is that of the settled board.
func Recover[R Report](t *testing.T, ctx context.Context, host *inproc.Host, board Board[R], opt recovery.Options) *Outcome[R] {
	t.Helper()
	o := &Outcome[R]{Attempt: Try(ctx, host, opt)}
	if o.Err == nil {
		select {
		case <-board.Settled():
		case <-time.After(time.Minute):
			t.Error("the board did not settle")
		}
	}
	o.Report = board.Report()
	return o
}

// Try recovers what is plugged into opt.Port of the host, whatever it is.
func Try(ctx context.Context, host *inproc.Host, opt recovery.Options) Attempt {
	var mu sync.Mutex
	var a Attempt
	emit := opt.Emit
	opt.USB = host
	opt.Emit = func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		a.Events = append(a.Events, e)
		if emit != nil {
			emit(e)
		}
	}
	begun := time.Now()
	err := recovery.Run(ctx, opt)
	mu.Lock()
	defer mu.Unlock()
	a.Err, a.Took = err, time.Since(begun)
	return a
}

// Texts are the notes and warnings.
func (a *Attempt) Texts() string {
	var s []string
	for _, e := range a.Events {
		switch b := e.Body.(type) {
		case event.Note:
			s = append(s, b.Text)
		case event.Warning:
			s = append(s, "warning: "+b.Text)
		}
	}
	return strings.Join(s, "\n")
}

// Bad fails the test unless the recovery failed with a code and a text, and a hint.
func (a *Attempt) Bad(t *testing.T, code int, says string) {
	t.Helper()
	if got := recovery.ExitCode(a.Err); got != code || !strings.Contains(fmt.Sprint(a.Err), says) {
		t.Errorf("exit code %d: %v, want %d and %q\n%s", got, a.Err, code, says, a.Texts())
	}
	if a.Err != nil && recovery.Hint(a.Err) == "" {
		t.Errorf("no hint for: %v", a.Err)
	}
}

// ends fails the test unless the recovery ended within a time: with a text among its notes and warnings, if the code is
// 0, else with that code and the text in the error.
func (a *Attempt) ends(t *testing.T, code int, says string, most time.Duration) {
	t.Helper()
	switch {
	case code != 0:
		a.Bad(t, code, says)
	case a.Err != nil:
		t.Errorf("%v\n%s", a.Err, a.Texts())
	case !strings.Contains(a.Texts(), says):
		t.Errorf("it said %q, want %q", a.Texts(), says)
	}
	if a.Took > most {
		t.Errorf("it took %s, want %s at most", a.Took, most)
	}
}

// Good fails the test unless the board was recovered, and the host did nothing wrong.
func (o *Outcome[R]) Good(t *testing.T) {
	t.Helper()
	if err := o.Report.Err(); o.Err != nil || err != nil {
		t.Errorf("%v; %v\n%s", o.Err, err, o.Texts())
	}
}

// Ends fails the test unless the recovery ended within a time: well, with a text among its notes and warnings, if the
// code is 0, else badly with that code and the text in the error.
func (o *Outcome[R]) Ends(t *testing.T, code int, says string, most time.Duration) {
	t.Helper()
	o.ends(t, code, says, most)
	if err := o.Report.Err(); code == 0 && err != nil {
		t.Errorf("%v\n%s", err, o.Texts())
	}
}
