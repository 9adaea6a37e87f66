package k3_test

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
	"snag/sim/dfu"
	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/socs"
	soc "snag/socs/k3"
	"snag/usb"
)

// trial is one recovery of one virtual board.
type trial struct {
	model    string
	chip     string        // the virtual board's; empty: the model's
	cfg      dfu.Config    // Model apart
	firmware socs.Firmware // nil: the model's
	opt      recovery.Options
	port     usb.Port
	host     *inproc.Host
	gadget   *usbdev.Descriptors // what U-Boot shows on the port, if anything
}

// mute is a gadget's function that answers nothing.
type mute struct{}

func (mute) Configured(uint8)      {}
func (mute) Selected(uint8, uint8) {}
func (mute) Control(context.Context, usbdev.Setup, []byte) (int, error) {
	return 0, usbdev.ErrStall
}

// start has U-Boot show its gadget when the board has everything.
func (tr trial) start(t *testing.T, ctx context.Context, board *dfu.Board) {
	select {
	case <-board.Settled():
		time.Sleep(2 * time.Second)
	case <-ctx.Done():
	}
	if ctx.Err() == nil && tr.gadget != nil {
		if err := tr.host.Port(tr.port).Attach(ctx, usbdev.NewGadget(tr.gadget, mute{})); err != nil {
			t.Error(err)
		}
	}
}

// outcome is what came of it.
type outcome struct {
	err    error
	report dfu.Report
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

// chip is the virtual board's name of a model.
func chip(model string) string {
	switch {
	case strings.HasPrefix(model, "am62"):
		return map[string]string{"am623": "am62x", "am625": "am62x", "am62a7": "am62ax", "am62d2": "am62dx", "am62p": "am62px", "am62l3": "am62lx"}[model]
	case strings.HasPrefix(model, "am6"):
		return model[:4] + "x"
	}
	return model
}

// run plugs in a board, which is to be done in a bubble of its own time, and recovers it.
func (tr trial) run(t *testing.T) *outcome {
	t.Helper()
	if tr.chip == "" {
		tr.chip = chip(tr.model)
	}
	var err error
	if tr.cfg.Model, err = dfu.FindModel(tr.chip); err != nil {
		t.Fatal(err)
	}
	model, err := socs.Lookup(tr.model)
	if err != nil {
		t.Fatal(err)
	}
	if tr.firmware == nil {
		tr.firmware = of(tr.model)
	}
	if tr.port == "" {
		tr.port = "211-1"
	}
	if tr.host == nil {
		tr.host = inproc.New()
	}
	board, err := dfu.New(tr.cfg)
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
	wg.Go(func() { tr.start(t, ctx, board) })
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

// Every model comes up, whatever the age of its U-Boot.
func TestModels(t *testing.T) {
	for _, model := range models() {
		for _, spl := range []dfu.SPLKind{dfu.SPLCombined, dfu.SPLOld, dfu.SPLNext} {
			if model == "am62l3" && spl != dfu.SPLNext {
				continue
			}
			t.Run(fmt.Sprintf("%s %s", model, spl), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := trial{model: model, cfg: dfu.Config{SPL: spl}}.run(t)
					o.good(t)
					if o.texts() != "" {
						t.Error(o.texts())
					}
					// What may have everything is waited for; nothing else costs time.
					if most := 5 * time.Second; o.took > most && spl != dfu.SPLOld || o.took > 15*time.Second {
						t.Errorf("it took %s", o.took)
					}
				})
			})
		}
	}
}

// A ROM that wants tiboot3 twice gets it twice, one that starts it early does no harm, and an SPL that was left running is
// taken up.
func TestVariants(t *testing.T) {
	for _, tc := range []struct {
		name  string
		model string
		cfg   dfu.Config
		says  string
		most  time.Duration
	}{
		{name: "twice", model: "am6442", cfg: dfu.Config{Twice: true}, says: "sending it again"},
		{name: "twice, split", model: "am6548", cfg: dfu.Config{Twice: true, SPL: dfu.SPLNext}, says: "sending it again"},
		{name: "early", model: "am625", cfg: dfu.Config{EarlyLeave: true}},
		{name: "slow stages", model: "am625", cfg: dfu.Config{StageDelay: 8 * time.Second}, most: 30 * time.Second},
		{name: "quick stages", model: "am625", cfg: dfu.Config{StageDelay: -1, LeaveDelay: -1}},
		{name: "slow to leave", model: "am625", cfg: dfu.Config{LeaveDelay: 4 * time.Second}, most: 20 * time.Second},
		{name: "slow blocks", model: "j721e", cfg: dfu.Config{Block: 20 * time.Millisecond, Manifest: 3 * time.Second}, most: time.Minute},
		{name: "slow blocks that say nothing of it", model: "am62l3", cfg: dfu.Config{Block: 20 * time.Millisecond, Manifest: 3 * time.Second, ShortPoll: true}, most: time.Minute},
		{name: "same address", model: "am625", cfg: dfu.Config{SameAddress: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := trial{model: tc.model, cfg: tc.cfg}.run(t)
				o.good(t)
				if !strings.Contains(o.texts(), tc.says) || tc.says == "" && o.texts() != "" {
					t.Errorf("it said %q, want %q", o.texts(), tc.says)
				}
				if most := max(tc.most, 6*time.Second); o.took > most {
					t.Errorf("it took %s, want %s at most", o.took, most)
				}
			})
		})
	}
}

// Whatever U-Boot shows on the port is neither taken for a stage nor written to, and is what --expect waits for.
func TestGadgets(t *testing.T) {
	fastboot := usb.ID{Vendor: 0x0451, Product: 0xd022}
	gadget := func(class, subclass uint8, names ...string) *usbdev.Descriptors {
		d := &usbdev.Descriptors{Speed: usbdev.HighSpeed, ID: fastboot, Release: 0x0224, Product: "USB download gadget", Strings: map[uint8]string{}}
		c := usbdev.Config{Value: 1, Attributes: 0x80, MaxPower: 50}
		for i, name := range names {
			d.Strings[uint8(4+i)] = name
			c.Interfaces = append(c.Interfaces, usbdev.Interface{Alt: uint8(i), Class: class, SubClass: subclass, Protocol: 2, Name: uint8(4 + i)})
		}
		d.Configs = []usbdev.Config{c}
		return d
	}
	for _, tc := range []struct {
		name   string
		gadget *usbdev.Descriptors
	}{
		{"fastboot", gadget(0xff, 0x42, "fastboot")},
		{"DFU of a partition", gadget(0xfe, 1, "tiboot3.bin", "tispl.bin", "u-boot.img", "uEnv.txt")},
		{"DFU of something else", gadget(0xfe, 1, "kernel", "rootfs")},
	} {
		for _, spl := range []dfu.SPLKind{dfu.SPLCombined, dfu.SPLOld, dfu.SPLNext} {
			t.Run(fmt.Sprintf("%s %s", tc.name, spl), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := trial{model: "am625", cfg: dfu.Config{SPL: spl}, gadget: tc.gadget, opt: recovery.Options{Expect: fastboot}}.run(t)
					o.good(t)
					if o.took > 10*time.Second {
						t.Errorf("it took %s", o.took)
					}
				})
			})
		}
	}
}
