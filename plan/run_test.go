package plan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/flash"
	"snag/flash/image"
	"snag/recovery"
	"snag/sim/am335x"
	simdfu "snag/sim/dfu"
	"snag/sim/fastboot"
	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/usb"
)

const port = usb.Port("222-1")

// powered is what a plan is run on.
type powered struct {
	host   *inproc.Host
	opt    Options
	events []event.Event
	err    error
}

func (p *powered) texts() string {
	var s []string
	for _, e := range p.events {
		switch b := e.Body.(type) {
		case event.Note:
			s = append(s, b.Text)
		case event.Warning:
			s = append(s, "warning: "+b.Text)
		case event.BoardSeen:
			s = append(s, "seen "+b.ID)
		case event.StageDone:
			s = append(s, fmt.Sprintf("done %s %s %d", b.Summary.Stage, filepath.Base(b.Summary.File), b.Summary.Bytes))
		}
	}
	return strings.Join(s, "\n")
}

// last is the event that ends it.
func (p *powered) last() event.Body { return p.events[len(p.events)-1].Body }

// run runs a plan while the boards are powered, one after the other: as one leaves for good, the next comes.
func run(t *testing.T, dir, text string, opt Options, boards ...func(context.Context, *inproc.Port) error) *powered {
	t.Helper()
	p, err := Parse(filepath.Join(dir, "plan.yaml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return runPlan(t, p, opt, boards...)
}

func runPlan(t *testing.T, p *Plan, opt Options, boards ...func(context.Context, *inproc.Port) error) *powered {
	t.Helper()
	o := &powered{host: inproc.New(), opt: opt}
	o.opt.USB = o.host
	var mu sync.Mutex
	o.opt.Emit = func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		o.events = append(o.events, e)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, b := range boards {
			if err := b(ctx, o.host.Port(port)); err != nil {
				t.Error(err)
			}
		}
	})
	o.err = p.Run(t.Context(), o.opt)
	cancel()
	wg.Wait()
	switch o.last().(type) {
	case event.Done, event.Failed:
	default:
		t.Errorf("the last event is %+v", o.last())
	}
	return o
}

// fake is a target that keeps what it is given.
type fake struct {
	name string
	got  bytes.Buffer
	fail error
	o    flash.Options
}

func (f *fake) String() string { return f.name }

func (f *fake) Write(_ context.Context, im *image.Image, o flash.Options) error {
	defer im.Close()
	f.o = o
	for {
		p, err := im.Next()
		if err == io.EOF {
			return f.fail
		}
		if err != nil {
			return err
		}
		f.got.Write(p.Data)
		o.Progress(flash.Writing, p.N)
		if o.Verify {
			o.Progress(flash.Verifying, p.N)
		}
		p.Release()
	}
}

func (f *fake) Verify(ctx context.Context, im *image.Image, o flash.Options) error {
	defer im.Close()
	for {
		p, err := im.Next()
		if err == io.EOF {
			return f.fail
		}
		if err != nil {
			return err
		}
		o.Progress(flash.Verifying, p.N)
		p.Release()
	}
}

func (f *fake) open(context.Context, *session, Target) (flash.Target, error) { return f, nil }

// plugUBoot is a gadget that fastboot runs on.
func plugUBoot(t *testing.T, cfg fastboot.Config) (*fastboot.Board, func(context.Context, *inproc.Port) error) {
	t.Helper()
	b, err := fastboot.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b, func(ctx context.Context, p *inproc.Port) error { return b.Run(ctx, p) }
}

func sent(b *fastboot.Board) []string {
	var all []string
	for _, s := range b.Report().Stages {
		all = append(all, s.Commands...)
	}
	return all
}

func TestRecoverAndFlash(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "fip.bin"), fastboot.GenerateFIP(300_000, 1))
	put(t, filepath.Join(dir, "board.yaml"), []byte("paths-relative-to: THIS_FILE\nfip: {path: fip.bin}\n"))
	img := bytes.Repeat([]byte("an image"), 100_000)
	put(t, filepath.Join(dir, "disk.img"), img)
	synctest.Test(t, func(t *testing.T) {
		b, power := plugUBoot(t, fastboot.Config{KeemBay: true})
		f := &fake{name: "fake"}
		o := run(t, dir, `
steps:
  - recover: {soc: keembay, firmware: board.yaml}
  - gpt: {mmc: 1, partitions: [{name: boot, size: 64M}, {name: root, size: -}]}
  - flash: {image: disk.img, mmc: "1:root", verify: true}
  - verify: {image: disk.img, disk: /dev/sdx}
  - uboot: saveenv
  - fastboot: getvar:version
  - reset
  - recover: {soc: keembay, firmware: board.yaml}
  - uboot: {run: bootm, leave: true}
`, Options{open: f.open}, power)
		if o.err != nil {
			t.Fatalf("%v\n%s\n%q", o.err, o.texts(), sent(b))
		}
		if !bytes.Equal(f.got.Bytes(), img) || !f.o.Verify {
			t.Errorf("%d bytes written, verify %t", f.got.Len(), f.o.Verify)
		}
		for _, v := range b.Report().Violations {
			t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
		}
		want := []string{
			"UCmd:gpt write mmc 1 'name=boot,size=0x4000000;name=root,size=-;'", "UCmd:saveenv", "getvar:version", "reboot",
			"download:", "ACmd:bootm",
		}
		got := sent(b)
		for _, w := range want {
			i := slices.IndexFunc(got, func(s string) bool { return strings.HasPrefix(s, w) })
			if i < 0 {
				t.Errorf("%q was not sent, or not in its turn; %q", w, sent(b))
				continue
			}
			got = got[i+1:]
		}
		done := o.last().(event.Done)
		var stages []string
		for _, s := range done.Stages {
			stages = append(stages, fmt.Sprintf("%s %d", s.Stage, s.Bytes))
		}
		if s := fmt.Sprint(stages); s != "[rom 300096 fastboot 800000 verify 800000 verify 800000 rom 300096]" {
			t.Errorf("stages %s", s)
		}
	})
}

func TestFailures(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "disk.img"), bytes.Repeat([]byte("an image"), 1000))
	put(t, filepath.Join(dir, "disk.zip"), []byte("PK\x03\x04 and more"))
	put(t, filepath.Join(dir, "empty.img"), nil)
	for _, tc := range []struct {
		name, text string
		cfg        fastboot.Config
		never      bool // there is no board
		fail       error
		code       int
		want, hint string
	}{
		{name: "no such image", text: "[{flash: {image: no.img, mmc: 0}}]", never: true, code: recovery.ExitFirmware, want: "plan.yaml:2: step 1, flash " + dir + "/no.img to mmc 0: open"},
		{name: "nothing at that address", text: "[{uboot: version}, {flash: {image: 'http://127.0.0.1:1/no.img', mmc: 0}}]", never: true, code: recovery.ExitFirmware, want: "step 2, flash http://127.0.0.1:1/no.img to mmc 0: http://127.0.0.1:1/no.img: dial tcp 127.0.0.1:1"},
		{name: "no image", text: "[{flash: {image: disk.zip, mmc: 0}}]", never: true, code: recovery.ExitFirmware, want: "a zip file, which is not written"},
		{name: "an empty download", text: "[{download: empty.img}]", never: true, code: recovery.ExitFirmware, want: "the file is empty"},
		{name: "no firmware", text: "[{recover: {soc: keembay, firmware: no.yaml}}]", never: true, code: recovery.ExitUsage, want: "step 1, recover keembay: "},
		{name: "all that is missing", text: "[{flash: {image: no.img, mmc: 0}}, {flash: {image: nor.img, mmc: 0}}]", never: true, code: recovery.ExitFirmware, want: "step 2, flash " + dir + "/nor.img"},
		{name: "nobody", text: "[{uboot: version}]", never: true, code: recovery.ExitNoBoard, want: "class ff/42/03"},
		{name: "a disk of any board", text: "[{flash: {image: disk.img, disk: 0}}]", never: true, code: recovery.ExitUsage, want: "which board's disk?"},
		{name: "nobody for a wait", text: "[{wait: {for: dfu, timeout: 7s}}]", never: true, code: recovery.ExitNoBoard, want: "no board within 7s"},
		{name: "a command fails", text: "[{uboot: saveenv}, {uboot: 'false'}]", cfg: fastboot.Config{Command: func(s string) bool { return s != "false" }},
			code: recovery.ExitBoard, want: "stage fastboot: " + dir + "/plan.yaml:2: step 2, uboot false: "},
		{name: "the target fails", text: "[{flash: {image: disk.img, mmc: 0}}]", fail: errors.New("the disk is full"), code: recovery.ExitBoard, want: "step 1, flash " + dir + "/disk.img to mmc 0: the disk is full"},
		{name: "a device that takes less than it says", text: "[{flash: {image: disk.img, mmc: 0, buffer: 0x40000000}}]",
			cfg: fastboot.Config{UBoot: machine(), Buffer: 4 << 20, Full: 4096}, code: recovery.ExitBoard, want: "larger than the device's buffer", hint: "--buffer-size BYTES"},
		{name: "U-Boot stalls", text: "[{flash: {image: disk.img, mmc: 0, buffer: 0x40000000}}]",
			cfg: fastboot.Config{UBoot: machine(), Faults: []fastboot.Fault{{Kind: fastboot.Stall, Stage: fastboot.StageGadget, Command: "UCmd"}}}, code: recovery.ExitBoard, want: "fastboot, mmc 0: UCmd:mw.l", hint: "serial console"},
		{name: "another gadget is awaited", text: "[{uboot: version}, {wait: {for: dfu, timeout: 9s}}]", code: recovery.ExitBoard, want: "step 2, wait for dfu: it did not show dfu within 9s"},
		{name: "it does not leave", text: "[{uboot: {run: ums 0 mmc 0, leave: true}}]", cfg: fastboot.Config{NoUUU: true}, code: recovery.ExitBoard, want: "ACmd:ums 0 mmc 0: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, power := plugUBoot(t, tc.cfg)
				if tc.never {
					power = func(context.Context, *inproc.Port) error { return nil }
				}
				f := &fake{name: "fake", fail: tc.fail}
				opt := Options{open: f.open}
				if tc.cfg.UBoot != nil {
					opt.open = nil
				}
				o := run(t, dir, "\nsteps: "+tc.text, opt, power)
				if o.err == nil || !strings.Contains(o.err.Error(), tc.want) || recovery.ExitCode(o.err) != tc.code {
					t.Errorf("got %v, exit code %d, want %q, %d\n%s", o.err, recovery.ExitCode(o.err), tc.want, tc.code, o.texts())
				}
				if end, ok := o.last().(event.Failed); !ok || end.ExitCode != tc.code || !strings.Contains(end.Hint, tc.hint) || end.Hint == "" && tc.code == recovery.ExitBoard {
					t.Errorf("the last event is %+v", o.last())
				}
			})
		})
	}
}

// TestCommandTime waits for a command as long as its step says, also for one that ends the session.
func TestCommandTime(t *testing.T) {
	for _, tc := range []struct {
		step string
		code int
	}{
		{"{fastboot: {send: reboot, timeout: 30s}}", recovery.ExitDone},
		{"{fastboot: reboot}", recovery.ExitBoard},
		{"{fastboot: {send: getvar:version, timeout: 1s}}", recovery.ExitBoard},
		{"{fastboot: {send: getvar:version, timeout: 30s}}", recovery.ExitDone},
	} {
		synctest.Test(t, func(t *testing.T) {
			var faults []fastboot.Fault
			for _, s := range []string{"nak:gadget:reboot:25s", "nak:gadget:getvar:25s"} {
				f, err := fastboot.ParseFault(s)
				if err != nil {
					t.Fatal(err)
				}
				faults = append(faults, f)
			}
			_, power := plugUBoot(t, fastboot.Config{Faults: faults})
			o := run(t, t.TempDir(), "\nsteps: ["+tc.step+"]", Options{}, power)
			if recovery.ExitCode(o.err) != tc.code {
				t.Errorf("%s: exit code %d, %v, want %d\n%s", tc.step, recovery.ExitCode(o.err), o.err, tc.code, o.texts())
			}
		})
	}
}

// TestGadgets goes from fastboot to DFU on one port, and back.
func TestGadgets(t *testing.T) {
	dir := t.TempDir()
	img := bytes.Repeat([]byte("an image"), 8<<10)
	put(t, filepath.Join(dir, "disk.img"), img)
	synctest.Test(t, func(t *testing.T) {
		first, power1 := plugUBoot(t, fastboot.Config{})
		cfg := simdfu.Config{}
		var err error
		if cfg.Model, err = simdfu.FindModel("dfu"); err != nil {
			t.Fatal(err)
		}
		d, err := simdfu.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		o := run(t, dir, `
steps:
  - uboot: {run: dfu 0 mmc 0, leave: true}
  - flash: {image: disk.img, dfu: rootfs}
  - verify: {image: disk.img, dfu: rootfs}
  - reset: detach
`, Options{}, func(ctx context.Context, p *inproc.Port) error {
			on, off := context.WithCancel(ctx)
			defer off()
			go func() {
				for len(sent(first)) == 0 && ctx.Err() == nil {
					time.Sleep(10 * time.Millisecond)
				}
				off()
			}()
			return power1(on, p)
		}, func(ctx context.Context, p *inproc.Port) error { return d.Run(ctx, p) })
		if o.err != nil {
			t.Fatalf("%v\n%s", o.err, o.texts())
		}
		if got := d.Medium("rootfs"); !bytes.Equal(got[:len(img)], img) {
			t.Error("something else was written")
		}
		if s := o.texts(); !strings.Contains(s, "done dfu disk.img 65536\n") || !strings.Contains(s, "done verify disk.img 65536\n") {
			t.Errorf("events:\n%s", s)
		}
	})
}

// TestVerifyDFU tells of a medium that holds something else as of the board's fault, and of a board that gives nothing
// back.
func TestVerifyDFU(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "disk.img"), bytes.Repeat([]byte("an image"), 8<<10))
	for _, tc := range []struct {
		cfg  simdfu.Config
		want string
	}{
		{simdfu.Config{}, "bytes 0-65535: the device gives back something else"},
		{simdfu.Config{NoUpload: true}, "gives nothing back (bitCanUpload): what it holds cannot be compared"},
	} {
		synctest.Test(t, func(t *testing.T) {
			cfg := tc.cfg
			var err error
			if cfg.Model, err = simdfu.FindModel("dfu"); err != nil {
				t.Fatal(err)
			}
			d, err := simdfu.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			o := run(t, dir, "steps: [{verify: {image: disk.img, dfu: rootfs}}]", Options{}, func(ctx context.Context, p *inproc.Port) error { return d.Run(ctx, p) })
			if recovery.ExitCode(o.err) != recovery.ExitBoard || !strings.Contains(o.err.Error(), tc.want) {
				t.Errorf("exit code %d, %v, want %q", recovery.ExitCode(o.err), o.err, tc.want)
			}
		})
	}
}

// TestHere flashes a file, which takes no board.
func TestHere(t *testing.T) {
	dir := t.TempDir()
	img := bytes.Repeat([]byte("an image"), 100_000)
	put(t, filepath.Join(dir, "disk.img"), img)
	o := run(t, dir, "steps: [{flash: {image: disk.img, file: out.img, verify: true}}, {note: done}]", Options{})
	if o.err != nil {
		t.Fatal(o.err)
	}
	if s := o.texts(); !strings.Contains(s, "done file disk.img 800000\ndone verify disk.img 800000") {
		t.Errorf("events:\n%s", s)
	}
	o = run(t, dir, "steps: [{flash: {image: disk.img, disk: /dev/no-such-disk}}]", Options{Wait: 10 * time.Millisecond})
	if recovery.ExitCode(o.err) != recovery.ExitNoBoard || !strings.Contains(o.err.Error(), "waited for device /dev/no-such-disk") {
		t.Errorf("exit code %d, %v", recovery.ExitCode(o.err), o.err)
	}
}

// TestNetworkROM recovers a board whose ROM and SPL are network adapters, flashes through the gadget of its U-Boot,
// resets it, and recovers it again: the engine changes between packets and a USB device on one port.
func TestNetworkROM(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "spl.bin"), am335x.GenerateSPL(8<<10, 1))
	put(t, filepath.Join(dir, "u-boot.img"), am335x.GenerateUBoot(24<<10, 1))
	put(t, filepath.Join(dir, "board.yaml"), []byte("paths-relative-to: THIS_FILE\nspl: {path: spl.bin}\nu-boot: {path: u-boot.img}\n"))
	img := noise(300<<10, 9)
	put(t, filepath.Join(dir, "disk.img"), img)
	for _, tc := range []struct {
		name string
		ecm  bool
		spl  usb.ID
	}{{"RNDIS", false, usb.ID{}}, {"ECM", true, usb.ID{}}, {"an SPL of any gadget's ID", false, usb.ID{Vendor: 0x0525, Product: 0xa4a2}}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := machine()
				var roms []*am335x.Board
				power := func(ctx context.Context, p *inproc.Port) error {
					b, err := fastboot.New(fastboot.Config{UBoot: m, Before: func(ctx context.Context, p usbdev.Port) error {
						rom, err := am335x.New(am335x.Config{ECM: tc.ecm, SPL: tc.spl, ROMRetries: []time.Duration{time.Second}})
						if err != nil {
							return err
						}
						roms = append(roms, rom)
						return rom.Boot(ctx, p)
					}})
					if err != nil {
						return err
					}
					defer func() {
						for _, v := range b.Report().Violations {
							t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
						}
					}()
					return b.Run(ctx, p)
				}
				o := run(t, dir, `
steps:
  - recover: {soc: am335x, firmware: board.yaml}
  - flash: {image: disk.img, mmc: 0, buffer: 0x40000000, verify: true}
  - reset
  - recover: {soc: am335x, firmware: board.yaml}
  - wait: fastboot
  - flash: {image: disk.img, mmc: 0.boot0, buffer: 0x40000000}
`, Options{Adapter: recovery.NetUser}, power)
				if o.err != nil {
					t.Fatalf("%v\n%s", o.err, o.texts())
				}
				if !bytes.Equal(at(t, m.MMC[0].Areas[0], 0, len(img)), img) || !bytes.Equal(at(t, m.MMC[0].Areas[1], 0, len(img)), img) {
					t.Error("the eMMC holds something else")
				}
				var stages []string
				for _, s := range o.last().(event.Done).Stages {
					stages = append(stages, s.Stage)
				}
				if s := strings.Join(stages, " "); s != "rom spl fastboot verify rom spl fastboot" || len(roms) != 2 {
					t.Errorf("stages %s of %d boots", s, len(roms))
				}
				for _, rom := range roms {
					if r := rom.Report(); r.Outcome != virtual.Booted || len(r.Violations) > 0 {
						t.Errorf("the board %s: %s %v", r.Outcome, r.Error, r.Violations)
					}
				}
			})
		})
	}
}
