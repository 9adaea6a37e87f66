package e2e

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/dfu"
	"snag/sim/virtual"
	"snag/socs"
	"snag/usb"
)

// TestDFU is the proof that the virtual DFU boards are right which does not rest on snag: as devices of a real kernel
// they are listed and booted by dfu-util, as Debian builds it. snag recovers the same ones. One VM for all.
func TestDFU(t *testing.T) {
	t.Parallel()
	lab.GoTest(t, ".", "^TestWithDFU"+os.Getenv("SNAG_DFU"), lab.Job{
		Script:   "modprobe -a vhci-hcd",
		Packages: []string{"dfu-util", "iproute2", "nftables"}, // the latter for snag setup
		Files:    programs(t),
		Udev:     true, // libusb lists no device that udevd has not seen
		Timeout:  10 * time.Minute,
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

// dfuCase is a board, and dfu-util's way to recover it.
type dfuCase struct {
	name     string     // what is particular; empty: nothing
	model    string     // the board's
	siblings []string   // boards that are alike but for USB ID and files; dfu-util is not run on them
	config   dfu.Config // without the model
	more     string     // a file that is not the model's own: u-boot
	steps    []dfuStep

	withhold string            // a file that snag is not given
	differ   map[string]string // by stage: why snag gives it other files than dfu-util
}

// Steps that several boards have in common.
var (
	k3ROM   = dfuStep{stage: dfu.StageROM, names: []string{"bootloader", "SocId"}, alt: "bootloader", file: "tiboot3"}
	k3Sysfw = dfuStep{stage: dfu.StageSysfw, names: []string{"sysfw.itb"}, alt: "sysfw.itb", file: "sysfw", args: "-R"}
	k3R5    = dfuStep{stage: dfu.StageSPLR5, names: []string{"tispl.bin"}, alt: "tispl.bin", file: "tispl", args: "-R"}
	k3Main  = dfuStep{stage: dfu.StageSPLA53, names: []string{"u-boot.img"}, alt: "u-boot.img", file: "u-boot", args: "-R"}

	zynqmpSteps = []dfuStep{
		{stage: dfu.StageROM, names: []string{"UNKNOWN"}, alt: "0", file: "fsbl"},
		{stage: dfu.StageFSBL, names: []string{"Xilinx DFU Downloader"}, alt: "1", file: "boot"},
	}
)

// flashLayout is why U-Boot of STM32MP differs.
var flashLayout = map[string]string{dfu.StageUBoot: "snag has done its work when U-Boot is up; dfu-util goes on with a flash layout"}

// dfuCases follow ST's wiki "How to load U-Boot with dfu-util" and U-Boot's doc/board/ti/k3.rst.
var dfuCases = []dfuCase{
	{model: "stm32mp15", differ: flashLayout, steps: []dfuStep{
		{stage: dfu.StageROM, names: []string{"@Partition0 /0x00/1*256Ke", "@virtual /0xF1/1*512Ba"}, alt: "1", file: "tf-a"},
		{stage: dfu.StageTFA, names: []string{"@Partition3 /0x03/1*16Me"}, alt: "3", file: "fip", then: "-a 0 -e"},
		{stage: dfu.StageUBoot, names: []string{"@FlashLayout/0x00/1*256Ke"}, alt: "@FlashLayout/0x00/1*256Ke", file: "tf-a"},
	}},
	{name: "old TF-A", model: "stm32mp15", config: dfu.Config{OldTFA: true},
		differ: map[string]string{dfu.StageTFA: "snag makes a flash layout itself, dfu-util is given another file for it"},
		steps: []dfuStep{
			{stage: dfu.StageROM, alt: "1", file: "tf-a"},
			{stage: dfu.StageTFA, alt: "0", file: "tf-a"},
			{stage: dfu.StageTFA, alt: "3", file: "fip", then: "-a 0 -e"},
		}},
	{name: "SPL", model: "stm32mp15", config: dfu.Config{STM32SPL: true}, more: "u-boot", withhold: "fip", steps: []dfuStep{
		{stage: dfu.StageROM, alt: "1", file: "tf-a"},
		{stage: dfu.StageSPL, names: []string{"u-boot.itb"}, alt: "u-boot.itb", file: "u-boot", then: "-a 0 -e"},
	}},
	{model: "stm32mp13", differ: flashLayout, steps: []dfuStep{
		{stage: dfu.StageROM, names: []string{"@FSBL /0x01/1*1Me"}, alt: "0", file: "tf-a", then: "-a 0 -e"},
		{stage: dfu.StageTFA, names: []string{"@SSBL /0x03/1*16Me"}, alt: "0", file: "fip", then: "-a 0 -e"},
		{stage: dfu.StageUBoot, names: []string{"@FlashLayout/0x00/1*256Ke"}, alt: "0", file: "tf-a"},
	}},
	{model: "stm32mp25", siblings: []string{"stm32mp21", "stm32mp23"}, differ: flashLayout, steps: []dfuStep{
		{stage: dfu.StageROM, names: []string{"@FSBL /0x01/1*1Me"}, alt: "0", file: "tf-a", args: "-R"},
		{stage: dfu.StageTFA, names: []string{"@DDR FIP /0x02/1*32Ke"}, alt: "0", file: "fip-ddr", then: "-a 0 -e"},
		{stage: dfu.StageTFA, names: []string{"@FIP /0x03/1*16Me"}, alt: "1", file: "fip", then: "-a 0 -e"},
		{stage: dfu.StageUBoot, names: []string{"@virtual/0xF1/1*512Be"}, alt: "0", file: "tf-a"},
	}},

	{model: "am62x", siblings: []string{"am62ax", "am62dx", "am62px", "am64x", "j7200", "j721s2", "j722s", "j784s4"},
		steps:  []dfuStep{k3ROM, {stage: dfu.StageSPLR5, names: []string{"tispl.bin", "u-boot.img"}, alt: "tispl.bin", file: "tispl", args: "-R"}, k3Main},
		differ: map[string]string{dfu.StageSPLR5: "SPL on the R5 offers a place for u-boot.img too, where the next SPL may look for it: snag fills it, U-Boot's document does not"}},
	{name: "old SPL", model: "am62x", config: dfu.Config{SPL: dfu.SPLOld}, steps: []dfuStep{
		k3ROM, {stage: dfu.StageSPLR5, alt: "tispl.bin", file: "tispl"}, {stage: dfu.StageSPLR5, alt: "u-boot.img", file: "u-boot", args: "-R"},
	}},
	{name: "twice", model: "am64x", config: dfu.Config{SPL: dfu.SPLNext, Twice: true},
		steps: []dfuStep{k3ROM, {stage: dfu.StageROM2, alt: "bootloader", file: "tiboot3"}, k3R5, k3Main}},
	{model: "am65x", siblings: []string{"j721e"}, config: dfu.Config{SPL: dfu.SPLNext, Block: 5 * time.Millisecond, EarlyLeave: true}, steps: []dfuStep{
		k3ROM, k3Sysfw, k3R5, {stage: dfu.StageSPLA53, names: []string{"u-boot.img"}, alt: "u-boot.img", file: "u-boot", then: "-a 0 -e"},
	}},
	{model: "am62lx", steps: []dfuStep{k3ROM, {stage: dfu.StageROM2, names: []string{"bootloader"}, alt: "bootloader", file: "tispl"}, k3Main}},

	{model: "zynqmp", steps: zynqmpSteps},
	{name: "boot.bin alone", model: "zynqmp", steps: zynqmpSteps, withhold: "fsbl",
		differ: map[string]string{dfu.StageROM: "snag takes the first stage out of boot.bin; the file that dfu-util is given was made apart"}},
	{name: "FSBL of 2017", model: "zynqmp", config: dfu.Config{OldFSBL: true}, steps: zynqmpSteps},
	{model: "rzn1", steps: []dfuStep{{stage: dfu.StageROM, names: []string{"UNKNOWN"}, alt: "0", file: "u-boot"}}},
}

// left says whether dfu-util's error is due to the device's leaving, after it had downloaded everything: a ROM that
// starts its file before it is asked for the status, or a device that its reset (-R) turns into another one.
func left(out string, err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	switch {
	case exit.ExitCode() == 74 && strings.Contains(out, "unable to read DFU status after completion"),
		exit.ExitCode() == 74 && strings.Contains(out, "Error sending completion packet (LIBUSB_ERROR_NO_DEVICE)"), // before that was answered
		exit.ExitCode() == 74 && strings.Contains(out, "error resetting after download: LIBUSB_ERROR_"),            // at -R already
		exit.ExitCode() == 251 && strings.Contains(out, "Resetting USB"):
		return true
	}
	return false
}

// TestWithDFU recovers every board with dfu-util and with snag, and compares what the two did to it. Then snag recovers
// the boards of all other models, and it is compared to what dfu-util did to a board of that kind.
func TestWithDFU(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	var mu sync.Mutex
	records := map[*dfuCase]record{} // of dfu-util
	proven, recovered := map[string]string{}, map[string]bool{}
	snag := func(t *testing.T, c *dfuCase, who *syscall.Credential, board, model string) record {
		b := c.power(t, board)
		b.snag(t, who, model, c.withhold)
		r := b.booted(t)
		mu.Lock()
		defer mu.Unlock()
		recovered[model] = !t.Failed()
		return r
	}
	t.Run("both", func(t *testing.T) {
		for i := range dfuCases {
			c := &dfuCases[i]
			if !part(i, 2) && c.model != "rzn1" { // its family's only case
				continue
			}
			t.Run(strings.TrimSuffix(c.model+", "+c.name, ", "), func(t *testing.T) {
				t.Parallel()
				var a, b record
				t.Run("by", func(t *testing.T) {
					t.Run("dfu-util", func(t *testing.T) {
						t.Parallel()
						b := c.power(t, c.model)
						for i, s := range c.steps {
							b.step(t, i, s)
						}
						a = b.booted(t)
					})
					t.Run("snag", func(t *testing.T) {
						t.Parallel()
						b = snag(t, c, user, c.model, names(c.model)[0])
					})
				})
				if t.Failed() {
					return
				}
				c.compare(t, b, a)
				mu.Lock()
				defer mu.Unlock()
				records[c], proven[c.model] = a, "dfu-util"
			})
		}
	})
	if !every() {
		return
	}
	// udevd's work at each enumeration takes longer than snag's.
	must(t, "udevadm", "control", "--stop-exec-queue")
	defer must(t, "udevadm", "control", "--start-exec-queue")
	t.Run("snag", func(t *testing.T) {
		for i := range dfuCases {
			c := &dfuCases[i]
			if c.name != "" {
				continue
			}
			for _, board := range slices.Concat([]string{c.model}, c.siblings) {
				for _, model := range names(board) {
					if recovered[model] {
						continue
					}
					t.Run(model, func(t *testing.T) {
						t.Parallel()
						r := snag(t, c, nil, board, model)
						c.compare(t, r, records[c])
						mu.Lock()
						defer mu.Unlock()
						if proven[board] == "" && !t.Failed() {
							proven[board] = fmt.Sprintf("dfu-util (%s)", c.model)
						}
					})
				}
			}
		}
	})
	for _, m := range socs.Models() {
		if _, err := dfu.FindModel(m.Name); err == nil && !recovered[m.Name] {
			t.Errorf("snag has recovered no %s", m.Name)
		}
	}
	for _, m := range dfu.Models() {
		if m.Family != dfu.Gadget && m.ProvenBy != proven[m.Name] { // gadgets are TestWithDFUGadget's
			t.Errorf("%s is said to be proven by %q; here it was by %q", m.Name, m.ProvenBy, proven[m.Name])
		}
	}
}

// names are snag's names of the models whose board it is.
func names(board string) (all []string) {
	for _, m := range socs.Models() {
		if b, err := dfu.FindModel(m.Name); err == nil && b.Name == board {
			all = append(all, m.Name)
		}
	}
	return all
}

// record is what each stage of a board has received: setting and file, by their names, a line each.
type record map[string]string

// record makes one of the board's report.
func (b *dfuBoard) record() record {
	files := map[string]string{}
	for name, data := range b.images {
		files[fmt.Sprintf("%x", sha256.Sum256(data))] = name
	}
	r := record{}
	for _, s := range b.Report().Stages {
		r[s.Name] += ""
		for _, f := range s.Files {
			r[s.Name] += fmt.Sprintf("setting %d %q: %s\n", f.Alt, f.Name, cmp.Or(files[f.SHA256], f.SHA256))
		}
	}
	return r
}

// compare compares what snag and dfu-util did, stage by stage.
func (c *dfuCase) compare(t *testing.T, snag, dfuUtil record) {
	t.Helper()
	stages := maps.Clone(snag)
	maps.Copy(stages, dfuUtil)
	for stage := range stages {
		a, inA := snag[stage]
		b, inB := dfuUtil[stage]
		if same := inA && inB && a == b; same == (c.differ[stage] != "") {
			t.Errorf("stage %s is the same: %t; a difference was expected because %q\nsnag:\n%s\ndfu-util:\n%s", stage, same, c.differ[stage], a, b)
		}
	}
}

// step has dfu-util do one step.
func (b *dfuBoard) step(t *testing.T, i int, s dfuStep) {
	t.Helper()
	before := len(b.files())
	b.list(t, s)
	args := append(strings.Fields(s.args), "-w", "-a", s.alt, "-D", filepath.Join(b.dir, s.file))
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

// snag has snag recover the board as somebody, by a name of its model, with all files but one.
func (b *dfuBoard) snag(t *testing.T, who *syscall.Credential, model, without string) {
	t.Helper()
	readable(t, b.dir)
	args := []string{"recover", "-s", model, "--usb-path", b.port}
	for _, name := range slices.Sorted(maps.Keys(b.images)) {
		if name != without {
			args = append(args, "-F", name+"="+filepath.Join(b.dir, name))
		}
	}
	begun := time.Now()
	p := start(t, who, args...)
	if code := p.exit(t, time.Minute); code != 0 {
		t.Fatalf("exit code %d\n%s\nboard: %+v", code, p, b.Report())
	}
	t.Logf("snag: %s", time.Since(begun).Round(10*time.Millisecond))
}

// dfuBoard is a board that dfu-util works on.
type dfuBoard struct {
	*dfu.Board
	dir    string // with the files by their names
	port   string
	id     usb.ID
	images map[string][]byte
}

// power plugs the case's board in, or a sibling's.
func (c *dfuCase) power(t *testing.T, board string) *dfuBoard {
	t.Helper()
	cfg := c.config
	var err error
	if cfg.Model, err = dfu.FindModel(board); err != nil {
		t.Fatal(err)
	}
	images := dfu.Generate(cfg.Model, 20_000, 1)
	if c.more != "" {
		other, err := dfu.FindModel("am62x")
		if err != nil {
			t.Fatal(err)
		}
		images[c.more] = dfu.Generate(other, 20_000, 1)[c.more]
	}
	return powerDFU(t, cfg, images)
}

// powerDFU plugs a board in.
func powerDFU(t *testing.T, cfg dfu.Config, images map[string][]byte) *dfuBoard {
	t.Helper()
	b := &dfuBoard{dir: t.TempDir(), id: cfg.Model.ID, images: images}
	for name, data := range b.images {
		if err := os.WriteFile(filepath.Join(b.dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if b.Board, err = dfu.New(cfg); err != nil {
		t.Fatal(err)
	}
	port, _ := plugIn(t, b.Run)
	b.port = string(port)
	return b
}

// booted checks what became of the board, and returns what it received.
func (b *dfuBoard) booted(t *testing.T) record {
	t.Helper()
	select {
	case <-b.Settled():
	case <-time.After(30 * time.Second):
	}
	r := b.Report()
	if r.Outcome != virtual.Booted {
		t.Errorf("board: %s %s\n%s", r.Outcome, r.Error, r.Effects())
	}
	b.lawful(t)
	return b.record()
}

// files are all that the board has received.
func (b *dfuBoard) files() (all []dfu.File) {
	for _, s := range b.Report().Stages {
		all = append(all, s.Files...)
	}
	return all
}

// stage waits for a stage's device.
func (b *dfuBoard) stage(t *testing.T, name string) {
	t.Helper()
	soon(t, 30*time.Second, func() error {
		r := b.Report()
		if n := len(r.Stages); n == 0 || r.Stages[n-1].Name != name {
			return fmt.Errorf("no stage %s: %+v", name, r)
		}
		_, err := os.Stat("/sys/bus/usb/devices/" + b.port + ":1.0")
		return err
	})
}

// list waits for a stage, with its settings if they are to be listed.
func (b *dfuBoard) list(t *testing.T, s dfuStep) {
	t.Helper()
	b.stage(t, s.stage)
	if s.names == nil {
		return
	}
	soon(t, 30*time.Second, func() error {
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
