package qcom

import (
	"fmt"
	"strings"

	"snag/sim/virtual"
)

// Report is what a board saw.
type Report = virtual.Report[*Stage]

// Stage is one loader's run: the ROM's, xbl's, a programmer's.
type Stage struct {
	virtual.Stage
	Images   []Transfer `json:"images"`
	Firehose []string   `json:"firehose,omitempty"` // elements that came, the first thousand
}

// Transfer is an image that the board asked for.
type Transfer struct {
	ID       uint32 `json:"id"`
	Requests int    `json:"requests"`
	Bytes    int    `json:"bytes"` // received
	SHA256   string `json:"sha256,omitempty"`
	Status   uint32 `json:"status"` // it ended with
	Complete bool   `json:"complete"`
}

// Effects implements [virtual.Staged].
func (s *Stage) Effects() string {
	var b strings.Builder
	for _, i := range s.Images {
		fmt.Fprintf(&b, "  image %d: %d bytes in %d pieces, status %d, %s\n", i.ID, i.Bytes, i.Requests, i.Status, i.SHA256)
	}
	return b.String()
}
