package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/bcm"
	"snag/sim/virtual"
	"snag/socs"
)

// TestWithROMBCM recovers every Broadcom model through the kernel's USB. The foreign programs that know them are in no
// package of Debian's release: docs/bcm.md tells of their runs on these boards.
func TestWithROMBCM(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	for _, m := range socs.Models() {
		if m.Family != "bcm" {
			continue
		}
		for i, name := range append([]string{m.Name}, m.Aliases...) {
			who := user
			if i > 0 {
				who = nil
			}
			if !every() && (name == "bcm2835" || name == "bcm2836" || i > 0) {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				recoverBCM(t, who, name, bcm.Config{}, "", 0)
			})
		}
	}
	for _, tc := range []struct {
		name, soc, fault, says string
		code                   int
	}{
		{name: "reset", soc: "bcm2712", fault: "reset:bootcode:300000", says: "starting over"},
		{name: "refused", soc: "bcm2711", fault: "status:rom:status:3", says: "refuses 2711/bootcode4.bin with status 0x3", code: 6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f, err := bcm.ParseFault(tc.fault)
			if err != nil {
				t.Fatal(err)
			}
			recoverBCM(t, nil, tc.soc, bcm.Config{Faults: []bcm.Fault{f}}, tc.says, tc.code)
		})
	}
}

// recoverBCM has snag recover a virtual board, and looks at what was started.
func recoverBCM(t *testing.T, who *syscall.Credential, soc string, cfg bcm.Config, says string, code int) {
	t.Helper()
	var err error
	if cfg.Model, err = bcm.FindModel(soc); err != nil {
		t.Fatal(err)
	}
	files := bcm.Generate(cfg.Model, 600_000, 1)
	args := []string{"recover", "-s", soc}
	dir := t.TempDir()
	for slot, data := range files {
		file := filepath.Join(dir, slot)
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-F", slot+"="+file)
	}
	readable(t, dir)
	board, err := bcm.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	port, _ := plugIn(t, board.Run)
	begun := time.Now()
	p := start(t, who, append(args, "--usb-path", string(port))...)
	if got := p.exit(t, time.Minute); got != code || !strings.Contains(p.String(), says) {
		t.Fatalf("exit code %d, want %d and %q\n%s\nboard: %+v", got, code, says, p, board.Report())
	}
	t.Logf("snag: %s", time.Since(begun).Round(10*time.Millisecond))
	if code != 0 {
		return
	}
	select {
	case <-board.Settled():
	case <-time.After(30 * time.Second):
	}
	r := board.Report()
	if err := r.Err(); err != nil || r.Outcome != virtual.Booted {
		t.Fatalf("%v\n%s\n%s", err, r.Effects(), p)
	}
	kernel := r.Last(bcm.StageBootcode).Kernel
	if want := fmt.Sprintf("%x", sha256.Sum256(files["u-boot"])); kernel == nil || kernel.Name != "u-boot.bin" || kernel.SHA256 != want {
		t.Errorf("started %+v, want U-Boot %s", kernel, want)
	}
	if got := slices.Contains(bcmFiles(r), "boot.img"); got != (files["boot"] != nil) {
		t.Errorf("boot.img was taken: %t\n%s", got, r.Effects())
	}
}

// bcmFiles are the files that a board was sent.
func bcmFiles(r bcm.Report) (all []string) {
	for _, f := range r.Last(bcm.StageBootcode).Files {
		all = append(all, f.Name)
	}
	return all
}
