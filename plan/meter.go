package plan

import (
	"sync"
	"time"

	"snag/event"
	"snag/event/progress"
	"snag/flash"
)

// StageVerify is the stage of events while what was written is read back.
const StageVerify = "verify"

// meter tells how far an image is: writing first, then verifying, as two stages. A target may do both by turns; what is
// verified meanwhile is told once everything is written, as far as the total tells that, else at the end.
type meter struct {
	emit  func(stage string, body event.Body)
	stage string
	file  string
	total int64 // -1: not known. An Android sparse image may have less that is to be written
	turns bool  // the target does both by turns

	mu       sync.Mutex
	counts   map[flash.Step]int64
	now      flash.Step
	told     *progress.Transfer[int64] // the present step
	verified time.Time                 // when the first was
	finished bool
}

func newMeter(emit func(string, event.Body), stage, file string, total int64, turns bool, first flash.Step) *meter {
	m := &meter{emit: emit, stage: stage, file: file, total: total, turns: turns, counts: map[flash.Step]int64{}}
	m.begin(first)
	return m
}

func (m *meter) begin(step flash.Step) {
	m.now = step
	stage := m.stage
	if step == flash.Verifying {
		stage = StageVerify
	}
	m.told = progress.Begin(m.emit, stage, m.file, m.total)
}

// add is the Progress of flash.Options.
func (m *meter) add(step flash.Step, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.finished {
		return
	}
	m.counts[step] += n
	if step == flash.Verifying && m.verified.IsZero() {
		m.verified = time.Now()
	}
	if step != m.now {
		if step != flash.Verifying || m.turns && (m.total < 0 || m.counts[flash.Writing] < m.total) {
			return
		}
		m.verifying()
	}
	m.told.At(m.counts[m.now])
}

// verifying tells of the end of writing. What was written is what is read back.
func (m *meter) verifying() {
	m.done()
	m.total = m.counts[flash.Writing]
	m.begin(flash.Verifying)
	m.told.Begun, m.told.Since = m.verified, m.verified
}

// done tells of the end of the present step.
func (m *meter) done() {
	m.told.Total = m.counts[m.now]
	m.told.Done()
}

// end tells of the end, if it was a good one.
func (m *meter) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.finished = true
	if err != nil {
		return
	}
	if m.counts[flash.Verifying] > 0 && m.now != flash.Verifying {
		m.verifying()
	}
	m.done()
}
