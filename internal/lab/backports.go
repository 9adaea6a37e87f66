//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Backport is [Command] for a program that is newer than the distribution's: package pkg is taken from Debian's backports
// for that, with what it depends on and the host lacks or has too old. QEMU finds its data.
func Backport(t testing.TB, program, pkg string) *exec.Cmd {
	t.Helper()
	wanted(t)
	c, err := openCache(quiet)
	check(t, err)
	// apart, since an archive that has no backports would make every update fail
	c = &cache{dir: c.path("backports"), log: c.log, choose: backports}
	check(t, os.MkdirAll(c.path("resolved"), 0o755))
	trees, err := c.resolved(t.Context(), "backport "+pkg, age(hostStatus), func(a *apt) ([]deb, error) {
		return a.resolveBackport(t.Context(), pkg)
	}, pkg)
	check(t, err)
	file, ok := find(trees, filepath.Join("usr/bin", program))
	if !ok {
		check(t, fmt.Errorf("%w: no %s in %s of the backports", ErrUnavailable, program, pkg))
	}
	tool := &tool{program, file, trees}
	var args []string
	for _, dir := range tool.dirs("usr/share/qemu") {
		args = append(args, "-L", dir)
	}
	return tool.command(t.Context(), args...)
}

// backports are a host's archives with Debian's backports for it; none if it is not Debian.
func backports(sources []source) []source {
	for _, s := range sources {
		for _, suite := range s.suites {
			if len(s.uris) > 0 && path.Base(s.uris[0]) == "debian" && !strings.Contains(suite, "-") {
				s.suites = []string{suite + "-backports"}
				return append(slices.Clone(sources), s)
			}
		}
	}
	return nil
}
