package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/sama5"
	"snag/sim/usbdev"
	"snag/socs"
	"snag/usb"
)

// sama5Keys are the models' keys, as for Microchip's Xplained boards.
var sama5Keys = map[string]struct {
	preset  string
	console int
}{
	"sama5d2": {"DDR3_MT41K128M16:Preset 4 (2 x MT41K128M16)", 1},
	"sama5d3": {"DDR2_MT47H128M16:Preset 2 (2 x MT47H128M16)", 0},
	"sama5d4": {"DDR2_MT47H128M16:Preset 2 (2 x MT47H128M16)", 6},
}

// TestWithROMSAMA5 has snag recover every model, while the kernel's cdc_acm has the board, as an ordinary user; and
// boards at the edges of what a kernel does: full speed, U-Boot that leaves the USB controller dead, a monitor that
// another program left in the middle of a file.
func TestWithROMSAMA5(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	var mu sync.Mutex
	recovered := map[string]bool{}
	gadget := usb.ID{Vendor: 0x1d6b, Product: 0x0104}
	t.Run("boards", func(t *testing.T) {
		for _, tc := range []struct {
			name, model string
			cfg         sama5.Config
			who         *syscall.Credential
			args        []string
		}{
			{model: "sama5d2", cfg: sama5.Config{Gadget: gadget}, who: user, args: []string{"--expect", gadget.String()}},
			{model: "sama5d3", name: "at full speed", cfg: sama5.Config{Speed: usbdev.FullSpeed}, who: user},
			{model: "sama5d4", name: "midway", cfg: sama5.Config{Midway: 10_000}, who: user},
			{model: "sama5d4", name: "whose U-Boot stays", cfg: sama5.Config{Stays: true}},
		} {
			t.Run(strings.TrimSpace(tc.model+" "+tc.name), func(t *testing.T) {
				t.Parallel()
				b := powerSAMA5(t, tc.model, tc.cfg)
				soon(t, 30*time.Second, func() error { return b.tty() })
				begun := time.Now()
				p := start(t, tc.who, append([]string{"recover", "-s", tc.model, "--usb-path", b.port, "-f", b.config}, tc.args...)...)
				if code := p.exit(t, time.Minute); code != 0 {
					t.Fatalf("exit code %d\n%s\nboard: %+v", code, p, b.Report())
				}
				t.Logf("snag: %s", time.Since(begun).Round(10*time.Millisecond))
				b.booted(t)
				mu.Lock()
				defer mu.Unlock()
				recovered[tc.model] = !t.Failed()
			})
		}
	})
	for _, m := range socs.Models() {
		if m.Family == "sama5" && !recovered[m.Name] {
			t.Errorf("snag has recovered no %s", m.Name)
		}
	}
	t.Run("cdc_acm is back", func(t *testing.T) {
		b := powerSAMA5(t, "sama5d3", sama5.Config{Faults: []sama5.Fault{{Kind: sama5.Fail, Stage: sama5.StageROM, Command: sama5.CallExtram, Status: 0x0f}}})
		soon(t, 30*time.Second, func() error { return b.tty() })
		p := start(t, user, "recover", "-s", "sama5d3", "--usb-path", b.port, "-f", b.config)
		if code := p.exit(t, time.Minute); code != 6 || !strings.Contains(p.stdout.String(), "APPLET_FAIL") {
			t.Errorf("exit code %d\n%s", code, p)
		}
		if err := b.tty(); err != nil {
			t.Error(err)
		}
	})
}

// sama5Board is a board that is plugged in, with its files.
type sama5Board struct {
	*sama5.Board
	config string
	port   string
	images map[string][]byte
}

func powerSAMA5(t *testing.T, model string, cfg sama5.Config) *sama5Board {
	t.Helper()
	var err error
	if cfg.Model, err = sama5.FindModel(model); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b := &sama5Board{config: filepath.Join(dir, "board.yaml"), images: sama5.Generate(cfg.Model, 100_000, 1)}
	keys := sama5Keys[model]
	more := map[string]string{
		"lowlevel": fmt.Sprintf("  console_instance: %d\n  console_ioset: 1\n", keys.console),
		"extram":   fmt.Sprintf("  console_instance: %d\n  console_ioset: 1\n  preset: %q\n", keys.console, keys.preset),
		"u-boot":   "  address: 0x26f00000\n",
	}
	var yaml strings.Builder
	for _, name := range slices.Sorted(maps.Keys(b.images)) {
		file := filepath.Join(dir, name+".bin")
		if err := os.WriteFile(file, b.images[name], 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&yaml, "%s:\n  path: %s\n%s", name, file, more[name])
	}
	if err := os.WriteFile(b.config, []byte(yaml.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	readable(t, dir)
	if b.Board, err = sama5.New(cfg); err != nil {
		t.Fatal(err)
	}
	port, _ := plugIn(t, b.Run)
	b.port = string(port)
	return b
}

// tty says whether the kernel has made a serial port of the board.
func (b *sama5Board) tty() error {
	if ttys, _ := filepath.Glob("/sys/bus/usb/devices/" + b.port + ":1.0/tty/ttyACM*"); len(ttys) == 0 {
		return fmt.Errorf("no tty of the board on port %s", b.port)
	}
	return nil
}

// booted checks what became of the board.
func (b *sama5Board) booted(t *testing.T) {
	t.Helper()
	select {
	case <-b.Settled():
	case <-time.After(30 * time.Second):
	}
	r := b.Report()
	if err := r.Err(); err != nil {
		t.Errorf("%v\n%s", err, r.Effects())
	}
	s := r.Last(sama5.StageROM)
	if s.UBoot == nil || s.UBoot.Bytes != len(b.images["u-boot"]) || len(s.Applets) != 2 {
		t.Errorf("board: %s", r.Effects())
	}
}
