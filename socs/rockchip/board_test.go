package rockchip_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/firmware"
	"snag/recovery"
	"snag/sim/inproc"
	board "snag/sim/rockchip"
	"snag/sim/virtual"
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
	i := board.Generate(board.Models()[0], 20_000, 60_000, 1)
	pair := socstest.Firmware(map[string][]byte{"code471": i.Code471, "code472": i.Code472}) // files for U-Boot, in the place of the container
	socstest.Play(t, board.ParseFault, []socstest.Case[trial]{
		{Faults: "stall:rom:0", Code: 6, Says: "0x471: rk330c_ddr_800MHz_v: after 0 of 20482 bytes: USB control stream on endpoint 0x00 of 2207:330c on port 209-1: endpoint stalled", Hint: "a USB plug of an earlier run", Most: time.Second},
		{Faults: "stall:rom:8192", Code: 6, Says: "after 4096 of 20482 bytes", Hint: "larger than the memory", Most: time.Second},
		{Faults: "stall:rom:30000", Code: 6, Says: "0x472: rk330c_usbplug_v1.0: after 8192 of 61442 bytes", Hint: "larger than the memory", Most: time.Second},
		{Faults: "crc:rom:4096", Code: 6, Says: "0x472: rk330c_usbplug_v1.0: after 0 of 61442 bytes", Hint: "dropped the section before", Most: time.Second},
		{Faults: "crc:rom:40000", Code: 6, Says: "the ROM took everything, and is still there", Hint: "CRC16 was wrong", Most: 12 * time.Second},
		{Faults: "crc:rom:0x472", Config: trial{firmware: pair}, Code: 6, Says: "the ROM took everything, and is still there", Hint: "linked to another address", Most: 12 * time.Second},
		{Faults: "nak:rom:8192", Most: 5 * time.Second},
		{Faults: "nak:rom:0x471", Most: 5 * time.Second},
		{Faults: "nak:rom:jump", Most: 5 * time.Second},
		{Faults: "nak:rom:8192:6s", Code: 6, Says: "after 4096 of 20482 bytes: USB control stream on endpoint 0x00 of 2207:330c on port 209-1: context deadline exceeded", Hint: "power-cycle", Most: 7 * time.Second},
		{Faults: "hang:rom:8192", Code: 6, Says: "deadline exceeded", Hint: "power-cycle", Most: 7 * time.Second},
		{Faults: "hang:rom:30000", Code: 6, Says: "deadline exceeded", Hint: "what 471 loaded did not return", Most: 7 * time.Second},
		{Faults: "mute:rom:20482", Code: 6, Says: "after 20480 of 20482 bytes", Hint: "power-cycle", Most: 7 * time.Second},
		{Faults: "unplug:rom:8192", Code: 6, Says: "did not come back within 15s", Hint: "cable", Most: 16 * time.Second},
		{Faults: "unplug:rom:jump", Code: 6, Says: "the next stage did not appear on port 209-1 within 30s", Most: 32 * time.Second},
		{Faults: "reset:rom:8192", Says: "starting over", Most: 2 * time.Second},
		{Faults: "reset:rom:30000", Says: "starting over", Most: 2 * time.Second},
		{Faults: "reset:rom:0x471", Says: "starting over", Most: 2 * time.Second},
		{Faults: "reset:rom:jump", Says: "the boot ROM is back: starting over", Most: 10 * time.Second},
		{Faults: "reset:rom:1 reset:rom:2 reset:rom:3", Code: 6, Says: "the boot ROM is back after it was served 3 times", Hint: "for it", Most: 5 * time.Second},
		{Config: trial{cfg: board.Config{Init: 3 * time.Second}}, Most: 5 * time.Second},
		{Config: trial{cfg: board.Config{Init: time.Minute}}, Code: 6, Says: "0x472", Hint: "what 471 loaded did not return", Most: 7 * time.Second},
		{Config: trial{cfg: board.Config{EarlyLeave: true}}, Most: 2 * time.Second},
		{Config: trial{cfg: board.Config{EarlyLeave: true}, firmware: pair}, Most: 3 * time.Second},
		{Config: trial{cfg: board.Config{Stays: true}, firmware: pair}, Says: "does not serve USB any more", Most: 4 * time.Second},
		{Config: trial{cfg: board.Config{Ignored: true}, firmware: pair}, Code: 6, Says: "the ROM took everything, and is still there", Hint: "did not start", Most: 12 * time.Second},
		{Config: trial{cfg: board.Config{NeverPlug: true}}, Code: 6, Says: "the next stage did not appear on port 209-1 within 30s", Most: 32 * time.Second},
		{Config: trial{cfg: board.Config{Loader: true}}, Code: 6, Says: "2207:330c on port 209-1 is no ROM", Hint: "maskrom button", Most: time.Second},
		{Config: trial{cfg: board.Config{Loader: true, PlainPlug: true}}, Code: 6, Says: "after 0 of 20482 bytes", Hint: "a USB plug of an earlier run", Most: time.Second},
		{Config: trial{cfg: board.Config{PlainPlug: true}}, Says: "a chip that calls itself 330C", Most: time.Second},
		{Config: trial{cfg: board.Config{PlugTwice: true}}, Says: "a chip that calls itself 330C", Most: 5 * time.Second},
		{Faults: "reset:rom:jump", Config: trial{cfg: board.Config{BareROM: true}}, Says: "the boot ROM is back: starting over", Most: 10 * time.Second},
		{Config: trial{cfg: board.Config{PlugFails: 3}}, Says: "a chip that calls itself 330C", Most: 5 * time.Second},
		{Config: trial{cfg: board.Config{PlugFails: 100}}, Says: "it found no storage", Most: 12 * time.Second},
		{Config: trial{cfg: board.Config{SameAddress: true}}, Most: time.Second},
		{Config: trial{cfg: board.Config{JumpDelay: 8 * time.Second, PlugDelay: 29 * time.Second}}, Says: "a chip that calls itself 330C", Most: 40 * time.Second},
		{Config: trial{cfg: board.Config{JumpDelay: -1, PlugDelay: -1, Init: -1}}, Most: 3 * time.Second},
		{Faults: "fail:plug:chip", Most: time.Second},
		{Faults: "cut:plug:ready", Code: 6, Says: "expected a status of 13 bytes with USBS", Hint: "try another loader", Most: time.Second},
		{Faults: "wrong:plug:ready", Code: 6, Says: "expected a status of 13 bytes with USBS and tag", Hint: "try another loader", Most: time.Second},
		{Faults: "mute:plug:ready", Code: 6, Says: "deadline exceeded", Hint: "try another loader", Most: 4 * time.Second},
		{Faults: "stall:plug:ready", Code: 6, Says: "endpoint stalled", Hint: "try another loader", Most: time.Second},
		{Faults: "hang:plug:ready", Code: 6, Says: "deadline exceeded", Hint: "try another loader", Most: 4 * time.Second},
		{Faults: "unplug:plug:ready", Code: 6, Says: "did not", Most: 20 * time.Second},
		{Faults: "reset:plug:ready", Says: "starting over", Most: 5 * time.Second},
	}, func(t *testing.T, c socstest.Case[trial], faults []virtual.Fault) *socstest.Outcome[board.Report] {
		c.Config.model, c.Config.cfg.Faults = "rk3399", faults
		return c.Config.run(t)
	})
}

// The ROM takes sections of every length, whose CRC16 may end a piece, or would be cut in two.
func TestLengths(t *testing.T) {
	for _, n := range []int{64, 4092, 4093, 4094, 4095, 4096, 4097, 8189, 8190, 8191, 8192, 12286, 12287} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := board.Generate(board.Models()[0], 13_000, 13_000, 1)
				o := trial{model: "rk3399", firmware: socstest.Firmware(map[string][]byte{"code471": i.Code471[:n], "code472": i.Plug[:n]})}.run(t)
				o.Good(t)
				want := n
				if n%4096 == 4095 {
					want++
				}
				for _, s := range o.Report.Last(board.StageROM).Sections {
					if s.Bytes != want || !s.CRC {
						t.Errorf("%+v, want %d bytes", s, want)
					}
				}
			})
		})
	}
}

// What is encrypted, or not, against the ROM's will hangs it, and rc4 says otherwise.
func TestRC4(t *testing.T) {
	for _, tc := range []struct {
		model string
		rc4   any
		code  int
	}{{"rk3399", nil, 0}, {"rk3399", "on", 0}, {"rk3399", "off", 6}, {"rk3588", nil, 0}, {"rk3588", false, 0}, {"rk3588", true, 6}} {
		t.Run(fmt.Sprint(tc.model, tc.rc4), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, err := board.FindModel(tc.model)
				if err != nil {
					t.Fatal(err)
				}
				i := board.Generate(m, 20_000, 60_000, 1)
				fw := socstest.Firmware(map[string][]byte{"code471": i.Code471, "code472": i.Code472})
				if tc.rc4 != nil {
					for slot, f := range fw {
						f.Params = map[string]any{"rc4": tc.rc4}
						fw[slot] = f
					}
				}
				o := trial{model: tc.model, firmware: fw}.run(t)
				if tc.code == 0 {
					o.Good(t)
				} else {
					o.Bad(t, tc.code, "deadline exceeded")
				}
			})
		})
	}
}

// A file that was encrypted beforehand is sent as it is, and a gadget is waited for if the user asks for that.
func TestEncryptedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := board.Generate(board.Models()[0], 20_000, 60_000, 1)
		gadget := usb.ID{Vendor: 0x2207, Product: 0x5005}
		o := trial{
			model: "rk3399", cfg: board.Config{Gadget: gadget},
			firmware: socstest.Firmware(map[string][]byte{"code471": firmware.RockchipRC4(i.Code471), "code472": i.Code472}),
			change:   func(opt *recovery.Options) { opt.Expect = gadget },
		}.run(t)
		o.Good(t)
		if !strings.Contains(o.Texts(), "it is encrypted already, and sent as it is") {
			t.Error(o.Texts())
		}
	})
}

// Two boards on one host do not disturb each other.
func TestTwoBoards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := inproc.New()
		results := make(chan *socstest.Outcome[board.Report])
		for n := range 2 {
			go func() {
				m := board.Models()[0]
				b, err := board.New(board.Config{Model: m})
				if err != nil {
					t.Error(err)
				}
				results <- socstest.Run(t, host, b, recovery.Options{Backend: rockchip.Backend{}, Model: socstest.Model(t, m.Name), Port: usb.Port(fmt.Sprintf("209-%d", n+1)),
					Firmware: socstest.Firmware(map[string][]byte{"loader": board.Generate(m, 20_000, 60_000, uint64(n)).Loader})})
			}()
		}
		for range 2 {
			(<-results).Good(t)
		}
	})
}
