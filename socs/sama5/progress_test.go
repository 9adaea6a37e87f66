package sama5_test

import (
	"testing"

	"snag/event"
	"snag/sim/sama5"
	"snag/socs/socstest"
)

func stagesOf(o *socstest.Outcome[sama5.Report]) (all []event.StageSummary) {
	for _, e := range o.Events {
		if d, ok := e.Body.(event.StageDone); ok {
			all = append(all, d.Summary)
		}
	}
	return all
}

// checkProgress looks at the progress of each stage.
func checkProgress(t *testing.T, o *socstest.Outcome[sama5.Report]) {
	t.Helper()
	var last event.Progress
	for _, e := range o.Events {
		switch b := e.Body.(type) {
		case event.StageBegun:
			last = event.Progress{Total: b.Bytes}
		case event.Progress:
			if b.Bytes < last.Bytes || b.Total != last.Total {
				t.Errorf("%+v after %+v", b, last)
			}
			last = b
		case event.StageDone:
			if last.Bytes != last.Total || b.Summary.Bytes != last.Bytes || b.Summary.Stage != e.Stage {
				t.Errorf("%+v at the end of %+v", last, b.Summary)
			}
		}
	}
}
