package imx_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/recovery"
	"snag/sim/imx"
	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/socs"
	soc "snag/socs/imx"
	"snag/usb"
)

// sized is about how much firmware the boards are given.
const sized = 300_000

// trial is one recovery of one virtual board.
type trial struct {
	model    string
	cfg      imx.Config // Model apart
	firmware socs.Firmware
	opt      recovery.Options
	port     usb.Port
	host     *inproc.Host
}

// outcome is what came of it.
type outcome struct {
	err    error
	report imx.Report
	events []event.Event
	took   time.Duration
}

func (o *outcome) texts() string {
	var s []string
	for _, e := range o.events {
		switch b := e.Body.(type) {
		case event.Note:
			s = append(s, b.Text)
		case event.Warning:
			s = append(s, "warning: "+b.Text)
		}
	}
	return strings.Join(s, "\n")
}

// files generates the firmware of a board in the slots that its model takes.
func files(t testing.TB, cfg imx.Config, slots ...string) socs.Firmware {
	t.Helper()
	images, err := imx.Generate(cfg, sized, 1)
	if err != nil {
		t.Fatal(err)
	}
	fw := socs.Firmware{slots[0]: {Path: slots[0] + ".bin", Data: images.First}}
	if images.Second != nil {
		fw[slots[1]] = socs.Image{Path: slots[1] + ".bin", Data: images.Second}
	}
	return fw
}

// slotsOf are the slots for what imx.Generate makes for a model.
func slotsOf(m imx.Model, spl imx.SPLKind) []string {
	switch {
	case m.Protocol == imx.SDPS:
		return []string{"flash-bin"}
	case strings.HasPrefix(m.Name, "imx8"):
		return []string{"flash-bin"}
	case spl != imx.SPLNone:
		return []string{"SPL", "u-boot"}
	}
	return []string{"u-boot-with-dcd"}
}

// complete fills in what the trial leaves out.
func (tr *trial) complete(t *testing.T) {
	t.Helper()
	var err error
	if tr.cfg.Model, err = imx.FindModel(tr.model); err != nil {
		t.Fatal(err)
	}
	m := tr.cfg.Model
	if tr.cfg.Machine == nil && m.Protocol == imx.Bulk {
		tr.cfg.Machine = &imx.Memory{Reads: ready()}
	}
	if tr.firmware == nil && tr.model == "imx53" { // with all that a DCD can have
		tr.firmware = firmwareOf(map[string][]byte{"u-boot-with-dcd": imx.IVTImage{Self: 0x777ff400, Before: 0x400, DCD: imx.GenerateDCD(20, false), Size: sized, Seed: 1}.Generate()})
	}
	if tr.firmware == nil {
		kind := tr.cfg.SPL
		if kind == "" {
			kind = m.SPL
		}
		tr.firmware = files(t, tr.cfg, slotsOf(m, kind)...)
	}
	if tr.port == "" {
		tr.port = "201-1"
	}
	if tr.host == nil {
		tr.host = inproc.New()
	}
}

// run plugs in a board, which is to be done in a bubble of its own time, and recovers it.
func (tr trial) run(t *testing.T) *outcome {
	t.Helper()
	tr.complete(t)
	board, err := imx.New(tr.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := board.Run(ctx, tr.host.Port(tr.port)); err != nil {
			t.Error(err)
		}
	})
	o := tr.recover(t, ctx)
	if o.err == nil {
		select {
		case <-board.Settled():
		case <-time.After(time.Minute):
			t.Error("the board did not settle")
		}
	}
	o.report = board.Report()
	cancel()
	wg.Wait()
	return o
}

// recover recovers what is plugged in.
func (tr trial) recover(t *testing.T, ctx context.Context) *outcome {
	t.Helper()
	tr.complete(t)
	model, err := socs.Lookup(tr.model)
	if err != nil {
		t.Fatal(err)
	}
	opt := tr.opt
	opt.Backend, opt.USB, opt.Model, opt.Firmware, opt.Port = soc.Backend{}, tr.host, model, tr.firmware, tr.port
	o := &outcome{}
	var mu sync.Mutex
	opt.Emit = func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		o.events = append(o.events, e)
	}
	begun := time.Now()
	o.err = recovery.Run(ctx, opt)
	o.took = time.Since(begun)
	mu.Lock()
	defer mu.Unlock()
	return o
}

// ready is hardware that sets the bit which the generated DCDs wait for, each fifth time it is read.
func ready() func(uint32, []byte) {
	reads := 0
	return func(addr uint32, b []byte) {
		if addr != 0x020c8000 {
			return
		}
		if reads++; reads%5 == 0 {
			b[0] |= 2
		}
	}
}

// good fails the test unless the board was recovered, and the host did nothing wrong.
func (o *outcome) good(t *testing.T) {
	t.Helper()
	if o.err != nil || o.report.Outcome != virtual.Booted {
		t.Errorf("%v; the board is %s: %s\n%s", o.err, o.report.Outcome, o.report.Error, o.texts())
	}
	for _, v := range o.report.Violations {
		t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
	}
}

// Every model comes up.
func TestModels(t *testing.T) {
	for _, m := range imx.Models() {
		kinds := []imx.SPLKind{m.SPL}
		if m.Protocol == imx.SDP && m.SPL == imx.SPLNone {
			if soc.HasSPL(m.Name) {
				kinds = append(kinds, imx.SDPU, imx.SDPV)
			}
		} else if m.SPL == imx.SDPV {
			kinds = append(kinds, imx.SDPU)
		}
		for _, spl := range kinds {
			t.Run(fmt.Sprintf("%s %s", m.Name, spl), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := trial{model: m.Name, cfg: imx.Config{SPL: spl}}.run(t)
					o.good(t)
					if strings.Contains(o.texts(), "warning") {
						t.Error(o.texts())
					}
					rom := o.report.Last(imx.StageROM)
					if m.Protocol == imx.SDPS && o.report.Last(imx.StageSPL) != nil && rom.Bytes > sized*2/3 {
						t.Errorf("the ROM was sent %d bytes: more than its part", rom.Bytes)
					}
				})
			})
		}
	}
}
