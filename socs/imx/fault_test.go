package imx_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/sim/imx"
	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/socs/socstest"
	"snag/usb"
)

// A board that is wrong ends the recovery in time, and the error says what was expected, what came, and what to do; or
// the recovery gets over it.
func TestFaults(t *testing.T) {
	const q, mm, mp = "imx6q", "imx8mm", "imx8mp"
	// In the order of what is done.
	socstest.Play(t, imx.ParseFault, []socstest.Case[imx.Config]{
		{Model: q, Faults: "stall:rom:dcd", Code: 6, Says: "DCD_WRITE", Most: 10 * time.Second},
		{Model: q, Faults: "hang:rom:dcd", Code: 6, Says: "DCD_WRITE (204 bytes): after 0 bytes", Most: 15 * time.Second},
		{Model: q, Faults: "nak:rom:dcd:2s", Says: "open", Most: 10 * time.Second},
		{Model: q, Faults: "hab:rom:dcd", Code: 6, Says: "HAB state: expected 56 78 78 56 (open) or 12 34 34 12 (closed), got ", Most: 5 * time.Second},
		{Model: q, Faults: "status:rom:dcd", Code: 6, Says: "expected 12 8a 8a 12, got 11 22 33 44: unknown 0x11, invalid address, in target check, unknown 0x44", Most: 5 * time.Second},
		{Model: q, Faults: "cut:rom:dcd", Code: 6, Says: "expected 4 bytes in report 4, got 1", Most: 5 * time.Second},
		{Model: q, Faults: "id:rom:dcd", Code: 6, Says: "expected report 4, got report 7: 12 8a 8a 12", Most: 5 * time.Second},
		{Model: q, Faults: "mute:rom:dcd", Code: 6, Says: "no answer (report 4)", Most: 11 * time.Second},
		{Model: q, Faults: "stall:rom:100000", Code: 6, Says: "WRITE_FILE", Most: 15 * time.Second},
		{Model: q, Faults: "hang:rom:100000", Code: 6, Says: "WRITE_FILE", Most: 25 * time.Second},
		{Model: q, Faults: "nak:rom:100000:5s", Says: "open", Most: 20 * time.Second},
		{Model: q, Faults: "reset:rom:100000", Says: "left port 201-1", Most: 20 * time.Second},
		{Model: q, Faults: "unplug:rom:100000", Code: 6, Says: "did not come back within 15s", Most: 20 * time.Second},
		{Model: q, Faults: "status:rom:write-file", Code: 6, Says: "expected 88 88 88 88, got 11 22 33 44", Most: 5 * time.Second},
		{Model: q, Faults: "hang:rom:jump", Code: 6, Says: "JUMP_ADDRESS 0x107ff400: no answer (report 3)", Most: 10 * time.Second},
		{Model: q, Faults: "hab:rom:jump", Code: 6, Says: "JUMP_ADDRESS 0x107ff400: HAB state", Most: 10 * time.Second},
		{Model: q, Faults: "reset:rom:jump", Says: "left port", Most: 20 * time.Second},
		{Model: q, Faults: "reset:rom:1000 reset:rom:2000 reset:rom:3000", Code: 6, Says: "the boot ROM is back after the first stage was begun 3 times", Most: 60 * time.Second},
		{Model: "imx6ull", Faults: "status:rom:skip-dcd", Code: 6, Says: "SKIP_DCD_HEADER: expected 09 d0 0d 90, got 11 22 33 44", Most: 5 * time.Second},
		{Model: q, Config: imx.Config{SPL: imx.SDPU}, Faults: "hang:spl:100000", Code: 6, Says: "WRITE_FILE", Most: 25 * time.Second},
		{Model: q, Config: imx.Config{SPL: imx.SDPU}, Faults: "stall:spl:100000", Code: 6, Says: "WRITE_FILE", Most: 25 * time.Second},
		{Model: q, Config: imx.Config{SPL: imx.SDPU}, Faults: "reset:spl:100000", Says: "starting over", Most: 25 * time.Second},
		{Model: q, Config: imx.Config{SPL: imx.SDPV}, Faults: "unplug:spl:jump", Code: 6, Says: "", Most: 25 * time.Second},
		{Model: mm, Faults: "cut:spl:write-file", Code: 6, Says: "expected 4 bytes in report 4", Most: 25 * time.Second},
		{Model: "imx53", Faults: "hab:rom:read-register", Code: 6, Says: "HAB state", Most: 5 * time.Second},
		{Model: "imx53", Faults: "status:rom:write-register", Code: 6, Says: "WRITE_REGISTER", Most: 5 * time.Second},
		{Model: "imx53", Faults: "cut:rom:write-register", Code: 6, Says: "expected an answer of 4 bytes", Most: 5 * time.Second},
		{Model: "imx53", Faults: "hang:rom:100000", Code: 6, Says: "WRITE_FILE", Most: 25 * time.Second},
		{Model: "imx53", Faults: "reset:rom:100000", Says: "starting over", Most: 25 * time.Second},
		{Model: mp, Faults: "hang:rom:100000", Code: 6, Says: "bytes of the stream", Most: 40 * time.Second},
		{Model: mp, Faults: "nak:romapi:0:12s", Says: "", Most: 40 * time.Second},
		{Model: mp, Faults: "reset:rom:100000", Says: "starting over", Most: 25 * time.Second},
		{Model: mp, Faults: "reset:romapi:100000", Says: "starting over", Most: 25 * time.Second},
		{Model: mp, Faults: "stall:rom:50000", Code: 6, Says: "stalled", Most: 40 * time.Second},
		{Model: "imx28", Faults: "hang:rom:0", Code: 6, Says: "command block", Most: 40 * time.Second},
		{Model: "imx8qxp", Faults: "reset:spl:10000", Says: "starting over", Most: 40 * time.Second},
	}, func(t *testing.T, c socstest.Case[imx.Config], faults []virtual.Fault) *socstest.Outcome[imx.Report] {
		c.Config.Faults = faults
		return trial{model: c.Model, cfg: c.Config}.run(t)
	})
}

// The time between two stages is the board's alone.
func TestReenumeration(t *testing.T) {
	for _, delay := range []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 500 * time.Millisecond, 5 * time.Second, 29 * time.Second} {
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
