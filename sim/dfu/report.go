package dfu

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Outcome is what became of a board.
type Outcome string

const (
	Running   Outcome = "running"   // no end of any kind yet
	Booted    Outcome = "booted"    // U-Boot was started
	Stuck     Outcome = "stuck"     // a stage gave up; a power cycle is needed
	Unplugged Outcome = "unplugged" // by a fault, or because the run ended
)

// Report is what a board saw since it was plugged in.
type Report struct {
	Model      string    `json:"model"`
	Outcome    Outcome   `json:"outcome"`
	Error      string    `json:"error,omitempty"` // why it is stuck
	Plugged    time.Time `json:"plugged"`
	Resets     int       `json:"resets"`     // power cycles after the first
	Stages     []Stage   `json:"stages"`     // in order; one may go on with the enumeration of the one before
	Violations []Count   `json:"violations"` // what the host did wrong
}

// Count is a text and how often it was seen.
type Count struct {
	Text string `json:"text"`
	N    int    `json:"n"`
}

// Stage is one run of a stage. Times are zero for what did not happen.
type Stage struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Release string `json:"release"` // bcdDevice

	Plugged   time.Time `json:"-"` // on the bus, or taken over
	First     time.Time `json:"-"` // the first request of DFU
	FirstByte time.Time `json:"-"`
	LastByte  time.Time `json:"-"`
	Left      time.Time `json:"-"`

	Selects  []uint8        `json:"selects"`  // the settings, as they were selected
	Requests map[string]int `json:"requests"` // of DFU, by name
	Files    []File         `json:"files"`    // that were ended
	Uploads  int            `json:"uploads"`
	Detaches int            `json:"detaches"`
	Bytes    int            `json:"bytes"`
	Complete bool           `json:"complete"` // it started the next stage
	Error    string         `json:"error,omitempty"`
}

// File is what was downloaded to a setting.
type File struct {
	Alt    int    `json:"alt"`
	Name   string `json:"name"`
	Bytes  int    `json:"bytes"`
	Blocks int    `json:"blocks"`
	SHA256 string `json:"sha256"`
}

// MarshalJSON adds the times in milliseconds since the stage was plugged.
func (s Stage) MarshalJSON() ([]byte, error) {
	type plain Stage
	since := func(t time.Time) *float64 {
		if t.IsZero() {
			return nil
		}
		ms := float64(t.Sub(s.Plugged).Microseconds()) / 1000
		return &ms
	}
	return json.Marshal(struct {
		plain
		Plugged   time.Time `json:"plugged"`
		First     *float64  `json:"first_ms,omitempty"`
		FirstByte *float64  `json:"first_byte_ms,omitempty"`
		LastByte  *float64  `json:"last_byte_ms,omitempty"`
		Left      *float64  `json:"left_ms,omitempty"`
	}{plain(s), s.Plugged, since(s.First), since(s.FirstByte), since(s.LastByte), since(s.Left)})
}

// Last returns the last run of a stage, nil if it never ran.
func (r *Report) Last(name string) *Stage {
	for i := len(r.Stages) - 1; i >= 0; i-- {
		if r.Stages[i].Name == name {
			return &r.Stages[i]
		}
	}
	return nil
}

// Effects is what the host's work amounts to, a line each, so that two tools can be compared on the same board: the stages
// of the last power cycle with their files. How the host went about it (questions, blocks, settings that were selected)
// is left out.
func (r *Report) Effects() string {
	stages := r.Stages
	for i := len(stages) - 1; i >= 0; i-- {
		if stages[i].Name == StageROM {
			stages = stages[i:]
			break
		}
	}
	var b strings.Builder
	for _, s := range stages {
		fmt.Fprintf(&b, "%s\n", s.Name)
		for _, f := range s.Files {
			fmt.Fprintf(&b, "  setting %d %q: %d bytes %s\n", f.Alt, f.Name, f.Bytes, f.SHA256)
		}
	}
	fmt.Fprintf(&b, "%s\n", r.Outcome)
	return b.String()
}

// clone is a copy that the board does not change any more.
func (s Stage) clone() Stage {
	s.Selects, s.Files, s.Requests = slices.Clone(s.Selects), slices.Clone(s.Files), maps.Clone(s.Requests)
	return s
}

func digest(b []byte) string {
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:])
}
