package e2e

import (
	"context"
	"errors"
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
	"snag/sim/qcom"
	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// qualcommBoard is a board in EDL with its files.
type qualcommBoard struct {
	*qcom.Board
	port       string
	xbl, uboot string
}

func plugQualcomm(t *testing.T, cfg qcom.Config) *qualcommBoard {
	t.Helper()
	dir := t.TempDir()
	images := qcom.Generate(40_000, 1) // qdl has the kernel send each packet by itself, and waits a second for one
	b := &qualcommBoard{xbl: filepath.Join(dir, "prog.elf"), uboot: filepath.Join(dir, "u-boot.mbn")}
	for name, data := range map[string][]byte{b.xbl: images.XBL, b.uboot: images.MBN, filepath.Join(dir, "patch.xml"): []byte("<?xml version=\"1.0\" ?>\n<patches>\n</patches>\n")} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	readable(t, dir)
	var err error
	if b.Board, err = qcom.New(cfg); err != nil {
		t.Fatal(err)
	}
	port, _ := plugAlone(t, b.Run)
	b.port = string(port)
	return b
}

// qdl begins to give the board a file. It takes the first board in EDL that there is.
func (b *qualcommBoard) qdl(t *testing.T, file string) (wait func() (string, error), kill func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "qdl", file, filepath.Join(filepath.Dir(file), "patch.xml"))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait = sync.OnceValues(func() (string, error) {
		err := cmd.Wait()
		t.Logf("qdl %s: %v\n%s", filepath.Base(file), err, out.String())
		return out.String(), err
	})
	return wait, func() {
		cmd.Process.Kill()
		wait()
	}
}

// sent waits until the ROM has its image.
func sent(t *testing.T, b *qualcommBoard) {
	t.Helper()
	soon(t, 30*time.Second, func() error {
		if rom := b.Report().Last(qcom.StageROM); rom == nil || !rom.Complete {
			return fmt.Errorf("the board has %+v", rom)
		}
		return nil
	})
}

// snag has snag recover the board as somebody.
func (b *qualcommBoard) snag(t *testing.T, who *syscall.Credential, files ...string) {
	t.Helper()
	args := []string{"recover", "-s", "iq9075", "--usb-path", b.port}
	for _, f := range files {
		args = append(args, "-F", f)
	}
	begun := time.Now()
	p := start(t, who, args...)
	if code := p.exit(t, time.Minute); code != 0 {
		t.Fatalf("exit code %d\n%s\nboard: %s", code, p, b.Report().Effects())
	}
	t.Logf("snag: %s", time.Since(begun).Round(10*time.Millisecond))
}

// booted checks what became of the board, and returns what it received.
func (b *qualcommBoard) booted(t *testing.T) string {
	t.Helper()
	select {
	case <-b.Settled():
	case <-time.After(30 * time.Second):
	}
	r := b.Report()
	if err := r.Err(); err != nil {
		t.Errorf("%v\n%s", err, r.Effects())
	}
	return r.Effects()
}

// TestWithROMQualcomm has Debian's qdl (of 2022) and snag recover the same boards, and compares the boards' records.
// qdl knows one file, and believes a board to want no more than that: of a board that wants two it is ended when it is
// through, and begun again. It drives the first board that it finds, so that there is only one at a time.
func TestWithROMQualcomm(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	t.Run("two images", func(t *testing.T) {
		for name, cfg := range map[string]qcom.Config{
			"READ_DATA":                {},
			"READ_DATA64, super speed": {Wide: true, Speed: usbdev.SuperSpeed, Signed: true},
			"re-enumerates":            {Protocol: 0xff, Piece: 4096, Reenumerate: true},
		} {
			cfg.Delay = time.Second
			t.Run(name, func(t *testing.T) {
				b := plugQualcomm(t, cfg)
				_, kill := b.qdl(t, b.xbl)
				defer kill()
				sent(t, b)
				kill()
				_, kill = b.qdl(t, b.uboot)
				defer kill()
				byQDL := b.booted(t)
				kill()
				cfg.Delay = 0
				b = plugQualcomm(t, cfg)
				b.snag(t, user, "xbl="+b.xbl, "u-boot="+b.uboot)
				if got := b.booted(t); got != byQDL || strings.Count(got, "status 0") != 2 {
					t.Errorf("snag:\n%s\nqdl:\n%s", got, byQDL)
				}
			})
		}
	})
	programmer := plugQualcomm(t, qcom.Config{Single: true})
	wait, _ := programmer.qdl(t, programmer.xbl)
	sent(t, programmer)
	// qdl now waits 5 s for what the programmer may have to say.
	t.Run("refused", func(t *testing.T) {
		b := plugQualcomm(t, qcom.Config{Faults: []qcom.Fault{{Kind: qcom.Fail, Stage: qcom.StageROM, Command: qcom.AtEnd, Status: 0x21}}})
		p := start(t, user, "recover", "-s", "iq9075", "--usb-path", b.port, "-F", "xbl="+b.xbl, "-F", "u-boot="+b.uboot)
		if code := p.exit(t, time.Minute); code != 6 || !strings.Contains(p.String(), "authentication of the hash table failed") {
			t.Errorf("exit code %d\n%s", code, p)
		}
		// The board was reset, and takes the right file now.
		soon(t, 30*time.Second, func() error {
			if r := b.Report(); r.Resets != 1 || r.Outcome != virtual.Running {
				return errors.New("the board was not reset")
			}
			return nil
		})
		b.snag(t, user, "xbl="+b.xbl, "u-boot="+b.uboot)
		b.booted(t)
	})
	t.Run("crash dump", func(t *testing.T) {
		b := plugQualcomm(t, qcom.Config{Mode: qcom.Dump})
		p := start(t, user, "recover", "-s", "iq9075", "--usb-path", b.port, "-F", "xbl="+b.xbl)
		if code := p.exit(t, time.Minute); code != 6 || !strings.Contains(p.String(), "crash dump") {
			t.Errorf("exit code %d\n%s", code, p)
		}
	})
	t.Run("a programmer", func(t *testing.T) {
		b := plugQualcomm(t, qcom.Config{Single: true})
		b.snag(t, user, "xbl="+b.xbl)
		got := b.booted(t)
		if out, err := wait(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		if byQDL := programmer.booted(t); got != byQDL {
			t.Errorf("snag:\n%s\nqdl:\n%s", got, byQDL)
		}
		if got := fmt.Sprint(programmer.Report().Last(qcom.StageProgrammer).Firehose); got != "[configure power]" {
			t.Errorf("Firehose: %s", got)
		}
	})
}
