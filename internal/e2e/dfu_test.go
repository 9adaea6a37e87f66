package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/dfu"
	"snag/sim/vhci"
	"snag/sim/virtual"
	"snag/usb"
)

// TestDFU is the proof that the virtual DFU boards are right which does not rest on snag: as devices of a real kernel they
// are listed and booted by dfu-util, as Debian builds it. One VM for all.
func TestDFU(t *testing.T) {
	t.Parallel()
	lab.GoTest(t, ".", "^TestWithDFU", lab.Job{
		Script:   "modprobe -a vhci-hcd",
		Packages: []string{"dfu-util"},
		Udev:     true, // libusb lists no device that udevd has not seen
		Timeout:  6 * time.Minute,
	})
}

// dfuStep is what dfu-util does to a stage.
type dfuStep struct {
	stage string
	names []string // that are listed
	alt   string   // -a
	file  string   // -D
	args  string   // another argument for the download: -R
	then  string   // arguments of another run: -a 0 -e
}

// dfuCases are boards and dfu-util's way to recover them, as ST's wiki "How to load U-Boot with dfu-util" and U-Boot's
// doc/board/ti/k3.rst have it.
var dfuCases = []struct {
	config dfu.Config
	model  string
	steps  []dfuStep
}{
	{model: "stm32mp15", steps: []dfuStep{
		{stage: dfu.StageROM, names: []string{"@Partition0 /0x00/1*256Ke", "@virtual /0xF1/1*512Ba"}, alt: "1", file: "tf-a"},
		{stage: dfu.StageTFA, names: []string{"@Partition3 /0x03/1*16Me"}, alt: "3", file: "fip", then: "-a 0 -e"},
		{stage: dfu.StageUBoot, names: []string{"@FlashLayout/0x00/1*256Ke"}, alt: "@FlashLayout/0x00/1*256Ke", file: "tf-a"},
	}},
	{model: "stm32mp13", steps: []dfuStep{
		{stage: dfu.StageROM, names: []string{"@FSBL /0x01/1*1Me"}, alt: "0", file: "tf-a", then: "-a 0 -e"},
		{stage: dfu.StageTFA, names: []string{"@SSBL /0x03/1*16Me"}, alt: "0", file: "fip", then: "-a 0 -e"},
		{stage: dfu.StageUBoot, names: []string{"@FlashLayout/0x00/1*256Ke"}, alt: "0", file: "tf-a"},
	}},
	{model: "stm32mp25", steps: []dfuStep{
		{stage: dfu.StageROM, names: []string{"@FSBL /0x01/1*1Me"}, alt: "0", file: "tf-a", args: "-R"},
		{stage: dfu.StageTFA, names: []string{"@DDR FIP /0x02/1*32Ke"}, alt: "0", file: "fip-ddr", then: "-a 0 -e"},
		{stage: dfu.StageTFA, names: []string{"@FIP /0x03/1*16Me"}, alt: "1", file: "fip", then: "-a 0 -e"},
		{stage: dfu.StageUBoot, names: []string{"@virtual/0xF1/1*512Be"}, alt: "0", file: "tf-a"},
	}},
	{model: "am62x", steps: []dfuStep{
		{stage: dfu.StageROM, names: []string{"bootloader", "SocId"}, alt: "bootloader", file: "tiboot3"},
		{stage: dfu.StageSPLR5, names: []string{"tispl.bin", "u-boot.img"}, alt: "tispl.bin", file: "tispl", args: "-R"},
		{stage: dfu.StageSPLA53, names: []string{"u-boot.img"}, alt: "u-boot.img", file: "u-boot", args: "-R"},
	}},
	{model: "am65x", config: dfu.Config{SPL: dfu.SPLNext, Block: 5 * time.Millisecond, EarlyLeave: true}, steps: []dfuStep{
		{stage: dfu.StageROM, names: []string{"bootloader"}, alt: "bootloader", file: "tiboot3"},
		{stage: dfu.StageSysfw, names: []string{"sysfw.itb"}, alt: "sysfw.itb", file: "sysfw", args: "-R"},
		{stage: dfu.StageSPLR5, names: []string{"tispl.bin"}, alt: "tispl.bin", file: "tispl", args: "-R"},
		{stage: dfu.StageSPLA53, names: []string{"u-boot.img"}, alt: "u-boot.img", file: "u-boot", then: "-a 0 -e"},
	}},
	{model: "am62lx", steps: []dfuStep{
		{stage: dfu.StageROM, names: []string{"bootloader"}, alt: "bootloader", file: "tiboot3"},
		{stage: dfu.StageROM2, names: []string{"bootloader"}, alt: "bootloader", file: "tispl"},
		{stage: dfu.StageSPLA53, names: []string{"u-boot.img"}, alt: "u-boot.img", file: "u-boot", args: "-R"},
	}},
	{model: "zynqmp", steps: []dfuStep{
		{stage: dfu.StageROM, names: []string{"UNKNOWN"}, alt: "0", file: "fsbl"},
		{stage: dfu.StageFSBL, names: []string{"Xilinx DFU Downloader"}, alt: "1", file: "boot"},
	}},
	{model: "rzn1", steps: []dfuStep{
		{stage: dfu.StageROM, names: []string{"UNKNOWN"}, alt: "0", file: "u-boot"},
	}},
}

// left says whether dfu-util's error is due to the device's leaving, after it had downloaded everything: a ROM that starts
// its file before it is asked for the status, or a device that its reset (-R) turns into another one.
func left(out string, err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	switch {
	case exit.ExitCode() == 74 && strings.Contains(out, "unable to read DFU status after completion"),
		exit.ExitCode() == 74 && strings.Contains(out, "Error sending completion packet (LIBUSB_ERROR_NO_DEVICE)"), // before that was answered
		exit.ExitCode() == 74 && strings.Contains(out, "error resetting after download: LIBUSB_ERROR_NO_DEVICE"),   // at -R's DETACH already
		exit.ExitCode() == 251 && strings.Contains(out, "Resetting USB"):
		return true
	}
	return false
}

// TestWithDFU recovers every board.
func TestWithDFU(t *testing.T) {
	lab.Inside(t)
	for _, c := range dfuCases {
		t.Run(c.model, func(t *testing.T) {
			t.Parallel()
			var err error
			if c.config.Model, err = dfu.FindModel(c.model); err != nil {
				t.Fatal(err)
			}
			b := powerDFU(t, c.config)
			for i, s := range c.steps {
				before := len(b.files())
				b.list(t, s)
				args := append(strings.Fields(s.args), "-a", s.alt, "-D", filepath.Join(b.dir, s.file))
				if out, err := b.dfuUtil(t, args...); err != nil && !left(out, err) {
					t.Fatalf("step %d: %v\n%s\n%+v", i, err, out, b.Report())
				}
				files := b.files()
				if len(files) != before+1 || files[before].SHA256 != fmt.Sprintf("%x", sha256.Sum256(b.images[s.file])) {
					t.Fatalf("step %d: the board has the files %+v, expected %s, %d bytes", i, files, s.file, len(b.images[s.file]))
				}
				if s.then != "" {
					if out, err := b.dfuUtil(t, strings.Fields(s.then)...); err != nil && !strings.Contains(out, "can't detach") {
						t.Fatalf("step %d: %v\n%s\n%+v", i, err, out, b.Report())
					}
				}
			}
			b.booted(t)
		})
	}
}

// dfuBoard is a board that dfu-util works on.
type dfuBoard struct {
	*dfu.Board
	dir    string // with the files by their names
	port   string
	id     usb.ID
	images map[string][]byte
}

// powerDFU plugs a board in.
func powerDFU(t *testing.T, cfg dfu.Config) *dfuBoard {
	t.Helper()
	imxAtATime <- struct{}{}
	t.Cleanup(func() { <-imxAtATime })
	b := &dfuBoard{dir: t.TempDir(), id: cfg.Model.ID, images: dfu.Generate(cfg.Model, 50_000, 1)}
	for name, data := range b.images {
		if err := os.WriteFile(filepath.Join(b.dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	imxPorts.Lock()
	port, err := vhci.Open("", imxTaken...)
	if err != nil {
		imxPorts.Unlock()
		t.Fatal(err)
	}
	imxTaken = append(imxTaken, port)
	imxPorts.Unlock()
	b.port = string(port.Name())
	if b.Board, err = dfu.New(cfg); err != nil {
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
		imxPorts.Lock()
		imxTaken = slices.DeleteFunc(imxTaken, func(p *vhci.Port) bool { return p == port })
		imxPorts.Unlock()
	})
	return b
}

// booted checks what became of the board.
func (b *dfuBoard) booted(t *testing.T) {
	t.Helper()
	soon(t, 10*time.Second, func() error {
		if r := b.Report(); r.Outcome != virtual.Booted {
			return fmt.Errorf("board: %s %s\n%s", r.Outcome, r.Error, r.Effects())
		}
		return nil
	})
	for _, v := range b.Report().Violations {
		t.Errorf("the board saw %d times: %s", v.N, v.Text)
	}
}

// files are all that the board has received.
func (b *dfuBoard) files() (all []dfu.File) {
	for _, s := range b.Report().Stages {
		all = append(all, s.Files...)
	}
	return all
}

// list waits for a stage, with its settings.
func (b *dfuBoard) list(t *testing.T, s dfuStep) {
	t.Helper()
	soon(t, 30*time.Second, func() error {
		r := b.Report()
		if n := len(r.Stages); n == 0 || r.Stages[n-1].Name != s.stage {
			return fmt.Errorf("no stage %s: %+v", s.stage, r)
		}
		out, err := b.dfuUtil(t, "-l")
		for _, name := range s.names {
			if err == nil && !strings.Contains(out, fmt.Sprintf("name=%q", name)) {
				err = fmt.Errorf("%q is not listed", name)
			}
		}
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
}

// dfuUtil runs dfu-util on the board and returns the end of what it said.
func (b *dfuBoard) dfuUtil(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	args = append([]string{"-p", b.port}, args...)
	cmd := exec.CommandContext(ctx, "dfu-util", args...)
	cmd.WaitDelay = time.Second
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	t.Logf("dfu-util %s: %s, %v", strings.Join(args, " "), time.Since(begun).Round(10*time.Millisecond), err)
	return string(out[max(0, len(out)-3000):]), errors.Join(err, ctx.Err())
}
