package main

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestInit counts what the packages allocate before main: every start of snag does that, whatever it is for, and a board
// that is to be recovered waits for it. A table or pattern that a few commands need is made when it is first used
// (sync.OnceValue).
func TestInit(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(exe)
	cmd.Args = []string{"snag", "version"}
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// init snag/usb @2.8 ms, 0.043 ms clock, 26424 bytes, 317 allocs
	lines := regexp.MustCompile(`(?m)^init (\S+) @.* (\d+) bytes, (\d+) allocs$`).FindAllStringSubmatch(string(out), -1)
	var bytes, allocs, ours int
	for _, m := range lines {
		b, _ := strconv.Atoi(m[2])
		n, _ := strconv.Atoi(m[3])
		bytes, allocs = bytes+b, allocs+n
		if !strings.HasPrefix(m[1], "snag/") {
			continue
		}
		ours++
		if n > 64 || b > 8<<10 {
			t.Errorf("package %s: %d bytes in %d pieces, expected at most 8 kB in 64", m[1], b, n)
		}
	}
	if ours < 20 {
		t.Errorf("found %d of snag's packages:\n%s", ours, out)
	}
	if bytes > 400<<10 || allocs > 2500 { // libraries, most of it
		t.Errorf("all packages: %d bytes in %d pieces, expected at most 400 kB in 2500:\n%s", bytes, allocs, out)
	}
}
