package dfustage_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/recovery"
	"snag/sim/dfu"
	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/socs/socstest"
	"snag/usb"
)

// board is a virtual board of one of the families.
type board struct {
	name   string // what is particular
	model  string // as snag calls it
	cfg    dfu.Config
	spl    bool        // it is given U-Boot for U-Boot's SPL, and no FIP
	stages [][2]string // the virtual board's name of each stage that is served, and snag's
}

// String is the board's model with what is particular.
func (b *board) String() string { return strings.TrimSpace(b.model + " " + b.name) }

// Stages that several boards have in common.
var (
	stm32 = [][2]string{{dfu.StageROM, "rom"}, {dfu.StageTFA, "tf-a"}}
	am62x = [][2]string{{dfu.StageROM, "rom"}, {dfu.StageSPLR5, "spl-r5"}, {dfu.StageSPLA53, "spl-a53"}}
)

// boards has one of each kind.
var boards = []board{
	{model: "stm32mp13", stages: stm32},
	{model: "stm32mp15", stages: stm32},
	{model: "stm32mp15", name: "old TF-A", cfg: dfu.Config{OldTFA: true}, stages: stm32},
	{model: "stm32mp15", name: "SPL", cfg: dfu.Config{STM32SPL: true}, spl: true, stages: [][2]string{{dfu.StageROM, "rom"}, {dfu.StageSPL, "spl"}}},
	{model: "stm32mp21", stages: stm32},
	{model: "stm32mp25", stages: stm32},
	{model: "am625", stages: am62x},
	{model: "am625", name: "next SPL", cfg: dfu.Config{SPL: dfu.SPLNext}, stages: am62x},
	{model: "j721e", stages: [][2]string{{dfu.StageROM, "rom"}, {dfu.StageSysfw, "sysfw"}, {dfu.StageSPLR5, "spl-r5"}, {dfu.StageSPLA53, "spl-a72"}}},
	{model: "am62l3", stages: [][2]string{{dfu.StageROM, "rom"}, {dfu.StageROM2, "bl1"}, {dfu.StageSPLA53, "spl-a53"}}},
	{model: "zynqmp", stages: [][2]string{{dfu.StageROM, "rom"}, {dfu.StageFSBL, "fsbl"}}},
	{model: "rzn1d", stages: [][2]string{{dfu.StageROM, "rom"}}},
}

const port usb.Port = "231-1"

// config is the board's, with a change.
func (b *board) config(t *testing.T, change func(*dfu.Config)) dfu.Config {
	t.Helper()
	cfg := b.cfg
	var err error
	if cfg.Model, err = dfu.FindModel(b.model); err != nil {
		t.Fatal(err)
	}
	change(&cfg)
	return cfg
}

// recover plugs the board in, which is to be done in a bubble of its own time, and recovers it.
func (b *board) recover(t *testing.T, change func(*dfu.Config)) *socstest.Outcome[dfu.Report] {
	t.Helper()
	cfg := b.config(t, change)
	model, backend, err := recovery.Lookup(b.model)
	if err != nil {
		t.Fatal(err)
	}
	made, err := dfu.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	images := dfu.Generate(cfg.Model, 6000, 1)
	if b.spl {
		k3, err := dfu.FindModel("am625")
		if err != nil {
			t.Fatal(err)
		}
		images = map[string][]byte{"tf-a": images["tf-a"], "u-boot": dfu.Generate(k3, 6000, 1)["u-boot"]}
	}
	host := inproc.New()
	ctx, unplug := socstest.Plug(t, host.Port(port), made)
	defer unplug()
	opt := recovery.Options{Backend: backend, Model: model, Firmware: socstest.Firmware(images), Port: port}
	o := &socstest.Outcome[dfu.Report]{Attempt: socstest.Try(ctx, host, opt)}
	if o.Err == nil {
		select {
		case <-made.Settled():
		case <-time.After(time.Minute): // a fault that could not be seen
		}
	}
	o.Report = made.Report()
	return o
}

// bad fails the test unless the recovery failed as a board's fault, with a hint, and with a text that has all of says.
func bad(t *testing.T, o *socstest.Outcome[dfu.Report], says ...string) {
	t.Helper()
	for _, s := range says {
		o.Bad(t, recovery.ExitBoard, s)
	}
}

// good fails the test unless the board was recovered.
func good(t *testing.T, o *socstest.Outcome[dfu.Report]) {
	t.Helper()
	if o.Err != nil || o.Report.Outcome != virtual.Booted {
		t.Errorf("%v; the board is %s: %s", o.Err, o.Report.Outcome, o.Report.Error)
	}
}

// sound are faults that do no harm that could be seen, with the reason.
var sound = map[string]string{
	"stm32mp13 unplug:tfa:manifest":     lastFile,
	"stm32mp13 reset:tfa:manifest":      lastFile,
	"stm32mp15 unplug:tfa:manifest":     lastFile,
	"stm32mp15 reset:tfa:manifest":      lastFile,
	"stm32mp15 SPL unplug:spl:manifest": lastFile,
	"stm32mp15 SPL reset:spl:manifest":  lastFile,
	"zynqmp unplug:fsbl:manifest":       lastFile,
	"zynqmp reset:fsbl:manifest":        lastFile,
	"rzn1d unplug:rom:manifest":         lastFile,
	"rzn1d reset:rom:manifest":          lastFile,
	"am625 without stage spl-a53":       bothFiles,
	"j721e without stage spl-a53":       bothFiles,
}

const (
	lastFile  = "a stage that leaves with the whole of its last file is thought to have started it; --expect tells"
	bothFiles = "the SPL before was given u-boot.img too, with which an old one starts U-Boot; --expect tells"
)

// faultKinds are all that sim/dfu has for boards.
var faultKinds = []string{"error", "busy", "lie", "stall", "nak", "hang", "refuse", "unplug", "reset"}

// Every fault that a virtual board can play, at the beginning, in the middle and at the end of every stage's file: the
// recovery gets over it, or its error names the stage, the setting, and what state and status the board tells.
func TestEveryFault(t *testing.T) {
	for i := range boards {
		b := &boards[i]
		for _, stage := range b.stages {
			for _, kind := range faultKinds {
				for _, when := range []string{"0", "3000", "manifest"} {
					fault := fmt.Sprintf("%s:%s:%s", kind, stage[0], when)
					name := b.String() + " " + fault
					t.Run(name, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							o := b.recover(t, func(cfg *dfu.Config) { cfg.Faults = socstest.Faults(t, dfu.ParseFault, fault) })
							if o.Took > time.Minute {
								t.Errorf("it took %s", o.Took)
							}
							for _, v := range o.Report.Violations {
								t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
							}
							at, setting := fmt.Sprintf("%s on %s, stage %s: ", b.model, port, stage[1]), "alternate setting "
							switch {
							case sound[name] != "":
								if o.Err != nil {
									t.Error(o.Err)
								}
							case kind == "busy" || kind == "nak" || kind == "reset":
								good(t, o)
							case kind == "error":
								bad(t, o, at, setting, "status errUNKNOWN", "state dfuERROR")
							case kind == "stall" || kind == "refuse":
								bad(t, o, at, setting, "refused with a stall, status OK, state dfu")
							case kind == "lie":
								bad(t, o, at, setting, "status OK, state dfu", "(bwPollTimeout)")
							case kind == "hang" && when != "manifest":
								bad(t, o, at, setting, "context deadline exceeded")
							default: // there is nobody whose setting, state and status could be told
								bad(t, o, at)
							}
						})
					})
				}
			}
		}
	}
}

// A board without one of the settings that it should have, and one whose next stage never shows, are told of with the
// stage.
func TestEveryMissing(t *testing.T) {
	for i := range boards {
		b := &boards[i]
		wanted := map[string][]string{} // snag's stages by the names of settings
		synctest.Test(t, func(t *testing.T) {
			o := b.recover(t, func(*dfu.Config) {})
			good(t, o)
			for _, s := range o.Report.Stages {
				for _, f := range s.Files {
					j := slices.IndexFunc(b.stages, func(names [2]string) bool { return names[0] == s.Name })
					wanted[f.Name] = append(wanted[f.Name], b.stages[j][1])
				}
			}
		})
		for name, stages := range wanted {
			missing := func(cfg *dfu.Config) { cfg.Missing = []string{name} }
			if _, err := dfu.New(b.config(t, missing)); err != nil || strings.HasPrefix(name, "Xilinx") { // no virtual board can be without it
				continue
			}
			t.Run(b.String()+" without "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := b.recover(t, missing)
					bad(t, o, "alternate setting")
					if !slices.ContainsFunc(stages, func(s string) bool { return strings.Contains(fmt.Sprint(o.Err), ", stage "+s+": ") }) {
						t.Errorf("%v; want a stage of %q", o.Err, stages)
					}
				})
			})
		}
		for j, s := range b.stages[1:] {
			name := b.String() + " without stage " + s[0]
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := b.recover(t, func(cfg *dfu.Config) { cfg.Never = s[0] })
					if sound[name] == "" {
						bad(t, o, ", stage "+b.stages[j][1]+": ")
					} else if o.Err != nil {
						t.Error(o.Err)
					}
					if o.Took > time.Minute {
						t.Errorf("it took %s", o.Took)
					}
				})
			})
		}
	}
}
