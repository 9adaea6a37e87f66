package bcm

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
	Files  []File `json:"files"`  // in order; of the ROM the second stage
	Kernel *File  `json:"kernel"` // what is started at the end
}

// File is what the host sent.
type File struct {
	Name    string `json:"name"`
	Bytes   int    `json:"bytes"`
	SHA256  string `json:"sha256,omitempty"` // of all of it; empty: it did not come to its end
	Missing bool   `json:"missing,omitempty"`

	data []byte
}

func newFile(name string, data []byte) File {
	return File{Name: name, Bytes: len(data), data: data}
}

// file puts a file that has come into the list.
func (s *Stage) file(i int, f File) {
	s.Files[i] = f
	s.Sum(func(sum string) { s.Files[i].SHA256 = sum }, f.data)
}

// Effects implements [virtual.Staged].
func (s *Stage) Effects() string {
	var b strings.Builder
	for _, f := range s.Files {
		switch {
		case f.Missing:
			fmt.Fprintf(&b, "  %s: none\n", f.Name)
		default:
			fmt.Fprintf(&b, "  %s: %d bytes %s\n", f.Name, f.Bytes, f.SHA256)
		}
	}
	if k := s.Kernel; k != nil {
		fmt.Fprintf(&b, "  started %s: %d bytes %s\n", k.Name, k.Bytes, k.SHA256)
	}
	return b.String()
}
