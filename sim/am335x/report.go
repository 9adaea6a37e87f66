package am335x

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Outcome is what became of a board.
type Outcome string

const (
	Running   Outcome = "running"   // no end of any kind yet
	Booted    Outcome = "booted"    // U-Boot was received whole
	Stuck     Outcome = "stuck"     // a stage gave up; a power cycle is needed
	Unplugged Outcome = "unplugged" // by a fault, or because the run ended
)

// Report is what a board saw since it was plugged in.
type Report struct {
	Outcome    Outcome   `json:"outcome"`
	Error      string    `json:"error,omitempty"` // why it is stuck
	Plugged    time.Time `json:"plugged"`
	Resets     int       `json:"resets"`     // power cycles after the first
	Stages     []Stage   `json:"stages"`     // every enumeration, in order
	Violations []Count   `json:"violations"` // what the host did wrong
	Ignored    int       `json:"ignored"`    // frames that were no concern of the client's
	LostIn     int       `json:"lost_in"`    // frames lost on purpose
	LostOut    int       `json:"lost_out"`   //
	Doubled    int       `json:"doubled_in"` // frames doubled on purpose
}

// Count is a text and how often it was seen.
type Count struct {
	Text string `json:"text"`
	N    int    `json:"n"`
}

// Stage is one enumeration of the board. Times are zero for what did not happen.
type Stage struct {
	Name string `json:"name"`
	ID   string `json:"id"`
	MAC  string `json:"mac,omitempty"`

	Plugged    time.Time `json:"-"` // on the bus
	LinkUp     time.Time `json:"-"` // the host brought its end of the link up
	FirstBOOTP time.Time `json:"-"` // the first request was taken by the host
	Answered   time.Time `json:"-"` // the reply that was used
	FirstByte  time.Time `json:"-"`
	LastByte   time.Time `json:"-"`
	Left       time.Time `json:"-"` // off the bus

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

	Data     []byte `json:"-"`        // received so far
	Complete bool   `json:"complete"` // the whole file
	Error    string `json:"error,omitempty"`
}

// SHA256 is the hexadecimal digest of what was received.
func (s *Stage) SHA256() string {
	d := sha256.Sum256(s.Data)
	return hex.EncodeToString(d[:])
}

// MarshalJSON adds length, digest, and the times in milliseconds since the stage was plugged.
func (s Stage) MarshalJSON() ([]byte, error) {
	type plain Stage
	since := func(t time.Time) *float64 {
		if t.IsZero() {
			return nil
		}
		ms := float64(t.Sub(s.Plugged).Microseconds()) / 1000
		return &ms
	}
	var digest string
	if len(s.Data) > 0 {
		digest = s.SHA256()
	}
	return json.Marshal(struct {
		plain
		Bytes      int       `json:"bytes"`
		SHA256     string    `json:"sha256,omitempty"`
		Plugged    time.Time `json:"plugged"`
		LinkUp     *float64  `json:"link_up_ms,omitempty"`
		FirstBOOTP *float64  `json:"first_bootp_ms,omitempty"`
		Answered   *float64  `json:"answered_ms,omitempty"`
		FirstByte  *float64  `json:"first_byte_ms,omitempty"`
		LastByte   *float64  `json:"last_byte_ms,omitempty"`
		Left       *float64  `json:"left_ms,omitempty"`
	}{plain(s), len(s.Data), digest, s.Plugged, since(s.LinkUp), since(s.FirstBOOTP),
		since(s.Answered), since(s.FirstByte), since(s.LastByte), since(s.Left)})
}

// Last returns the last run of a stage, nil if it never ran.
func (r *Report) Last(name string) *Stage {
	for i := len(r.Stages) - 1; i >= 0; i-- {
		if r.Stages[i].Name == name {
			return &r.Stages[i]
		}
	}
	return nil
}
