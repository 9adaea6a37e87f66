package imx

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"snag/sim/virtual"
)

// Report is what a board saw since it was plugged in.
type Report = virtual.Report[*Stage]

// Stage is one enumeration of the board, or the ROM's stream going on for SPL.
type Stage struct {
	virtual.Stage

	Commands []Command `json:"commands"` // every command, in order; repeated ones counted
	Dropped  int       `json:"commands_left_out,omitempty"`
	Short    int       `json:"short_reports"` // data reports that were not padded to their full size
	Bytes    int       `json:"bytes"`         // of files and streams
	DCDs     []DCD     `json:"dcds"`
	Memory   []Region  `json:"memory"` // what files occupy, when the stage ended
	Stream   string    `json:"stream_sha256,omitempty"`
	Jumps    []Jump    `json:"jumps"`
}

func newStage() *Stage {
	return &Stage{Commands: []Command{}, DCDs: []DCD{}, Memory: []Region{}, Jumps: []Jump{}}
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

	data []byte
}

// Jump is an attempt to leave a stage.
type Jump struct {
	Addr   uint32 `json:"addr"`            // as the host told it, or where the image began
	Kind   string `json:"kind"`            // "ivt", "plugin", "v1", "fit", "container", "legacy", "sb" or "none"
	Found  uint32 `json:"found,omitempty"` // where the image was
	Entry  uint32 `json:"entry,omitempty"`
	Status string `json:"status,omitempty"` // of a refusal
}

// Effects implements [virtual.Staged]: every register written, every DCD run, what memory holds of files, the stream,
// and the jump. Status questions, registers that were read, pieces, padding and a header sent twice are left out.
func (s *Stage) Effects() string {
	var b strings.Builder
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
	return b.String()
}

// log appends a command.
func (s *Stage) log(c Command) {
	if !virtual.Log(&s.Commands, c, func(c *Command) *int { return &c.N }) {
		s.Dropped++
	}
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

// hold puts what memory holds of files into a stage.
func (s *Stage) hold(all []Region) {
	s.Memory = all
	for i := range all {
		s.Sum(func(sum string) { all[i].SHA256 = sum }, all[i].data)
	}
}

// readMost is how much of memory is read at a time.
const readMost = 64 << 10

// regions reads the spans back.
func regions(ctx context.Context, m Machine, spans []span) []Region {
	var all []Region
	for _, s := range spans {
		r := Region{Addr: uint32(s.start), Bytes: int(s.end - s.start), data: make([]byte, s.end-s.start)}
		for off := 0; off < r.Bytes; off += readMost {
			if err := m.ReadMemory(ctx, r.Addr+uint32(off), r.data[off:min(off+readMost, r.Bytes)]); err != nil {
				return all
			}
		}
		all = append(all, r)
	}
	return all
}
