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
		hint  string        // the hint
		most  time.Duration // of the whole recovery
	}{
		{fault: "stall:rom:0", code: 6, says: "0x471: rk330c_ddr_800MHz_v: after 0 of 20482 bytes: USB control stream on endpoint 0x00 of 2207:330c on port 209-1: endpoint stalled", hint: "a USB plug of an earlier run", most: time.Second},
		{fault: "stall:rom:8192", code: 6, says: "after 4096 of 20482 bytes", hint: "larger than the memory", most: time.Second},
		{fault: "stall:rom:30000", code: 6, says: "0x472: rk330c_usbplug_v1.0: after 8192 of 61442 bytes", hint: "larger than the memory", most: time.Second},
		{fault: "crc:rom:4096", code: 6, says: "0x472: rk330c_usbplug_v1.0: after 0 of 61442 bytes", hint: "dropped the section before", most: time.Second},
		{fault: "crc:rom:40000", code: 6, says: "the ROM took everything, and is still there", hint: "CRC16 was wrong", most: 12 * time.Second},
		{fault: "crc:rom:0x472", pair: true, code: 6, says: "the ROM took everything, and is still there", hint: "linked to another address", most: 12 * time.Second},
		{fault: "nak:rom:8192", most: 5 * time.Second},
		{fault: "nak:rom:0x471", most: 5 * time.Second},
		{fault: "nak:rom:jump", most: 5 * time.Second},
		{fault: "nak:rom:8192:6s", code: 6, says: "after 4096 of 20482 bytes: USB control stream on endpoint 0x00 of 2207:330c on port 209-1: context deadline exceeded", hint: "power-cycle", most: 7 * time.Second},
		{fault: "hang:rom:8192", code: 6, says: "deadline exceeded", hint: "power-cycle", most: 7 * time.Second},
		{fault: "hang:rom:30000", code: 6, says: "deadline exceeded", hint: "what 471 loaded did not return", most: 7 * time.Second},
		{fault: "mute:rom:20482", code: 6, says: "after 20480 of 20482 bytes", hint: "power-cycle", most: 7 * time.Second},
		{fault: "unplug:rom:8192", code: 6, says: "did not come back within 15s", hint: "cable", most: 16 * time.Second},
		{fault: "unplug:rom:jump", code: 6, says: "the next stage did not appear on port 209-1 within 20s", most: 22 * time.Second},
		{fault: "reset:rom:8192", says: "starting over", most: 2 * time.Second},
		{fault: "reset:rom:30000", says: "starting over", most: 2 * time.Second},
		{fault: "reset:rom:0x471", says: "starting over", most: 2 * time.Second},
		{fault: "reset:rom:jump", says: "the boot ROM is back: starting over", most: 10 * time.Second},
		{fault: "reset:rom:1 reset:rom:2 reset:rom:3", code: 6, says: "the boot ROM is back after it was served 3 times", hint: "for it", most: 5 * time.Second},
		{cfg: board.Config{Init: 3 * time.Second}, most: 5 * time.Second},
		{cfg: board.Config{Init: time.Minute}, code: 6, says: "0x472", hint: "what 471 loaded did not return", most: 7 * time.Second},
		{cfg: board.Config{EarlyLeave: true}, most: 2 * time.Second},
		{cfg: board.Config{EarlyLeave: true}, pair: true, most: 3 * time.Second},
		{cfg: board.Config{Stays: true}, pair: true, says: "does not serve USB any more", most: 4 * time.Second},
		{cfg: board.Config{Ignored: true}, pair: true, code: 6, says: "the ROM took everything, and is still there", hint: "did not start", most: 12 * time.Second},
		{cfg: board.Config{NeverPlug: true}, code: 6, says: "the next stage did not appear on port 209-1 within 20s", most: 22 * time.Second},
		{cfg: board.Config{Loader: true}, code: 6, says: "2207:330c on port 209-1 is no ROM", hint: "maskrom button", most: time.Second},
		{cfg: board.Config{Loader: true, PlainPlug: true}, code: 6, says: "after 0 of 20482 bytes", hint: "a USB plug of an earlier run", most: time.Second},
		{cfg: board.Config{PlainPlug: true}, says: "a chip that calls itself 330C", most: time.Second},
		{cfg: board.Config{PlugTwice: true}, says: "a chip that calls itself 330C", most: 5 * time.Second},
		{fault: "reset:rom:jump", cfg: board.Config{BareROM: true}, says: "the boot ROM is back: starting over", most: 10 * time.Second},
		{cfg: board.Config{PlugFails: 3}, says: "a chip that calls itself 330C", most: 5 * time.Second},
		{cfg: board.Config{PlugFails: 100}, says: "it found no storage", most: 12 * time.Second},
		{cfg: board.Config{SameAddress: true}, most: time.Second},
		{cfg: board.Config{JumpDelay: 8 * time.Second, PlugDelay: 10 * time.Second}, says: "a chip that calls itself 330C", most: 20 * time.Second},
		{cfg: board.Config{JumpDelay: -1, PlugDelay: -1, Init: -1}, most: 3 * time.Second},
		{fault: "fail:plug:chip", most: time.Second},
		{fault: "cut:plug:ready", code: 6, says: "expected a status of 13 bytes with USBS", hint: "try another loader", most: time.Second},
		{fault: "wrong:plug:ready", code: 6, says: "expected a status of 13 bytes with USBS and tag", hint: "try another loader", most: time.Second},
		{fault: "mute:plug:ready", code: 6, says: "deadline exceeded", hint: "try another loader", most: 4 * time.Second},
		{fault: "stall:plug:ready", code: 6, says: "endpoint stalled", hint: "try another loader", most: time.Second},
		{fault: "hang:plug:ready", code: 6, says: "deadline exceeded", hint: "try another loader", most: 4 * time.Second},
		{fault: "unplug:plug:ready", code: 6, says: "did not", most: 20 * time.Second},
		{fault: "reset:plug:ready", says: "starting over", most: 5 * time.Second},
	} {
		t.Run(fmt.Sprintf("%s, %q", tc.fault, tc.says), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := trial{model: "rk3399", cfg: tc.cfg}
				tr.cfg.Faults = socstest.Faults(t, board.ParseFault, tc.fault)
				if tc.pair {
					i := board.Generate(board.Models()[0], 20_000, 60_000, 1)
					tr.firmware = socstest.Firmware(map[string][]byte{"code471": i.Code471, "code472": i.Code472})
				}
				o := tr.run(t)
				o.Ends(t, tc.code, tc.says, tc.most)
				if tc.code != 0 && !strings.Contains(recovery.Hint(o.Err), tc.hint) {
					t.Errorf("hint %q, want %q", recovery.Hint(o.Err), tc.hint)
				}
			})
		})
	}
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
