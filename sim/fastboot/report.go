package fastboot

import (
	"fmt"
	"strings"

	"snag/sim/virtual"
)

// Report is what a board saw.
type Report struct {
	virtual.Report[*Stage]
	Partitions map[string]Partition `json:"partitions"` // those that were written or erased
}

// Stage is one enumeration, or one connection.
type Stage struct {
	virtual.Stage
	Commands  []string   `json:"commands"` // in order, the first thousand
	Downloads []Download `json:"downloads"`
}

// Effects implements [virtual.Staged].
func (s *Stage) Effects() string {
	var b strings.Builder
	for _, d := range s.Downloads {
		fmt.Fprintf(&b, "  download of %d bytes %s\n", d.Bytes, d.SHA256)
	}
	return b.String()
}

// Download is the data of one download.
type Download struct {
	Bytes    int    `json:"bytes"` // received
	Size     int    `json:"size"`  // announced
	SHA256   string `json:"sha256,omitempty"`
	Complete bool   `json:"complete"` // and accepted
}

// Partition is what one has.
type Partition struct {
	Bytes  int    `json:"bytes"` // written last; 0: erased
	SHA256 string `json:"sha256,omitempty"`
}
