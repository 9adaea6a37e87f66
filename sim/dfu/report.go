package dfu

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

	Selects  []uint8        `json:"selects"`  // the settings, as they were selected
	Requests map[string]int `json:"requests"` // of DFU, by name
	Files    []File         `json:"files"`    // that were ended
	Uploads  int            `json:"uploads"`
	Detaches int            `json:"detaches"`
	Bytes    int            `json:"bytes"`
}

// File is what was downloaded to a setting.
type File struct {
	Alt    int    `json:"alt"`
	Name   string `json:"name"`
	Bytes  int    `json:"bytes"`
	Blocks int    `json:"blocks"`
	SHA256 string `json:"sha256"`
}

// file appends a file with its data, which are not to be changed any more.
func (s *Stage) file(f File, data []byte) {
	i := len(s.Files)
	s.Files = append(s.Files, f)
	s.Sum(func(sum string) { s.Files[i].SHA256 = sum }, data)
}

// Effects implements [virtual.Staged]: the files. Questions, blocks and settings that were selected are left out.
func (s *Stage) Effects() string {
	var b strings.Builder
	for _, f := range s.Files {
		fmt.Fprintf(&b, "  setting %d %q: %d bytes %s\n", f.Alt, f.Name, f.Bytes, f.SHA256)
	}
	return b.String()
}
