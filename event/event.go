// Package event holds what happens during a recovery, as values.
//
// The engine and the protocol packages report facts; the terminal display, the JSON
// lines and the log are three consumers of the same stream. An [Event] says when and
// on which board something happened, its [Body] says what. The package has no
// behaviour beyond naming things.
package event

import "time"

// Event is one thing that happened to one board.
type Event struct {
	Time  time.Time
	Port  string // physical USB port ("1-2.3") or tty; empty while no board is known
	SoC   string // model as the user named it, resolved from aliases
	Stage string // "rom", "spl", ...; empty before the first stage
	Body  Body
}

// Sink receives events. It is called from several goroutines, must not block for
// long, and must not keep a reference to slices in the body.
type Sink func(Event)

// Body is what happened: one of the types of this package.
type Body interface {
	// Kind is the stable name of the event in the JSON lines (docs/json.md).
	Kind() string
}

// Waiting says that snag waits for a board to appear.
type Waiting struct {
	For      string        // what is awaited, in words: "USB device 0451:6141 on port 1-2"
	Deadline time.Duration // how long at most
}

// BoardSeen says that a board, or its next stage, enumerated.
type BoardSeen struct {
	ID      string // "0451:6141"; empty for a serial line
	Product string // what the device calls itself, if it does
	Device  string // what carries it: a network interface's name, a node, a tty
}

// StageBegun says that the host starts serving a stage.
type StageBegun struct {
	File  string // the file that this stage is sent
	Bytes int64  // its length as sent
}

// Progress counts the bytes of the current stage that the board has acknowledged.
type Progress struct {
	Bytes, Total int64
	Rate         float64 // bytes per second since the stage's first byte
}

// StageDone says that the board has the whole file of the stage.
type StageDone struct {
	Summary StageSummary
}

// StageSummary is what a stage came to.
type StageSummary struct {
	Stage    string
	File     string
	Bytes    int64
	Duration time.Duration // from the board's appearance at this stage to its last byte
	Retries  int           // retransmissions, restarts included
}

// Note is something worth telling that needs no action.
type Note struct{ Text string }

// Warning is something unexpected that did not stop the recovery.
type Warning struct{ Text string }

// Fuse is a word of a SoC's fuses: as it was found, or as it was left.
type Fuse struct {
	Bank, Word  int    // as U-Boot's fuse command counts them
	Name        string // in the SoC's reference manual
	Value, Mask uint32 // the bits that are to be there, and which bits these are about
	Found       uint32
	State       string // "there", "to burn", "burnt", "conflict", "partial", "locked"
}

// Done is the last event of a recovery that succeeded.
type Done struct {
	Duration time.Duration
	Stages   []StageSummary
}

// Failed is the last event of a recovery that did not.
type Failed struct {
	Err      error
	Hint     string // what to do about it
	ExitCode int
	Duration time.Duration
	Stages   []StageSummary // the stages that had been completed
}

func (Waiting) Kind() string    { return "waiting" }
func (BoardSeen) Kind() string  { return "board" }
func (StageBegun) Kind() string { return "stage" }
func (Progress) Kind() string   { return "progress" }
func (StageDone) Kind() string  { return "stage_done" }
func (Note) Kind() string       { return "note" }
func (Warning) Kind() string    { return "warning" }
func (Fuse) Kind() string       { return "fuse" }
func (Done) Kind() string       { return "done" }
func (Failed) Kind() string     { return "failed" }
