package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"snag/firmware"
	"snag/internal/lab"
	"snag/sim/rockchip"
	"snag/sim/virtual"
	"snag/socs"
	"snag/usb"
)

// rockchipCase is a board that rkdeveloptool downloads a loader to.
type rockchipCase struct {
	name   string // what is particular; empty: nothing
	model  string
	loader func(m rockchip.Model, l *rockchip.Images) []byte // nil: the generated one
}

var rockchipCases = []rockchipCase{
	{model: "rk3399"},
	{model: "rk3288"},
	{model: "rk3588"},
	// A section whose CRC16 would be cut in two, one that ends a piece, and one of a piece and nothing else.
	{name: "lengths", model: "rk3399", loader: func(m rockchip.Model, i *rockchip.Images) []byte {
		bare := func(n int) rockchip.Entry {
			return rockchip.Entry{Name: "rk3399", Data: rc4(i.Code471[:n]), Bare: true}
		}
		return rockchip.Loader{Chip: m.Chip, Code471: []rockchip.Entry{bare(4095), bare(4096), bare(100), bare(2*4096 - 3)},
			Code472: []rockchip.Entry{{Name: "rk3399_usbplug", Data: i.Plug}}}.Bytes()
	}},
}

// rc4 is of snag's: the ROM undoes it with its own.
func rc4(b []byte) []byte { return firmware.RockchipRC4(b) }

// TestWithROMRockchip downloads loaders with rkdeveloptool, which works on a board that is alone, and with snag, and
// compares what the two did to it. Then snag recovers the boards of all models.
func TestWithROMRockchip(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	proven, recovered := map[string]string{}, map[string]bool{}
	for _, c := range rockchipCases {
		t.Run(strings.TrimSuffix(c.model+", "+c.name, ", "), func(t *testing.T) {
			effects := map[string]string{}
			for _, who := range []string{"rkdeveloptool", "snag"} {
				b := powerRockchip(t, c.model, rockchip.Config{})
				if c.loader != nil {
					b.write(t, "loader.bin", c.loader(b.model, &b.images))
				}
				begun := time.Now()
				if who == "snag" {
					b.snag(t, user, c.model, "loader=loader.bin")
				} else {
					b.list(t, "Maskrom")
					b.rkdeveloptool(t, "Downloading bootloader succeeded.", "db", "loader.bin")
				}
				r := b.booted(t)
				t.Logf("%s: %s", who, time.Since(begun).Round(10*time.Millisecond))
				if who == "rkdeveloptool" {
					b.list(t, "Loader")
					b.rkdeveloptool(t, "Test Device OK.", "td")
				}
				effects[who] = r.Effects()
				b.unplug()
			}
			if effects["snag"] != effects["rkdeveloptool"] {
				t.Errorf("snag:\n%s\nrkdeveloptool:\n%s", effects["snag"], effects["rkdeveloptool"])
			}
			if !t.Failed() {
				proven[c.model] = "rkdeveloptool"
			}
		})
	}
	t.Run("packed by rkdeveloptool", rockchipPacked)
	// udevd's work at each enumeration takes longer than snag's.
	must(t, "udevadm", "control", "--stop-exec-queue")
	defer must(t, "udevadm", "control", "--start-exec-queue")
	var mu sync.Mutex
	t.Run("snag", func(t *testing.T) {
		for n, m := range socs.Models() {
			if m.Family != "rockchip" || !part(n, 7) {
				continue
			}
			files := [][]string{{"loader=loader.bin"}, {"code471=usb471.bin", "code472=usb472.bin"}, {"loader=idbloader.img"}}[n%3]
			if m.Name == "rksmart" || m.Name == "rknano" { // there is nothing for 472
				files = []string{"loader=loader.bin"}
			}
			t.Run(m.Name, func(t *testing.T) {
				t.Parallel()
				b := powerRockchip(t, m.Name, rockchip.Config{PlugDelay: 50 * time.Millisecond})
				b.snag(t, nil, m.Name, files...)
				b.booted(t)
				b.unplug()
				mu.Lock()
				defer mu.Unlock()
				recovered[m.Name] = !t.Failed()
			})
		}
	})
	if !every() {
		return
	}
	for _, m := range rockchip.Models() {
		got := proven[m.Name]
		if base := strings.TrimSuffix(strings.TrimPrefix(m.ProvenBy, "rkdeveloptool ("), ")"); got == "" && proven[base] != "" && recovered[m.Name] {
			got = fmt.Sprintf("rkdeveloptool (%s)", base)
		}
		if !recovered[m.Name] || got != m.ProvenBy {
			t.Errorf("%s: recovered by snag: %t; said to be proven by %q, here it was by %q", m.Name, recovered[m.Name], m.ProvenBy, got)
		}
	}
}

// rockchipPacked has rkdeveloptool make a loader of the files, and snag download that: so neither of snag's own two
// readings of the format is believed on its word.
func rockchipPacked(t *testing.T) {
	b := powerRockchip(t, "rk3399", rockchip.Config{})
	b.write(t, "config.ini", []byte(`[CHIP_NAME]
NAME=RK330C
[VERSION]
MAJOR=1
MINOR=25
[CODE471_OPTION]
NUM=1
Path1=usb471.bin
Sleep=1
[CODE472_OPTION]
NUM=1
Path1=usbplug.bin
[LOADER_OPTION]
NUM=2
LOADER0=FlashData
LOADER1=FlashBoot
FlashData=usb471.bin
FlashBoot=usb472.bin
[OUTPUT]
PATH=packed_loader.bin
`))
	b.rkdeveloptool(t, "Done.", "pack")
	found, err := filepath.Glob(filepath.Join(b.dir, "packed_loader*"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	out := must(t, "snag", "inspect", "-s", "rk3399", found[0])
	for _, want := range []string{"a Rockchip loader container for RK330C", "yes: 61774 bytes are sent"} {
		if !strings.Contains(out, want) {
			t.Errorf("snag inspect does not say %q:\n%s", want, out)
		}
	}
	b.snag(t, nil, "rk3399", "loader="+filepath.Base(found[0]))
	r := b.booted(t)
	packed := r.Last(rockchip.StageROM).Sections
	b.unplug()
	// The container that was generated has the same.
	b = powerRockchip(t, "rk3399", rockchip.Config{})
	b.snag(t, nil, "rk3399", "loader=loader.bin")
	r = b.booted(t)
	if own := r.Last(rockchip.StageROM).Sections; !slices.Equal(own, packed) {
		t.Errorf("packed by rkdeveloptool: %+v\ngenerated: %+v", packed, own)
	}
	b.unplug()
}

// TestWithROMRockchipSim powers a board with the program, not the package.
func TestWithROMRockchipSim(t *testing.T) {
	lab.Inside(t)
	dir := t.TempDir()
	must(t, "snag", "sim", "rk3588", "--generate", dir)
	for what, files := range map[string]string{"U-Boot's files": "-F code471=" + dir + "/usb471.bin -F code472=" + dir + "/usb472.bin --expect 2207:5005", "a loader": "-F loader=" + dir + "/loader.bin"} {
		args := append([]string{"sim", "rk3588", "--gadget", "2207:5005", "--", "snag", "recover", "-s", "rk3588"}, strings.Fields(files)...)
		if out := must(t, "snag", args...); !strings.Contains(out, "what it was sent was started") || strings.Contains(out, "host mistake") {
			t.Errorf("%s: %s", what, out)
		}
	}
}

// rockchipBoard is a board with files for it.
type rockchipBoard struct {
	*rockchip.Board
	model  rockchip.Model
	images rockchip.Images
	dir    string
	port   usb.Port
	unplug func()
}

// powerRockchip plugs a board in.
func powerRockchip(t *testing.T, model string, cfg rockchip.Config) *rockchipBoard {
	t.Helper()
	b := &rockchipBoard{dir: t.TempDir()}
	var err error
	if b.model, err = rockchip.FindModel(model); err != nil {
		t.Fatal(err)
	}
	b.images = rockchip.Generate(b.model, 9_000, 20_000, 1)
	for name, data := range map[string][]byte{
		"loader.bin": b.images.Loader, "usb471.bin": b.images.Code471, "usb472.bin": b.images.Code472, "usbplug.bin": b.images.Plug, "idbloader.img": b.images.IDBlock,
	} {
		b.write(t, name, data)
	}
	readable(t, b.dir)
	cfg.Model = b.model
	if b.Board, err = rockchip.New(cfg); err != nil {
		t.Fatal(err)
	}
	b.port, b.unplug = plugIn(t, b.Run)
	return b
}

func (b *rockchipBoard) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// snag has snag recover the board as somebody, with files of its directory.
func (b *rockchipBoard) snag(t *testing.T, who *syscall.Credential, model string, files ...string) {
	t.Helper()
	args := []string{"recover", "-s", model, "--usb-path", string(b.port)}
	for _, f := range files {
		slot, name, _ := strings.Cut(f, "=")
		args = append(args, "-F", slot+"="+filepath.Join(b.dir, name))
	}
	p := start(t, who, args...)
	if code := p.exit(t, time.Minute); code != 0 {
		t.Fatalf("exit code %d\n%s\nboard: %+v", code, p, b.Report())
	}
}

// list waits until rkdeveloptool lists the board, in that mode.
func (b *rockchipBoard) list(t *testing.T, mode string) {
	t.Helper()
	soon(t, 30*time.Second, func() error {
		out, err := b.run("ld")
		if want := fmt.Sprintf("Vid=0x%x,Pid=0x%x,", b.model.ID.Vendor, b.model.ID.Product); err != nil || !strings.Contains(out, want) || !strings.Contains(out, mode) {
			return fmt.Errorf("%w: %q, expected %q and %q", err, out, want, mode)
		}
		return nil
	})
}

// rkdeveloptool runs it for the only board that there is.
func (b *rockchipBoard) rkdeveloptool(t *testing.T, says string, args ...string) {
	t.Helper()
	if out, err := b.run(args...); err != nil || !strings.Contains(out, says) {
		t.Fatalf("rkdeveloptool %s: %v\n%s\nboard: %+v", strings.Join(args, " "), err, out, b.Report())
	}
}

func (b *rockchipBoard) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "rkdeveloptool", args...)
	cmd.Dir = b.dir
	out, err := cmd.CombinedOutput()
	return string(out[max(0, len(out)-3000):]), errors.Join(err, ctx.Err())
}

// booted checks what became of the board.
func (b *rockchipBoard) booted(t *testing.T) rockchip.Report {
	t.Helper()
	select {
	case <-b.Settled():
	case <-time.After(30 * time.Second):
	}
	r := b.Report()
	if r.Outcome != virtual.Booted {
		t.Errorf("board: %s %s\n%s", r.Outcome, r.Error, r.Effects())
	}
	for _, v := range r.Violations {
		t.Errorf("the board saw %d times: %s", v.N, v.Text)
	}
	return r
}
