package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/imx"
	"snag/sim/virtual"
	"snag/usb"
)

// firmwareDir is where the VM finds Debian's u-boot-imx, if it could be had.
const firmwareDir = "/lab/firmware"

// newerUUU is where the VM finds the uuu that SNAG_UUU names, if any: Debian's is older than the i.MX95.
const newerUUU = "/lab/bin/uuu-newer"

func haveNewerUUU() bool {
	_, err := os.Stat(newerUUU)
	return err == nil
}

// TestIMX is the proof that the virtual i.MX boards are right which does not rest on snag: as devices of a real kernel
// they are recovered by NXP's uuu and Boundary Devices' imx_usb, as Debian builds them. One VM for all.
func TestIMX(t *testing.T) {
	t.Parallel()
	files := programs(t)
	if newer := os.Getenv("SNAG_UUU"); newer != "" {
		files[newerUUU] = newer
	}
	if dirs, err := lab.Fetch(t.Context(), "u-boot-imx:armhf"); err == nil {
		all, _ := filepath.Glob(filepath.Join(dirs[0], "usr/lib/u-boot/*/*"))
		for _, f := range all {
			if filepath.Ext(f) != ".elf" {
				files[filepath.Join(firmwareDir, filepath.Base(filepath.Dir(f)), filepath.Base(f))] = f
			}
		}
	}
	inVM(t, "^TestWithIMX"+os.Getenv("SNAG_IMX"), lab.Job{
		Script:   "modprobe -a vhci-hcd usbhid hid-generic",
		Packages: []string{"uuu", "imx-usb-loader"},
		Files:    files,
		Udev:     true, // libusb lists no device that udevd has not seen
		Timeout:  10 * time.Minute,
	})
}

// peerBoard is a board that a peer works on.
type peerBoard struct {
	*imx.Board
	dir    string // with first.bin and second.bin
	port   usb.Port
	id     usb.ID // of its ROM
	images imx.Images
	unplug func()
}

// errPeerTimeout says that a peer gave up waiting.
var errPeerTimeout = errors.New("the peer timed out")

// powerIMX plugs a board in, when the peers have time for it.
func powerIMX(t *testing.T, cfg imx.Config, images imx.Images) *peerBoard {
	t.Helper()
	b := newIMX(t, cfg, images)
	b.port, b.unplug = plugIn(t, b.Run)
	return b
}

// plugIMX plugs a board in.
func plugIMX(t *testing.T, cfg imx.Config, images imx.Images) *peerBoard {
	t.Helper()
	b := newIMX(t, cfg, images)
	b.port, b.unplug = plugAlone(t, b.Run)
	return b
}

func newIMX(t *testing.T, cfg imx.Config, images imx.Images) *peerBoard {
	t.Helper()
	b := &peerBoard{dir: t.TempDir(), id: cfg.Model.ID, images: images}
	for name, data := range map[string][]byte{"first.bin": images.First, "second.bin": images.Second} {
		if err := os.WriteFile(filepath.Join(b.dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if b.Board, err = imx.New(cfg); err != nil {
		t.Fatal(err)
	}
	return b
}

// attribute is a file of the board's directory in sysfs, once the device there has the ID.
func (b *peerBoard) attribute(t *testing.T, id usb.ID, name string) string {
	t.Helper()
	dir := "/sys/bus/usb/devices/" + string(b.port)
	var text string
	soon(t, 30*time.Second, func() error {
		product, err := os.ReadFile(dir + "/idProduct")
		if err != nil || strings.TrimSpace(string(product)) != fmt.Sprintf("%04x", id.Product) {
			return fmt.Errorf("no %s on %s: %v", id, b.port, err)
		}
		value, err := os.ReadFile(filepath.Join(dir, name))
		text = strings.TrimSpace(string(value))
		return err
	})
	return text
}

// peer runs a program on the board.
func (b *peerBoard) peer(t *testing.T, name string, args ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = b.dir
	cmd.WaitDelay = time.Second
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	t.Logf("%s %s: %s", name, strings.Join(args, " "), time.Since(begun).Round(10*time.Millisecond))
	if err != nil && (bytes.Contains(out, []byte("LIBUSB_ERROR_TIMEOUT")) || bytes.Contains(out, []byte("err=-7"))) {
		err = fmt.Errorf("%w: %w", errPeerTimeout, err)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s\nboard: %+v", name, err, out[max(0, len(out)-3000):], b.Report())
	}
	return err
}

// uuu runs an uuu on the board with a script.
func (b *peerBoard) uuu(t *testing.T, program string, lines ...string) error {
	t.Helper()
	script := filepath.Join(b.dir, "script.lst")
	text := "uuu_version 1.2.39\n" + strings.Join(lines, "\n") + "\n"
	text = strings.NewReplacer("FIRST", "first.bin", "SECOND", "second.bin").Replace(text)
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return b.peer(t, program, "-v", "-m", strings.ReplaceAll(string(b.port), "-", ":"), script)
}

// imxUSB runs imx_usb on the board's device of an ID.
func (b *peerBoard) imxUSB(t *testing.T, id usb.ID, args ...string) error {
	t.Helper()
	bus, device := b.attribute(t, id, "busnum"), b.attribute(t, id, "devnum")
	return b.peer(t, "imx_usb", append([]string{"-b", bus, "-D", device}, args...)...)
}

// recovered checks what became of the board, or of its ROM's stage only.
func (b *peerBoard) recovered(t *testing.T, romOnly bool) imx.Report {
	t.Helper()
	soon(t, 30*time.Second, func() error {
		r := b.Report()
		if romOnly && r.Stages[0].Complete || r.Outcome == virtual.Booted {
			return nil
		}
		return fmt.Errorf("board: %s %s\n%+v", r.Outcome, r.Error, r)
	})
	r := b.Report()
	for _, v := range r.Violations {
		t.Errorf("the board saw %d times: %s", v.N, v.Text)
	}
	return r
}
