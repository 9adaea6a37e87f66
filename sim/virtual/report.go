package virtual

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
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
type Report[S Staged] struct {
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

// Staged is a pointer to a family's stage, a struct that embeds a [Stage] and has exported fields only.
type Staged interface {
	base() *Stage
	// Effects is what the host's work in the stage amounts to, a line each, as in [Report.Effects].
	Effects() string
}

// Stage is what every board knows of one run of a stage. Times are zero for what did not happen.
type Stage struct {
	Name    string `json:"name"`
	ID      string `json:"id,omitempty"`
	Release string `json:"release,omitempty"` // bcdDevice

	Plugged   time.Time `json:"plugged"` // on the bus, or taken over
	First     time.Time `json:"-"`       // the first request, or report, that is not the bus's
	FirstByte time.Time `json:"-"`       // of a file
	LastByte  time.Time `json:"-"`
	Left      time.Time `json:"-"` // off the bus
	Times               // of what is in a report

	Complete bool   `json:"complete"` // it started the next stage
	Error    string `json:"error,omitempty"`

	sums []func() // that a report has to make
}

func (s *Stage) base() *Stage { return s }

// Sum has set told the SHA-256 of pieces, one after the other, when a report is made, which no host waits for. It is to
// be called in an [Board.Edit], as set is; the pieces are not to be changed any more.
func (s *Stage) Sum(set func(sum string), pieces ...[]byte) {
	s.sums = append(s.sums, func() {
		h := sha256.New()
		for _, p := range pieces {
			h.Write(p)
		}
		set(fmt.Sprintf("%x", h.Sum(nil)))
	})
}

// sum makes the sums that have not been made yet.
func (s *Stage) sum() {
	for _, f := range s.sums {
		f()
	}
	s.sums = nil
}

// Received notes that a part of a file came.
func (s *Stage) Received() {
	s.LastByte = time.Now()
	if s.FirstByte.IsZero() {
		s.FirstByte = s.LastByte
	}
}

// Log appends what a host did to a list of it, or counts the last entry once more if that is the same; n is where an
// entry has its count. It returns false for one that is left out, to bound what is kept of a stage.
func Log[E comparable](list *[]E, e E, n func(*E) *int) bool {
	*n(&e) = 1
	if l := *list; len(l) > 0 {
		last := l[len(l)-1]
		*n(&last) = 1
		if last == e {
			*n(&l[len(l)-1])++
			return true
		}
	}
	if len(*list) == maxLog {
		return false
	}
	*list = append(*list, e)
	return true
}

// maxLog bounds what is kept by [Log].
const maxLog = 20_000

// SHA256 is the hexadecimal digest of data.
func SHA256(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

// Times are a stage's as a report's JSON has them: in milliseconds since it was plugged; nil for what did not happen.
type Times struct {
	First     *float64 `json:"first_ms,omitempty"`
	FirstByte *float64 `json:"first_byte_ms,omitempty"`
	LastByte  *float64 `json:"last_byte_ms,omitempty"`
	Left      *float64 `json:"left_ms,omitempty"`
}

// Since is a time as [Times] have it.
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

// Effects is what the host's work amounts to, a line each, so that two tools can be compared on the same board: the
// stages of the last power cycle with what came of them. How the host went about it is left out.
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
		r.Stages[i] = cloneStage(s)
		c := r.Stages[i].base()
		c.Times = Times{c.Since(c.First), c.Since(c.FirstByte), c.Since(c.LastByte), c.Since(c.Left)}
	}
	return r
}

// cloneStage copies a family's stage, with the slices and maps that it has.
func cloneStage[S any](s S) S {
	c := reflect.New(reflect.TypeOf(s).Elem())
	c.Elem().Set(reflect.ValueOf(s).Elem())
	for _, f := range c.Elem().Fields() {
		switch {
		case f.Kind() == reflect.Slice && !f.IsNil():
			f.Set(reflect.AppendSlice(reflect.MakeSlice(f.Type(), 0, f.Len()), f))
		case f.Kind() == reflect.Map && !f.IsNil():
			m := reflect.MakeMapWithSize(f.Type(), f.Len())
			for k, v := range f.Seq2() {
				m.SetMapIndex(k, v)
			}
			f.Set(m)
		}
	}
	return c.Interface().(S)
}
