//go:build linux

package lab

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// goTool runs the go command without cgo and returns what it printed.
func goTool(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, tail(stderr.String(), 30))
	}
	return stdout.String()
}

// GoTest builds the tests of the package pkg ("." or an import path), runs those
// that match the pattern run in a VM, in the package's directory, after job.Script,
// and reports each as a subtest of t. It fails if none matched.
func GoTest(t *testing.T, pkg, run string, job Job) *Result {
	t.Helper()
	wanted(t)
	if pkg == "." && static("/proc/self/exe") {
		binary, err := os.Executable()
		check(t, err)
		dir, err := os.Getwd()
		check(t, err)
		job.Dirs = append([]string{moduleDir(dir)}, job.Dirs...)
		return RunTests(t, binary, dir, run, job)
	}
	binary := filepath.Join(t.TempDir(), "test")
	goTool(t, "test", "-c", "-o", binary, pkg)
	dirs := strings.Split(strings.TrimSpace(goTool(t, "list", "-f", "{{.Dir}}\n{{.Module.Dir}}", pkg)), "\n")
	job.Dirs = append([]string{dirs[1]}, job.Dirs...)
	return RunTests(t, binary, dirs[0], run, job)
}

// static reports whether a program needs no shared libraries, as test binaries do that
// were built without cgo: it runs in every VM.
func static(file string) bool {
	f, err := elf.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// moduleDir is the directory with the go.mod for dir.
func moduleDir(dir string) string {
	for d := dir; ; d = filepath.Dir(d) {
		if exists(filepath.Join(d, "go.mod")) {
			return d
		}
		if d == filepath.Dir(d) {
			return dir
		}
	}
}

// RunTests is [GoTest] for tests that are built already, from a package in the directory dir.
func RunTests(t *testing.T, binary, dir, run string, job Job) *Result {
	t.Helper()
	files := map[string]string{"/lab/test": binary}
	for name, file := range job.Files {
		files[name] = file
	}
	job.Files = files
	job.Script += "\ncd " + quote(dir) + "\nexec /lab/test -test.v=test2json -test.run " + quote(run)
	r := start(t, job)
	t.Logf("lab: booted in %.1f s, done after %.1f s, busy for %.1f s", r.Boot.Seconds(), r.Total.Seconds(), r.Busy.Seconds())

	cmd := exec.CommandContext(t.Context(), "go", "tool", "test2json")
	cmd.Stdin = strings.NewReader(r.Stdout)
	events, err := cmd.Output()
	if err != nil {
		t.Fatalf("lab: go tool test2json: %v", err)
	}
	root, err := parseEvents(events)
	if err != nil {
		t.Fatalf("lab: reading what test2json says: %v", err)
	}
	if len(root.children) == 0 {
		t.Errorf("lab: no test of %s matches %q, or none was reached\n%s", dir, run, r)
	}
	root.report(t)
	if r.Status != 0 && (!t.Failed() || root.unfinished()) {
		t.Errorf("lab: the tests' exit status is %d\n%s", r.Status, r)
	}
	return r
}

// outcome is what became of one test in the VM.
type outcome struct {
	name     string // without the parents' names
	action   string // "pass", "fail", "skip"; empty if it did not end
	output   strings.Builder
	children []*outcome
}

// parseEvents builds the tree of tests from test2json's lines (go doc test2json).
func parseEvents(events []byte) (*outcome, error) {
	root := &outcome{}
	nodes := map[string]*outcome{"": root}
	var node func(name string) *outcome
	node = func(name string) *outcome {
		if n := nodes[name]; n != nil {
			return n
		}
		n := &outcome{name: path.Base(name)}
		nodes[name] = n
		parent := ""
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			parent = name[:i]
		}
		p := node(parent)
		p.children = append(p.children, n)
		return n
	}
	for dec := json.NewDecoder(bytes.NewReader(events)); dec.More(); {
		var e struct{ Action, Test, Output string }
		if err := dec.Decode(&e); err != nil {
			return nil, err
		}
		n := node(e.Test)
		switch e.Action {
		case "pass", "fail", "skip":
			n.action = e.Action
		case "output":
			if !strings.HasPrefix(strings.TrimSpace(e.Output), "=== ") {
				n.output.WriteString(e.Output)
			}
		}
	}
	return root, nil
}

// report repeats the outcomes of o's children as subtests of t.
func (o *outcome) report(t *testing.T) {
	for _, child := range o.children {
		t.Run(child.name, func(t *testing.T) {
			if text := strings.TrimSpace(child.output.String()); text != "" {
				t.Log("in the VM:\n" + text)
			}
			child.report(t)
			switch child.action {
			case "fail":
				t.Fail()
			case "skip":
				t.SkipNow()
			case "":
				t.Error("lab: the test did not end")
			}
		})
	}
}

// unfinished reports whether a test below o did not end.
func (o *outcome) unfinished() bool {
	for _, c := range o.children {
		if c.action == "" || c.unfinished() {
			return true
		}
	}
	return false
}

// quote makes s one word of a shell script.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
