package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/am335x"
	"snag/usb"
)

// rulesOnly leaves of snag's setup nothing but the udev rules, for an ordinary user's recoveries without the kernel's
// network. The rules have further IDs, by which an SPL may go.
func rulesOnly(t *testing.T, further ...usb.ID) {
	t.Helper()
	must(t, "snag", "setup", "--remove")
	rules := must(t, "snag", "udev")
	for _, id := range further {
		rules += fmt.Sprintf("SUBSYSTEM==\"usb\", ATTR{idVendor}==\"%04x\", ATTR{idProduct}==\"%04x\", MODE=\"0660\", GROUP=\"plugdev\"\n", id.Vendor, id.Product)
	}
	const file = "/etc/udev/rules.d/70-snag-user-test.rules"
	if err := os.MkdirAll("/etc/udev/rules.d", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "udevadm", "control", "--reload")
	t.Cleanup(func() {
		os.Remove(file)
		must(t, "udevadm", "control", "--reload")
	})
}

// TestWithUdevUserNet recovers boards of all kinds at a time, as a user who may open their USB devices and no more.
func TestWithUdevUserNet(t *testing.T) {
	lab.Inside(t)
	rulesOnly(t, gadget)
	before := leftovers(t)
	at := func(kind am335x.FaultKind, stage string, bytes int) am335x.Fault {
		return am335x.Fault{Kind: kind, Stage: stage, At: bytes}
	}
	type board struct {
		name   string
		config am335x.Config
		auto   bool
	}
	// Few at a time: udevd is slow in the emulated machine, and a board that was reset is to be back within 15 s.
	for n, boards := range [][]board{{
		{"RNDIS, DHCP, auto", am335x.Config{}, true},
		{"ECM, BOOTP, no TFTP options", am335x.Config{ECM: true, BOOTP: true, NoOptions: true}, false},
		{"0525:a4a2, windowsize 8", am335x.Config{SPL: gadget, Window: 8}, false},
		{"loss", am335x.Config{LossIn: 0.05, LossOut: 0.05, Window: 4}, false},
	}, {
		{"an MLO, reset in both stages", am335x.Config{Faults: []am335x.Fault{at(am335x.Reset, am335x.StageROM, 4096), at(am335x.Reset, am335x.StageSPL, 14680)}}, false},
		{"unplugged", am335x.Config{Faults: []am335x.Fault{at(am335x.Unplug, am335x.StageROM, 4096)}}, false},
	}} {
		t.Run(fmt.Sprintf("%d at a time", len(boards)), func(t *testing.T) {
			for i, b := range boards {
				t.Run(b.name, func(t *testing.T) {
					t.Parallel()
					seed := uint64(10*n + i)
					fw := generateSized(t, 50+seed, 8<<10, 24<<10)
					if strings.HasPrefix(b.name, "an MLO") {
						fw.asMLO(t)
					}
					port := hostPort(t, i+1)
					args := []string{"recover", "-s", "am335x", "-f", fw.config, "--usb-path", string(port), "--net", "user"}
					if b.auto {
						args = args[:len(args)-2]
					}
					p := start(t, user, args...)
					b.config.Seed, b.config.SPLWindow = seed, 30*time.Second // for this machine
					virtual, _ := plug(t, b.config, port)
					if slices.ContainsFunc(b.config.Faults, func(f am335x.Fault) bool { return f.Kind == am335x.Unplug }) {
						if code := p.exit(t, time.Minute); code != 6 || !strings.Contains(p.stdout.String(), "did not come back") {
							t.Errorf("exit code %d, want 6 and the reason\n%s", code, p)
						}
						return
					}
					if code := p.exit(t, 2*time.Minute); code != 0 {
						t.Errorf("exit code %d\n%s", code, p)
					}
					fw.booted(t, virtual)
					if said := strings.Contains(p.stdout.String(), "without the kernel's network"); said != b.auto {
						t.Errorf("it says which way it takes: %v\n%s", said, p)
					}
				})
			}
		})
	}
	before.compare(t)
}

// TestWithUdevUserEightAtOnce is TestWithUdevEightAtOnce without the kernel's network.
func TestWithUdevUserEightAtOnce(t *testing.T) {
	lab.Inside(t)
	if !every() {
		t.Skip(everyBoard + " is not set: the kernel's way does the same")
	}
	rulesOnly(t)
	eightAtOnce(t, "--net", "user")
}

// TestWithUdevUserEnds is TestWithUdevEnds without the kernel's network.
func TestWithUdevUserEnds(t *testing.T) {
	lab.Inside(t)
	if !every() {
		t.Skip(everyBoard + " is not set: the kernel's way does the same")
	}
	rulesOnly(t)
	ends(t, "user")
}

// TestWithUdevUserGivesBack has the kernel's driver bound again when a recovery ends in the middle.
func TestWithUdevUserGivesBack(t *testing.T) {
	lab.Inside(t)
	rulesOnly(t)
	fw := generateSized(t, 60, 8<<10, 8<<10)
	port := hostPort(t, 1)
	board, _ := plug(t, slowBoard, port)
	soon(t, 30*time.Second, func() error { _, err := onHost(port); return err })
	p := start(t, user, "recover", "-s", "am335x", "-f", fw.config, "--usb-path", string(port), "--net", "user")
	soon(t, time.Minute, func() error {
		if r := board.Report(); len(r.Last(am335x.StageROM).Data) < 2048 {
			return fmt.Errorf("not reached")
		}
		return nil
	})
	if _, err := onHost(port); err == nil {
		t.Error("the kernel still has an interface")
	}
	signalled(syscall.SIGINT)(t, p)
	if code := p.exit(t, prompt); code != 130 {
		t.Errorf("exit code %d, want 130\n%s", code, p)
	}
	soon(t, prompt, func() error { _, err := onHost(port); return err })
}

// TestWithUdevUserNoDriver is a kernel without rndis_host, on which everything else is set up: snag finds out, in the
// time that SPL leaves it.
func TestWithUdevUserNoDriver(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	const blacklist = "/etc/modprobe.d/snag-test.conf"
	const modules = "blacklist rndis_host\nblacklist rndis_wlan\ninstall rndis_host /bin/false\ninstall rndis_wlan /bin/false\n"
	if err := os.WriteFile(blacklist, []byte(modules), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "udevadm", "control", "--reload")
	soon(t, 30*time.Second, func() error { // the board before may be leaving
		if out, err := exec.Command("sh", "-c", "rmmod rndis_wlan; rmmod rndis_host; test ! -e /sys/module/rndis_host").CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	defer func() {
		os.Remove(blacklist)
		must(t, "udevadm", "control", "--reload")
		must(t, "modprobe", "rndis_host")
	}()
	fw := generateSized(t, 61, 8<<10, 24<<10)
	p := start(t, user, "recover", "-s", "am335x", "-f", fw.config)
	board, _ := plug(t, am335x.Config{}, "")
	if code := p.exit(t, time.Minute); code != 0 {
		t.Errorf("exit code %d\n%s", code, p)
	}
	fw.booted(t, board)
	if !strings.Contains(p.stdout.String(), "no driver for it (rndis_host") {
		t.Errorf("it does not say why\n%s", p)
	}
}

// TestWithUdevUserSandbox recovers from where nothing is allowed: no user namespaces, no capabilities to be had, no
// network.
func TestWithUdevUserSandbox(t *testing.T) {
	lab.Inside(t)
	rulesOnly(t)
	const limit = "/proc/sys/user/max_user_namespaces"
	old, err := os.ReadFile(limit)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(limit, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(limit, old, 0)
	fw := generateSized(t, 62, 8<<10, 24<<10)
	p := &program{Cmd: exec.Command("unshare", "--net", "--ipc", "--uts", "setpriv", "--reuid=1001", "--regid=1001", "--groups=46",
		"--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all",
		"snag", "recover", "-s", "am335x", "-f", fw.config)}
	p.Dir = "/"
	p.Cmd.Stdout, p.Cmd.Stderr = &p.stdout, &p.stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill(); p.Wait() })
	board, _ := plug(t, am335x.Config{}, "")
	if code := p.exit(t, time.Minute); code != 0 {
		t.Errorf("exit code %d\n%s", code, p)
	}
	fw.booted(t, board)
}

// userStages is how many SPLs are to have their link in time, with a second to spare of their three.
const userStages = 20

// TestWithUdevUserWindow measures how long SPL waits for its link. A stage before or after which the host had other
// things to do is not judged.
func TestWithUdevUserWindow(t *testing.T) {
	lab.Inside(t)
	rulesOnly(t)
	fw := generateSized(t, 63, 2<<10, 2<<10)
	quiet := func() bool {
		must(t, "udevadm", "settle") // what this machine does about the unplugging is not the host's
		return stolenShare(100*time.Millisecond) <= idle
	}
	var all, judged []time.Duration
	before := quiet()
	for n := range userStages {
		if !part(n, 3) {
			continue
		}
		p := start(t, user, "recover", "-s", "am335x", "-f", fw.config, "--net", "user")
		board, _, unplug := plugged(t, am335x.Config{SPLDelay: 100 * time.Millisecond, JumpDelay: 10 * time.Millisecond, SPLWindow: time.Minute}, "")
		if code := p.exit(t, time.Minute); code != 0 {
			t.Fatalf("run %d: exit code %d\n%s", n, code, p)
		}
		fw.booted(t, board)
		r := board.Report()
		unplug()
		s := r.Last(am335x.StageSPL)
		took := s.LinkUp.Sub(s.Plugged)
		all = append(all, took)
		after := quiet()
		if before && after {
			judged = append(judged, took)
		}
		if before = after; n >= idleKnown && len(judged) == 0 {
			break
		}
	}
	slices.Sort(all)
	t.Logf("SPL's link was up %s after the plug in the median of %d, %s at worst; %d are judged", ms(all[len(all)/2]), len(all), ms(all[len(all)-1]), len(judged))
	for _, took := range judged {
		if took > 2*time.Second {
			t.Errorf("a link was up after %s, expected 2 s at most", ms(took))
		}
	}
}
