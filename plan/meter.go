package plan

import (
	"sync"
	"time"

	"snag/event"
	"snag/flash"
)

// progressTime is how often progress is told.
const progressTime = 100 * time.Millisecond

// StageVerify is the stage of events while what was written is read back.
const StageVerify = "verify"

// meter tells how far an image is: writing first, then verifying, as two stages. A target may do both by turns, so what is verified
// meanwhile is told once everything is written.
type meter struct {
	emit  func(stage string, body event.Body)
	stage string
	file  string
	total int64 // -1: not known

	mu       sync.Mutex
	counts   map[flash.Step]int64
	now      flash.Step
	begun    time.Time
	told     time.Time
	finished bool
}

func newMeter(emit func(string, event.Body), stage, file string, total int64, first flash.Step) *meter {
	m := &meter{emit: emit, stage: stage, file: file, total: total, counts: map[flash.Step]int64{}}
	m.begin(first)
	return m
}

// name is the stage that the present step is told as.
func (m *meter) name() string {
	if m.now == flash.Verifying {
		return StageVerify
	}
	return m.stage
}

func (m *meter) begin(step flash.Step) {
	m.now, m.begun, m.told = step, time.Now(), time.Time{}
	m.emit(m.name(), event.StageBegun{File: m.file, Bytes: m.total})
}

// add is the Progress of flash.Options.
func (m *meter) add(step flash.Step, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.finished {
		return
	}
	m.counts[step] += n
	if step != m.now {
		if step != flash.Verifying || m.total < 0 || m.counts[flash.Writing] < m.total {
			return
		}
		m.done()
		m.begin(step)
	}
	now := time.Now()
	at := m.counts[m.now]
	if at < m.total && now.Sub(m.told) < progressTime || m.total < 0 && now.Sub(m.told) < progressTime {
		return
	}
	m.told = now
	m.emit(m.name(), event.Progress{Bytes: at, Total: m.total, Rate: float64(at) / max(now.Sub(m.begun), time.Millisecond).Seconds()})
}

// done tells of the end of the present step.
func (m *meter) done() {
	m.emit(m.name(), event.StageDone{Summary: event.StageSummary{
		Stage: m.name(), File: m.file, Bytes: m.counts[m.now], Duration: time.Since(m.begun),
	}})
}

// end tells of the end, if it was a good one.
func (m *meter) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.finished = true
	if err == nil {
		m.done()
	}
}
