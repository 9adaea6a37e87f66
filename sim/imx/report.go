package imx

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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

// Report is what a board saw since it was plugged in.
type Report struct {
	Model      string    `json:"model"`
	Outcome    Outcome   `json:"outcome"`
	Error      string    `json:"error,omitempty"` // why it is stuck
	Plugged    time.Time `json:"plugged"`
	Resets     int       `json:"resets"`     // power cycles after the first
	Stages     []Stage   `json:"stages"`     // every enumeration, in order
	Violations []Count   `json:"violations"` // what the host did wrong
}

// Count is a text and how often it was seen.
type Count struct {
	Text string `json:"text"`
	N    int    `json:"n"`
}

// Stage is one enumeration of the board, or the ROM's stream going on for SPL. Times are zero for what did
// not happen.
type Stage struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Release string `json:"release"` // bcdDevice

	Plugged   time.Time `json:"-"` // on the bus
	First     time.Time `json:"-"` // the first report
	FirstByte time.Time `json:"-"` // of a file
	LastByte  time.Time `json:"-"`
	Left      time.Time `json:"-"` // off the bus

	Commands []Command `json:"commands"` // every command, in order; repeated ones counted
	Dropped  int       `json:"commands_left_out,omitempty"`
	Short    int       `json:"short_reports"` // data reports that were not padded to their full size
	Bytes    int       `json:"bytes"`         // of files and streams
	DCDs     []DCD     `json:"dcds"`
	Memory   []Region  `json:"memory"` // what files occupy, when the stage ended
	Stream   string    `json:"stream_sha256,omitempty"`
	Jumps    []Jump    `json:"jumps"`
	Complete bool      `json:"complete"` // it started the next stage
	Error    string    `json:"error,omitempty"`
}

// Command is one command of the host. What is not part of a command is zero.
type Command struct {
	Name   string `json:"name"`
	Addr   uint32 `json:"addr"`
	Width  uint8  `json:"width,omitempty"` // bits
	Bytes  uint32 `json:"bytes,omitempty"` // announced
	Value  uint32 `json:"value,omitempty"`
	Type   uint8  `json:"type,omitempty"`
	N      int    `json:"n"`                // times in a row
	Answer string `json:"answer,omitempty"` // the status word, in the wire's order
}

// DCD is one run of a device configuration data list.
type DCD struct {
	When   string `json:"when"` // "command" or "jump"
	Addr   uint32 `json:"addr"`
	Data   []byte `json:"-"`
	SHA256 string `json:"sha256"`
	Writes int    `json:"writes"` // registers written
	Checks int    `json:"checks"`
	Status string `json:"status"`
}

// Region is a piece of memory that files occupy.
type Region struct {
	Addr   uint32 `json:"addr"`
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Jump is an attempt to leave a stage.
type Jump struct {
	Addr   uint32 `json:"addr"`            // as the host told it, or where the image began
	Kind   string `json:"kind"`            // "ivt", "plugin", "v1", "fit", "container", "legacy", "sb" or "none"
	Found  uint32 `json:"found,omitempty"` // where the image was
	Entry  uint32 `json:"entry,omitempty"`
	Status string `json:"status,omitempty"` // of a refusal
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

// Effects is what the host's work amounts to, a line each, so that two tools can be compared on the same
// board: the stages of the last power cycle with every register written, every DCD run, what memory holds of
// files, the stream, and the jump. How the host went about it (status questions, registers it read, pieces, padding,
// a header sent twice) is left out.
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
		for _, c := range s.Commands {
			if c.Name == "write-register" {
				fmt.Fprintf(&b, "  register %#08x = %#x, %d bits, %d times\n", c.Addr, c.Value, c.Width, c.N)
			}
		}
		for _, d := range s.DCDs {
			fmt.Fprintf(&b, "  DCD of %d bytes %s by %s: %d writes, %d checks, %s\n", len(d.Data), d.SHA256, d.When, d.Writes, d.Checks, d.Status)
		}
		for _, m := range s.Memory {
			fmt.Fprintf(&b, "  memory %#08x %d bytes %s\n", m.Addr, m.Bytes, m.SHA256)
		}
		if s.Stream != "" {
			fmt.Fprintf(&b, "  stream %d bytes %s\n", s.Bytes, s.Stream)
		}
		for _, j := range s.Jumps {
			fmt.Fprintf(&b, "  jump %#08x %s at %#08x, entry %#08x %s\n", j.Addr, j.Kind, j.Found, j.Entry, j.Status)
		}
	}
	fmt.Fprintf(&b, "%s\n", r.Outcome)
	return b.String()
}

// clone is a copy that the board does not change any more.
func (s Stage) clone() Stage {
	s.Commands, s.DCDs = slices.Clone(s.Commands), slices.Clone(s.DCDs)
	s.Memory, s.Jumps = slices.Clone(s.Memory), slices.Clone(s.Jumps)
	return s
}

// maxCommands bounds what is kept of a stage.
const maxCommands = 20_000

// log appends a command.
func (s *Stage) log(c Command) {
	c.N = 1
	if n := len(s.Commands); n > 0 {
		last := s.Commands[n-1]
		last.N = 1
		if last == c {
			s.Commands[n-1].N++
			return
		}
	}
	if len(s.Commands) == maxCommands {
		s.Dropped++
		return
	}
	s.Commands = append(s.Commands, c)
}

func digest(b []byte) string {
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:])
}

// span is a piece of memory that a file was written to, end exclusive.
type span struct{ start, end uint64 }

// merge adds a span to a sorted list without overlaps.
func merge(spans []span, n span) []span {
	if n.start == n.end {
		return spans
	}
	var out []span
	for _, s := range spans {
		if s.end < n.start || n.end < s.start {
			out = append(out, s)
			continue
		}
		n = span{min(s.start, n.start), max(s.end, n.end)}
	}
	out = append(out, n)
	slices.SortFunc(out, func(a, b span) int { return int(min(max(int64(a.start)-int64(b.start), -1), 1)) })
	return out
}

// regions reads the spans back.
func regions(ctx context.Context, m Machine, spans []span) []Region {
	var all []Region
	for _, s := range spans {
		h := sha256.New()
		buf := make([]byte, 64<<10)
		for at := s.start; at < s.end; at += uint64(len(buf)) {
			buf = buf[:min(uint64(len(buf)), s.end-at)]
			if err := m.ReadMemory(ctx, uint32(at), buf); err != nil {
				return all
			}
			h.Write(buf)
		}
		all = append(all, Region{uint32(s.start), int(s.end - s.start), hex.EncodeToString(h.Sum(nil))})
	}
	return all
}
