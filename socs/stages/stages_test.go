package stages_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"snag/event"
	"snag/socs"
	"snag/socs/stages"
)

// board notes what it is told.
type board struct{ told []string }

func (b *board) Next(context.Context) (*socs.Stage, error) { return nil, errors.New("no stage") }

func (b *board) Emit(stage string, body event.Body) {
	s := stage + ": "
	switch body := body.(type) {
	case event.Warning:
		s += body.Text
	}
	b.told = append(b.told, s)
}

// The ROM is begun with three times. Why not once more is the family's to say.
func TestRuns(t *testing.T) {
	for _, tc := range []struct {
		runs       stages.Runs
		says, hint string
	}{
		{stages.Runs{}, "the boot ROM is back after the first stage was sent 3 times", "power and cable"},
		{stages.Runs{Did: "it was served", Hint: "another file"}, "the boot ROM is back after it was served 3 times", "another file"},
	} {
		var b board
		for n := 1; n <= stages.MaxRuns; n++ {
			if err := tc.runs.Begin(&b); err != nil || len(b.told) != n-1 {
				t.Errorf("run %d: %v, %q", n, err, b.told)
			}
		}
		stuck, _ := errors.AsType[*socs.BoardError](tc.runs.Begin(&b))
		if stuck == nil || stuck.Stage != "rom" || stuck.Error() != tc.says || !strings.Contains(stuck.Hint, tc.hint) {
			t.Errorf("%#v, want %q", stuck, tc.says)
		}
	}
}
