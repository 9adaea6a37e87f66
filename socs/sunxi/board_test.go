package sunxi_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/recovery"
	"snag/sim/inproc"
	sim "snag/sim/sunxi"
	"snag/socs"
	"snag/socs/socstest"
	"snag/socs/sunxi"
)

// trial is a recovery of a virtual board.
type trial struct {
	model    string // that the user names, and of the board if cfg has none
	firmware map[string][]byte
	keys     map[string]any // of all images
	cfg      sim.Config
	change   func(*recovery.Options)
}

type outcome struct {
	*socstest.Outcome[sim.Report]
}

func simModel(t testing.TB, name string) sim.Model {
	t.Helper()
	m, err := sim.FindModel(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (tr trial) run(t *testing.T) outcome {
	t.Helper()
	if tr.cfg.Model.Name == "" {
		tr.cfg.Model = simModel(t, tr.model)
	}
	board, err := sim.New(tr.cfg)
	if err != nil {
		t.Fatal(err)
	}
	fw := socstest.Firmware(tr.firmware)
	if tr.firmware == nil {
		fw = socstest.Firmware(map[string][]byte{"u-boot-with-spl": sim.Generate(tr.cfg.Model, 600_000, 1).Combined})
	}
	for slot, img := range fw {
		img.Params = tr.keys
		fw[slot] = img
	}
	opt := recovery.Options{Backend: sunxi.Backend{}, Model: socstest.Model(t, tr.model), Firmware: fw, Port: "216-1"}
	if tr.change != nil {
		tr.change(&opt)
	}
	return outcome{socstest.Run(t, inproc.New(), board, opt)}
}

// rom is the stage of the ROM that was used last.
func (o outcome) rom() *sim.Stage { return o.Report.Last(sim.StageROM) }

// models are all models of the family but the family itself.
func models() (all []string) {
	for _, m := range socs.Models() {
		if m.Family == "sunxi" && m.Name != "sunxi" {
			all = append(append(all, m.Name), m.Aliases...)
		}
	}
	return all
}

// Every model comes up, with its own name from one file, and by what its ROM tells from two.
func TestRecover(t *testing.T) {
	// With MMU: what the ROM has on, and where there is room for a table.
	mapped := []string{"a10", "a13", "a20", "a23", "a31", "a83t", "h3", "r329", "v3s"}
	const size = 600_003
	for _, model := range models() {
		m := simModel(t, model)
		img := sim.Generate(m, size, 1)
		come := func(named string, files map[string][]byte) {
			t.Run(model+" as "+named, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := trial{model: named, cfg: sim.Config{Model: m}, firmware: files}.run(t)
					o.Good(t)
					if o.Err != nil {
						return
					}
					rom := o.rom()
					if rom.SPL == nil || rom.SPL.Bytes != len(img.SPL) || !rom.Kept {
						t.Errorf("SPL %+v, the ROM's memory kept: %t", rom.SPL, rom.Kept)
					}
					if rom.Start == nil || rom.Start.AArch64 != m.AArch64() {
						t.Errorf("start %+v", rom.Start)
					}
					if want := slices.Contains(mapped, m.Name); (rom.MMU == "on, DRAM uncached") != want {
						t.Errorf("MMU %s, want it on: %t", rom.MMU, want)
					}
					tree := func(c sim.Command) bool { return c.Name == "write" && c.Addr == 0x4a000000+size }
					if m.AArch64() && !slices.ContainsFunc(rom.Commands, tree) {
						t.Error("no device tree right behind U-Boot")
					}
					if t.Failed() {
						t.Logf("%s\n%s\n%+v", o.Texts(), rom.Effects(), rom.Commands)
					}
				})
			})
		}
		come(model, map[string][]byte{"u-boot-with-spl": img.Combined})
		if m.Name == model {
			come("sunxi", map[string][]byte{"spl": img.SPL, "u-boot": img.UBoot})
		}
	}
}

// Without U-Boot the recovery ends in FEL, with the DRAM set up.
func TestSPLAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		img := sim.Generate(simModel(t, "h3"), 1000, 1)
		board, err := sim.New(sim.Config{Model: simModel(t, "h3")})
		if err != nil {
			t.Fatal(err)
		}
		host := inproc.New()
		ctx, unplug := socstest.Plug(t, host.Port("216-1"), board) // it never settles: the ROM waits
		defer unplug()
		a := socstest.Try(ctx, host, recovery.Options{Backend: sunxi.Backend{}, Model: socstest.Model(t, "h3"), Firmware: socstest.Firmware(map[string][]byte{"spl": img.SPL}), Port: "216-1"})
		rom := board.Report().Last(sim.StageROM)
		if a.Err != nil || !strings.Contains(a.Texts(), "returned to FEL") || rom.SPL == nil || rom.Start != nil {
			t.Errorf("%v\n%s\n%s", a.Err, a.Texts(), rom.Effects())
		}
	})
}

// The device tree is right behind U-Boot, however the FIT writes that it is U-Boot.
func TestTreeBehindUBoot(t *testing.T) {
	const size = 50_000
	img := sim.Generate(simModel(t, "a64"), size, 1)
	synctest.Test(t, func(t *testing.T) {
		o := trial{model: "a64", firmware: map[string][]byte{"spl": img.SPL, "u-boot": replace(t, img.UBoot, "u-boot\x00", "U-Boot\x00")}}.run(t)
		o.Good(t)
		if !slices.ContainsFunc(o.rom().Commands, func(c sim.Command) bool { return c.Name == "write" && c.Addr == 0x4a000000+size }) {
			t.Errorf("no device tree right behind U-Boot: %s", o.rom().Effects())
		}
	})
}

// Boards that are set up in other ways come up all the same.
func TestVariants(t *testing.T) {
	for name, tr := range map[string]trial{
		"fused H3":              {model: "h3", cfg: sim.Config{Fused: true}},
		"fused A64":             {model: "a64", cfg: sim.Config{Fused: true}},
		"second die of H616":    {model: "h616", cfg: sim.Config{SecondDie: true}},
		"status after the call": {model: "h3", cfg: sim.Config{LateStatus: true}},
		"the same in 64 bits":   {model: "h5", cfg: sim.Config{LateStatus: true}},
		"slow SPL":              {model: "h3", cfg: sim.Config{SPLTime: 5 * time.Second}},
		"lingers":               {model: "a33", cfg: sim.Config{Lingers: true}},
		"gone at once":          {model: "a64", cfg: sim.Config{LeaveDelay: -1}},
		"slow ROM":              {model: "a31", cfg: sim.Config{Command: 50 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := trial{model: tr.model, cfg: tr.cfg}.run(t)
				o.Good(t)
				if o.rom().Start == nil {
					t.Errorf("not started: %s", o.rom().Effects())
				}
			})
		})
	}
}

// What is not the board's is refused before anything is written, and with --force it fails in time.
func TestOtherSoC(t *testing.T) {
	named := func(m sim.Model, tree string) []byte {
		img := sim.Generate(m, 100_000, 1)
		return rename(t, img.Combined, tree)
	}
	for _, tc := range []struct {
		name string
		trial
		code int
		says string
	}{
		{"image of A20 for H3", trial{model: "h3", firmware: map[string][]byte{"u-boot-with-spl": named(simModel(t, "a20"), "sun7i-a20-bananapi")}}, 5,
			"it is for sun7i-a20-bananapi (A20), not for H3 or H2+"},
		{"the same by the family", trial{model: "sunxi", cfg: sim.Config{Model: simModel(t, "h3")}, firmware: map[string][]byte{"u-boot-with-spl": named(simModel(t, "a20"), "sun7i-a20-bananapi")}}, 5,
			"it is for sun7i-a20-bananapi (A20), not for H3 or H2+"},
		{"board is another", trial{model: "a20", cfg: sim.Config{Model: simModel(t, "h3")}}, 6, "that of H3 or H2+ (ID 0x1680), not of A20"},
		{"forced, SPL hangs", trial{model: "h3", cfg: sim.Config{SPLHangs: true}, keys: map[string]any{"force": true},
			firmware: map[string][]byte{"u-boot-with-spl": named(simModel(t, "a20"), "sun7i-a20-bananapi")}}, 6, "SPL did not return to FEL"},
		{"hangs before the ROM has answered", trial{model: "h3", cfg: sim.Config{SPLHangs: true, LateStatus: true}}, 6, "SPL did not return to FEL"},
		{"D1", trial{model: "r528", cfg: sim.Config{RISCV: true}}, 6, "to 0x00021000: after 0 bytes"},
		{"unknown", trial{model: "sunxi", cfg: sim.Config{Model: simModel(t, "h3"), SoC: 0x1234}}, 6, "0x1234, of which snag does not know enough to run SPL: where SPL goes"},
		{"known by name", trial{model: "sunxi", cfg: sim.Config{Model: simModel(t, "h3"), SoC: 0x1882}}, 6, "that of an Allwinner V821 with the ID 0x1882"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := tc.run(t)
				o.Ends(t, tc.code, tc.says, 12*time.Second)
				if !tc.cfg.SPLHangs && !tc.cfg.RISCV && o.Report.Last(sim.StageROM) != nil && o.rom().Bytes > 0 {
					t.Errorf("%d bytes were written", o.rom().Bytes)
				}
			})
		})
	}
}

// rename gives an SPL another device tree's name.
func rename(t *testing.T, img []byte, tree string) []byte {
	t.Helper()
	img = bytes.Clone(img)
	clear(img[44:96])
	copy(img[44:95], tree)
	return resum(img)
}
