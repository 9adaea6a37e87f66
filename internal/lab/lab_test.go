//go:build linux

package lab

import (
	"strings"
	"testing"
)

func TestBoot(t *testing.T) {
	r := Run(t, Job{Script: `uname -a; id; cat /proc/uptime; dmesg | tail -5; echo oops >&2; mount; ls /lib/modules`})
	t.Logf("boot %v total %v\n%s", r.Boot, r.Total, r)
	if !strings.Contains(r.Stdout, "Linux lab") {
		t.Error("no uname")
	}
}
