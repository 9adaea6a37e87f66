package ums

import (
	"fmt"
	"strings"

	"snag/sim/virtual"
)

// Report is what a board saw.
type Report = virtual.Report[*Stage]

// Stage is one enumeration.
type Stage struct {
	virtual.Stage
	Units    []UnitReport   `json:"units"`
	Commands map[string]int `json:"commands"` // how often, by name
	Resets   int            `json:"resets"`   // of the Bulk-Only Transport
}

// UnitReport is what became of a unit.
type UnitReport struct {
	Written  int64  `json:"written"`  // bytes
	Read     int64  `json:"read"`     // bytes
	Unsynced bool   `json:"unsynced"` // something was written, and no SYNCHRONIZE CACHE came behind it
	Ejected  bool   `json:"ejected"`
	Sum      string `json:"sum,omitempty"` // of a *Memory, when the stage ended
}

// Effects implements [virtual.Staged].
func (s *Stage) Effects() string {
	var b strings.Builder
	for i, u := range s.Units {
		fmt.Fprintf(&b, "  LUN %d: ejected %t, holds %s\n", i, u.Ejected, u.Sum)
	}
	return b.String()
}
