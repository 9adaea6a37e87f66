package sama5_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/recovery"
	"snag/sim/inproc"
	"snag/sim/sama5"
	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/socs"
	backend "snag/socs/sama5"
	"snag/socs/socstest"
	"snag/usb"
)

const size = 100_000

// model is a virtual board's.
func model(t testing.TB, name string) sama5.Model {
	t.Helper()
	m, err := sama5.FindModel(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// params are what Snagboot's templates have for the models (sama5-*xplained.yaml).
var params = map[string]struct {
	preset  string
	console int
}{
	"sama5d2": {"DDR3_MT41K128M16:Preset 4 (2 x MT41K128M16)", 1},
	"sama5d3": {"DDR2_MT47H128M16:Preset 2 (2 x MT47H128M16)", 0},
	"sama5d4": {"DDR2_MT47H128M16:Preset 2 (2 x MT47H128M16)", 6},
}

// firmware is a board's, with all keys.
func firmware(t testing.TB, name string) socs.Firmware {
	t.Helper()
	fw := socstest.Firmware(sama5.Generate(model(t, name), size, 1))
	p := params[name]
	set := func(slot string, params map[string]any) {
		img := fw[slot]
		img.Params = params
		fw[slot] = img
	}
	set("lowlevel", map[string]any{"console_instance": p.console, "console_ioset": 1})
	set("extram", map[string]any{"console_instance": p.console, "console_ioset": 1, "preset": p.preset})
	set("u-boot", map[string]any{"address": 0x26f00000})
	return fw
}

// recoverBoard plugs in a board, which is to be done in a bubble of its own time, and recovers it. change may be nil.
func recoverBoard(t *testing.T, name string, cfg sama5.Config, change func(*recovery.Options)) *socstest.Outcome[sama5.Report] {
	t.Helper()
	if cfg.Model.Name == "" {
		cfg.Model = model(t, name)
	}
	board, err := sama5.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	opt := recovery.Options{Backend: backend.Backend{}, Model: socstest.Model(t, name), Firmware: firmware(t, name), Port: "215-1"}
	if change != nil {
		change(&opt)
	}
	return socstest.Run(t, inproc.New(), board, opt)
}

func digest(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// Every model comes up, at either speed, in whatever state the monitor is, and the board has what was to be done.
func TestModels(t *testing.T) {
	for _, m := range socs.Models() {
		if m.Family != "sama5" {
			continue
		}
		for _, tc := range []struct {
			name string
			cfg  sama5.Config
			says string
		}{
			{name: "usual"},
			{name: "full speed", cfg: sama5.Config{Speed: usbdev.FullSpeed}},
			{name: "binary mode", cfg: sama5.Config{Binary: true}},
			{name: "stays", cfg: sama5.Config{Stays: true}},
			{name: "slow applets", cfg: sama5.Config{Applet: 6 * time.Second}},
			{name: "unread", cfg: sama5.Config{Unread: "\n\r"}, says: "only after a reset of the port"},
			{name: "midway", cfg: sama5.Config{Midway: 5000}, says: "only after a reset of the port"},
		} {
			t.Run(m.Name+" "+tc.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := recoverBoard(t, m.Name, tc.cfg, nil)
					o.Good(t)
					said := o.Texts()
					if !strings.Contains(said, tc.says) || strings.Contains(said, "warning") != (tc.says != "") || !strings.Contains(said, "SAM-BA monitor \""+sama5.Version+"\"") {
						t.Errorf("it said %q", said)
					}
					if most := 3*time.Second + 2*tc.cfg.Applet; o.Took > most {
						t.Errorf("it took %s", o.Took)
					}
					check(t, m.Name, o)
				})
			})
		}
	}
}

// check looks at what became of a board.
func check(t *testing.T, name string, o *socstest.Outcome[sama5.Report]) {
	t.Helper()
	files, s, p := sama5.Generate(model(t, name), size, 1), o.Report.Last(sama5.StageROM), params[name]
	writes := map[string][]sama5.Write{
		"sama5d2": {{Address: 0xf8030058, Value: 0}, {Address: 0x600000, Value: 1}},
		"sama5d3": {{Address: 0x800000, Value: 1}},
		"sama5d4": {{Address: 0x700000, Value: 1}},
	}[name]
	if !slices.Equal(s.Writes, writes) {
		t.Errorf("registers %x, want %x", s.Writes, writes)
	}
	if len(s.Applets) != 2 {
		t.Fatalf("applets %+v", s.Applets)
	}
	number := map[string]uint32{"sama5d2": 4, "sama5d3": 2, "sama5d4": 2}[name]
	for i, want := range []sama5.Applet{
		{Name: "lowlevel", Mode: 0, Preset: 0},
		{Name: "extram", Mode: 0, Preset: number},
	} {
		got := s.Applets[i]
		want.File, want.Console, want.IOSet, want.Trace = got.File, int64(p.console), 1, 5
		if got != want || got.File.SHA256 != digest(files[want.Name]) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if s.UBoot == nil || s.UBoot.Address != 0x26f00000 || s.UBoot.SHA256 != digest(files["u-boot"]) {
		t.Errorf("U-Boot %+v", s.UBoot)
	}
	var stages []string
	for _, d := range stagesOf(o) {
		stages = append(stages, fmt.Sprintf("%s %d", d.Stage, d.Bytes))
	}
	want := fmt.Sprintf("[lowlevel %d extram %d u-boot %d]", len(files["lowlevel"]), len(files["extram"]), len(files["u-boot"]))
	if fmt.Sprint(stages) != want {
		t.Errorf("%v, want %s", stages, want)
	}
}

// A board that is wrong ends the recovery in time, and the error says what was expected and what came; or the recovery
// gets over it.
func TestFaults(t *testing.T) {
	socstest.Play(t, sama5.ParseFault, []socstest.Case[sama5.Config]{
		{Faults: "mute:rom:N", Says: "only after a reset of the port", Most: 3 * time.Second},
		{Faults: "mute:rom:N mute:rom:N", Code: 6, Says: "stage rom: N#: no answer", Most: 8 * time.Second},
		{Faults: "cut:rom:N", Says: "only after a reset of the port", Most: 3 * time.Second},
		{Faults: "wrong:rom:N", Says: "only after a reset of the port", Most: 3 * time.Second},
		{Faults: "long:rom:N", Says: "only after a reset of the port", Most: 3 * time.Second},
		{Faults: "endless:rom:N", Code: 6, Says: "N#: odd answer: expected a line", Most: 3 * time.Second},
		{Faults: "stall:rom:N", Code: 6, Says: "N#: USB", Most: 3 * time.Second},
		{Faults: "nak:rom:N", Says: "only after a reset of the port", Most: 12 * time.Second},
		{Faults: "hang:rom:N", Code: 6, Says: "stage rom: #: USB out", Most: 15 * time.Second},
		{Faults: "mute:rom:V", Code: 6, Says: "V#: no answer", Most: 8 * time.Second},
		{Faults: "endless:rom:V", Code: 6, Says: "V#: odd answer", Most: 3 * time.Second},

		{Faults: "mute:rom:id", Code: 6, Says: "chip ID: w", Most: 8 * time.Second},
		{Faults: "cut:rom:id", Code: 6, Says: "chip ID: wffffee40,#: 2 of 4 bytes", Most: 8 * time.Second},
		{Faults: "wrong:rom:id", Code: 6, Says: "another chip: sama5d3 has 0x8a5c07c2 at 0xffffee40 (of the bits 0xfffffffe), this one 0x8a5c0782", Most: 3 * time.Second},
		{Faults: "long:rom:id", Code: 6, Says: "odd answer: expected 4 bytes, got 104", Most: 3 * time.Second},
		{Faults: "endless:rom:id", Code: 6, Says: "odd answer: expected 4 bytes, got ", Most: 3 * time.Second},
		{Faults: "hang:rom:id", Code: 6, Says: "chip ID", Most: 8 * time.Second},

		{Faults: "flip:rom:S", Code: 6, Says: "stage lowlevel: memory lost what was written: at 0x30", Most: 3 * time.Second},
		{Faults: "flip:rom:W", Code: 6, Says: "stage lowlevel: odd answer: the applet's command is 0xffffffbf, expected 0x0, or 0xffffffff when it is done", Most: 3 * time.Second},
		{Faults: "stall:rom:S", Code: 6, Says: "stalled", Most: 3 * time.Second},
		{Faults: "nak:rom:S", Says: "", Most: 8 * time.Second},
		{Faults: "nak:rom:30000", Says: "", Most: 8 * time.Second},
		{Faults: "hang:rom:S", Code: 6, Says: "bytes to 0x300000: USB out", Most: 8 * time.Second},
		{Faults: "hang:rom:60000", Code: 6, Says: "stage u-boot", Most: 8 * time.Second},
		{Faults: "unplug:rom:60000", Code: 6, Says: "did not come back within 15s", Most: 25 * time.Second},
		{Faults: "unplug:rom:S", Code: 6, Says: "did not come back within 15s", Most: 20 * time.Second},
		{Faults: "reset:rom:60000", Says: "starting over", Most: 5 * time.Second},
		{Faults: "reset:rom:S reset:rom:S reset:rom:60000", Code: 6, Says: "the boot ROM is back after the first stage was sent 3 times", Most: 8 * time.Second},

		{Faults: "fail:rom:lowlevel:0x0f", Code: 6, Says: "stage lowlevel: the applet failed with status 0x0f, APPLET_FAIL", Most: 3 * time.Second},
		{Faults: "fail:rom:extram:0x0f", Code: 6, Says: "stage extram: the applet failed with status 0x0f, APPLET_FAIL", Most: 3 * time.Second},
		{Faults: "fail:rom:extram:0x55", Code: 6, Says: "stage extram: the applet failed with status 0x55, which has no name", Most: 3 * time.Second},
		{Faults: "ignore:rom:lowlevel", Code: 6, Says: "stage lowlevel: the applet was called and does nothing: after 10s its command is 0x0, expected 0xffffffff", Most: 15 * time.Second},
		{Faults: "hang:rom:extram", Code: 6, Says: "stage extram: the applet was called and did not come back", Most: 15 * time.Second},
		{Faults: "nak:rom:extram:8s", Says: "", Most: 12 * time.Second},
		{Faults: "reset:rom:extram", Says: "starting over", Most: 5 * time.Second},
		{Faults: "ignore:rom:u-boot", Code: 6, Says: "stage u-boot: U-Boot was called at 0x26f00000, and the monitor still answers", Most: 3 * time.Second},
		{Faults: "unplug:rom:u-boot", Most: 3 * time.Second, Unseen: true}, // after everything: nobody can tell
		{Config: sama5.Config{Preset: 9}, Code: 6, Says: "stage extram: the applet failed with status 0x0f, APPLET_FAIL", Most: 3 * time.Second},
		{Config: sama5.Config{DRAM: 64 << 20}, Code: 6, Says: "stage u-boot", Most: 12 * time.Second},
		{Config: sama5.Config{Secure: true}, Code: 6, Says: "stage rom: N#: the chip is in secure mode", Most: 3 * time.Second},
		{Config: sama5.Config{Midway: 5000, Deaf: true}, Code: 6, Says: "stage rom: N#: no answer", Most: 8 * time.Second},
		{Config: sama5.Config{Model: model(t, "sama5d4")}, Code: 6, Says: "stage rom: chip ID: wffffee40,#: 0 of 4 bytes", Most: 8 * time.Second},
	}, func(t *testing.T, c socstest.Case[sama5.Config], faults []virtual.Fault) *socstest.Outcome[sama5.Report] {
		c.Config.Faults = faults
		return recoverBoard(t, "sama5d3", c.Config, nil)
	})
}

// With --expect the recovery ends when U-Boot's gadget is there, or says that it is not.
func TestExpect(t *testing.T) {
	gadget := usb.ID{Vendor: 0x1d6b, Product: 0x0104}
	for _, there := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			cfg := sama5.Config{}
			if there {
				cfg.Gadget = gadget
			}
			o := recoverBoard(t, "sama5d2", cfg, func(opt *recovery.Options) { opt.Expect = gadget })
			if there {
				o.Good(t)
			} else {
				o.Bad(t, 6, "1d6b:0104 did not appear on port 215-1")
			}
		})
	}
}

// Progress never goes back, and ends with the whole file.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := recoverBoard(t, "sama5d4", sama5.Config{}, nil)
		o.Good(t)
		checkProgress(t, o)
	})
}

// What snag sends is what Snagboot sends, but for what is told here.
func TestCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := recoverBoard(t, "sama5d2", sama5.Config{}, nil)
		o.Good(t)
		var got bytes.Buffer
		for _, c := range o.Report.Last(sama5.StageROM).Commands {
			fmt.Fprintln(&got, c)
		}
		for _, want := range []string{
			"N#\nV#\nwfc069000,#\nWf8030058,0#\nS220000,", "W220004,0#\nW220008,ffffffff#\nW22000c,0#\nW220010,5#\nW220014,1#\nW220018,1#\nW22001c,0#\nG220000#\nw220004,#\nw220008,#\n",
			"W22001c,0#\nW220020,4#\nG220000#\n", "W600000,1#\nS26f00000,4000#\nw26f03ffc,#\nS26f04000,4000#\n", "G26f00000#\n",
		} {
			if !strings.Contains(got.String(), want) {
				t.Errorf("no %q in\n%s", want, got.String())
			}
		}
	})
}
