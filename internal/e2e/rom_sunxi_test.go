package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/sunxi"
	"snag/sim/virtual"
	"snag/usb"
)

// felBoard is a board in FEL mode that a program works on.
type felBoard struct {
	*sunxi.Board
	model  sunxi.Model
	images sunxi.Images
	dir    string // with spl, u-boot, combined
	port   usb.Port
}

// powerFEL plugs a board in.
func powerFEL(t *testing.T, cfg sunxi.Config) *felBoard {
	t.Helper()
	b := &felBoard{model: cfg.Model, images: sunxi.Generate(cfg.Model, 150_000, 1), dir: t.TempDir()}
	for name, data := range map[string][]byte{"spl": b.images.SPL, "u-boot": b.images.UBoot, "combined": b.images.Combined} {
		if err := os.WriteFile(filepath.Join(b.dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if b.Board, err = sunxi.New(cfg); err != nil {
		t.Fatal(err)
	}
	b.port, _ = plugIn(t, b.Run)
	return b
}

// fel runs sunxi-fel on the board.
func (b *felBoard) fel(t *testing.T, args ...string) (string, error) {
	t.Helper()
	dir := "/sys/bus/usb/devices/" + string(b.port)
	var number [2]string
	soon(t, 20*time.Second, func() error {
		if _, err := os.Stat(dir + ":1.0"); err != nil {
			return err
		}
		for i, name := range []string{"busnum", "devnum"} {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			number[i] = strings.TrimSpace(string(text))
		}
		if _, err := os.Stat(fmt.Sprintf("/dev/bus/usb/%03s/%03s", number[0], number[1])); err != nil {
			return err
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sunxi-fel", append([]string{"-v", "-d", number[0] + ":" + number[1]}, args...)...)
	cmd.Dir, cmd.WaitDelay = b.dir, time.Second
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	t.Logf("sunxi-fel %s: %s\n%s", strings.Join(args, " "), time.Since(begun).Round(10*time.Millisecond), out)
	return string(out), err
}

// booted checks what became of the board, and returns that.
func (b *felBoard) booted(t *testing.T) *sunxi.Stage {
	t.Helper()
	select {
	case <-b.Settled():
	case <-time.After(10 * time.Second):
	}
	r := b.Report()
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	s := r.Last(sunxi.StageROM)
	if !s.Kept {
		t.Errorf("what the ROM keeps in memory is not as it was")
	}
	return s
}

// TestWithROMSunxi has every board worked on by sunxi-fel.
func TestWithROMSunxi(t *testing.T) {
	lab.Inside(t)
	for _, m := range sunxi.Models() {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			b := powerFEL(t, sunxi.Config{Model: m})
			free := fmt.Sprintf("%#x", m.SPL+0x2000)
			data := bytes.Repeat([]byte("snag and FEL"), 80)
			if err := os.WriteFile(filepath.Join(b.dir, "data"), data, 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := b.fel(t, "version", "write", free, "data", "read", free, fmt.Sprint(len(data)), "back", "sid", "uboot", "combined")
			if err != nil {
				t.Error(err)
			}
			if back, err := os.ReadFile(filepath.Join(b.dir, "back")); err != nil || !bytes.Equal(back, data) {
				t.Errorf("%d bytes were written, %d others read: %v", len(data), len(back), err)
			}
			if want := fmt.Sprintf("soc=%08x(", m.SoC); !strings.Contains(out, want) {
				t.Errorf("sunxi-fel does not say %q", want)
			}
			b.booted(t)
			if r := b.Report(); r.Outcome == virtual.Booted {
				t.Log(r.Effects())
			}
		})
	}
}
