package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/sunxi"
	"snag/usb"
)

// felBoard is a board in FEL mode that a program works on.
type felBoard struct {
	*sunxi.Board
	model  sunxi.Model
	images sunxi.Images
	dir    string // with spl, u-boot, u-boot-with-spl
	port   usb.Port
}

// powerFEL plugs a board in.
func powerFEL(t *testing.T, cfg sunxi.Config) *felBoard {
	t.Helper()
	b := &felBoard{model: cfg.Model, images: sunxi.Generate(cfg.Model, 150_000, 1), dir: t.TempDir()}
	for name, data := range map[string][]byte{"spl": b.images.SPL, "u-boot": b.images.UBoot, "u-boot-with-spl": b.images.Combined} {
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

// newerFEL is where the VM finds the sunxi-fel that SNAG_SUNXI_FEL names, if any: Debian's is older than some SoCs.
const newerFEL = "/lab/bin/sunxi-fel-newer"

// felTool is the sunxi-fel that knows a SoC; empty if there is none here.
func felTool(m sunxi.Model) string {
	if !strings.HasSuffix(m.ProvenBy, " (by hand)") {
		return "sunxi-fel"
	}
	if _, err := os.Stat(newerFEL); err != nil {
		return ""
	}
	return newerFEL
}

// runFEL runs a sunxi-fel on the board at a port, and returns what it said.
func runFEL(t *testing.T, port usb.Port, program string, args ...string) (string, error) {
	t.Helper()
	dir := "/sys/bus/usb/devices/" + string(port)
	var number [2]string
	soon(t, 30*time.Second, func() error {
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
		_, err := os.Stat(fmt.Sprintf("/dev/bus/usb/%03s/%03s", number[0], number[1]))
		return err
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"-v", "-d", number[0] + ":" + number[1]}, args...)...)
	cmd.WaitDelay = time.Second
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	t.Logf("sunxi-fel %s: %s", strings.Join(args, " "), time.Since(begun).Round(10*time.Millisecond))
	return string(out), err
}

// fel runs a sunxi-fel on the board. FILE/ in an argument is where its files are.
func (b *felBoard) fel(t *testing.T, program string, args ...string) string {
	t.Helper()
	for i, a := range args {
		args[i] = strings.Replace(a, "FILE/", b.dir+"/", 1)
	}
	out, err := runFEL(t, b.port, program, args...)
	if err != nil {
		t.Fatalf("sunxi-fel: %v\n%s\nboard: %+v", err, out, b.Report())
	}
	return out
}

// booted checks what became of the board, and returns that.
func (b *felBoard) booted(t *testing.T) *sunxi.Stage {
	t.Helper()
	select {
	case <-b.Settled():
	case <-time.After(30 * time.Second):
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

// everything has sunxi-fel do what it can on a board.
func (b *felBoard) everything(t *testing.T, program string) {
	t.Helper()
	free, data := fmt.Sprintf("%#x", b.model.SPL+0x2000), bytes.Repeat([]byte("snag and FEL"), 80)
	if err := os.WriteFile(filepath.Join(b.dir, "data"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	out := b.fel(t, program, "version", "write", free, "FILE/data", "read", free, fmt.Sprint(len(data)), "FILE/back", "sid", "uboot", "FILE/u-boot-with-spl")
	if back, err := os.ReadFile(filepath.Join(b.dir, "back")); err != nil || !bytes.Equal(back, data) {
		t.Errorf("%d bytes were written, %d others read: %v", len(data), len(back), err)
	}
	for _, want := range []string{fmt.Sprintf("soc=%08x(%s)", b.model.SoC, strings.ToUpper(b.model.Name)), fmt.Sprintf(":%08x:", b.model.SoC)} {
		if !strings.Contains(strings.ToUpper(out), strings.ToUpper(want)) && !strings.Contains(out, "SID registers for your SoC") {
			t.Errorf("sunxi-fel does not say %q:\n%s", want, out)
		}
	}
}

// snag recovers the board as somebody.
func (b *felBoard) snag(t *testing.T, who *syscall.Credential) {
	t.Helper()
	readable(t, b.dir)
	begun := time.Now()
	p := start(t, who, "recover", "-s", b.model.Name, "--usb-path", string(b.port), "-F", "u-boot-with-spl="+filepath.Join(b.dir, "u-boot-with-spl"))
	if code := p.exit(t, time.Minute); code != 0 {
		t.Fatalf("exit code %d\n%s\nboard: %+v", code, p, b.Report())
	}
	t.Logf("snag: %s", time.Since(begun).Round(10*time.Millisecond))
}

// TestWithROMSunxi recovers every board with sunxi-fel and with snag, and compares what the two did to it.
func TestWithROMSunxi(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	var mu sync.Mutex
	effects := map[string]string{} // of sunxi-fel, by model
	t.Run("sunxi-fel", func(t *testing.T) {
		for i, m := range sunxi.Models() {
			program := felTool(m)
			if program == "" || !part(i, 4) {
				continue
			}
			t.Run(m.Name, func(t *testing.T) {
				t.Parallel()
				b := powerFEL(t, sunxi.Config{Model: m})
				b.everything(t, program)
				e := b.booted(t).Effects()
				mu.Lock()
				defer mu.Unlock()
				effects[m.Name] = e
			})
		}
	})
	t.Run("user", func(t *testing.T) {
		b := powerFEL(t, sunxi.Config{Model: felModel(t, "h3")})
		b.snag(t, user)
		b.booted(t)
	})
	// udevd's work at each enumeration takes longer than snag's.
	must(t, "udevadm", "control", "--stop-exec-queue")
	defer must(t, "udevadm", "control", "--start-exec-queue")
	t.Run("snag", func(t *testing.T) {
		for i, m := range sunxi.Models() {
			if !part(i, 4) {
				continue
			}
			t.Run(m.Name, func(t *testing.T) {
				t.Parallel()
				b := powerFEL(t, sunxi.Config{Model: m})
				b.snag(t, nil)
				if got, want := b.booted(t).Effects(), effects[m.Name]; want != "" && got != want {
					t.Errorf("the effects on the board are\n%s, those of sunxi-fel\n%s", got, want)
				}
			})
		}
	})
}

func felModel(t *testing.T, name string) sunxi.Model {
	t.Helper()
	m, err := sunxi.FindModel(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestWithROMSunxiSteps starts U-Boot with sunxi-fel step by step: SPL, a file in DRAM, the jump.
func TestWithROMSunxiSteps(t *testing.T) {
	lab.Inside(t)
	b := powerFEL(t, sunxi.Config{Model: felModel(t, "h3")})
	if err := os.WriteFile(filepath.Join(b.dir, "code"), b.images.UBoot[64:], 0o644); err != nil {
		t.Fatal(err)
	}
	b.fel(t, "sunxi-fel", "spl", "FILE/spl", "write", "0x4a000000", "FILE/code")
	if s := b.Report().Last(sunxi.StageROM); s.SPL == nil || !s.Kept || s.Start != nil {
		t.Errorf("after SPL: %+v", s)
	}
	b.fel(t, "sunxi-fel", "exe", "0x4a000000")
	b.booted(t)
}

// TestWithROMSunxiSim powers a board with the program, not the package, and lets sunxi-fel recover it.
func TestWithROMSunxiSim(t *testing.T) {
	lab.Inside(t)
	dir := t.TempDir()
	must(t, "snag", "sim", "h616", "--generate", dir)
	out := must(t, "snag", "sim", "h616", "--", "timeout", "60", "sh", "-c",
		"until sunxi-fel -l | grep H616; do sleep 0.1; done; sunxi-fel uboot "+filepath.Join(dir, "u-boot-with-spl.bin"))
	if !strings.Contains(out, "U-Boot was started") || !strings.Contains(out, "the ROM keeps in memory is as it was") || strings.Contains(out, "host mistake") {
		t.Error(out)
	}
}
