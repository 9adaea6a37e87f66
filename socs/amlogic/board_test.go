package amlogic_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/recovery"
	"snag/sim/amlogic"
	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/socs"
	soc "snag/socs/amlogic"
	"snag/socs/socstest"
	"snag/usb"
)

// sized is about how much U-Boot the boards are given.
const sized = 300_000

type outcome = socstest.Outcome[amlogic.Report]

// trial is one recovery of one virtual board.
type trial struct {
	model    string
	cfg      amlogic.Config // Model apart
	firmware socs.Firmware
	host     *inproc.Host
	port     usb.Port
}

func model(t testing.TB, name string) amlogic.Model {
	t.Helper()
	m, err := amlogic.FindModel(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// run plugs in a board, which is to be done in a bubble of its own time, and recovers it.
func (tr trial) run(t *testing.T) *outcome {
	t.Helper()
	tr.cfg.Model = model(t, tr.model)
	if tr.firmware == nil {
		tr.firmware = socstest.Firmware(amlogic.Generate(tr.cfg.Model.Family, sized, 1))
	}
	if tr.host == nil {
		tr.host = inproc.New()
	}
	if tr.port == "" {
		tr.port = "217-1"
	}
	board, err := amlogic.New(tr.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return socstest.Run(t, tr.host, board, recovery.Options{Backend: soc.Backend{}, Model: socstest.Model(t, tr.model), Firmware: tr.firmware, Port: tr.port})
}

// Every model comes up.
func TestModels(t *testing.T) {
	for _, m := range socs.Models() {
		if m.Family != "amlogic" {
			continue
		}
		t.Run(m.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := trial{model: m.Name}.run(t)
				o.Good(t)
				if strings.Contains(o.Texts(), "warning") || o.Took > 5*time.Second {
					t.Errorf("it took %s, and said %q", o.Took, o.Texts())
				}
			})
		})
	}
}

// Boards that are made otherwise come up too.
func TestVariants(t *testing.T) {
	many := func(n int, length uint32) (asks []amlogic.Ask) {
		for i := range n {
			asks = append(asks, amlogic.Ask{Length: length, Offset: 0x10000 + 512*uint32(i%100)})
		}
		return asks
	}
	for name, tr := range map[string]trial{
		"short identity":     {model: "s905x", cfg: amlogic.Config{Short: true}},
		"short identity G12": {model: "a311d", cfg: amlogic.Config{Short: true}},
		"slow":               {model: "s905x", cfg: amlogic.Config{BL2Delay: 3 * time.Second, DRAMDelay: 3 * time.Second}},
		"slow G12":           {model: "s922x", cfg: amlogic.Config{BL2Delay: 5 * time.Second}},
		"300 pieces":         {model: "s905d3", cfg: amlogic.Config{Asks: many(300, 1024)}}, // more than a byte counts
		"small pieces":       {model: "s905d3", cfg: amlogic.Config{Asks: append(many(4, 513), many(3, 100)...)}},
		"odd pieces":         {model: "s905d3", cfg: amlogic.Config{Asks: []amlogic.Ask{{Length: 0x10003, Offset: 0x10000}, {Length: 0x20000, Offset: 0x10000}, {Length: 0x4001, Offset: 0x10000}}}},
		"other place":        {model: "s905y2", firmware: g12At(t, "bl2-load-addr", int64(0xfffa4000))},
		"other place, text":  {model: "s905y2", firmware: g12At(t, "bl2-load-addr", "0xfffa4000")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := tr.run(t)
				o.Good(t)
				if strings.Contains(o.Texts(), "warning") {
					t.Error(o.Texts())
				}
			})
		})
	}
}

func g12At(t *testing.T, key string, value any) socs.Firmware {
	img := socstest.Firmware(amlogic.Generate(amlogic.G12, sized, 1))["u-boot-fip"]
	img.Params = map[string]any{key: value}
	return socs.Firmware{"u-boot-fip": img}
}

// A board that is wrong ends the recovery in time, and the error says what was expected, what came, and what to do; or
// the recovery gets over it.
func TestFaults(t *testing.T) {
	const x, d3 = "s905x", "s905d3"
	socstest.Play(t, amlogic.ParseFault, []socstest.Case[amlogic.Config]{
		{Model: x, Faults: "stall:rom:identify", Code: 6, Says: "IDENTIFY: no answer: USB control on endpoint 0x80 of 1b8e:c003 on port 217-1: endpoint stalled", Most: time.Second},
		{Model: x, Faults: "cut:rom:identify", Code: 6, Says: "IDENTIFY: expected 4 to 8 bytes, got 2: 02 04", Most: time.Second},
		{Model: x, Faults: "mute:rom:identify", Code: 6, Says: "IDENTIFY: expected 4 to 8 bytes, got 0", Most: time.Second},
		{Model: x, Faults: "wrong:rom:identify", Code: 6, Says: "expected the boot ROM, which is stage 0, got stage 85", Most: time.Second},
		{Model: x, Faults: "hang:rom:identify", Code: 6, Says: "IDENTIFY: no answer", Most: 12 * time.Second},
		{Model: x, Faults: "nak:rom:identify:2s", Says: "", Most: 8 * time.Second},
		{Model: x, Faults: "stall:rom:write", Code: 6, Says: "write of 49152 bytes to 0xd9000000: after 0: ", Most: time.Second},
		{Model: x, Faults: "hang:rom:20000", Code: 6, Says: "write of 49152 bytes to 0xd9000000: after 20032: ", Most: 12 * time.Second},
		{Model: x, Faults: "nak:rom:20000", Says: "", Most: 8 * time.Second},
		{Model: x, Faults: "reset:rom:20000", Says: "starting over", Most: 8 * time.Second},
		{Model: x, Faults: "unplug:rom:20000", Code: 6, Says: "did not come back within 15s", Most: 18 * time.Second},
		{Model: x, Faults: "stall:rom:large-write", Code: 6, Says: "large write of 32 bytes to 0xd900c000: after 0: ", Most: time.Second},
		{Model: x, Faults: "stall:rom:run", Code: 6, Says: "run 0xd9000000: ", Most: time.Second},
		{Model: x, Faults: "hang:rom:run", Code: 6, Says: "run 0xd9000000: ", Most: 12 * time.Second},
		{Model: x, Faults: "reset:rom:run", Says: "starting over", Most: 8 * time.Second},
		{Model: x, Faults: "hang:bl2:identify", Code: 6, Says: "IDENTIFY: no answer", Most: 13 * time.Second},
		{Model: x, Faults: "wrong:bl2:identify", Code: 6, Says: "expected stage 0 or 8 after BL2 was started, got stage 85", Most: 3 * time.Second},
		{Model: x, Faults: "stall:bl2:run", Code: 6, Says: "run 0xd900c000: ", Most: 3 * time.Second},
		{Model: x, Faults: "hang:bl2:100", Code: 6, Says: "BL2 for the second time: large write of 49152 bytes to 0xd9000000: after ", Most: 14 * time.Second},
		{Model: x, Faults: "stall:bl2:60000", Code: 6, Says: "large write of 349696 bytes to 0x0200c000: after ", Most: 4 * time.Second},
		{Model: x, Faults: "hang:bl2:100000", Code: 6, Says: "large write of 349696 bytes to 0x0200c000: after ", Most: 14 * time.Second},
		{Model: x, Faults: "nak:bl2:100000", Says: "", Most: 8 * time.Second},
		{Model: x, Faults: "reset:bl2:100000", Says: "starting over", Most: 10 * time.Second},
		{Model: x, Faults: "unplug:bl2:100000", Code: 6, Says: "did not come back within 15s", Most: 20 * time.Second},
		{Model: x, Faults: "reset:rom:1 reset:rom:2 reset:rom:3", Code: 6, Says: "the boot ROM is back after the first stage was sent 3 times", Most: 5 * time.Second},
		{Model: "s905", Faults: "hang:rom:100000", Code: 6, Says: "large write of ", Most: 14 * time.Second},

		{Model: d3, Faults: "stall:rom:large-write", Code: 6, Says: "large write of 65536 bytes to 0xfffa0000: after 0: ", Most: time.Second},
		{Model: d3, Faults: "stall:rom:20000", Code: 6, Says: "large write of 65536 bytes to 0xfffa0000: after ", Most: time.Second},
		{Model: d3, Faults: "hang:rom:20000", Code: 6, Says: "large write of 65536 bytes to 0xfffa0000: after 20480: ", Most: 12 * time.Second},
		{Model: d3, Faults: "reset:rom:20000", Says: "starting over", Most: 8 * time.Second},
		{Model: d3, Faults: "stall:bl2:amlc", Code: 6, Says: "AMLC: USB control", Most: 3 * time.Second},
		{Model: d3, Faults: "cut:bl2:amlc", Code: 6, Says: "AMLC: expected AMLC and where what it wants is, got 2 bytes: 41 4d", Most: 3 * time.Second},
		{Model: d3, Faults: "wrong:bl2:amlc", Code: 6, Says: "got 512 bytes: 57 68 61 74 00", Most: 3 * time.Second},
		{Model: d3, Faults: "mute:bl2:amlc", Code: 6, Says: "AMLC: no answer", Most: 13 * time.Second},
		{Model: d3, Faults: "hang:bl2:amlc", Code: 6, Says: "AMLC: ", Most: 13 * time.Second},
		{Model: d3, Faults: "nak:bl2:amlc", Says: "", Most: 8 * time.Second},
		{Model: d3, Faults: "beyond:bl2:amlc", Code: 6, Says: "BL2 asks for 2147418112 bytes at 0x10000, and the file has ", Most: 3 * time.Second},
		{Model: d3, Faults: "nothing:bl2:amlc", Code: 6, Says: "BL2 asks for no bytes, at 0x10000", Most: 3 * time.Second},
		{Model: d3, Faults: "endless:bl2:amlc", Code: 6, Says: "BL2 has asked for 4096 pieces", Most: 5 * time.Second},
		{Model: d3, Faults: "reset:bl2:amlc", Says: "starting over", Most: 10 * time.Second},
		{Model: d3, Faults: "unplug:bl2:amlc", Code: 6, Says: "did not come back within 15s", Most: 20 * time.Second},
		{Model: d3, Faults: "stall:bl2:data", Code: 6, Says: "16384 bytes for 0x10000: USB control", Most: 3 * time.Second},
		{Model: d3, Faults: "cut:bl2:data", Code: 6, Says: "16384 bytes for 0x10000: answer: expected OKAY, got 2 bytes: 4f 4b", Most: 3 * time.Second},
		{Model: d3, Faults: "wrong:bl2:data", Code: 6, Says: "got 16 bytes: 57 68 61 74 00", Most: 3 * time.Second},
		{Model: d3, Faults: "mute:bl2:data", Code: 6, Says: "16384 bytes for 0x10000: no answer", Most: 13 * time.Second},
		{Model: d3, Faults: "wrong:bl2:amls", Code: 6, Says: "AMLS for 0x10000: answer: expected OKAY, got 16 bytes: 57 68 61 74 00", Most: 3 * time.Second},
		{Model: d3, Faults: "hang:bl2:100000", Code: 6, Says: "bytes for 0x", Most: 14 * time.Second},
		{Model: d3, Faults: "stall:bl2:100000", Code: 6, Says: "endpoint stalled", Most: 4 * time.Second},
		{Model: d3, Faults: "reset:bl2:100000", Says: "starting over", Most: 10 * time.Second},
	}, func(t *testing.T, c socstest.Case[amlogic.Config], faults []virtual.Fault) *socstest.Outcome[amlogic.Report] {
		return trial{model: c.Model, cfg: amlogic.Config{Faults: faults}}.run(t)
	})
}

// A board that is not in its ROM, or locked, is left alone.
func TestNotReady(t *testing.T) {
	for _, model := range []string{"s905x", "s905x3"} {
		for says, cfg := range map[string]amlogic.Config{
			"USB boot of this board is protected by a password": {Locked: true},
			"but BL2 runs already":                              {At: 8},
			"but U-Boot runs already":                           {At: 16},
			"got stage 3":                                       {At: 3},
		} {
			synctest.Test(t, func(t *testing.T) {
				o := trial{model: model, cfg: cfg}.run(t)
				o.Bad(t, 6, says)
				if len(o.Report.Violations) > 0 {
					t.Error(o.Report.Violations)
				}
			})
		}
	}
}

// A BL2 that leaves with everything has started U-Boot; one that leaves with less has not.
func TestLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := trial{model: "a311d", cfg: amlogic.Config{Leaves: true}}.run(t)
		o.Ends(t, 0, "warning: BL2 left before it had told that it has everything", 5*time.Second)
	})
	synctest.Test(t, func(t *testing.T) {
		o := trial{model: "a311d", cfg: amlogic.Config{Leaves: true, Asks: []amlogic.Ask{{Length: 0x4000, Offset: 0x10000}}}}.run(t)
		o.Bad(t, 6, "did not come back within 15s")
	})
}

// Firmware that a board does not start ends the recovery, and not the test.
func TestDoesNotStart(t *testing.T) {
	for _, tc := range []struct {
		model, as string // the board; what snag takes it for
		says      string
	}{
		{"s905x", "a113x", "write of 49152 bytes to 0xfffc0000: after 0: "},
		{"a113x", "s905x", "write of 49152 bytes to 0xd9000000: after 0: "},
		{"a311d", "s905x", "write of 49152 bytes to 0xd9000000: after 0: "},
		{"s905x", "a311d", "large write of 65536 bytes to 0xfffa0000: after 0: "},
	} {
		synctest.Test(t, func(t *testing.T) {
			board, err := amlogic.New(amlogic.Config{Model: model(t, tc.model)})
			if err != nil {
				t.Fatal(err)
			}
			o := socstest.Run(t, inproc.New(), board, recovery.Options{Backend: soc.Backend{}, Model: socstest.Model(t, tc.as), Port: "217-1",
				Firmware: socstest.Firmware(amlogic.Generate(model(t, tc.as).Family, sized, 1))})
			o.Bad(t, 6, tc.says)
			if !strings.Contains(recovery.Hint(o.Err), "is the model the right one?") {
				t.Error(recovery.Hint(o.Err))
			}
		})
	}
}

// Two boards on one host do not disturb each other.
func TestTwoBoards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := inproc.New()
		results := make(chan *outcome)
		for i, model := range []string{"s912", "s905d3"} {
			go func() {
				results <- trial{model: model, host: host, port: usb.Port(fmt.Sprintf("218-%d", i+1))}.run(t)
			}()
		}
		for range 2 {
			(<-results).Good(t)
		}
	})
}

// Progress never goes back, and ends with the whole file.
func TestProgress(t *testing.T) {
	for _, model := range []string{"s905x", "s922x"} {
		synctest.Test(t, func(t *testing.T) {
			o := trial{model: model}.run(t)
			o.Good(t)
			var last event.Progress
			var stages []string
			for _, e := range o.Events {
				switch b := e.Body.(type) {
				case event.StageBegun:
					last = event.Progress{}
				case event.Progress:
					if b.Bytes < last.Bytes || b.Bytes > b.Total {
						t.Errorf("%+v after %+v", b, last)
					}
					last = b
				case event.StageDone:
					if last.Bytes != b.Summary.Bytes || last.Total != b.Summary.Bytes {
						t.Errorf("%+v at the end of %+v", last, b.Summary)
					}
					stages = append(stages, b.Summary.Stage)
				}
			}
			if fmt.Sprint(stages) != "[rom bl2]" {
				t.Error(stages)
			}
		})
	}
}
