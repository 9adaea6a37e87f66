package main

import "testing"

func TestRoff(t *testing.T) {
	text := ".dot\na.b\n..\n'SoC's' -f C:\\x `^~"
	want := "\\&.dot\na.b\n\\&..\n\\(aqSoC\\(aqs\\(aq \\-f C:\\ex \\(ga\\(ha\\(ti"
	if got := roff(text); got != want {
		t.Errorf("%q\nwant\n%q", got, want)
	}
}
