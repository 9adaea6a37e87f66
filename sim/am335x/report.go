package am335x

import (
	"encoding/json"
	"fmt"
	"time"

	"snag/sim/virtual"
)

// Report is what a board saw since it was plugged in.
type Report struct {
	virtual.Report[*Stage]
	Frames
}

// Frames are counts of Ethernet frames.
type Frames struct {
	Ignored int `json:"ignored"`    // that were no concern of the client's
	LostIn  int `json:"lost_in"`    // lost on purpose
	LostOut int `json:"lost_out"`   //
	Doubled int `json:"doubled_in"` // doubled on purpose
}

// Stage is one enumeration of the board.
type Stage struct {
	virtual.Stage
	MAC string `json:"mac,omitempty"`

	LinkUp     time.Time `json:"-"` // the host brought its end of the link up
	FirstBOOTP time.Time `json:"-"` // the first request was taken by the host
	Answered   time.Time `json:"-"` // the reply that was used

	// BOOTP requests: given to the link before and after the host brought it up. A request waits in
	// the board's buffer until the host takes it, as a USB device's does; one before the link was up
	// was replaced by the next in that buffer. Lost ones were taken by the host and not answered.
	BOOTPBefore int `json:"bootp_before_link"`
	BOOTPSent   int `json:"bootp_sent"`
	BOOTPLost   int `json:"bootp_lost"`

	Requests   int    `json:"tftp_requests"`   // RRQs sent
	Acks       int    `json:"tftp_acks"`       // ACKs sent, without those repeated for want of an answer
	Retries    int    `json:"tftp_retries"`    // RRQs and ACKs sent again for want of an answer
	Duplicates int    `json:"tftp_duplicates"` // DATA packets that had been received before
	Restarts   int    `json:"restarts"`        // times the client began again with BOOTP
	BlockSize  int    `json:"block_size,omitempty"`
	Window     int    `json:"window,omitempty"`
	Address    string `json:"address,omitempty"`
	Server     string `json:"server,omitempty"`
	File       string `json:"file,omitempty"` // the name that the reply told

	Data []byte `json:"-"` // received so far
}

// Effects implements [virtual.Staged].
func (s *Stage) Effects() string { return fmt.Sprintf("  %d bytes %s\n", len(s.Data), s.SHA256()) }

// SHA256 is the hexadecimal digest of what was received.
func (s *Stage) SHA256() string { return virtual.SHA256(s.Data) }

// MarshalJSON adds length, digest, and the times that are its own in milliseconds since the stage was plugged.
func (s *Stage) MarshalJSON() ([]byte, error) {
	type plain Stage
	var digest string
	if len(s.Data) > 0 {
		digest = s.SHA256()
	}
	return json.Marshal(struct {
		*plain
		Bytes      int      `json:"bytes"`
		SHA256     string   `json:"sha256,omitempty"`
		LinkUp     *float64 `json:"link_up_ms,omitempty"`
		FirstBOOTP *float64 `json:"first_bootp_ms,omitempty"`
		Answered   *float64 `json:"answered_ms,omitempty"`
	}{(*plain)(s), len(s.Data), digest, s.Since(s.LinkUp), s.Since(s.FirstBOOTP), s.Since(s.Answered)})
}
