package fastboot

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Outcome is what became of a board.
type Outcome string

const (
	Running   Outcome = "running"   // no end of any kind yet
	Booted    Outcome = "booted"    // it was told to boot or to go on
	Stuck     Outcome = "stuck"     // a stage gave up; a power cycle is needed
	Unplugged Outcome = "unplugged" // by a fault, or because the run ended
)

// Report is what a board saw.
type Report struct {
	Outcome    Outcome              `json:"outcome"`
	Error      string               `json:"error,omitempty"` // why it is stuck
	Resets     int                  `json:"resets"`          // power cycles after the first
	Stages     []Stage              `json:"stages"`          // every enumeration or connection, in order
	Partitions map[string]Partition `json:"partitions"`      // those that were written or erased
	Violations []Count              `json:"violations"`      // what the host did wrong
}

// Count is a text and how often it was seen.
type Count struct {
	Text string `json:"text"`
	N    int    `json:"n"`
}

// Stage is one enumeration, or one connection.
type Stage struct {
	Name      string     `json:"name"`
	ID        string     `json:"id,omitempty"`
	Plugged   time.Time  `json:"-"`
	FirstByte time.Time  `json:"-"` // of data
	LastByte  time.Time  `json:"-"`
	Commands  []string   `json:"commands"` // in order, the first thousand
	Downloads []Download `json:"downloads"`
	Error     string     `json:"error,omitempty"`
}

// Download is the data of one download.
type Download struct {
	Bytes    int    `json:"bytes"` // received
	Size     int    `json:"size"`  // announced
	SHA256   string `json:"sha256,omitempty"`
	Complete bool   `json:"complete"` // and accepted
}

// Partition is what one has.
type Partition struct {
	Bytes  int    `json:"bytes"` // written last; 0: erased
	SHA256 string `json:"sha256,omitempty"`
}

// Last is the last stage of a name; nil if there was none.
func (r *Report) Last(name string) *Stage {
	for i := range slices.Backward(r.Stages) {
		if r.Stages[i].Name == name {
			return &r.Stages[i]
		}
	}
	return nil
}

// Report returns what the board has seen so far.
func (b *Board) Report() Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.report
	r.Stages = slices.Clone(r.Stages)
	for i := range r.Stages {
		r.Stages[i].Commands = slices.Clone(r.Stages[i].Commands)
		r.Stages[i].Downloads = slices.Clone(r.Stages[i].Downloads)
	}
	r.Partitions = maps.Clone(r.Partitions)
	r.Violations = slices.Clone(r.Violations)
	return r
}

func (b *Board) edit(f func(*Report)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.report)
}

// violation records something that the host did wrong.
func (b *Board) violation(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	b.edit(func(r *Report) {
		i := slices.IndexFunc(r.Violations, func(c Count) bool { return c.Text == s })
		switch {
		case i >= 0:
			r.Violations[i].N++
		case len(r.Violations) < 100:
			r.Violations = append(r.Violations, Count{s, 1})
		}
	})
}

func hash(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
