package sunxi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"snag/sim/virtual"
)

// Report is what a board saw since it was plugged in.
type Report = virtual.Report[*Stage]

// Stage is one enumeration of the board.
type Stage struct {
	virtual.Stage

	Commands []Command `json:"commands"` // every command, in order; repeated ones counted
	Dropped  int       `json:"commands_left_out,omitempty"`
	Bytes    int       `json:"bytes"` // written
	SPL      *SPL      `json:"spl,omitempty"`
	Kept     bool      `json:"kept"` // the ROM's stacks and data are as they were at power-on, when the ROM was left or SPL was back
	MMU      string    `json:"mmu,omitempty"`
	Memory   []Region  `json:"memory"` // what was written when SPL had run, but for the hosts' scratch area and the MMU's table
	Script   uint32    `json:"script,omitempty"`
	Start    *Start    `json:"start,omitempty"`
}

// Command is one command of the host.
type Command struct {
	Name  string `json:"name"`
	Addr  uint32 `json:"addr"`
	Bytes uint32 `json:"bytes,omitempty"`
	N     int    `json:"n"`             // times in a row
	End   string `json:"end,omitempty"` // of an execution that did not come back
}

// Region is a piece of memory that was written.
type Region struct {
	Addr   uint32 `json:"addr"`
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Start is how the ROM was left.
type Start struct {
	Entry   uint32 `json:"entry"`
	AArch64 bool   `json:"aarch64"`
}

func newStage() *Stage { return &Stage{Commands: []Command{}, Memory: []Region{}} }

// MarshalJSON adds the times in milliseconds since the stage was plugged.
func (s *Stage) MarshalJSON() ([]byte, error) {
	type plain Stage
	return json.Marshal(struct {
		*plain
		virtual.Times
	}{(*plain)(s), s.Times()})
}

// Effects implements [virtual.Staged]: SPL, what memory holds, and the start. What the host executed beyond that, and how it went
// about, is left out.
func (s *Stage) Effects() string {
	var b strings.Builder
	if s.SPL != nil {
		kept := "is as it was"
		if !s.Kept {
			kept = "has changed"
		}
		fmt.Fprintf(&b, "  SPL at %#x: %d bytes %s\n", s.SPL.Addr, s.SPL.Bytes, s.SPL.SHA256)
		fmt.Fprintf(&b, "  what the ROM keeps in memory %s\n", kept)
	}
	if s.MMU != "" {
		fmt.Fprintf(&b, "  MMU %s\n", s.MMU)
	}
	for _, m := range s.Memory {
		fmt.Fprintf(&b, "  memory %#08x %d bytes %s\n", m.Addr, m.Bytes, m.SHA256)
	}
	if s.Start != nil {
		state := "A32"
		if s.Start.AArch64 {
			state = "AArch64"
		}
		fmt.Fprintf(&b, "  start at %#08x in %s\n", s.Start.Entry, state)
	}
	return b.String()
}

// Clone implements [virtual.Staged].
func (s *Stage) Clone() *Stage {
	c := *s
	c.Commands, c.Memory = slices.Clone(s.Commands), slices.Clone(s.Memory)
	return &c
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
