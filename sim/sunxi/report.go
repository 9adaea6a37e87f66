package sunxi

import (
	"fmt"
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

	data []byte
}

// Start is how the ROM was left.
type Start struct {
	Entry   uint32 `json:"entry"`
	AArch64 bool   `json:"aarch64"`
}

func newStage() *Stage { return &Stage{Commands: []Command{}, Memory: []Region{}} }

// Effects implements [virtual.Staged]: SPL, what memory holds, and the start. What the host executed beyond that, and
// how it went about, is left out.
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

// log appends a command.
func (s *Stage) log(c Command) {
	if !virtual.Log(&s.Commands, c, func(c *Command) *int { return &c.N }) {
		s.Dropped++
	}
}
