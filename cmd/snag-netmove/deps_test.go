package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// banned are packages that a program with a capability does not import, and why.
var banned = map[string]string{
	"os/user":       "reads NSS and /etc; user names decide nothing here",
	"net":           "has a resolver, reads the environment and configuration files",
	"net/http":      "speaks to the network",
	"os/exec":       "starts programs, by way of PATH",
	"os/signal":     "there is nothing to clean up: ending at once is right",
	"plugin":        "loads code",
	"encoding/json": "reflection over bytes of others; there is no structured input",
	"encoding/gob":  "likewise",
	"fmt":           "formats anything by reflection; one line of integers needs none of it",
	"log":           "writes with state of its own; one line on stderr does",
	"log/slog":      "likewise, and large",
	"log/syslog":    "opens sockets",
	"flag":          "there are no options",
	"text/template": "executes text",
	"unicode/utf16": "nothing is text here",
	"runtime/cgo":   "would load shared libraries: build with CGO_ENABLED=0",
	"path/filepath": "paths are put together of numbers",
}

// imports are all packages that the program consists of, but for the internal ones of the standard
// library. One more is a decision: write down why.
var imports = []string{
	"bytes", "cmp", "encoding/binary", "errors", "golang.org/x/sys/unix", "io", "io/fs", "iter", "math", "math/bits",
	"os", "path", "reflect", "runtime", "slices", "snag/cmd/snag-netmove", "sort", "strconv", "strings", "sync", "sync/atomic",
	"syscall", "time", "unicode", "unicode/utf8", "unsafe",
}

func TestDependencies(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("needs the go command: %v", err)
	}
	var got []string
	for _, p := range strings.Fields(string(out)) {
		if why, bad := banned[p]; bad {
			t.Errorf("imports %s: %s", p, why)
		}
		if strings.HasPrefix(p, "snag/") && p != "snag/cmd/snag-netmove" {
			t.Errorf("imports %s: nothing of ours", p)
		}
		if !strings.HasPrefix(p, "internal/") && !strings.Contains(p, "/internal/") {
			got = append(got, p)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, imports) {
		t.Errorf("imports\n%q, expected\n%q", got, imports)
	}
}
