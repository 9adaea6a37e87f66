package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"snag/sim/am335x"
	"snag/sim/sandbox"
	"snag/usb"
)

// The TestSandbox tests run the built program beside virtual boards in a sandbox: on this machine's
// kernel, without USB. They mostly wait, so many run at once.

// snagProgram is the program, with the race detector if the tests have it.
var snagProgram = builds("snag/cmd/snag", raceDetector)

// builds returns what builds a program once for all tests: as it is shipped, or with the race detector. TestMain
// removes it.
func builds(pkg string, race bool) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "snag-e2e")
		if err != nil {
			return "", err
		}
		removeAtEnd.Lock()
		removeAtEnd.dirs = append(removeAtEnd.dirs, dir)
		removeAtEnd.Unlock()
		file := filepath.Join(dir, filepath.Base(pkg))
		cmd := exec.Command("go", "build", "-o", file, "-race="+strconv.FormatBool(race), pkg)
		if !race {
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
		return file, nil
	})
}

// removeAtEnd are directories that outlive the test that made them.
var removeAtEnd struct {
	sync.Mutex
	dirs []string
}

// box is the sandbox of one test.
type box struct {
	*sandbox.Sandbox
	t testing.TB
}

func newBox(t testing.TB) *box {
	t.Helper()
	s, err := sandbox.Start(t.Context())
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &box{s, t}
}

// plug powers a board on a port. Its ROM asks every second, unless cfg says otherwise.
func (b *box) plug(cfg am335x.Config, port usb.Port) *am335x.Board {
	b.t.Helper()
	if cfg.ROMRetries == nil {
		cfg.ROMRetries = []time.Duration{time.Second}
	}
	board, err := am335x.New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cut := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- board.Run(ctx, b.Port(port)) }()
	b.t.Cleanup(func() {
		cut()
		if err := <-ended; err != nil {
			b.t.Errorf("board on %s: %v", port, err)
		}
	})
	return board
}

// run is a snag in a sandbox.
type run struct {
	t       testing.TB
	args    []string
	mark    string // in its environment, to find its processes by
	signals chan os.Signal
	begun   time.Time
	did     time.Time     // when the test did what snag is to end by
	ended   chan struct{} // closed at its end; then:
	code    int           // its exit code, 128 + N if signal N killed it
	took    time.Duration

	mu     sync.Mutex
	stdout strings.Builder
	stderr strings.Builder
	more   chan struct{} // closed when more was written
}

// snag starts snag in the sandbox.
func (b *box) snag(args ...string) *run {
	b.t.Helper()
	program, err := snagProgram()
	if err != nil {
		b.t.Fatal(err)
	}
	r := &run{
		t: b.t, args: args, mark: fmt.Sprintf("SNAG_E2E=%s/%d", b.t.Name(), time.Now().UnixNano()),
		signals: make(chan os.Signal), begun: time.Now(), ended: make(chan struct{}), more: make(chan struct{}),
	}
	stdout, outDone := r.collect(&r.stdout)
	stderr, errDone := r.collect(&r.stderr)
	ctx, kill := context.WithCancel(context.Background())
	go func() {
		defer close(r.ended)
		var err error
		r.code, err = b.Run(ctx, sandbox.Command{
			Args: append([]string{program}, args...), Env: append(os.Environ(), r.mark), Dir: "/",
			Stdout: stdout, Stderr: stderr, Signals: r.signals,
		})
		r.took = time.Since(r.begun)
		if err != nil {
			r.code = -1
		}
		stdout.Close()
		stderr.Close()
		<-outDone
		<-errDone
	}()
	b.t.Cleanup(func() { kill(); <-r.ended })
	return r
}

// recover starts snag recover with JSON lines.
func (b *box) recover(fw images, args ...string) *run {
	b.t.Helper()
	return b.snag(append([]string{"recover", "--json", "-v", "-s", "am335x", "-f", fw.config}, args...)...)
}

func (r *run) collect(into *strings.Builder) (w *os.File, done <-chan struct{}) {
	in, w, err := os.Pipe()
	if err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer in.Close()
		for lines := bufio.NewReader(in); ; {
			line, err := lines.ReadString('\n')
			r.mu.Lock()
			into.WriteString(line)
			close(r.more)
			r.more = make(chan struct{})
			r.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return w, ended
}

func (r *run) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("snag %s\n--- stdout\n%s--- stderr\n%s", strings.Join(r.args, " "), r.stdout.String(), r.stderr.String())
}

// events are the JSON lines so far.
func (r *run) events() []map[string]any {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []map[string]any
	for line := range strings.Lines(r.stdout.String()) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			r.t.Fatalf("not a JSON line: %q: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// patience is how long a test waits for what is to come. How long snag may take for something is judged by its events.
const patience = 3 * time.Minute

// await waits for an event of that kind and, unless stage is empty, that stage.
func (r *run) await(kind, stage string) map[string]any {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		more := r.more
		r.mu.Unlock()
		for _, e := range r.events() {
			if e["event"] == kind && (stage == "" || e["stage"] == stage) {
				return e
			}
		}
		select {
		case <-more:
		case <-r.ended:
			r.t.Fatalf("snag ended without an event %s %s\n%s", kind, stage, r)
		case <-timeout:
			r.t.Fatalf("no event %s %s within %s\n%s", kind, stage, patience, r)
		}
	}
}

// wait waits for the end of snag.
func (r *run) wait() {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		r.t.Fatalf("snag did not end within %s\n%s", patience, r)
	}
}

// exit checks how snag ends, and what its last event says of it: in so much time after the one before, or after what
// the test did last. It returns that event.
func (r *run) exit(code int, within time.Duration) map[string]any {
	r.t.Helper()
	r.wait()
	if r.code != code {
		r.t.Errorf("exit code %d, want %d\n%s", r.code, code, r)
	}
	events := r.events()
	if len(events) == 0 {
		r.t.Fatalf("no events\n%s", r)
	}
	last := events[len(events)-1]
	if want := map[bool]string{true: "done", false: "failed"}[code == 0]; last["event"] != want || last["exit_code"] != float64(r.code) {
		r.t.Errorf("last event %v, want %s with exit code %d", last, want, code)
	}
	since := r.did
	if len(events) > 1 {
		if before := r.at(events[len(events)-2]); before.After(since) {
			since = before
		}
	}
	if took := r.at(last).Sub(since); !since.IsZero() && took > within {
		r.t.Errorf("it took %s to the end, expected %s at most\n%s", took, within, r)
	}
	if after := r.begun.Add(r.took).Sub(r.at(last)); after > 10*time.Second {
		r.t.Errorf("it ended %s after its last event\n%s", after, r)
	}
	return last
}

// at is when an event was.
func (r *run) at(event map[string]any) time.Time {
	r.t.Helper()
	text, _ := event["time"].(string)
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		r.t.Errorf("%v: %v", event, err)
	}
	return at
}

// says checks that the error of the last event holds all of the words.
func (r *run) says(last map[string]any, words ...string) {
	r.t.Helper()
	text := fmt.Sprint(last["error"], " | ", last["hint"])
	for _, w := range words {
		if !strings.Contains(text, w) {
			r.t.Errorf("%q is not in %q", w, text)
		}
	}
}

// warned checks that a warning holds the words.
func (r *run) warned(words string) {
	r.t.Helper()
	for _, e := range r.events() {
		if text, ok := e["text"].(string); ok && e["event"] == "warning" && strings.Contains(text, words) {
			return
		}
	}
	r.t.Errorf("no warning with %q\n%s", words, r)
}

// signal sends a signal to snag.
func (r *run) signal(s syscall.Signal) {
	r.t.Helper()
	r.did = time.Now()
	select {
	case r.signals <- s:
	case <-r.ended:
		r.t.Fatalf("snag has ended already\n%s", r)
	case <-time.After(patience):
		r.t.Fatal("the signal was not taken")
	}
}
