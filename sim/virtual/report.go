package virtual

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Outcome is what became of a board.
type Outcome string

const (
	Running   Outcome = "running"   // no end of any kind yet
	Booted    Outcome = "booted"    // the last stage was started
	Stuck     Outcome = "stuck"     // a stage gave up; a power cycle is needed
	Unplugged Outcome = "unplugged" // by a fault, or because the run ended
)

// The names of the stages that all families have.
const (
	StageROM    = "rom"    // the first after a power cycle
	StageGadget = "gadget" // what U-Boot shows on USB
)

// Report is what a board saw since it was plugged in.
type Report[S Staged[S]] struct {
	Model      string    `json:"model,omitempty"`
	Outcome    Outcome   `json:"outcome"`
	Error      string    `json:"error,omitempty"` // why it is stuck
	Plugged    time.Time `json:"plugged"`
	Resets     int       `json:"resets"`     // power cycles after the first
	Stages     []S       `json:"stages"`     // in order; one may go on with the enumeration of the one before
	Violations []Count   `json:"violations"` // what the host did wrong
}

// Count is a text and how often it was seen.
type Count struct {
	Text string `json:"text"`
	N    int    `json:"n"`
}

// Staged is a pointer to a family's stage, which embeds a [Stage].
type Staged[S any] interface {
	base() *Stage
	// Clone is a copy that the board does not change any more.
	Clone() S
	// Effects is what the host's work in the stage amounts to, a line each, as in [Report.Effects].
	Effects() string
}

// Stage is what every board knows of one run of a stage. Times are zero for what did not happen.
type Stage struct {
	Name    string `json:"name"`
	ID      string `json:"id,omitempty"`
	Release string `json:"release,omitempty"` // bcdDevice

	Plugged   time.Time `json:"-"` // on the bus, or taken over
	First     time.Time `json:"-"` // the first request, or report, that is not the bus's
	FirstByte time.Time `json:"-"` // of a file
	LastByte  time.Time `json:"-"`
	Left      time.Time `json:"-"` // off the bus

	Complete bool   `json:"complete"` // it started the next stage
	Error    string `json:"error,omitempty"`
}

func (s *Stage) base() *Stage { return s }

// Received notes that a part of a file came.
func (s *Stage) Received() {
	s.LastByte = time.Now()
	if s.FirstByte.IsZero() {
		s.FirstByte = s.LastByte
	}
}

// Times are a stage's as JSON has them: in milliseconds since it was plugged.
type Times struct {
	Plugged   time.Time `json:"plugged"`
	First     *float64  `json:"first_ms,omitempty"`
	FirstByte *float64  `json:"first_byte_ms,omitempty"`
	LastByte  *float64  `json:"last_byte_ms,omitempty"`
	Left      *float64  `json:"left_ms,omitempty"`
}

// Times are for the MarshalJSON of a family's stage.
func (s *Stage) Times() Times {
	return Times{s.Plugged, s.Since(s.First), s.Since(s.FirstByte), s.Since(s.LastByte), s.Since(s.Left)}
}

// Since is a time in milliseconds since the stage was plugged; nil for what did not happen.
func (s *Stage) Since(t time.Time) *float64 {
	if t.IsZero() {
		return nil
	}
	ms := float64(t.Sub(s.Plugged).Microseconds()) / 1000
	return &ms
}

// Err says that the board has not booted, or what the host did wrong.
func (r Report[S]) Err() error {
	var errs []error
	if r.Outcome != Booted {
		errs = append(errs, fmt.Errorf("the board is %s: %s", r.Outcome, r.Error))
	}
	for _, v := range r.Violations {
		errs = append(errs, fmt.Errorf("the host did wrong: %s (%d times)", v.Text, v.N))
	}
	return errors.Join(errs...)
}

// Last returns the last run of a stage, nil if it never ran.
func (r Report[S]) Last(name string) (last S) {
	for _, s := range r.Stages {
		if s.base().Name == name {
			last = s
		}
	}
	return last
}

// Effects is what the host's work amounts to, a line each, so that two tools can be compared on the same board: the stages
// of the last power cycle with what came of them. How the host went about it is left out.
func (r Report[S]) Effects() string {
	var b strings.Builder
	for _, s := range r.Stages {
		if s.base().Name == StageROM {
			b.Reset()
		}
		fmt.Fprintf(&b, "%s\n%s", s.base().Name, s.Effects())
	}
	fmt.Fprintf(&b, "%s\n", r.Outcome)
	return b.String()
}

// clone is a copy that the board does not change any more.
func (r Report[S]) clone() Report[S] {
	r.Stages, r.Violations = slices.Clone(r.Stages), slices.Clone(r.Violations)
	for i, s := range r.Stages {
		r.Stages[i] = s.Clone()
	}
	return r
}
