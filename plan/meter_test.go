package plan

import (
	"fmt"
	"strings"
	"testing"

	"snag/event"
	"snag/flash"
)

// What was read back is told, whether the image's size is known or not, and however much of it there is to write.
func TestMeter(t *testing.T) {
	const w, v = flash.Writing, flash.Verifying
	type step struct {
		what flash.Step
		n    int64
	}
	for _, tc := range []struct {
		name  string
		total int64
		turns bool
		steps []step
		want  string
	}{
		{"all of it", 10, false, []step{{w, 4}, {w, 6}, {v, 10}}, "disk 10, disk done 10, verify 10, verify done 10"},
		{"not verified", 10, false, []step{{w, 10}}, "disk 10, disk done 10"},
		{"a compressed image", -1, false, []step{{w, 4}, {w, 6}, {v, 10}}, "disk -1, disk done 10, verify 10, verify done 10"},
		{"a sparse image with holes", 100, false, []step{{w, 4}, {w, 6}, {v, 10}}, "disk 100, disk done 10, verify 10, verify done 10"},
		{"by turns", 10, true, []step{{w, 4}, {v, 4}, {w, 6}, {v, 6}}, "disk 10, disk done 10, verify 10, verify done 10"},
		{"a compressed image by turns", -1, true, []step{{w, 4}, {v, 4}, {w, 6}, {v, 6}}, "disk -1, disk done 10, verify 10, verify done 10"},
		{"a sparse image by turns", 100, true, []step{{w, 4}, {v, 4}, {w, 6}, {v, 6}}, "disk 100, disk done 10, verify 10, verify done 10"},
	} {
		var got []string
		m := newMeter(func(stage string, body event.Body) {
			switch b := body.(type) {
			case event.StageBegun:
				got = append(got, fmt.Sprintf("%s %d", stage, b.Bytes))
			case event.StageDone:
				got = append(got, fmt.Sprintf("%s done %d", b.Summary.Stage, b.Summary.Bytes))
			}
		}, "disk", "a.img", tc.total, tc.turns, w)
		for _, s := range tc.steps {
			m.add(s.what, s.n)
		}
		m.end(nil)
		if s := strings.Join(got, ", "); s != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, s, tc.want)
		}
	}
}
