package sama5

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
	Commands []string `json:"commands"`  // in order, the first thousand, without data
	Writes   []Write  `json:"registers"` // to registers, in order, the first hundred
	Applets  []Applet `json:"applets"`   // that were called, in order, the first hundred
	UBoot    *File    `json:"u_boot,omitempty"`
	Bytes    int      `json:"bytes"` // of all files
}

// Write is one to a register.
type Write struct {
	Address uint32 `json:"address"`
	Value   uint32 `json:"value"`
}

// File is what was loaded somewhere.
type File struct {
	Address uint32 `json:"address"`
	Bytes   int    `json:"bytes"`
	SHA256  string `json:"sha256"`
}

// Applet is one call of an applet.
type Applet struct {
	Name    string `json:"name"` // "lowlevel", "extram"
	File    File   `json:"file"`
	Console int64  `json:"console"` // -1: none
	IOSet   int64  `json:"ioset"`
	Trace   uint32 `json:"trace"`
	Mode    uint32 `json:"mode"` // its parameters
	Preset  uint32 `json:"preset"`
	Status  uint32 `json:"status"` // that it ended with
}

// Effects implements [virtual.Staged].
func (s *Stage) Effects() string {
	var b strings.Builder
	for _, w := range s.Writes {
		fmt.Fprintf(&b, "  register %#x: %#x\n", w.Address, w.Value)
	}
	for _, a := range s.Applets {
		fmt.Fprintf(&b, "  applet %s: %s, console %d/%d, parameters %d %d, status %#x\n", a.Name, a.File, a.Console, a.IOSet, a.Mode, a.Preset, a.Status)
	}
	if s.UBoot != nil {
		fmt.Fprintf(&b, "  U-Boot: %s\n", s.UBoot)
	}
	return b.String()
}

func (f File) String() string { return fmt.Sprintf("%d bytes %s at %#x", f.Bytes, f.SHA256, f.Address) }

func newFile(address uint32, data []byte) File {
	return File{Address: address, Bytes: len(data)}
}
