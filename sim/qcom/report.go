package qcom

import (
	"encoding/json"
	"fmt"
	"slices"
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

// Clone implements [virtual.Staged].
func (s *Stage) Clone() *Stage {
	c := *s
	c.Images, c.Firehose = slices.Clone(s.Images), slices.Clone(s.Firehose)
	return &c
}

// Effects implements [virtual.Staged].
func (s *Stage) Effects() string {
	var b strings.Builder
	for _, i := range s.Images {
		fmt.Fprintf(&b, "  image %d: %d bytes in %d pieces, status %d, %s\n", i.ID, i.Bytes, i.Requests, i.Status, i.SHA256)
	}
	return b.String()
}

// MarshalJSON adds the times in milliseconds since the stage was plugged.
func (s *Stage) MarshalJSON() ([]byte, error) {
	type plain Stage
	return json.Marshal(struct {
		*plain
		virtual.Times
	}{(*plain)(s), s.Times()})
}
