package main

import "testing"

// A command line has its command alone, and that is what it is among all.
func TestRootForArguments(t *testing.T) {
	all := newRoot().Commands()
	if len(all) < 14 {
		t.Errorf("%d commands", len(all))
	}
	for _, c := range all {
		got := newRoot(c.Name(), "--help").Commands()
		switch {
		case c.Name() == "man" && len(got) == len(all):
		case len(got) != 1 || got[0].Name() != c.Name() || got[0].Long != c.Long:
			t.Errorf("for %q there are %d commands, the first %s", c.Name(), len(got), got[0].Name())
		}
	}
	for _, args := range [][]string{{"help", "recover"}, {"--help"}, {"__complete", "recover"}, {"recovr"}, {"completion", "bash"}} {
		if got := newRoot(args...).Commands(); len(got) != len(all) {
			t.Errorf("for %q there are %d commands, expected %d", args, len(got), len(all))
		}
	}
}
