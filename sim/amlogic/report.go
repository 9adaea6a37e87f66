package amlogic

import (
	"fmt"
	"strings"

	"snag/sim/virtual"
)

// Report is what a board saw since it was plugged in.
type Report = virtual.Report[*Stage]

// Stage is one run of a stage.
type Stage struct {
	virtual.Stage

	Requests map[string]int `json:"requests"` // by name
	Bytes    int            `json:"bytes"`    // of files
	Runs     []Run          `json:"runs"`
	Pieces   []Piece        `json:"pieces"` // that the BL2 of G12 was given
}

// Run is something that was started.
type Run struct {
	Addr   uint32 `json:"addr"`
	What   string `json:"what"`
	Bytes  int    `json:"bytes"`  // of the images that it took
	SHA256 string `json:"sha256"` // of these
}

// Piece is a part of u-boot.bin that a BL2 has accepted.
type Piece struct {
	Offset uint32 `json:"offset"`
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
}

func newStage() *Stage {
	return &Stage{Requests: map[string]int{}, Runs: []Run{}, Pieces: []Piece{}}
}

// Effects implements [virtual.Staged]: what was started, and the pieces. Requests, padding and the sizes of blocks are
// left out.
func (s *Stage) Effects() string {
	var b strings.Builder
	for _, p := range s.Pieces {
		fmt.Fprintf(&b, "  piece at %#x: %d bytes %s\n", p.Offset, p.Bytes, p.SHA256)
	}
	for _, r := range s.Runs {
		fmt.Fprintf(&b, "  run %#08x: %s, %d bytes %s\n", r.Addr, r.What, r.Bytes, r.SHA256)
	}
	return b.String()
}
