package rockchip_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/recovery"
	"snag/sim/inproc"
	board "snag/sim/rockchip"
	"snag/socs"
	"snag/socs/rockchip"
	"snag/socs/socstest"
	"snag/usb"
)

// trial is one recovery of one virtual board.
type trial struct {
	model    string // of the recovery
	board    string // empty: the same
	cfg      board.Config
	firmware socs.Firmware // nil: the container
	change   func(*recovery.Options)
}

// run plugs in a board, which is to be done in a bubble of its own time, and recovers it.
func (tr trial) run(t *testing.T) *socstest.Outcome[board.Report] {
	t.Helper()
	var err error
	if tr.board == "" {
		tr.board = tr.model
	}
	if tr.cfg.Model, err = board.FindModel(tr.board); err != nil {
		t.Fatal(err)
	}
	if tr.firmware == nil {
		tr.firmware = socstest.Firmware(map[string][]byte{"loader": board.Generate(tr.cfg.Model, 20_000, 60_000, 1).Loader})
	}
	b, err := board.New(tr.cfg)
	if err != nil {
		t.Fatal(err)
	}
	opt := recovery.Options{Backend: rockchip.Backend{}, Model: socstest.Model(t, tr.model), Firmware: tr.firmware, Port: "209-1"}
	if tr.change != nil {
		tr.change(&opt)
	}
	return socstest.Run(t, inproc.New(), b, opt)
}

// Every model's board comes up, by each of its names, from a loader container, from two files, and from an ID block.
func TestBoards(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range socs.Models() {
		if m.Family != "rockchip" {
			continue
		}
		v, err := board.FindModel(m.Name)
		if err != nil {
			t.Error(err)
			continue
		}
		if fmt.Sprint(m.Aliases) != fmt.Sprint(v.Aliases) && len(m.Aliases)+len(v.Aliases) > 0 {
			for _, a := range m.Aliases {
				if w, err := board.FindModel(a); err != nil || w.Name != m.Name {
					t.Errorf("%s: no virtual board %s", m.Name, a)
				}
			}
		}
		seen[v.Name] = true
		img := board.Generate(v, 20_000, 60_000, 1)
		for name, files := range map[string]map[string][]byte{
			"loader":   {"loader": img.Loader},
			"pair":     {"code471": img.Code471, "code472": img.Code472},
			"plug":     {"code471": img.Code471, "code472": img.Plug},
			"ID block": {"loader": img.IDBlock},
		} {
			if (m.Name == "rksmart" || m.Name == "rknano") && name != "loader" {
				continue // there is nothing for 472
			}
			t.Run(m.Name+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := trial{model: m.Name, firmware: socstest.Firmware(files)}.run(t)
					o.Good(t)
					rom := o.Report.Last(board.StageROM)
					plug := o.Report.Last(board.StagePlug)
					if want := name == "loader" && m.Name != "rksmart" && m.Name != "rknano" || name == "plug"; (plug != nil) != want || want && !strings.Contains(o.Texts(), "the USB plug runs, on a chip that calls itself") {
						t.Errorf("plug: %+v\n%s", plug, o.Texts())
					}
					if rom == nil || !rom.Complete || len(rom.Sections) == 0 {
						t.Fatalf("%+v", o.Report.Stages)
					}
				})
			})
		}
	}
	for _, v := range board.Models() {
		if !seen[v.Name] {
			t.Errorf("snag has no model %s", v.Name)
		}
	}
}

// A board that is wrong ends the recovery in time, and the error says what was expected, what came, and what to do; or
// the recovery gets over it.
func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		fault string // several, by space
		cfg   board.Config
		pair  bool // files for U-Boot in the place of the container
		code  int
		says  string        // the error, or else the events
		most  time.Duration // of the whole recovery
	}{
		{fault: "stall:rom:0", code: 6, says: "0x471: rk330c_ddr_800MHz_v: after 0 of 20482 bytes: USB control stream", most: time.Second},
	} {
		t.Run(strings.TrimSpace(tc.fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.cfg.Faults = socstest.Faults(t, board.ParseFault, tc.fault)
				trial{model: "rk3399", cfg: tc.cfg}.run(t).Ends(t, tc.code, tc.says, tc.most)
			})
		})
	}
}

var _ = usb.ID{}
