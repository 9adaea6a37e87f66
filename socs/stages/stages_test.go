package stages_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
	case event.StageBegun:
		s += fmt.Sprintf("%s, %d bytes", body.File, body.Bytes)
	case event.Progress:
		s += fmt.Sprintf("%d of %d, %.0f/s", body.Bytes, body.Total, body.Rate)
	case event.StageDone:
		s += fmt.Sprintf("%d in %s, %d retries", body.Summary.Bytes, body.Summary.Duration, body.Summary.Retries)
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

// Progress is told ten times a second, the end once, and the file's end as the family has it.
func TestTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b board
		since := time.Now()
		time.Sleep(time.Second)
		f := stages.Begin(&b, "spl", "u-boot.img", 1000)
		for n := 0; n <= 1000; n += 100 {
			f.At(n)
			time.Sleep(50 * time.Millisecond)
		}
		f.Since, f.Retries = since, 2
		f.Done()
		want := []string{"spl: u-boot.img, 1000 bytes", "spl: 0 of 1000, 0/s", "spl: 200 of 1000, 2000/s", "spl: 400 of 1000, 2000/s", "spl: 600 of 1000, 2000/s",
			"spl: 800 of 1000, 2000/s", "spl: 1000 of 1000, 2000/s", "spl: 1000 in 1.55s, 2 retries"}
		if !slices.Equal(b.told, want) {
			t.Errorf("told %q, want %q", b.told, want)
		}
		b.told = nil
		f = stages.Begin(&b, "rom", "flash.bin", 1000)
		f.At(900)
		f.Total = 900 // it wants no more
		time.Sleep(time.Second)
		f.Done()
		want = []string{"rom: flash.bin, 1000 bytes", "rom: 900 of 1000, 900000/s", "rom: 900 of 900, 900/s", "rom: 900 in 1s, 0 retries"}
		if !slices.Equal(b.told, want) {
			t.Errorf("told %q, want %q", b.told, want)
		}
	})
}
