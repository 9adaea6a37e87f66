package bcm_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/recovery"
	"snag/sim/bcm"
	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/socs/socstest"
	"snag/usb"
)

// A board that is wrong ends the recovery in time, and the error says what was expected, what came, and what to do; or
// the recovery gets over it.
func TestFaults(t *testing.T) {
	const s = time.Second
	socstest.Play(t, bcm.ParseFault, []socstest.Case[bcm.Config]{
		{Faults: "stall:rom:message", Code: 6, Says: "the length of the second stage: USB control on endpoint 0x00 of 0a5c:2711 on port 241-1: endpoint stalled", Most: s},
		{Faults: "stall:rom:bootcode", Code: 6, Says: "the second stage: USB control on endpoint 0x00 of 0a5c:2711 on port 241-1: endpoint stalled", Most: s},
		{Faults: "stall:rom:1000", Code: 6, Says: "of 70001 bytes: USB stream on endpoint 0x01 of 0a5c:2711 on port 241-1: endpoint stalled", Most: s},
		{Faults: "stall:rom:status", Code: 6, Says: "the status of the second stage: USB control", Most: 2 * s},
		{Faults: "short:rom:status", Code: 6, Says: "expected 4 bytes, got 2: 00 00", Most: 2 * s},
		{Faults: "status:rom:status:3", Code: 6, Says: "the boot ROM refuses 2711/bootcode4.bin with status 0x3", Most: 2 * s},
		{Faults: "hang:rom:message", Code: 6, Says: "the length of the second stage", Most: 2 * s},
		{Faults: "hang:rom:bootcode", Code: 6, Says: "the second stage: USB control", Most: 2 * s},
		{Faults: "hang:rom:1000", Code: 6, Says: "the second stage: after", Most: 6 * s},
		{Faults: "hang:rom:status", Code: 6, Says: "the status of the second stage", Most: 22 * s},
		{Faults: "nak:rom:message:500ms", Most: 3 * s},
		{Faults: "nak:rom:1000", Most: 6 * s},
		{Faults: "nak:rom:status:15s", Most: 18 * s},
		{Faults: "unplug:rom:1000", Code: 6, Says: "did not come back within 15s", Most: 16 * s},
		{Faults: "unplug:rom:status", Code: 6, Says: "the next stage did not appear on port 241-1 within 30s", Most: 32 * s},
		{Faults: "reset:rom:1000", Says: "starting over", Most: 4 * s},
		{Faults: "reset:rom:1000 reset:rom:2000 reset:rom:3000", Code: 6, Says: "the boot ROM is back after it was sent bootcode4.bin 3 times", Most: 4 * s},

		{Faults: "stall:bootcode:size", Most: 4 * s},
		{Faults: "stall:bootcode:read stall:bootcode:done", Most: 5 * s},
		{Faults: "stall:bootcode:100000", Code: 6, Says: "endpoint stalled", Most: 3 * s},
		{Faults: "short:bootcode:size", Code: 6, Says: "expected 260 bytes, got 100", Most: 3 * s},
		{Faults: "unknown:bootcode:read", Code: 6, Says: "command 7 of the second stage, expected 0, 1 or 2", Most: 3 * s},
		{Faults: "endless:bootcode:size", Code: 6, Says: `asks for a name without end: "xxxxxxxx`, Most: 3 * s},
		{Faults: "escape:bootcode:size", Says: `asked for ../../etc/hostname, /etc/hostname, ..\etc\hostname, a/../../config.txt`, Most: 3 * s},
		{Faults: "early:bootcode:size", Code: 6, Says: "the second stage is done and has taken no file", Most: 3 * s},
		{Faults: "unnamed:bootcode:done", Most: 3 * s},
		{Faults: "hang:bootcode:size", Code: 6, Says: "the second stage says nothing for 30s; it has taken nothing, and asked in vain for nothing", Most: 33 * s},
		{Faults: "hang:bootcode:done", Code: 6, Says: "the second stage says nothing for 30s; it has taken mcb.bin", Most: 33 * s},
		{Faults: "hang:bootcode:100000", Code: 6, Says: `"memsys04.bin": after`, Most: 8 * s},
		{Faults: "nak:bootcode:size:20s", Most: 23 * s},
		{Faults: "nak:bootcode:100000", Most: 6 * s},
		{Faults: "unplug:bootcode:size", Code: 6, Says: "the next stage did not appear on port 241-1 within 30s", Most: 33 * s},
		{Faults: "unplug:bootcode:100000", Code: 6, Says: "did not come back within 15s", Most: 18 * s},
		{Faults: "unplug:bootcode:done", Code: 6, Says: "the next stage did not appear on port 241-1 within 30s", Most: 33 * s},
		{Faults: "reset:bootcode:size", Says: "starting over", Most: 5 * s},
		{Faults: "reset:bootcode:100000", Says: "starting over", Most: 5 * s},
	}, func(t *testing.T, c socstest.Case[bcm.Config], faults []virtual.Fault) outcome {
		m := model(t, "bcm2711")
		o := attempt(t, bcm.Config{Model: m, Faults: faults}, bcm.Generate(m, 100_000, 1), nil)
		if kernel, _ := started(o.Report); c.Code == 0 && kernel != "u-boot.bin 50000" {
			t.Errorf("%q was started", kernel)
		}
		return o
	})
}

// without is an archive without some of its files.
func without(t *testing.T, archive []byte, names ...string) []byte {
	t.Helper()
	files := map[string][]byte{}
	dir := ""
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return bcm.Archive(dir, files)
		}
		if err != nil {
			t.Fatal(err)
		}
		if name := path.Base(h.Name); h.Typeflag == tar.TypeReg && !slices.Contains(names, name) {
			dir = path.Dir(h.Name)
			if files[name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Boards that differ.
func TestBoards(t *testing.T) {
	const s = time.Second
	gadget := usb.ID{Vendor: 0x0525, Product: 0xa4a5}
	for _, tc := range []struct {
		name   string
		soc    string
		config bcm.Config
		remove string // from bootfiles
		expect bool   // a gadget
		code   int
		says   string
		hint   string
		most   time.Duration
	}{
		{name: "early", soc: "bcm2712", config: bcm.Config{EarlyLeave: true}, says: "the ROM left before it told how it likes", most: 3 * s},
		{name: "started", soc: "bcm2837", config: bcm.Config{Started: true}, most: s},
		{name: "two interfaces", soc: "bcm2837", config: bcm.Config{TwoInterfaces: true}, most: 3 * s},
		{name: "slow", soc: "bcm2712", config: bcm.Config{Verify: 10 * s, StageDelay: 29 * s}, most: 42 * s},
		{name: "gadget", soc: "bcm2712", config: bcm.Config{Gadget: gadget}, expect: true, most: 3 * s},
		{name: "no gadget", soc: "bcm2712", expect: true, code: 6, says: "0525:a4a5 did not appear on port 241-1", most: 63 * s},
		{name: "not done, gadget", soc: "bcm2712", config: bcm.Config{NoDone: true, Gadget: gadget}, says: "warning: the second stage left before it said that it is done, and 0525:a4a5 came", most: 3 * s},
		{name: "not done", soc: "bcm2712", config: bcm.Config{NoDone: true}, code: 6, says: "did not appear on port 241-1 within 30s", hint: "left before it said that it is done (it has taken mcb.bin", most: 33 * s},
		{name: "never", soc: "bcm2712", config: bcm.Config{BootcodeNever: true}, code: 6, says: "did not appear on port 241-1 within 30s", hint: "the second stage did not start", most: 33 * s},
		{name: "signed", soc: "bcm2711", config: bcm.Config{Signed: true}, code: 6, says: "says nothing for 30s", hint: "put boot.sig, made for exactly this boot.img, into bootfiles", most: 33 * s},
		{name: "files", soc: "bcm2711", config: bcm.Config{Files: true}, code: 6, says: "says nothing for 30s", hint: "the board asked for start4.elf, which bootfiles has not", most: 33 * s},
		{name: "no mcb.bin", soc: "bcm2712", remove: "mcb.bin", code: 6, says: "it has taken nothing, and asked in vain for mcb.bin", hint: "the same version as its bootcode5.bin", most: 33 * s},
		{name: "no memsys02.bin", soc: "bcm2712", remove: "memsys02.bin", code: 6, says: "asked in vain for memsys02.bin", hint: "the same version as its bootcode5.bin", most: 33 * s},
		{name: "no bootmain", soc: "bcm2711", remove: "bootmain", code: 6, says: "asked in vain for bootmain", hint: "the same version as its bootcode4.bin", most: 33 * s},
		{name: "no start.elf", soc: "bcm2835", remove: "start.elf", code: 6, says: "asked in vain for autoboot.txt, recovery.elf, start.elf", hint: "the board asked for start.elf", most: 33 * s},
		{name: "no kernel needed", soc: "bcm2835", remove: "kernel.img", most: 3 * s},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.config.Model = model(t, tc.soc)
				files := bcm.Generate(tc.config.Model, 100_000, 1)
				if tc.remove != "" {
					files["bootfiles"] = without(t, files["bootfiles"], tc.remove)
				}
				o := attempt(t, tc.config, files, func(opt *recovery.Options) {
					if tc.expect {
						opt.Expect = gadget
					}
				})
				if tc.name == "no gadget" && recovery.ExitCode(o.Err) == 6 {
					return
				}
				o.Ends(t, tc.code, tc.says, tc.most)
				if hint := recovery.Hint(o.Err); !strings.Contains(hint, tc.hint) {
					t.Errorf("hint: %s", hint)
				}
			})
		})
	}
}

// The board of another model is not sent this one's files.
func TestOtherModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := model(t, "bcm2712")
		o := attempt(t, bcm.Config{Model: m}, bcm.Generate(model(t, "bcm2711"), 100_000, 1), func(opt *recovery.Options) {
			opt.Model, opt.Timeout = socstest.Model(t, "bcm2711"), 10*time.Second
		})
		o.Bad(t, 6, "the board on port 241-1 is no bcm2711: its boot ROM shows 0a5c:2712, which is bcm2712")
		if rom := o.Report.Last(bcm.StageROM); len(rom.Files) != 0 || !rom.First.IsZero() {
			t.Errorf("%+v", rom)
		}
	})
}

// Several boards on one host do not disturb each other.
func TestTwoBoards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := inproc.New()
		results := make(chan outcome)
		for i, port := range []usb.Port{"241-2", "241-3"} {
			go func() {
				m := model(t, "bcm2711")
				results <- on(t, host, port, bcm.Config{Model: m}, bcm.Generate(m, 100_000*(i+1), uint64(i)), nil)
			}()
		}
		for range 2 {
			(<-results).Good(t)
		}
	})
}
