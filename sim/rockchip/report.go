package rockchip

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

	Sections []Section      `json:"sections"`           // that were ended
	Commands map[string]int `json:"commands,omitempty"` // of the plug, by name
	Bytes    int            `json:"bytes"`              // of all sections, with their CRC16
}

// Section is what the ROM was sent for one request.
type Section struct {
	Request string `json:"request"` // "0x471" or "0x472"
	Bytes   int    `json:"bytes"`   // without CRC16 and what may be behind it
	SHA256  string `json:"sha256"`  // of these, as they came
	Code    string `json:"code"`    // of these as the ROM has them, which may decrypt
	CRC     bool   `json:"crc"`     // it was right
	Plug    bool   `json:"plug,omitempty"`
}

// Effects implements [virtual.Staged]: the sections. What a host asks the plug is left out.
func (s *Stage) Effects() string {
	var b strings.Builder
	for _, x := range s.Sections {
		fmt.Fprintf(&b, "  %s: %d bytes %s, code %s, CRC16 right: %t\n", x.Request, x.Bytes, x.SHA256, x.Code, x.CRC)
	}
	return b.String()
}
