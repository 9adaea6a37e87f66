package uuu_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/flash/image"
	"snag/recovery"
	"snag/sim/fastboot"
	"snag/sim/imx"
	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/usb"
	"snag/uuu"
)

var update = flag.Bool("update", false, "write the golden files anew")

const port = usb.Port("223-1")

// trial is one run of a script on one virtual board: an i.MX, and what U-Boot shows then.
type trial struct {
	model string // empty: U-Boot's fastboot is there already
	imx   imx.Config
	fb    fastboot.Config
	never bool // U-Boot shows nothing
	shell bool
	env   map[string]string
	wait  time.Duration
}

// outcome is what came of it.
type outcome struct {
	err    error
	imx    imx.Report
	fb     fastboot.Report
	events []event.Event
	took   time.Duration
}

func (o *outcome) texts() string {
	var s []string
	for _, e := range o.events {
		switch b := e.Body.(type) {
		case event.Note:
			s = append(s, b.Text)
		case event.Warning:
			s = append(s, "warning: "+b.Text)
		}
	}
	return strings.Join(s, "\n")
}

// sent are the commands that fastboot got.
func (o *outcome) sent() []string {
	var all []string
	for _, s := range o.fb.Stages {
		all = append(all, s.Commands...)
	}
	return all
}

// run runs a script, in a bubble of its own time.
func (tr trial) run(t *testing.T, script *uuu.Script) *outcome {
	t.Helper()
	host := inproc.New()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	fb, err := fastboot.New(tr.fb)
	if err != nil {
		t.Fatal(err)
	}
	var board *imx.Board
	var wg sync.WaitGroup
	if tr.model != "" {
		if tr.imx.Model, err = imx.FindModel(tr.model); err != nil {
			t.Fatal(err)
		}
		if board, err = imx.New(tr.imx); err != nil {
			t.Fatal(err)
		}
	}
	wg.Go(func() {
		if board != nil {
			boot, leave := context.WithCancel(ctx)
			defer leave()
			var power sync.WaitGroup
			power.Go(func() {
				if err := board.Run(boot, host.Port(port)); err != nil {
					t.Error(err)
				}
			})
			<-board.Settled()
			if board.Report().Outcome != virtual.Booted || tr.never {
				power.Wait()
				return
			}
			leave()
			power.Wait()
			select {
			case <-time.After(2 * time.Second):
			case <-ctx.Done():
				return
			}
		}
		if err := fb.Run(ctx, host.Port(port)); err != nil {
			t.Error(err)
		}
	})
	o := &outcome{}
	var mu sync.Mutex
	opt := recovery.Options{
		Backend: uuu.Backend{Script: script, Shell: tr.shell, Getenv: func(n string) string { return tr.env[n] }},
		USB:     host, Port: port, Timeout: time.Hour, Wait: tr.wait,
		Emit: func(e event.Event) {
			mu.Lock()
			defer mu.Unlock()
			o.events = append(o.events, e)
		},
	}
	begun := time.Now()
	o.err = recovery.Run(ctx, opt)
	o.took = time.Since(begun)
	if o.err == nil && board != nil { // the ROM has the last report, and starts what it has
		<-board.Settled()
	}
	cancel()
	wg.Wait()
	if board != nil {
		o.imx = board.Report()
	}
	o.fb = fb.Report()
	mu.Lock()
	defer mu.Unlock()
	return o
}

// good fails the test unless the script ended well, and neither board was done wrong.
func (o *outcome) good(t *testing.T) {
	t.Helper()
	if o.err != nil {
		t.Errorf("%v; the board is %s: %s\n%s", o.err, o.imx.Outcome, o.imx.Error, o.texts())
	}
	for _, v := range o.imx.Violations {
		t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
	}
	for _, v := range o.fb.Violations {
		t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
	}
}

// files makes a directory with a boot loader for a board, and an image.
func files(t testing.TB, model string, cfg imx.Config) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if model != "" {
		var err error
		if cfg.Model, err = imx.FindModel(model); err != nil {
			t.Fatal(err)
		}
		images, err := imx.Generate(cfg, 600_000, 1)
		if err != nil {
			t.Fatal(err)
		}
		put(t, dir, "flash.bin", images.First)
		if images.Second != nil {
			put(t, dir, "u-boot.img", images.Second)
		}
	}
	put(t, dir, "image.wic", bytes.Repeat([]byte("an image "), 100_000))
	put(t, dir, "image.wic.bmap", []byte("a block map"))
	return dir
}

func put(t testing.TB, dir, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// load loads a script of some lines.
func load(t testing.TB, dir, text string, args ...string) *uuu.Script {
	t.Helper()
	s, err := uuu.Load(put(t, dir, "test.uuu", []byte("uuu_version 1.0.1\n"+text)), args)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// nxp is what the fastboot of NXP's U-Boot flashes.
func nxp(faults ...fastboot.Fault) fastboot.Config {
	return fastboot.Config{Partitions: map[string]int{"all": 64 << 20, "bootloader": 8 << 20}, Faults: faults}
}

// mapped makes the image one of 4 MiB with holes, and a block map of it.
func mapped(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "image.wic")
	if err := os.Truncate(path, 4<<20); err != nil {
		t.Fatal(err)
	}
	im, err := image.Open(t.Context(), path, image.Options{NoBmap: true})
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.CreateMap(t.Context(), im, image.MapOptions{Zeros: true})
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "image.wic.bmap", b)
}

// The scripts run as they are, from the ROM to "FB: done".
func TestScripts(t *testing.T) {
	for _, tc := range []struct {
		name string
		want []string
	}{
		{"emmc_bmap", []string{
			"UCmd:setenv fastboot_dev mmc", "UCmd:setenv mmcdev ${emmc_dev}", "UCmd:mmc dev ${emmc_dev}",
			"getvar:max-download-size", "getvar:logical-block-size", "download:000d", "flash:all",
			"getvar:max-download-size", "download:", "flash:bootloader",
			"UCmd:if env exists emmc_ack; then ; else setenv emmc_ack 0; fi;", "UCmd:mmc partconf ${emmc_dev} ${emmc_ack} 1 0",
		}},
		{"fuse_mac", []string{
			"UCmd:fuse prog -y 9 0 0xccddeeff", "UCmd:fuse prog -y 9 1 0x556600bb", "UCmd:fuse prog -y 9 2 0x00223344",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := files(t, "imx8mp", imx.Config{})
				mapped(t, dir)
				text, err := os.ReadFile(filepath.Join("testdata", "scripts", tc.name+".uuu"))
				if err != nil {
					t.Fatal(err)
				}
				s, err := uuu.Load(put(t, dir, tc.name+".uuu", text), nil)
				if err != nil {
					t.Fatal(err)
				}
				o := trial{model: "imx8mp", fb: nxp()}.run(t, s)
				o.good(t)
				got := o.sent()
				for i, want := range tc.want {
					if i >= len(got) || !strings.HasPrefix(got[i], want) {
						t.Fatalf("command %d\ngot  %q\nwant %q", i, got, tc.want)
					}
				}
				if len(got) != len(tc.want) {
					t.Errorf("%d commands, want %d: %q", len(got), len(tc.want), got)
				}
				if tc.name != "emmc_bmap" {
					return
				}
				if n := o.fb.Partitions["all"].Bytes; n < 900_000 || n > 910_000 || o.fb.Partitions["bootloader"].Bytes == 0 {
					t.Errorf("%+v", o.fb.Partitions)
				}
			})
		})
	}
}

// The built-in script spl starts a boot loader on every kind of board, to its end.
func TestSPL(t *testing.T) {
	for _, tc := range []struct {
		model string
		spl   imx.SPLKind
	}{
		{"imx28", ""}, {"imx6ull", ""}, {"imx6q", ""}, {"imx7d", ""}, {"imx8mm", imx.SDPV}, {"imx8mm", imx.SDPU}, {"imx8mq", imx.SDPV},
		{"imx8qxp", imx.SDPV}, {"imx8mn", ""}, {"imx8mp", ""}, {"imx93", ""}, {"imx95", imx.SDPV}, {"imxrt106x", ""},
	} {
		t.Run(fmt.Sprint(tc.model, tc.spl), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := imx.Config{SPL: tc.spl}
				dir := files(t, tc.model, cfg)
				s, err := uuu.Load("spl", []string{filepath.Join(dir, "flash.bin")})
				if err != nil {
					t.Fatal(err)
				}
				o := trial{model: tc.model, imx: cfg, never: true}.run(t, s)
				o.good(t)
				if o.imx.Outcome != virtual.Booted {
					t.Errorf("the board is %s: %s\n%s", o.imx.Outcome, o.imx.Error, o.texts())
				}
			})
		})
	}
}

// Scripts that do step by step what boot does.
func TestSteps(t *testing.T) {
	for _, tc := range []struct {
		name, model, text string
		spl               imx.SPLKind
		want              string // in the events' texts
	}{
		{name: "dcd, write, jump", model: "imx6ull", text: "SDP: dcd -f flash.bin\nSDP: write -f flash.bin -ivt 0\nSDP: jump -f flash.bin -ivt 0\nSDP: done"},
		{name: "jump -ivt", model: "imx6ull", text: "SDP: dcd -f flash.bin\nSDP: write -f flash.bin -ivt 0\nSDP: jump -f flash.bin -ivt\nSDP: done"},
		{name: "where the DCD is not skipped", model: "imx6q", text: "SDP: dcd -f flash.bin\nSDP: write -f flash.bin\nSDP: jump -f flash.bin\nSDP: done"},
		{name: "-cleardcd", model: "imx6ull", text: "SDP: boot -f flash.bin -cleardcd\nSDP: done"},
		{name: "-nojump", model: "imx6ull", text: "SDP: boot -f flash.bin -nojump\nSDP: jump -f flash.bin\nSDP: done"},
		{name: "-dcdaddr", model: "imx7d", text: "SDP: boot -f flash.bin -dcdaddr 0x910000\nSDP: done"},
		{name: "memory", model: "imx6ull", text: "SDP: wrmem -addr 0x900000 -format 32 -value 0x12345678\nSDP: rdmem -addr 0x900000 -format 32\n" +
			"SDP: rdmem -addr 0x900001 -format 8\nSDP: status\nSDP: blog\nSDP: boot -f flash.bin\nSDP: done", want: "0x00900000: 0x12345678\nline 4: SDP: rdmem -addr 0x900001 -format 8\n0x00900001: 0x56"},
		{name: "SPL and U-Boot apart", model: "imx6ull", spl: imx.SDPV, text: "SDP: boot -f flash.bin\nSDPV: write -f u-boot.img\nSDPV: jump\nSDPV: done"},
		{name: "another chip by CFG", model: "imx8mm", spl: imx.SDPV, text: "CFG: SDP -chip MX9 -compatible MX8MM -vid 0x1fc9 -pid 0x0134\n" +
			"SDP: if @CHIP@ != MX9 then error another chip\nSDP: if @PID@ == 0x0134 then boot -f flash.bin\nSDPV: write -f flash.bin -skipspl\nSDPV: jump\nSDPV: done"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := imx.Config{SPL: tc.spl}
				dir := files(t, tc.model, cfg)
				o := trial{model: tc.model, imx: cfg, never: true}.run(t, load(t, dir, tc.text))
				o.good(t)
				if o.imx.Outcome != virtual.Booted || !strings.Contains(o.texts(), tc.want) {
					t.Errorf("the board is %s: %s\n%s", o.imx.Outcome, o.imx.Error, o.texts())
				}
			})
		})
	}
}

// Every command of FB, as it comes to U-Boot.
func TestFastboot(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string
		fb         fastboot.Config
		trial      trial
		notes      string
	}{
		{name: "simple ones", text: "FB: getvar version\nFB: erase all\nFB: oem format\nFB: set_active a\nFB: set_active:b\nFB: acmd run later\nFB: done",
			want: []string{"getvar:version", "erase:all", "oem format", "set_active:a", "set_active:b", "ACmd:run later"}, fb: func() fastboot.Config {
				c := nxp()
				c.Variables = map[string]string{"partitions": "x"}
				return c
			}(), notes: "version is 0.4"},
		{name: "variables", text: "FB: getvar current-slot\nFB: if @CURRENT-SLOT@ == a then ucmd one\nFB: if @Current-Slot@ != A then ucmd two\nFB: if @VID@ == 0x0525 then ucmd three\nFB: done\nFB: ucmd four",
			want: []string{"getvar:current-slot", "UCmd:one", "UCmd:three"}},
		{name: "environment", text: "FB: @ ucmd setenv mac @MAC@ @NONE@.\nFB: done", want: []string{"UCmd:setenv mac 00:11 ."}, trial: trial{env: map[string]string{"MAC": "00:11\nmore"}}},
		{name: "the host's commands", text: "FB: < printf 'ucmd fuse %s\\nrubbish\\n' \"$SNAG_PORT\"\nFB: sh echo \"$SNAG_USB_ID\"\nFB: done",
			want: []string{"UCmd:fuse 223-1"}, trial: trial{shell: true}, notes: "0525:a4a5"},
		{name: "download", text: "FB: download -f image.wic\nFB: boot\nFB: done", want: []string{"getvar:max-download-size", "download:000dbba0", "boot"}},
		{name: "flash", text: "FB: flash all image.wic\nFB: reboot bootloader\nFB: done", want: []string{"getvar:max-download-size", "download:000dbba0", "flash:all", "reboot-bootloader"}},
		{name: "write", text: "FB: write -f image.wic -each 0x80000 -seek 0x400 -skip 100\nFB: continue\nFB: done", want: []string{
			"getvar:max-download-size", "download:00080000", "UCmd:mmc write ${fastboot_buffer} 0x2 0x400",
			"download:0005bb3c", "UCmd:mmc write ${fastboot_buffer} 0x402 0x2de", "continue"}},
		{name: "write through a small buffer", text: "FB: write -f image.wic -format \"nvme write $a @off @size\"\nFB: done", fb: fastboot.Config{Buffer: 0x90100}, want: []string{
			"getvar:max-download-size", "download:00090000", "UCmd:nvme write $a 0x0 0x480", "download:0004bba0", "UCmd:nvme write $a 0x480 0x25e"}},
		{name: "a slow medium", text: "FB[-t 5000]: flash -raw2sparse -no-bmap all image.wic\nFB: done", fb: fastboot.Config{Partitions: nxp().Partitions, Work: 25 * time.Second},
			want: []string{"getvar:max-download-size", "getvar:logical-block-size", "download:000d", "flash:all"}},
		{name: "crc", text: "FB: crc -f image.wic -each 0x80000\nFB: done", want: []string{"getvar:max-download-size",
			"UCmd:mmc read $loadaddr 0x0 0x400", "UCmd:crc32 -v $loadaddr 0x80000 ", "UCmd:mmc read $loadaddr 0x400 0x2de", "UCmd:crc32 -v $loadaddr 0x5bba0 "}},
		{name: "logical partitions", text: "FB: create-logical-partition x 0x1000\nFB: done", want: []string{"create-logical-partition:x:00001000"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run := func(t *testing.T) {
				dir := files(t, "", imx.Config{})
				tr := tc.trial
				tr.fb = tc.fb
				if tr.fb.Partitions == nil {
					tr.fb.Partitions = nxp().Partitions
				}
				o := tr.run(t, load(t, dir, tc.text))
				if tc.name != "logical partitions" { // U-Boot knows none
					o.good(t)
				}
				got := o.sent()
				if !slices.EqualFunc(got, tc.want, strings.HasPrefix) {
					t.Errorf("\ngot  %q\nwant %q\n%v", got, tc.want, o.err)
				}
				if !strings.Contains(o.texts(), tc.notes) {
					t.Errorf("%s", o.texts())
				}
			}
			if tc.trial.shell { // processes are not of the bubble
				run(t)
				return
			}
			synctest.Test(t, run)
		})
	}
}

// What goes wrong is told with the line, and with the exit code of its kind.
func TestFailures(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		trial      trial
		code       int
		want       []string
	}{
		{name: "U-Boot refuses", text: "FB: ucmd one\nFB: ucmd two\nFB: done", trial: trial{fb: fastboot.Config{Command: func(s string) bool { return s == "one" }}},
			code: recovery.ExitBoard, want: []string{"test.uuu:3: FB: ucmd two", "FAIL, without a reason", "serial console"}},
		{name: "no such partition", text: "FB: flash rootfs image.wic\nFB: done", trial: trial{fb: nxp()},
			code: recovery.ExitBoard, want: []string{"test.uuu:2:", "flash:rootfs: the device answers FAIL: invalid partition or device"}},
		{name: "too large", text: "FB: flash all image.wic\nFB: done", trial: trial{fb: fastboot.Config{Buffer: 100_000}},
			code: recovery.ExitBoard, want: []string{"test.uuu:2:", "more than the 100000 bytes", "-raw2sparse"}},
		{name: "a broken block map", text: "FB: flash -raw2sparse -bmap image.wic.bmap all image.wic\nFB: done", trial: trial{fb: nxp()},
			code: recovery.ExitBoard, want: []string{"test.uuu:2: FB: flash -raw2sparse", "image.wic.bmap"}},
		{name: "unplugged", text: "FB: download -f image.wic\nFB: done", trial: trial{fb: nxp(fastboot.Fault{Kind: fastboot.Unplug, Stage: fastboot.StageGadget, At: 70_000})},
			code: recovery.ExitBoard, want: []string{"test.uuu:2: FB: download", "cable"}},
		{name: "silent", text: "FB[-t 3000]: ucmd sleep 5\nFB: done", trial: trial{fb: nxp(fastboot.Fault{Kind: fastboot.Mute, Stage: fastboot.StageGadget, Command: "UCmd"})},
			code: recovery.ExitBoard, want: []string{"no answer", "FB[-t MILLISECONDS]"}},
		{name: "the script's own error", text: "FB: if @CHIP@ != MX865 then error not for this board\nFB: done",
			code: recovery.ExitBoard, want: []string{"the script gives up: not for this board"}},
		{name: "commands of the host", text: "FB: done\nFB: sh rm -rf /\n", code: recovery.ExitUsage, want: []string{"test.uuu:3:1: FB: sh rm -rf /", "--allow-shell"}},
		{name: "the host's command fails", text: "FB: sh exit 3\nFB: done", trial: trial{shell: true}, code: recovery.ExitBoard, want: []string{"exit status 3"}},
		{name: "the host's command is none", text: "FB: < echo sh ls\nFB: done", trial: trial{shell: true}, code: recovery.ExitBoard, want: []string{"nothing that a command may make of itself"}},
		{name: "another SoC's boot loader", text: "SDP: boot -f flash.bin\nSDP: done", trial: trial{model: "imx6ull", never: true},
			code: recovery.ExitFirmware, want: []string{"test.uuu:2: SDP: boot -f flash.bin", "for i.MX8M"}},
		{name: "no board", text: "SDPS: boot -f flash.bin\nFB: done", trial: trial{model: "imx6ull", never: true, wait: time.Minute},
			code: recovery.ExitNoBoard, want: []string{"no board within 1m0s", "15a2:0080"}},
		{name: "no U-Boot", text: "SDPS: boot -f flash.bin\nFB: done", trial: trial{model: "imx8mp", never: true},
			code: recovery.ExitBoard, want: []string{"did not appear on port 223-1 within 1m0s"}},
		{name: "a stranger", text: "CFG: FB -vid 1 -pid 2\nSDPS: boot -f flash.bin\nFB: done", trial: trial{model: "imx8mp", fb: fastboot.Config{ID: usb.ID{Vendor: 1, Product: 3}}},
			code: recovery.ExitBoard, want: []string{"has no lines for what is on port 223-1, 0001:0003", "CFG line"}},
		{name: "over and over", text: "SDPS: boot -f flash.bin\nFB: acmd reset\nFB: ucmd x", trial: trial{fb: nxp()},
			code: recovery.ExitBoard, want: []string{"test.uuu:4: FB: ucmd x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run := func(t *testing.T) {
				dir := files(t, "imx8mp", imx.Config{})
				o := tc.trial.run(t, load(t, dir, tc.text))
				if code := recovery.ExitCode(o.err); code != tc.code {
					t.Errorf("exit code %d, want %d", code, tc.code)
				}
				text := fmt.Sprint(o.err, "\n", recovery.Hint(o.err))
				for _, want := range tc.want {
					if !strings.Contains(text, want) {
						t.Errorf("%s\nwant %q in it", text, want)
					}
				}
			}
			if tc.trial.shell {
				run(t)
				return
			}
			synctest.Test(t, run)
		})
	}
}

// A script without done ends behind the lines of its last protocol, and says so.
func TestNoDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := files(t, "imx8mp", imx.Config{})
		o := trial{model: "imx8mp", fb: nxp()}.run(t, load(t, dir, "SDPS: boot -f flash.bin\nFB: ucmd x\n"))
		o.good(t)
		if !strings.Contains(o.texts(), "has no done: it ends behind its lines for FB") || len(o.sent()) != 1 {
			t.Errorf("%q\n%s", o.sent(), o.texts())
		}
	})
}

// What each built-in script sends.
func TestDryRun(t *testing.T) {
	dir := files(t, "imx8mm", imx.Config{})
	t.Chdir(dir)
	put(t, dir, "flexspi.bin", append(append([]byte("FCFB"), make([]byte, 0xffc)...), read(t, filepath.Join(dir, "flash.bin"))...))
	args := map[string][]string{
		"qspi": {"flexspi.bin"}, "spi_nand": {"flexspi.bin"}, "spl": {"flash.bin"}, "emmc": {"flash.bin"}, "nand": {"flash.bin"},
		"fat_write": {"image.wic", "mmc", "1:1", "kernel"}, "nvme_all": {"flash.bin", "image.wic"},
	}
	for _, name := range uuu.Builtins() {
		t.Run(name, func(t *testing.T) {
			given, ok := args[name]
			if !ok {
				given = []string{"flash.bin", "image.wic"}
			}
			s, err := uuu.Load(name, given)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := s.DryRun(&got); err != nil {
				t.Fatal(err)
			}
			compare(t, name, got.Bytes())
		})
	}
}

// home is where the tests began.
var home, _ = os.Getwd()

func compare(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join(home, "testdata", "dryrun", name+".txt")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := read(t, path); !bytes.Equal(got, want) {
		t.Errorf("%s\ngot\n%s\nwant\n%s", path, got, want)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
