package uuu_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/fuse"
	"snag/recovery"
	"snag/sim/evk"
	"snag/sim/fastboot"
	"snag/sim/imx"
	"snag/sim/inproc"
	"snag/sim/ocotp"
	"snag/sim/uboot"
	"snag/sim/virtual"
	"snag/socs"
	"snag/usb"
	"snag/uuu"
)

// plugEVK plugs a whole board in. What it is when it is unplugged is what remains of it.
func plugEVK(t *testing.T, cfg evk.Config) (board *evk.Board, host *inproc.Host, unplug func()) {
	t.Helper()
	board, err := evk.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	host = inproc.New()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := board.Run(ctx, host.Port(port)); err != nil {
			t.Error(err)
		}
	})
	unplug = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(unplug)
	return board, host, unplug
}

// engine runs a backend on the host's board.
func engine(t *testing.T, host *inproc.Host, backend socs.Backend) ([]string, error) {
	t.Helper()
	var mu sync.Mutex
	var texts []string
	err := recovery.Run(t.Context(), recovery.Options{Backend: backend, USB: host, Port: port, Timeout: time.Hour, Emit: func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		switch b := e.Body.(type) {
		case event.Note:
			texts = append(texts, b.Text)
		case event.Fuse:
			texts = append(texts, b.Name+" "+b.State)
		}
	}})
	mu.Lock()
	defer mu.Unlock()
	return texts, err
}

// noMistakes fails the test if the host did wrong.
func noMistakes(t *testing.T, b *evk.Board) {
	t.Helper()
	for _, v := range append(b.ROM.Report().Violations, b.Fastboot.Report().Violations...) {
		t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
	}
}

// at is what a medium has at an offset.
func at(t *testing.T, r interface {
	ReadAt([]byte, int64) (int, error)
}, off, n int64) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := r.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return b
}

// scriptFile copies one of the scripts of testdata.
func scriptFile(t *testing.T, dir, name string) *uuu.Script {
	t.Helper()
	s, err := uuu.Load(put(t, dir, name, read(t, filepath.Join(home, "testdata", "scripts", name))), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The scripts run unchanged on one board, from its ROM to "FB: done", and do to its storage and fuses what they say.
func TestWholeBoard(t *testing.T) {
	builtin := func(name string, args ...string) func(*testing.T, string) *uuu.Script {
		return func(t *testing.T, dir string) *uuu.Script {
			t.Helper()
			for i := range args {
				args[i] = filepath.Join(dir, args[i])
			}
			s, err := uuu.Load(name, args)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	file := func(name string) func(*testing.T, string) *uuu.Script {
		return func(t *testing.T, dir string) *uuu.Script { return scriptFile(t, dir, name) }
	}
	for _, tc := range []struct {
		name, model string
		script      func(*testing.T, string) *uuu.Script
		large       bool // the image for the NOR flash is larger than 16 MiB
		check       func(t *testing.T, b *evk.Board, boot, image []byte)
	}{
		{name: "emmc_bmap.uuu", model: "imx8mp", script: file("emmc_bmap.uuu"), check: func(t *testing.T, b *evk.Board, boot, image []byte) {
			if !bytes.Equal(at(t, b.EMMC.Areas[0], 0, int64(len(image))), image) || !bytes.HasPrefix(at(t, b.EMMC.Areas[1], 0, evk.BootSize), boot) || b.EMMC.PartConf != [3]int{0, 1, 0} {
				t.Errorf("%v, partconf %v", b.Contents(), b.EMMC.PartConf)
			}
		}},
		{name: "fuse_mac.uuu", model: "imx8mp", script: file("fuse_mac.uuu"), check: func(t *testing.T, b *evk.Board, _, _ []byte) {
			if got := b.Fuses.Fuses(); !maps.Equal(got, map[ocotp.Place]uint32{{Bank: 9, Word: 0}: 0xccddeeff, {Bank: 9, Word: 1}: 0x556600bb, {Bank: 9, Word: 2}: 0x00223344}) {
				t.Errorf("%#x", got)
			}
		}},
		{name: "emmc", model: "imx8mp", script: builtin("emmc", "flash.bin"), check: func(t *testing.T, b *evk.Board, boot, _ []byte) {
			if !bytes.Equal(at(t, b.EMMC.Areas[1], 0, int64(len(boot))), boot) || b.EMMC.PartConf != [3]int{0, 1, 0} {
				t.Errorf("%v", b.Contents())
			}
		}},
		{name: "emmc_all", model: "imx8mp", script: builtin("emmc_all", "flash.bin", "image.wic"), check: func(t *testing.T, b *evk.Board, boot, image []byte) {
			if !bytes.Equal(at(t, b.EMMC.Areas[0], 0, int64(len(image))), image) || !bytes.Equal(at(t, b.EMMC.Areas[1], 0, int64(len(boot))), boot) {
				t.Errorf("%v", b.Contents())
			}
		}},
		{name: "emmc, SDPV", model: "imx8mm", script: builtin("emmc", "flash.bin"), check: func(t *testing.T, b *evk.Board, boot, _ []byte) {
			if !bytes.Equal(at(t, b.EMMC.Areas[1], 0x8400, int64(len(boot))), boot) || b.ROM.Report().Last(imx.StageSPL) == nil {
				t.Errorf("%v", b.Contents())
			}
		}},
		{name: "sd", model: "imx8mp", script: builtin("sd", "flash.bin"), check: func(t *testing.T, b *evk.Board, boot, _ []byte) {
			if !bytes.Equal(at(t, b.Card.Areas[0], 0x8000, int64(len(boot))), boot) {
				t.Errorf("%v", b.Contents())
			}
		}},
		{name: "sd_all", model: "imx6ull", script: builtin("sd_all", "flash.bin", "image.wic"), check: func(t *testing.T, b *evk.Board, boot, image []byte) {
			want := append([]byte{}, image...)
			copy(want[0x400:], append(boot, make([]byte, -len(boot)&(uboot.BlockSize-1))...)) // whole blocks are written
			if !bytes.Equal(at(t, b.Card.Areas[0], 0, int64(len(want))), want) {
				t.Errorf("%v", b.Contents())
			}
		}},
		{name: "nand", model: "imx8mm", script: builtin("nand", "flash.bin"), check: func(t *testing.T, b *evk.Board, boot, _ []byte) {
			for _, p := range b.NAND.Parts {
				if !bytes.Equal(at(t, b.NAND, p.Off, int64(len(boot))), boot) {
					t.Errorf("%s: %v", p.Name, b.Contents())
				}
			}
		}},
		{name: "spi_nand", model: "imx8mp", script: builtin("spi_nand", "flexspi.bin"), check: func(t *testing.T, b *evk.Board, boot, _ []byte) {
			if !bytes.Equal(at(t, b.NAND, 0x1000, int64(len(boot))), boot) {
				t.Errorf("%v", b.Contents())
			}
		}},
		{name: "qspi, with a header", model: "imx8mp", script: builtin("qspi", "flexspi.bin"), check: func(t *testing.T, b *evk.Board, boot, _ []byte) {
			if !bytes.Equal(at(t, b.NOR, 0x1000, int64(len(boot))), boot) {
				t.Errorf("%v", b.Contents())
			}
		}},
		{name: "qspi, without one", model: "imx8mp", script: builtin("qspi", "flexspi.bin", "image.wic"), check: func(t *testing.T, b *evk.Board, _, image []byte) {
			if !bytes.Equal(at(t, b.NOR, 0, int64(len(image))), image) {
				t.Errorf("%v", b.Contents())
			}
		}},
		{name: "qspi, large", model: "imx8mp", script: builtin("qspi", "flexspi.bin", "image.wic"), large: true, check: func(t *testing.T, b *evk.Board, _, image []byte) {
			if !bytes.Equal(at(t, b.NOR, 0, int64(len(image))), image) {
				t.Errorf("%v", b.Contents())
			}
		}},
		{name: "spl", model: "imx8mp", script: builtin("spl", "flash.bin"), check: func(t *testing.T, b *evk.Board, _, _ []byte) {
			if n := len(b.Fastboot.Report().Stages); n > 1 {
				t.Errorf("%d stages of U-Boot", n)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := files(t, tc.model, imx.Config{})
				mapped(t, dir)
				if tc.large {
					if err := os.Truncate(filepath.Join(dir, "image.wic"), 17<<20+100); err != nil {
						t.Fatal(err)
					}
				}
				boot := read(t, filepath.Join(dir, "flash.bin"))
				image := read(t, filepath.Join(dir, "image.wic"))
				put(t, dir, "flexspi.bin", append(append([]byte("FCFB"), make([]byte, 0xffc)...), boot...))
				board, host, unplug := plugEVK(t, evk.Config{Model: tc.model})
				texts, err := engine(t, host, uuu.Backend{Script: tc.script(t, dir)})
				if err != nil {
					t.Errorf("%v\n%s\nROM: %+v", err, strings.Join(texts, "\n"), board.ROM.Report().Error)
				}
				<-board.Settled()
				unplug()
				noMistakes(t, board)
				if r := board.ROM.Report(); r.Outcome != virtual.Booted {
					t.Errorf("the ROM's side is %s: %s", r.Outcome, r.Error)
				}
				tc.check(t, board, boot, image)
			})
		})
	}
}

// Fuses over USB, in one board's life: looked at, burnt, there, and there after a reset that leads through the ROM
// again.
func TestFuses(t *testing.T) {
	mac := func(s string) net.HardwareAddr {
		a, err := fuse.Address(s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	p, err := fuse.MAC("imx8mp", mac("00:bb:cc:dd:ee:ff"), mac("00:22:33:44:55:66"))
	if err != nil {
		t.Fatal(err)
	}
	for _, console := range []bool{false, true} {
		t.Run(fmt.Sprintf("console %t", console), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { fuses(t, p, console) })
		})
	}
}

// fuses is the life of one board.
func fuses(t *testing.T, p *fuse.Plan, console bool) {
	dir := files(t, "imx8mp", imx.Config{})
	board, host, unplug := plugEVK(t, evk.Config{Fastboot: fastboot.Config{HasConsole: console}})
	run := func(backend socs.Backend) []string {
		t.Helper()
		texts, err := engine(t, host, backend)
		if err != nil {
			t.Fatalf("%v\n%s", err, strings.Join(texts, "\n"))
		}
		return texts
	}
	words := func(texts []string, state string) {
		t.Helper()
		for _, name := range []string{"MAC_ADDR0", "MAC_ADDR1", "MAC_ADDR2"} {
			if !strings.Contains(strings.Join(texts, "\n"), name+" "+state) {
				t.Errorf("%q, want %s %s", texts, name, state)
			}
		}
	}
	boot := func() { run(uuu.Backend{Script: load(t, dir, "SDPS: boot -f flash.bin\nFB: ucmd version\nFB: done")}) }
	boot()
	confirmed := 0
	burn := fuse.Backend{Plan: p, Confirm: func(_ context.Context, on usb.Port) error {
		if confirmed++; on != port {
			t.Errorf("asked for port %s", on)
		}
		return nil
	}}
	words(run(fuse.Backend{Plan: p}), "to burn")
	if got := board.Fuses.Burnt(); len(got) != 0 {
		t.Fatalf("a dry run burnt %v", got)
	}
	words(run(burn), "burnt")
	words(run(burn), "there")
	run(uuu.Backend{Script: load(t, dir, "FB: ucmd fuse cmp 9 0 0\nFB: acmd reset\nFB: done")}) // the shadow registers have the old
	time.Sleep(time.Second)
	boot()
	words(run(burn), "there")
	run(uuu.Backend{Script: load(t, dir, "FB: ucmd fuse cmp 9 0 0xccddeeff\nFB: done")})
	unplug()
	noMistakes(t, board)
	if got := board.Fuses.Burnt(); len(got) != 3 || confirmed != 1 {
		t.Errorf("burnt %v, confirmed %d times", got, confirmed)
	}
}

// A reset in the middle of it.
func TestFusesReset(t *testing.T) {
	p, err := fuse.MAC("imx8mm", net.HardwareAddr{0, 4, 0x9f, 1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		dir := files(t, "imx8mm", imx.Config{})
		board, host, unplug := plugEVK(t, evk.Config{Model: "imx8mm"})
		script := load(t, dir, "SDP: boot -f flash.bin\nSDPV: write -f flash.bin -skipspl\nSDPV: jump\nFB: ucmd version\nFB: done")
		if texts, err := engine(t, host, uuu.Backend{Script: script}); err != nil {
			t.Fatalf("%v\n%q", err, texts)
		}
		fuseCommand := board.UBoot.Commands["fuse"]
		board.UBoot.Commands["fuse"] = func(ctx context.Context, m *uboot.Machine, args []string) error {
			if err := fuseCommand(ctx, m, args); err != nil || args[1] != "prog" || args[4] != "0x1" {
				return err
			}
			return uboot.ErrReset
		}
		burn := fuse.Backend{Plan: p, Confirm: func(context.Context, usb.Port) error { return nil }}
		texts, err := engine(t, host, burn)
		if recovery.ExitCode(err) != recovery.ExitBoard || !strings.Contains(err.Error(), "whether MAC_ADDR1 (bank 9 word 1) is burnt is not known") {
			t.Fatalf("%v\n%q", err, texts)
		}
		board.UBoot.Commands["fuse"] = fuseCommand
		if texts, err := engine(t, host, uuu.Backend{Script: script}); err != nil {
			t.Fatalf("%v\n%q", err, texts)
		}
		if texts, err := engine(t, host, burn); err != nil || !strings.Contains(strings.Join(texts, "\n"), "nothing to burn") {
			t.Errorf("%v\n%q", err, texts)
		}
		unplug()
		if got := board.Fuses.Fuses(); !maps.Equal(got, map[ocotp.Place]uint32{{Bank: 9, Word: 0}: 0x9f010203, {Bank: 9, Word: 1}: 0x0004}) || len(board.Fuses.Burnt()) != 2 {
			t.Errorf("%#x, burnt %v", got, board.Fuses.Burnt())
		}
	})
}
