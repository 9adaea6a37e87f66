// Package progress tells of a file on its way to a board, or through any other stage: that it begins, how far it is, and
// that it is done, as the events of package event.
package progress

import (
	"time"

	"snag/event"
)

// interval is between two tellings.
const interval = 100 * time.Millisecond

// Transfer is a file on its way. It is for one goroutine at a time.
type Transfer[N int | int64] struct {
	// These are what Begin makes them.
	Total   N         // bytes; less if the board does not want all; negative while it is not known
	Begun   time.Time // from when on the rate counts
	Since   time.Time // from when on the duration counts: when the board was there for it, if that was earlier
	Retries int

	emit        func(stage string, body event.Body)
	stage, file string
	told        time.Time
	last        event.Progress // that was told, without its rate
}

// Begin tells that a stage begins, which takes total bytes of a file.
func Begin[N int | int64](emit func(stage string, body event.Body), stage, file string, total N) *Transfer[N] {
	emit(stage, event.StageBegun{File: file, Bytes: int64(total)})
	now := time.Now()
	return &Transfer[N]{Total: total, Begun: now, Since: now, emit: emit, stage: stage, file: file, last: event.Progress{Bytes: -1}}
}

// At tells that n bytes are done: ten times a second, and of the last.
func (t *Transfer[N]) At(n N) {
	now := time.Now()
	p := event.Progress{Bytes: int64(n), Total: int64(t.Total)}
	if p == t.last || n != t.Total && now.Sub(t.told) < interval {
		return
	}
	t.last, t.told = p, now
	p.Rate = float64(n) / max(now.Sub(t.Begun), time.Millisecond).Seconds()
	t.emit(t.stage, p)
}

// Done tells that all of it is done.
func (t *Transfer[N]) Done() {
	t.At(t.Total)
	t.emit(t.stage, event.StageDone{Summary: event.StageSummary{
		Stage: t.stage, File: t.file, Bytes: int64(t.Total), Duration: time.Since(t.Since), Retries: t.Retries,
	}})
}
