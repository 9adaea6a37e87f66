package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/imx"
	"snag/sim/vhci"
	"snag/usb"
)

// firmwareDir is where the VM finds Debian's u-boot-imx, if it could be had.
const firmwareDir = "/lab/firmware"

// TestIMX is the proof that the virtual i.MX boards are right which does not rest on snag: as devices of a real kernel
// they are recovered by NXP's uuu and Boundary Devices' imx_usb, as Debian builds them. One VM for all.
func TestIMX(t *testing.T) {
	files := map[string]string{}
	if dirs, err := lab.Fetch(t.Context(), "u-boot-imx:armhf"); err == nil {
		all, _ := filepath.Glob(filepath.Join(dirs[0], "usr/lib/u-boot/*/*"))
		for _, f := range all {
			if filepath.Ext(f) != ".elf" {
				files[filepath.Join(firmwareDir, filepath.Base(filepath.Dir(f)), filepath.Base(f))] = f
			}
		}
	}
	lab.GoTest(t, ".", "^TestWithIMX"+os.Getenv("SNAG_IMX"), lab.Job{
		Script:   "modprobe -a vhci-hcd usbhid hid-generic",
		Packages: []string{"uuu", "imx-usb-loader"},
		Files:    files,
		Udev:     true, // libusb lists no device that udevd has not seen
		Timeout:  6 * time.Minute,
	})
}

// peerBoard is a board that a peer works on.
type peerBoard struct {
	*imx.Board
	dir, first, second string // files
	port               usb.Port
	images             imx.Images
}

// powerIMX plugs a board in.
func powerIMX(t *testing.T, cfg imx.Config, images imx.Images) *peerBoard {
	t.Helper()
	b := &peerBoard{dir: t.TempDir(), images: images}
	b.first, b.second = filepath.Join(b.dir, "first.bin"), filepath.Join(b.dir, "second.bin")
	for name, data := range map[string][]byte{b.first: images.First, b.second: images.Second} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	port, err := vhci.Open("")
	if err != nil {
		t.Fatal(err)
	}
	b.port = port.Name()
	if b.Board, err = imx.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, port) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("board on %s: %v", port.Name(), err)
		}
	})
	return b
}

// peer runs a program on the board and returns what it wrote.
func (b *peerBoard) peer(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = b.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Second
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	t.Logf("%s %s: %s, %v", name, strings.Join(args, " "), time.Since(begun).Round(10*time.Millisecond), err)
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, tailOf(string(out)))
	}
	return string(out)
}

func tailOf(s string) string { return s[max(0, len(s)-3000):] }

// uuu runs uuu with a script.
func (b *peerBoard) uuu(t *testing.T, lines ...string) {
	t.Helper()
	script := filepath.Join(b.dir, "script.lst")
	text := "uuu_version 1.2.39\n" + strings.Join(lines, "\n") + "\n"
	text = strings.NewReplacer("FIRST", "first.bin", "SECOND", "second.bin").Replace(text)
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	b.peer(t, "uuu", "-v", script)
}

// booted waits for the end and checks it.
func (b *peerBoard) booted(t *testing.T) imx.Report {
	t.Helper()
	select {
	case <-b.Settled():
	case <-time.After(10 * time.Second):
	}
	r := b.Report()
	if r.Outcome != imx.Booted {
		t.Errorf("board: %s %s", r.Outcome, r.Error)
	}
	for _, v := range r.Violations {
		t.Errorf("the board saw %d times: %s", v.N, v.Text)
	}
	if t.Failed() {
		t.Logf("%s", r.Effects())
		for _, s := range r.Stages {
			for _, c := range s.Commands {
				t.Logf("%s: %s %#x %d bytes value %#x type %#x, %d times: %s", s.Name, c.Name, c.Addr, c.Bytes, c.Value, c.Type, c.N, c.Answer)
			}
		}
	}
	return r
}

func mustModel(t *testing.T, name string) imx.Model {
	t.Helper()
	m, err := imx.FindModel(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestWithIMXHID(t *testing.T) {
	lab.Inside(t)
	for _, name := range []string{"imx6q"} {
		t.Run(name, func(t *testing.T) {
			cfg := imx.Config{Model: mustModel(t, name)}
			images, err := imx.Generate(cfg, 300_000, 1)
			if err != nil {
				t.Fatal(err)
			}
			effects := map[string]string{}
			t.Run("uuu", func(t *testing.T) {
				b := powerIMX(t, cfg, images)
				b.uuu(t, "SDP: boot -f FIRST", "SDP: done")
				r := b.booted(t)
				effects["uuu"] = r.Effects()
			})
			t.Run("imx_usb", func(t *testing.T) {
				b := powerIMX(t, cfg, images)
				b.peer(t, "imx_usb", "first.bin")
				r := b.booted(t)
				effects["imx_usb"] = r.Effects()
			})
			if effects["uuu"] != effects["imx_usb"] {
				t.Errorf("the peers differ:\n%s\n%s", effects["uuu"], effects["imx_usb"])
			}
			fmt.Println(effects["uuu"])
		})
	}
}
