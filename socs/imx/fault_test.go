package imx_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/sim/imx"
	"snag/sim/inproc"
	"snag/socs/socstest"
	"snag/usb"
)

// A board that is wrong ends the recovery in time, and the error says what was expected, what came, and what to do; or
// the recovery gets over it.
func TestFaults(t *testing.T) {
	const q, mm, mp = "imx6q", "imx8mm", "imx8mp"
	// In the order of what is done.
	for _, tc := range []struct {
		model string
		fault string // several, by space
		spl   imx.SPLKind
		code  int
		says  string        // the error, or else the events
		most  time.Duration // of the whole recovery
	}{
		{model: q, fault: "stall:rom:dcd", code: 6, says: "DCD_WRITE", most: 10 * time.Second},
		{model: q, fault: "hang:rom:dcd", code: 6, says: "DCD_WRITE (204 bytes): after 0 bytes", most: 15 * time.Second},
		{model: q, fault: "nak:rom:dcd:2s", says: "open", most: 10 * time.Second},
		{model: q, fault: "hab:rom:dcd", code: 6, says: "HAB state: expected 56 78 78 56 (open) or 12 34 34 12 (closed), got ", most: 5 * time.Second},
		{model: q, fault: "status:rom:dcd", code: 6, says: "expected 12 8a 8a 12, got 11 22 33 44: unknown 0x11, invalid address, in target check, unknown 0x44", most: 5 * time.Second},
		{model: q, fault: "cut:rom:dcd", code: 6, says: "expected 4 bytes in report 4, got 1", most: 5 * time.Second},
		{model: q, fault: "id:rom:dcd", code: 6, says: "expected report 4, got report 7: 12 8a 8a 12", most: 5 * time.Second},
		{model: q, fault: "mute:rom:dcd", code: 6, says: "no answer (report 4)", most: 11 * time.Second},
		{model: q, fault: "stall:rom:100000", code: 6, says: "WRITE_FILE", most: 15 * time.Second},
		{model: q, fault: "hang:rom:100000", code: 6, says: "WRITE_FILE", most: 25 * time.Second},
		{model: q, fault: "nak:rom:100000:5s", says: "open", most: 20 * time.Second},
		{model: q, fault: "reset:rom:100000", says: "left port 201-1", most: 20 * time.Second},
		{model: q, fault: "unplug:rom:100000", code: 6, says: "did not come back within 15s", most: 20 * time.Second},
		{model: q, fault: "status:rom:write-file", code: 6, says: "expected 88 88 88 88, got 11 22 33 44", most: 5 * time.Second},
		{model: q, fault: "hang:rom:jump", code: 6, says: "JUMP_ADDRESS 0x107ff400: no answer (report 3)", most: 10 * time.Second},
		{model: q, fault: "hab:rom:jump", code: 6, says: "JUMP_ADDRESS 0x107ff400: HAB state", most: 10 * time.Second},
		{model: q, fault: "reset:rom:jump", says: "left port", most: 20 * time.Second},
		{model: q, fault: "reset:rom:1000 reset:rom:2000 reset:rom:3000", code: 6, says: "the boot ROM is back after the first stage was begun 3 times", most: 60 * time.Second},
		{model: "imx6ull", fault: "status:rom:skip-dcd", code: 6, says: "SKIP_DCD_HEADER: expected 09 d0 0d 90, got 11 22 33 44", most: 5 * time.Second},
		{model: q, spl: imx.SDPU, fault: "hang:spl:100000", code: 6, says: "WRITE_FILE", most: 25 * time.Second},
		{model: q, spl: imx.SDPU, fault: "stall:spl:100000", code: 6, says: "WRITE_FILE", most: 25 * time.Second},
		{model: q, spl: imx.SDPU, fault: "reset:spl:100000", says: "starting over", most: 25 * time.Second},
		{model: q, spl: imx.SDPV, fault: "unplug:spl:jump", code: 6, says: "", most: 25 * time.Second},
		{model: mm, fault: "cut:spl:write-file", code: 6, says: "expected 4 bytes in report 4", most: 25 * time.Second},
		{model: "imx53", fault: "hab:rom:read-register", code: 6, says: "HAB state", most: 5 * time.Second},
		{model: "imx53", fault: "status:rom:write-register", code: 6, says: "WRITE_REGISTER", most: 5 * time.Second},
		{model: "imx53", fault: "cut:rom:write-register", code: 6, says: "expected an answer of 4 bytes", most: 5 * time.Second},
		{model: "imx53", fault: "hang:rom:100000", code: 6, says: "WRITE_FILE", most: 25 * time.Second},
		{model: "imx53", fault: "reset:rom:100000", says: "starting over", most: 25 * time.Second},
		{model: mp, fault: "hang:rom:100000", code: 6, says: "bytes of the stream", most: 40 * time.Second},
		{model: mp, fault: "nak:romapi:0:12s", says: "", most: 40 * time.Second},
		{model: mp, fault: "reset:rom:100000", says: "starting over", most: 25 * time.Second},
		{model: mp, fault: "reset:romapi:100000", says: "starting over", most: 25 * time.Second},
		{model: mp, fault: "stall:rom:50000", code: 6, says: "stalled", most: 40 * time.Second},
		{model: "imx28", fault: "hang:rom:0", code: 6, says: "command block", most: 40 * time.Second},
		{model: "imx8qxp", fault: "reset:spl:10000", says: "starting over", most: 40 * time.Second},
	} {
		t.Run(strings.Join(strings.Fields(tc.model+" "+string(tc.spl)+" "+tc.fault), " "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := imx.Config{SPL: tc.spl, Faults: socstest.Faults(t, imx.ParseFault, tc.fault)}
				trial{model: tc.model, cfg: cfg}.run(t).Ends(t, tc.code, tc.says, tc.most)
			})
		})
	}
}

// The time between two stages is the board's alone.
func TestReenumeration(t *testing.T) {
	for _, delay := range []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 500 * time.Millisecond, 5 * time.Second} {
		for _, model := range []string{"imx6q", "imx8mm", "imx8qxp", "imx95"} {
			t.Run(fmt.Sprintf("%s %s", model, delay), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cfg := imx.Config{JumpDelay: -1, SPLDelay: delay}
					if model == "imx6q" {
						cfg.SPL = imx.SDPV
					}
					o := trial{model: model, cfg: cfg}.run(t)
					o.Good(t)
					rom, spl := o.Report.Last(imx.StageROM), o.Report.Last(imx.StageSPL)
					if rom == nil || spl == nil {
						t.Fatal("stages are missing")
					}
					if d := spl.Plugged.Sub(rom.LastByte); d < delay || d > delay+50*time.Millisecond {
						t.Errorf("SPL came %s after the ROM's last byte, want %s", d, delay)
					}
					if d := spl.FirstByte.Sub(spl.Plugged); d > 5*time.Millisecond {
						t.Errorf("SPL got its first byte after %s", d)
					}
				})
			})
		}
	}
}

// Two boards on one host do not disturb each other.
func TestTwoBoards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := inproc.New()
		results := make(chan *outcome)
		for i, model := range []string{"imx6q", "imx8mp"} {
			go func() {
				results <- trial{model: model, host: host, port: usb.Port(fmt.Sprintf("202-%d", i+1)), cfg: imx.Config{SPL: map[string]imx.SPLKind{"imx6q": imx.SDPV}[model]}}.run(t)
			}()
		}
		for range 2 {
			(<-results).Good(t)
		}
	})
}

// Progress never goes back, and ends with the whole file.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := trial{model: "imx8mm", cfg: imx.Config{Report: time.Millisecond}}.run(t)
		o.Good(t)
		var stages []string
		var last event.Progress
		events := 0
		for _, e := range o.Events {
			switch b := e.Body.(type) {
			case event.StageBegun:
				last = event.Progress{}
			case event.Progress:
				if b.Bytes < last.Bytes || b.Bytes > b.Total {
					t.Errorf("%+v after %+v", b, last)
				}
				last, events = b, events+1
			case event.StageDone:
				if last.Bytes != b.Summary.Bytes || last.Total != b.Summary.Bytes || b.Summary.Duration <= 0 {
					t.Errorf("%+v at the end of %+v", last, b.Summary)
				}
				stages = append(stages, b.Summary.Stage)
			}
		}
		if !slices.Equal(stages, []string{"rom", "spl"}) || events < 4 {
			t.Errorf("stages %v, %d events", stages, events)
		}
	})
}
