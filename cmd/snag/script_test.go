package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"snag/recovery"
	"snag/sim/am335x"
)

var update = flag.Bool("update", false, "write the golden parts of the scripts anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"snag": main,
		// what snag starts itself as
		"snag-network-worker": main,
		"snag-sim-sandbox":    main,
	})
}

// TestScript runs the scripts of testdata/script. Beside testscript's own commands they have
//
//	firmware DIR        writes u-boot-spl.bin and u-boot.img, as generated
//	exits CODE,… CMD... runs a command that must end with one of these exit codes
//	terminated CMD...   terminates a command (SIGTERM), which must end with exit code 130
//	failed CODE         the standard output of the last command is JSON lines, of which the last is a
//	                    "failed" with this exit code, and the others are no end
//	documented EVENT... in that output are these events, and all are as docs/json.md has them
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"firmware": firmwareCommand, "exits": exitsCommand, "terminated": terminatedCommand, "failed": failedCommand, "documented": documentedCommand,
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case "sandbox":
				return exec.Command("unshare", "--user", "--net", "--map-root-user", "true").Run() == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}

func firmwareCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: firmware DIR")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(os.WriteFile(filepath.Join(dir, "u-boot-spl.bin"), am335x.GenerateSPL(60_000, 1), 0o644))
	ts.Check(os.WriteFile(filepath.Join(dir, "u-boot.img"), am335x.GenerateUBoot(100_000, 1), 0o644))
}

func exitsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE CMD...")
	}
	if got := ran(ts, args[1:]); !slices.Contains(strings.Split(args[0], ","), strconv.Itoa(got)) {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// ran runs a command and returns its exit code.
func ran(ts *testscript.TestScript, args []string) int {
	err := ts.Exec(args[0], args[1:]...)
	if err == nil {
		return 0
	}
	exit, ok := err.(*exec.ExitError)
	if !ok {
		ts.Fatalf("%v", err)
	}
	return exit.ExitCode()
}

func terminatedCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: terminated CMD...")
	}
	got := 0
	for _, after := range []string{"0.2", "2", "10"} { // the signal may be there before a slow program is ready for it
		got = ran(ts, append([]string{"timeout", "--foreground", "--preserve-status", "-k", "20", after}, args...))
		if got != 128+int(syscall.SIGTERM) {
			break
		}
	}
	if got != recovery.ExitInterrupted {
		ts.Fatalf("exit code %d, want %d", got, recovery.ExitInterrupted)
	}
}

func failedCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: failed CODE")
	}
	lines := strings.SplitAfter(strings.TrimSuffix(ts.ReadFile("stdout"), "\n"), "\n")
	for i, line := range lines {
		var e struct {
			Event, Error string
			ExitCode     *int `json:"exit_code"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			ts.Fatalf("line %d of stdout, %q: %v", i+1, line, err)
		}
		last := i == len(lines)-1
		if end := e.Event == "done" || e.Event == "failed"; end != last {
			ts.Fatalf("line %d of %d is %q", i+1, len(lines), e.Event)
		}
		if last && (e.Event != "failed" || e.ExitCode == nil || strconv.Itoa(*e.ExitCode) != args[0] || e.Error == "") {
			ts.Fatalf("last line: %s, want a failed with exit code %s", line, args[0])
		}
	}
}

// TestExitCodesAreDocumented compares the README, the help and the constants.
func TestExitCodesAreDocumented(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var table []string
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \| (.*) \|$`).FindAllStringSubmatch(string(readme), -1) {
		table = append(table, row[1]+" "+strings.SplitN(row[2], ";", 2)[0])
	}
	want := []string{
		fmt.Sprint(recovery.ExitDone, " done"), fmt.Sprint(recovery.ExitFailed, " failed"),
		fmt.Sprint(recovery.ExitUsage, " usage"), fmt.Sprint(recovery.ExitNoBoard, " no board in time"),
		fmt.Sprint(recovery.ExitPermission, " no permission, or no setup"), fmt.Sprint(recovery.ExitFirmware, " firmware refused"),
		fmt.Sprint(recovery.ExitBoard, " board or protocol error"), fmt.Sprint(recovery.ExitInterrupted, " interrupted"),
	}
	if got := strings.Join(table, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("README.md has\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	schema, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range want {
		if n, _, _ := strings.Cut(code, " "); !strings.Contains(string(schema), "\n| "+n+" | ") {
			t.Errorf("docs/json.md has no exit code %s", n)
		}
	}
	// The help has them in one sentence, with fewer commas.
	plain := func(s string) string { return strings.Join(strings.Fields(strings.ReplaceAll(s, ",", "")), " ") }
	if help := plain(newRoot().Long); !strings.Contains(help, plain(strings.Join(want, " "))) {
		t.Errorf("the help has %q, want %q in it", help, plain(strings.Join(want, " ")))
	}
}

// TestSetupNeedsRoot runs the program as a user who has no rights.
func TestSetupNeedsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the script setup.txtar does this for ordinary users")
	}
	exe, err := exec.LookPath("/proc/self/exe")
	if err != nil {
		t.Skip(err)
	}
	// As nobody, from the file that is open: its directory may be closed to others.
	cmd := exec.Command(exe)
	cmd.Args = []string{"snag", "setup"}
	cmd.Dir = "/"
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	err = cmd.Run()
	if cmd.ProcessState == nil {
		t.Skip(err)
	}
	if cmd.ProcessState.ExitCode() != recovery.ExitPermission || !strings.Contains(stderr.String(), "as root") {
		t.Errorf("%v, want exit code %d\n%s", err, recovery.ExitPermission, &stderr)
	}
}
