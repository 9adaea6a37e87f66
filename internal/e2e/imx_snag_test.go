package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/imx"
	"snag/sim/virtual"
)

// snagArgs are what snag is to be told to recover the board.
func (b *peerBoard) snagArgs(soc string, more ...string) []string {
	first, second := filepath.Join(b.dir, "first.bin"), filepath.Join(b.dir, "second.bin")
	args := []string{"recover", "-s", soc, "--usb-path", string(b.port)}
	model := b.Report().Model
	switch {
	case b.images.Second != nil:
		args = append(args, "-F", "SPL="+first, "-F", "u-boot="+second)
	case strings.HasPrefix(model, "imx8"), strings.HasPrefix(model, "imx9"), model == "imx23", model == "imx28":
		args = append(args, "-F", "flash-bin="+first)
	default:
		args = append(args, "-F", "u-boot-with-dcd="+first)
	}
	return append(args, more...)
}

// snag recovers the board as somebody; nil is root.
func (b *peerBoard) snag(t *testing.T, who *syscall.Credential, soc string, more ...string) error {
	t.Helper()
	begun := time.Now()
	p := start(t, who, b.snagArgs(soc, more...)...)
	code := p.exit(t, 2*time.Minute)
	t.Logf("snag: %s", time.Since(begun).Round(10*time.Millisecond))
	if code != 0 {
		return fmt.Errorf("exit code %d\n%s\nboard: %+v", code, p, b.Report())
	}
	return nil
}

// readable lets every user read what is in a directory of this test's.
func readable(t *testing.T, dir string) {
	t.Helper()
	for ; len(dir) > 5; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// snagDiffers tells why what snag does to a board may show otherwise in its memory than what a peer does. Empty:
// it may not.
func (c *imxCase) snagDiffers(peer string) string {
	switch {
	case peer == "imx_usb" && c.differ != "":
		return "snag has the ROM skip the DCD as uuu does, imx_usb clears it"
	case peer == "uuu" && c.name == "" && (c.model == "imx8mq" || c.model == "imx8mm"):
		return "uuu gives SPL all of the file behind the ROM's part and has it search, snag gives it the FIT"
	}
	return ""
}

// sameEffects compares what the programs did to the same board.
func (c *imxCase) sameEffects(t *testing.T, effects map[string]string) {
	t.Helper()
	for _, pair := range []struct{ a, b, differ string }{
		{"uuu", "imx_usb", c.differ},
		{"snag", "uuu", c.snagDiffers("uuu")},
		{"snag", "imx_usb", c.snagDiffers("imx_usb")},
	} {
		a, b := effects[pair.a], effects[pair.b]
		if a != "" && b != "" && (a != b) != (pair.differ != "") {
			t.Errorf("the effects of %s and %s are the same: %t; a difference was expected because %q\n%s:\n%s\n%s:\n%s", pair.a, pair.b, a == b, pair.differ, pair.a, a, pair.b, b)
		}
	}
}

// virtualIMX makes the configuration and generated images of a board.
func virtualIMX(t *testing.T, cfg imx.Config, model string, size int, seed uint64) (imx.Config, imx.Images) {
	t.Helper()
	var err error
	if cfg.Model, err = imx.FindModel(model); err != nil {
		t.Fatal(err)
	}
	images, err := imx.Generate(cfg, size, seed)
	if err != nil {
		t.Fatal(err)
	}
	return cfg, images
}

// ownBytes checks that the stages of a board whose DCD is skipped were given its own first image, and nothing else:
// each stage the part that follows the one before it, or what is at the end.
func (b *peerBoard) ownBytes() error {
	r := b.Report()
	image, at := b.images.First, 0
	is := func(part []byte, digest string) bool {
		sum := sha256.Sum256(part)
		return hex.EncodeToString(sum[:]) == digest
	}
	for _, s := range r.Stages {
		if s.Stream != "" {
			if at+s.Bytes > len(image) || !is(image[at:at+s.Bytes], s.Stream) {
				return fmt.Errorf("%s has a stream of %d bytes that are not those from %d on of the image's %d", s.Name, s.Bytes, at, len(image))
			}
			at += s.Bytes
			continue
		}
		if len(s.Memory) != 1 {
			return fmt.Errorf("%s has %d pieces in memory, expected one", s.Name, len(s.Memory))
		}
		m := s.Memory[0]
		if m.Bytes < 1024 || m.Bytes > len(image) || !is(image[:m.Bytes], m.SHA256) && !is(image[len(image)-m.Bytes:], m.SHA256) {
			return fmt.Errorf("%s has %d bytes in memory that are neither the beginning nor the end of the image's %d", s.Name, m.Bytes, len(image))
		}
	}
	return nil
}

// TestWithIMXSnagUser recovers boards as an ordinary user after snag setup, with udevd and its rules.
func TestWithIMXSnagUser(t *testing.T) {
	lab.Inside(t)
	must(t, "snag", "setup", "--remove")
	cfg, images := virtualIMX(t, imx.Config{}, "imx6ul", 20_000, 1)
	b := powerIMX(t, cfg, images)
	b.attribute(t, cfg.Model.ID, "product")
	readable(t, b.dir)
	line := fmt.Sprintf(`SUBSYSTEM=="usb", ATTR{idVendor}=="%04x", ATTR{idProduct}=="%04x"`, cfg.Model.ID.Vendor, cfg.Model.ID.Product)
	p := start(t, user, b.snagArgs("imx6ul")...)
	if code := p.exit(t, time.Minute); code != 4 || !strings.Contains(p.stdout.String(), line) || !strings.Contains(p.stdout.String(), "sudo snag setup") {
		t.Errorf("without rules: exit code %d, want 4 and the line of udev\n%s", code, p)
	}
	b.unplug()

	setUp(t)
	for n, model := range []string{"imx6ul", "imx53", "imx8mm", "imx8mp"} {
		t.Run(model, func(t *testing.T) {
			cfg, images := virtualIMX(t, imx.Config{}, model, 30_000, uint64(n))
			b := powerIMX(t, cfg, images)
			readable(t, b.dir)
			if err := b.snag(t, user, model); err != nil {
				t.Fatal(err)
			}
			b.recovered(t, false)
		})
	}

	t.Run("a stranger", func(t *testing.T) {
		b := powerIMX(t, cfg, images)
		b.attribute(t, cfg.Model.ID, "product")
		must(t, "udevadm", "settle")
		readable(t, b.dir)
		p := start(t, stranger, b.snagArgs("imx6ul")...)
		if code := p.exit(t, time.Minute); code != 4 || !strings.Contains(p.stdout.String(), line) || !strings.Contains(p.stdout.String(), "root:plugdev 0660") {
			t.Errorf("exit code %d, want 4 and the line of udev\n%s", code, p)
		}
	})

	// The node is root's until udevd has run, which takes its time here.
	t.Run("slow udevd", func(t *testing.T) {
		const rules = "/run/udev/rules.d/00-slow.rules"
		slow := fmt.Sprintf(`SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ATTR{idVendor}=="%04x", PROGRAM="/bin/sleep 2"`+"\n", cfg.Model.ID.Vendor)
		if err := errors.Join(os.MkdirAll(filepath.Dir(rules), 0o755), os.WriteFile(rules, []byte(slow), 0o644)); err != nil {
			t.Fatal(err)
		}
		must(t, "udevadm", "control", "--reload")
		defer must(t, "udevadm", "control", "--reload")
		defer os.Remove(rules)
		b := powerIMX(t, cfg, images)
		readable(t, b.dir)
		if err := b.snag(t, user, "imx6ul"); err != nil {
			t.Fatal(err)
		}
		r := b.recovered(t, false)
		if first := r.Stages[0].First.Sub(r.Stages[0].Plugged); first < 2*time.Second {
			t.Errorf("snag spoke to the board after %s: udevd was not slow, the test shows nothing", first)
		}
	})
}

// TestWithIMXSnagReenumeration: from the ROM's end to the next stage's first report nothing waits for longer than
// it takes, however fast or slow the board is.
func TestWithIMXSnagReenumeration(t *testing.T) {
	lab.Inside(t)
	for _, delay := range []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 500 * time.Millisecond, 5 * time.Second} {
		t.Run(delay.String(), func(t *testing.T) {
			if delay > time.Second {
				t.Parallel()
			}
			// The kernel's enumeration is in it, for which a busy machine takes its time: that nothing sleeps is exact
			// in socs/imx, on the same boards without a kernel. Here one of three tries is to be in time.
			for try := 1; ; try++ {
				cfg, images := virtualIMX(t, imx.Config{SPL: imx.SDPV, SPLDelay: delay}, "imx6q", 20_000, 1)
				b := powerIMX(t, cfg, images)
				if err := b.snag(t, nil, "imx6q"); err != nil {
					t.Fatal(err)
				}
				r := b.recovered(t, false)
				rom, spl := r.Last(imx.StageROM), r.Last(imx.StageSPL)
				first := spl.First.Sub(spl.Plugged)
				t.Logf("SPL was on the bus %s after the ROM had left it, and had its first report %s later", ms(spl.Plugged.Sub(rom.Left)), ms(first))
				if first <= 4*time.Second {
					return
				}
				if try == 3 {
					t.Fatalf("SPL had its first report after %s", first)
				}
			}
		})
	}
}

// TestWithIMXSnagEightAtOnce recovers boards of three models with a process each; each board gets its own images.
func TestWithIMXSnagEightAtOnce(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	type board struct {
		*peerBoard
		model string
	}
	var boards []board
	for n := range 8 {
		model := []string{"imx7d", "imx8mm", "imx8mp"}[n%3]
		// A board leaves when the host has taken its last answer, whatever the machine is busy with.
		cfg, images := virtualIMX(t, imx.Config{}, model, 40_000, uint64(100+n))
		b := plugIMX(t, cfg, images)
		readable(t, b.dir)
		b.attribute(t, cfg.Model.ID, "product")
		boards = append(boards, board{b, model})
	}
	must(t, "udevadm", "settle")
	listed := must(t, "snag", "list", "boards")
	t.Log("\n" + listed)
	for _, b := range boards {
		want := fmt.Sprintf("%s %s imx %s rom usbhid", b.port, b.id, map[string]string{"imx7d": "imx7d,imx7s", "imx8mm": "imx8mm", "imx8mp": "imx865"}[b.model])
		if !strings.Contains(strings.Join(strings.Fields(listed), " "), want) {
			t.Errorf("snag list boards lacks %q", want)
		}
	}
	several := start(t, user, "recover", "-s", "imx7d", "-F", "u-boot-with-dcd="+filepath.Join(boards[0].dir, "first.bin"))
	if code := several.exit(t, time.Minute); code != 2 || !strings.Contains(several.stdout.String(), "--usb-path") {
		t.Errorf("with several boards and no port: exit code %d, want 2 and a list of them\n%s", code, several)
	}
	begun := time.Now()
	var all sync.WaitGroup
	for n, b := range boards {
		p := start(t, user, b.snagArgs(b.model)...)
		all.Go(func() {
			if code := p.exit(t, 2*time.Minute); code != 0 {
				t.Errorf("board %d, %s on %s: exit code %d\n%s", n, b.model, b.port, code, p)
			}
		})
	}
	all.Wait()
	t.Logf("eight boards: %s", ms(time.Since(begun)))
	effects := map[string]string{}
	for n, b := range boards {
		r := b.recovered(t, false)
		e := r.Effects()
		if other, ok := effects[e]; ok {
			t.Errorf("board %d has the same images as board %s\n%s", n, other, e)
		}
		effects[e] = fmt.Sprint(n)
		if err := b.ownBytes(); err != nil {
			t.Errorf("board %d, %s: %v\n%s", n, b.model, err, e)
		}
		b.unplug()
	}
}

// TestWithIMXSnagTogether plugs two boards in at the same moment, for a snag that waits and was told no port: the kernel
// enumerates one after the other.
func TestWithIMXSnagTogether(t *testing.T) {
	lab.Inside(t)
	cfg, images := virtualIMX(t, imx.Config{Report: 50 * time.Millisecond}, "imx6sll", 60_000, 3)
	one, two := newIMX(t, cfg, images), newIMX(t, cfg, images)
	p := start(t, nil, "recover", "-s", "imx6sll", "-F", "u-boot-with-dcd="+filepath.Join(one.dir, "first.bin"), "--timeout", "1m")
	soon(t, 30*time.Second, func() error {
		if !strings.Contains(p.stdout.String(), "waiting for") {
			return errors.New("snag does not wait")
		}
		return nil
	})
	one.port, one.unplug = plugAlone(t, one.Run)
	two.port, two.unplug = plugAlone(t, two.Run)
	code, said := p.exit(t, time.Minute), p.stdout.String()
	if code != 2 || !strings.Contains(said, "2 boards match") || !strings.Contains(said, "--usb-path "+string(one.port)) || !strings.Contains(said, string(two.port)) {
		t.Errorf("exit code %d, want 2 and both ports, %s and %s\n%s", code, one.port, two.port, p)
	}
}

// TestWithIMXSnagInterrupted ends snag in the middle. The next one recovers the board all the same; the kernel's driver
// is given back if snag had the time for that.
func TestWithIMXSnagInterrupted(t *testing.T) {
	lab.Inside(t)
	const model = "imx6ul"
	for _, end := range []struct {
		name   string
		signal syscall.Signal
		code   int
		driver string // of the interface, afterwards
	}{
		{"SIGKILL", syscall.SIGKILL, -1, ""},
		{"SIGINT", syscall.SIGINT, 130, "usbhid"},
	} {
		t.Run(end.name, func(t *testing.T) {
			cfg, images := virtualIMX(t, imx.Config{Report: 20 * time.Millisecond}, model, 60_000, 7)
			b := powerIMX(t, cfg, images)
			p := start(t, nil, b.snagArgs(model)...)
			soon(t, 30*time.Second, func() error {
				if r := b.Report(); len(r.Stages) == 0 || r.Stages[0].Bytes < 5_000 {
					return fmt.Errorf("the board has less than 5000 bytes: %+v", r.Stages)
				}
				return nil
			})
			if err := p.Process.Signal(end.signal); err != nil {
				t.Fatal(err)
			}
			if code := p.exit(t, 20*time.Second); code != end.code {
				t.Errorf("exit code %d, want %d\n%s", code, end.code, p)
			}
			soon(t, 30*time.Second, func() error {
				link, _ := os.Readlink(fmt.Sprintf("/sys/bus/usb/devices/%s:1.0/driver", b.port))
				if link == "" && end.driver == "" || link != "" && filepath.Base(link) == end.driver {
					return nil
				}
				return fmt.Errorf("the interface's driver is %q, want %q", link, end.driver)
			})
			if err := b.snag(t, nil, model); err != nil {
				t.Fatal(err)
			}
			r := b.Report()
			if err := b.ownBytes(); err != nil || r.Outcome != virtual.Booted {
				t.Errorf("board: %s %s; %v\n%s", r.Outcome, r.Error, err, r.Effects())
			}
		})
	}
}

// TestWithIMXSnagBusyPort starts a second snag for a port.
func TestWithIMXSnagBusyPort(t *testing.T) {
	lab.Inside(t)
	cfg, images := virtualIMX(t, imx.Config{Faults: []imx.Fault{{Kind: imx.Hang, Stage: imx.StageROM, At: 5_000}}}, "imx6ul", 20_000, 1)
	b := powerIMX(t, cfg, images)
	p := start(t, nil, b.snagArgs("imx6ul")...)
	<-b.Settled() // it hangs, and snag waits
	readable(t, b.dir)
	second := start(t, user, b.snagArgs("imx6ul")...)
	code := second.exit(t, time.Minute)
	if says := fmt.Sprintf("port %s is in use by process %d (snag recover -s imx6ul", b.port, p.Process.Pid); code != 1 || !strings.Contains(second.stdout.String(), says) {
		t.Errorf("exit code %d, want 1 and %q\n%s", code, says, second)
	}
}
