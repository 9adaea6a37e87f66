package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// The first collection is late, those behind it are as ever.
func TestLateCollection(t *testing.T) {
	percent := func() int {
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	before := percent()
	defer debug.SetGCPercent(before)
	t.Setenv("GOGC", "70")
	lateCollection()
	if p := percent(); p != before {
		t.Errorf("%d %%, though the user has set it", p)
	}
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // no collection between the two
	debug.SetGCPercent(before)
	lateCollection()
	for end := time.Now().Add(10 * time.Second); percent() != before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d %% after a collection, expected %d", percent(), before)
		}
		runtime.GC()
	}
}
