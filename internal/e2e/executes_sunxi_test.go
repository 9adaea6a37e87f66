package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/recovery"
	"snag/sim/inproc"
	"snag/sim/qemu"
	sim "snag/sim/sunxi"
	"snag/socs"
	"snag/socs/socstest"
	"snag/socs/sunxi"
	"snag/usb"
)

// sunxiImage is where Debian's firmware for an Allwinner board is on the host.
func sunxiImage(t *testing.T, board string) string {
	t.Helper()
	return filepath.Join(lab.Packages(t, "u-boot-sunxi:armhf")[0], "usr/lib/u-boot", board, "u-boot-sunxi-with-spl.bin")
}

// qemu10 is a QEMU that has machines for A10 with its memory controller, and for R40: the host's, or that of Debian's
// backports.
func qemu10(t *testing.T, host *exec.Cmd) *exec.Cmd {
	t.Helper()
	version := exec.Command(host.Path, "--version")
	version.Env = host.Env
	out, err := version.Output()
	if err != nil {
		t.Fatal(err)
	}
	major := 0
	if _, err := fmt.Sscanf(string(out), "QEMU emulator version %d.", &major); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if major >= 10 {
		return host
	}
	return lab.Backport(t, "qemu-system-arm", "qemu-system-arm")
}

// TestExecutingSunxiInProcess recovers Allwinner boards whose firmware runs, SPL and snag's own programs included, with
// nothing between the engine and the board but the models of USB. What the ROM keeps in the memory that SPL runs in is
// there again afterwards.
func TestExecutingSunxiInProcess(t *testing.T) {
	for _, test := range []struct {
		soc, board string
		force      bool   // the image is for another SoC
		fails      string // the recovery's error
		model      string // that U-Boot tells
		newer      bool   // QEMU 10 is needed
	}{
		{soc: "h3", board: "nanopi_neo_air", model: "FriendlyARM NanoPi NEO Air"},
		{soc: "h3", board: "nanopi_neo", model: "FriendlyARM NanoPi NEO"},
		{soc: "h3", board: "orangepi_plus", model: "Xunlong Orange Pi Plus / Plus 2"},
		{soc: "h3", board: "Bananapi", fails: "not for H3"},
		{soc: "h3", board: "Bananapi", force: true, fails: "SPL did not return to FEL"},
		{soc: "a10", board: "Cubieboard", model: "Cubietech Cubieboard", newer: true},
		{soc: "r40", board: "Bananapi_M2_Ultra", model: "Banana Pi BPI-M2-Ultra", newer: true},
	} {
		name := test.soc + " " + test.board
		if test.force {
			name += " by force"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arm := lab.Command(t, "qemu-system-arm", "qemu-system-arm")
			if test.newer {
				arm = qemu10(t, arm)
			}
			file := sunxiImage(t, test.board)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			machine, err := qemu.StartAllwinner(t.Context(), test.soc, qemu.Config{QEMU: arm})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { machine.Close() })
			cfg := sim.Config{Machine: machine}
			if cfg.Model, err = sim.FindModel(test.soc); err != nil {
				t.Fatal(err)
			}
			board, err := sim.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			host, port := inproc.New(), usb.Port("1-1")
			img := socs.Image{Path: file, Data: data}
			if test.force {
				img.Params = map[string]any{"force": true}
			}
			o := socstest.Run(t, host, board, recovery.Options{
				Backend: sunxi.Backend{}, Model: socstest.Model(t, test.soc), Firmware: socs.Firmware{"u-boot-with-spl": img}, Port: port,
			})
			console := machine.UART[0]
			if test.fails != "" {
				if o.Err == nil || !strings.Contains(o.Err.Error(), test.fails) {
					t.Errorf("recovery: %v, expected the error %q", o.Err, test.fails)
				}
				if text := console.Text(); test.force == (text == "") {
					t.Errorf("it printed %q", text)
				}
				return
			}
			o.Good(t)
			if rom := o.Report.Last(sim.StageROM); rom.SPL == nil || !rom.Kept {
				t.Errorf("SPL %+v; what the ROM keeps is as it was: %t", rom.SPL, rom.Kept)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for _, x := range []exchange{{"U-Boot SPL 20", ""}, {"Trying to boot from FEL", ""}, {"U-Boot 20", ""}, {"Model: " + test.model + "\r", ""}, {"Hit any key", " "}, {"=> ", "version\r"}, {"U-Boot 20", ""}, {"=> ", ""}} {
				if _, err := console.Await(ctx, x.says); err != nil {
					t.Fatal(err)
				}
				if _, err := console.Write([]byte(x.typed)); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("%s\n%s", o.Texts(), strings.ReplaceAll(console.Text(), "\r", ""))
		})
	}
}
