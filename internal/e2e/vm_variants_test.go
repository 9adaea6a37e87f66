package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/am335x"
	"snag/usb"
)

// gadget is what U-Boot's SPL shows on most boards.
var gadget = usb.ID{Vendor: 0x0525, Product: 0xa4a2}

// unknown is nobody's.
var unknown = usb.ID{Vendor: 0x1209, Product: 0x0001}

// TestWithUdevUnlistedSPL: a user needs root's word once for an SPL of other IDs, and is told so.
func TestWithUdevUnlistedSPL(t *testing.T) {
	lab.Inside(t)
	must(t, "snag", "setup", "--remove")
	setUp(t)
	fw := generateSized(t, 8, 8<<10, 16<<10)
	for n, id := range []usb.ID{gadget, unknown} {
		t.Run(id.String(), func(t *testing.T) {
			t.Parallel()
			port := hostPort(t, n+1)
			p := start(t, user, "recover", "-s", "am335x", "-f", fw.config, "--usb-path", string(port))
			plug(t, am335x.Config{SPL: id}, port)
			if code := p.exit(t, 2*time.Minute); code != 4 {
				t.Errorf("exit code %d, want 4\n%s", code, p)
			}
			if !strings.Contains(p.stdout.String(), "sudo snag setup --usb "+id.String()) {
				t.Errorf("the command that would help is missing\n%s", p)
			}
		})
	}
}

// TestWithUdevVariants recovers boards of all kinds, all at a time.
func TestWithUdevVariants(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	t.Log(must(t, "snag", "setup", "--usb", gadget.String(), "--usb", unknown.String()))
	before := leftovers(t)
	t.Run("all", func(t *testing.T) {
		for n, tc := range []struct {
			name   string
			root   bool
			config am335x.Config
		}{
			{"0451:d022 RNDIS, DHCP", false, am335x.Config{}},
			{"0451:d022 ECM, BOOTP", false, am335x.Config{ECM: true, BOOTP: true}},
			{"0451:d022 RNDIS, BOOTP, no TFTP options", false, am335x.Config{BOOTP: true, NoOptions: true}},
			{"0451:d022 ECM, DHCP, windowsize 8", false, am335x.Config{ECM: true, Window: 8}},
			{"0525:a4a2 RNDIS", false, am335x.Config{SPL: gadget}},
			{"0525:a4a2 ECM, no vendor class", false, am335x.Config{SPL: gadget, ECM: true, SPLVendorClass: "-"}},
			{"an unknown ID", false, am335x.Config{SPL: unknown}},
			{"a second unknown ID, as root", true, am335x.Config{SPL: usb.ID{Vendor: 0x1209, Product: 0x0002}}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel()
				fw := generateSized(t, uint64(20+n), 8<<10, 24<<10)
				who, port := user, hostPort(t, n+1)
				if tc.root {
					who = nil
				}
				p := start(t, who, "recover", "-s", "am335x", "-f", fw.config, "--usb-path", string(port))
				tc.config.Seed, tc.config.SPLWindow = uint64(n), 30*time.Second // for this machine; the 3 s are the next test's
				board, _ := plug(t, tc.config, port)
				if code := p.exit(t, 2*time.Minute); code != 0 {
					t.Errorf("exit code %d\n%s", code, p)
				}
				fw.booted(t, board)
			})
		}
	})
	before.compare(t)
}

// emulated is the window of a board that shares an emulated processor with seven others: udevd, which has to give each
// of the sixteen devices to the user, falls 10 to 20 s behind there.
const emulated = time.Minute

// TestWithUdevEightAtOnce recovers eight boards, each with firmware of its own, after one alone. That no
// board misses SPL's 3 s is shown at the machine's own speed, in the sandbox. Here udevd and all else is
// slower, so the boards are more patient, and that alone.
func TestWithUdevEightAtOnce(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	one, eight := eightAtOnce(t)
	if eight.took > 3*one.took && eight.idle > one.idle*2/3 {
		t.Error("expected less than 3 times as long, or processors that are busy throughout: one board after the other leaves them idle as one does")
	}
}

// busyFor is how long boards took, and the share of that in which the processors were idle.
type busyFor struct {
	took time.Duration
	idle float64
}

// eightAtOnce recovers one board and then eight, with further arguments.
func eightAtOnce(t *testing.T, args ...string) (one, eight busyFor) {
	before := leftovers(t)
	var mu sync.Mutex
	run := func(t *testing.T, n int) time.Duration {
		fw := generateSized(t, uint64(30+n), 32<<10, 192<<10)
		port := hostPort(t, n)
		begun := time.Now()
		p := start(t, user, append([]string{"recover", "-s", "am335x", "-f", fw.config, "--usb-path", string(port)}, args...)...)
		board, _ := plug(t, am335x.Config{Seed: uint64(n), SPLWindow: emulated}, port)
		if code := p.exit(t, 3*time.Minute); code != 0 {
			t.Errorf("exit code %d\n%s", code, p)
		}
		took := time.Since(begun)
		t.Logf("snag, its worker and helpers: %s of processor time, %s in the kernel", ms(p.ProcessState.UserTime()), ms(p.ProcessState.SystemTime()))
		fw.booted(t, board)
		mu.Lock()
		defer mu.Unlock()
		r := board.Report()
		for _, s := range r.Stages {
			t.Logf("board %d, %s: link up %s after the plug, first request %s, last byte %s; %d requests lost", n, s.Name,
				ms(s.LinkUp.Sub(s.Plugged)), ms(s.FirstBOOTP.Sub(s.Plugged)), ms(s.LastByte.Sub(s.Plugged)), s.BOOTPLost)
		}
		return took
	}
	timed := func(f func() time.Duration) busyFor {
		busy, idle := processorTime(t)
		took := f()
		busy2, idle2 := processorTime(t)
		return busyFor{took, float64(idle2-idle) / float64(busy2-busy+idle2-idle)}
	}
	one = timed(func() (took time.Duration) {
		t.Run("one", func(t *testing.T) { took = run(t, 1) })
		return took
	})
	soon(t, 10*time.Second, func() error {
		if _, err := os.Stat("/sys/bus/usb/devices/" + string(hostPort(t, 1))); err == nil {
			return fmt.Errorf("the board is still there")
		}
		return nil
	})
	eight = timed(func() (last time.Duration) {
		t.Run("eight", func(t *testing.T) {
			for n := 1; n <= 8; n++ {
				t.Run(fmt.Sprint(n), func(t *testing.T) {
					t.Parallel()
					took := run(t, n)
					mu.Lock()
					defer mu.Unlock()
					last = max(last, took)
				})
			}
		})
		return last
	})
	t.Logf("one board: %s; eight at once: %s, %.1f times as long; the processors were idle for %.0f %% and %.0f %% of it", ms(one.took), ms(eight.took),
		eight.took.Seconds()/one.took.Seconds(), 100*one.idle, 100*eight.idle)
	before.compare(t)
	return one, eight
}

// processorTime reads the first line of /proc/stat (proc(5)): all processors' ticks, user nice system
// idle iowait irq softirq steal.
func processorTime(t *testing.T) (busy, idle int) {
	t.Helper()
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for n, field := range strings.Fields(line)[1:9] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		if n == 3 || n == 4 {
			idle += ticks
		} else {
			busy += ticks
		}
	}
	return busy, idle
}
