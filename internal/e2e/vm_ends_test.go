package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/am335x"
	"snag/usb"
)

// slowBoard is a board whose stages take long enough to be met in the middle.
var slowBoard = am335x.Config{DelayIn: 25 * time.Millisecond, DelayOut: 25 * time.Millisecond, SPLDelay: 5 * time.Second, SPLWindow: time.Minute}

// silent is a board whose requests never reach the host.
var silent = am335x.Config{LossOut: 1}

// A point is where a recovery is met.
type point struct {
	name    string
	config  *am335x.Config
	reached func(p *program, b *am335x.Board) bool
	plugged bool // the board is on the bus then
}

func received(stage string, n int) func(*program, *am335x.Board) bool {
	return func(_ *program, b *am335x.Board) bool {
		r := b.Report()
		s := r.Last(stage)
		return s != nil && len(s.Data) >= n
	}
}

// The points; a recovery that only waits is met in the sandbox.
var points = []point{
	{"ROM before BOOTP", &silent, func(p *program, _ *am335x.Board) bool { return strings.Contains(p.stdout.String(), "board seen") }, true},
	{"ROM", &slowBoard, received(am335x.StageROM, 2048), true},
	{"between the stages", &slowBoard, func(_ *program, b *am335x.Board) bool {
		r := b.Report()
		s := r.Last(am335x.StageROM)
		return s != nil && !s.Left.IsZero()
	}, false},
	{"SPL", &slowBoard, received(am335x.StageSPL, 8000), true},
}

// meet starts a user's recovery on a port, by the kernel's network or without ("kernel", "user"), and returns when it
// has come to the point.
func (at point) meet(t *testing.T, net string, port usb.Port, fw images) (*program, func()) {
	t.Helper()
	p := start(t, user, "recover", "-s", "am335x", "-f", fw.config, "--usb-path", string(port), "--net", net, "-v")
	board, _, unplug := plugged(t, *at.config, port)
	notReached := errors.New("not reached") // what is behind it takes long to write down
	soon(t, 3*time.Minute, func() error {
		if !at.reached(p, board) {
			return notReached
		}
		return nil
	})
	if t.Failed() {
		saw, _ := json.MarshalIndent(board.Report(), "", " ")
		t.Logf("%s: %s\nboard: %s", at.name, p, saw)
	}
	return p, unplug
}

// prompt is how long an end may take. It takes some ms on a machine that is not loaded.
const prompt = 5 * time.Second

// TestWithUdevEnds ends recoveries at every stage in every way. Boards stand on all eight ports of the
// controller at a time; the leftovers are looked for at the end of all.
func TestWithUdevEnds(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	ends(t, "kernel")
}

func ends(t *testing.T, net string) {
	before := leftovers(t)
	fw := generateSized(t, 6, 16<<10, 48<<10)

	t.Run("all", func(t *testing.T) {
		t.Run("unplugged", func(t *testing.T) {
			t.Parallel()
			unplugs(t, net, fw)
		})
		t.Run("killed", func(t *testing.T) {
			t.Parallel()
			for _, at := range points {
				if at.plugged { // the others are the sandbox's
					t.Run(at.name, func(t *testing.T) { kills(t, net, at, fw) })
				}
			}
		})
	})
	before.compare(t)
}

// kills ends snag, or its worker, at a point. That SIGTERM does what SIGINT does is shown in the sandbox.
func kills(t *testing.T, net string, at point, fw images) {
	for n, end := range []struct {
		name string
		kill func(t *testing.T, p *program)
		code int
	}{
		{"SIGINT", signalled(syscall.SIGINT), 130},
		{"SIGKILL", signalled(syscall.SIGKILL), -1},
		{"SIGKILL of the worker", func(t *testing.T, p *program) {
			if err := syscall.Kill(child(t, p.Process.Pid, "snag-network-worker"), syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}, 1},
	} {
		if net == "user" && end.code == 1 {
			continue // no worker
		}
		port := hostPort(t, n+1)
		t.Run(end.name, func(t *testing.T) {
			t.Parallel()
			p, _ := at.meet(t, net, port, fw)
			end.kill(t, p)
			if code := p.exit(t, prompt); code != end.code {
				t.Errorf("exit code %d, want %d\n%s", code, end.code, p)
			}
			if net == "user" && end.code == -1 {
				return // nobody is left who would give the interface back to the kernel's driver
			}
			begun := time.Now()
			soon(t, prompt, func() error { _, err := onHost(port); return err })
			t.Logf("the interface was back after %s", ms(time.Since(begun)))
		})
	}
}

func signalled(s syscall.Signal) func(*testing.T, *program) {
	return func(t *testing.T, p *program) {
		if err := p.Process.Signal(s); err != nil {
			t.Error(err)
		}
	}
}

// child finds the process that a process has started and that calls itself by a name.
func child(t *testing.T, parent int, name string) int {
	t.Helper()
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		for _, pid := range strings.Fields(string(b)) {
			if cmd, _ := os.ReadFile("/proc/" + pid + "/cmdline"); strings.Contains(string(cmd), name) {
				var n int
				fmt.Sscan(pid, &n)
				return n
			}
		}
	}
	t.Fatalf("process %d has no child %s", parent, name)
	return 0
}

// unplugs pulls the cable at every point. snag lets a board that resets come back; then it gives up.
func unplugs(t *testing.T, net string, fw images) {
	for n, at := range points {
		port := hostPort(t, n+5)
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			p, unplug := at.meet(t, net, port, fw)
			unplug()
			patience, text := 15*time.Second, "did not come back"
			if !at.plugged { // it is SPL that does not come
				patience, text = 30*time.Second, "next stage did not appear"
			}
			if code := p.exit(t, patience+3*prompt); code != 6 {
				t.Errorf("exit code %d, want 6\n%s", code, p)
			}
			if !strings.Contains(p.stdout.String(), text) {
				t.Errorf("the reason is missing\n%s", p)
			}
		})
	}
}

// TestWithUdevHelperHeld meets the helper at work: it is held where it opens its list of USB IDs.
func TestWithUdevHelperHeld(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	must(t, "snag", "setup", "--usb", unknown.String())
	before := leftovers(t)
	fw := generateSized(t, 7, 8<<10, 8<<10)
	port := hostPort(t, 1)
	unlisted := am335x.Config{ROM: unknown}

	held := func(t *testing.T, f func(t *testing.T, p *program, helper int, release, unplug func())) {
		h := hold(t)
		p := start(t, user, "recover", "-s", "am335x", "-f", fw.config, "--usb-path", string(port), "--rom-usb", unknown.String())
		_, _, unplug := plugged(t, unlisted, port)
		select {
		case pid := <-h.helpers:
			f(t, p, pid, h.release, unplug)
		case <-time.After(time.Minute):
			t.Fatalf("no helper came\n%s", p)
		}
	}
	t.Run("SIGKILL of the helper", func(t *testing.T) {
		held(t, func(t *testing.T, p *program, helper int, release, _ func()) {
			syscall.Kill(helper, syscall.SIGKILL)
			if code := p.exit(t, prompt); code != 1 || !strings.Contains(p.String(), "killed") {
				t.Errorf("exit code %d, want 1, and the reason\n%s", code, p)
			}
			if _, err := onHost(port); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("SIGINT", func(t *testing.T) {
		held(t, func(t *testing.T, p *program, helper int, release, _ func()) {
			p.Process.Signal(syscall.SIGINT)
			if code := p.exit(t, prompt); code != 130 {
				t.Errorf("exit code %d, want 130\n%s", code, p)
			}
			if syscall.Kill(helper, 0) == nil {
				t.Error("the helper is left")
			}
		})
	})
	t.Run("SIGKILL", func(t *testing.T) {
		held(t, func(t *testing.T, p *program, helper int, release, _ func()) {
			p.Process.Kill()
			if code := p.exit(t, prompt); code != -1 {
				t.Errorf("exit code %d, want -1\n%s", code, p)
			}
			release() // it moves the interface into a namespace that then ends
			soon(t, prompt, func() error {
				if syscall.Kill(helper, 0) == nil {
					return fmt.Errorf("the helper is left")
				}
				_, err := onHost(port)
				return err
			})
		})
	})
	t.Run("unplugged and plugged again", func(t *testing.T) {
		held(t, func(t *testing.T, p *program, helper int, release, unplug func()) {
			unplug()
			release()
			board, _ := plug(t, unlisted, port)
			if code := p.exit(t, 3*time.Minute); code != 0 {
				t.Errorf("exit code %d\n%s", code, p)
			}
			fw.booted(t, board)
		})
	})
	before.compare(t)
}
