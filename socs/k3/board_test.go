package k3_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/recovery"
	"snag/sim/dfu"
	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/socs"
	soc "snag/socs/k3"
	"snag/socs/socstest"
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

// start has U-Boot show its gadget when the board has everything.
func (tr trial) start(t *testing.T, ctx context.Context, board *dfu.Board) {
	<-board.Settled()
	if virtual.Sleep(ctx, 2*time.Second) == nil {
		if err := tr.host.Port(tr.port).Attach(ctx, usbdev.NewGadget(tr.gadget, usbdev.Inert{})); err != nil {
			t.Error(err)
		}
	}
}

type outcome = socstest.Outcome[dfu.Report]

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
	ctx, unplug := socstest.Plug(t, tr.host.Port(tr.port), board)
	defer unplug()
	if tr.gadget != nil {
		go tr.start(t, ctx, board)
	}
	opt := tr.opt
	opt.Backend, opt.Model, opt.Firmware, opt.Port = soc.Backend{}, socstest.Model(t, tr.model), tr.firmware, tr.port
	return socstest.Recover(t, ctx, tr.host, board, opt)
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
					o.Good(t)
					texts := o.Texts()
					if warned := strings.Contains(texts, "did not come back for u-boot.img within 15s"); warned != (spl == dfu.SPLOld) || !warned && texts != "" {
						t.Error(texts)
					}
					// What may have everything is waited for; nothing else costs time.
					if most := 5 * time.Second; o.Took > most && spl != dfu.SPLOld || o.Took > 20*time.Second {
						t.Errorf("it took %s", o.Took)
					}
				})
			})
		}
	}
}

// A ROM that wants tiboot3 twice gets it twice, one that starts it early does no harm, and an SPL that was left running
// is taken up.
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
		{name: "twice, on one session", model: "am6442", cfg: dfu.Config{Twice: true, SameSession: true}, says: "sending it again", most: 15 * time.Second},
		{name: "both files on one session", model: "am62l3", cfg: dfu.Config{SameSession: true}, most: 15 * time.Second},
		{name: "early", model: "am625", cfg: dfu.Config{EarlyLeave: true}},
		{name: "slow stages", model: "am625", cfg: dfu.Config{StageDelay: 14 * time.Second}, most: 50 * time.Second},
		{name: "quick stages", model: "am625", cfg: dfu.Config{StageDelay: -1, LeaveDelay: -1}},
		{name: "slow to leave", model: "am625", cfg: dfu.Config{LeaveDelay: 4 * time.Second}, most: 20 * time.Second},
		{name: "slow blocks", model: "j721e", cfg: dfu.Config{Block: 20 * time.Millisecond, Manifest: 3 * time.Second}, most: time.Minute},
		{name: "slow blocks that say nothing of it", model: "am62l3", cfg: dfu.Config{Block: 20 * time.Millisecond, Manifest: 3 * time.Second, ShortPoll: true}, most: time.Minute},
		{name: "same address", model: "am625", cfg: dfu.Config{SameAddress: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := trial{model: tc.model, cfg: tc.cfg}.run(t)
				o.Good(t)
				if !strings.Contains(o.Texts(), tc.says) || tc.says == "" && o.Texts() != "" {
					t.Errorf("it said %q, want %q", o.Texts(), tc.says)
				}
				if most := max(tc.most, 6*time.Second); o.Took > most {
					t.Errorf("it took %s, want %s at most", o.Took, most)
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
					o.Good(t)
					if o.Took > 10*time.Second {
						t.Errorf("it took %s", o.Took)
					}
				})
			})
		}
	}
}

// AM62L's ROM that shows up a second time for BL1, leaves and comes back wants tispl still.
func TestGlimpse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := dfu.FindModel("am62lx")
		if err != nil {
			t.Fatal(err)
		}
		board, err := dfu.New(dfu.Config{Model: m})
		if err != nil {
			t.Fatal(err)
		}
		host, fw := inproc.New(), of("am62l3")
		ctx, unplug := socstest.Plug(t, &socstest.Glimpse{Port: host.Port("211-1"), Nth: 2}, board)
		defer unplug()
		o := socstest.Recover(t, ctx, host, board, recovery.Options{Backend: soc.Backend{}, Model: socstest.Model(t, "am62l3"), Firmware: fw, Port: "211-1"})
		o.Good(t)
		if second := o.Report.Last(dfu.StageROM2); second == nil || len(second.Files) != 1 || second.Files[0].Bytes != len(fw["tispl"].Data) {
			t.Errorf("the second stage got %+v, want tispl, %d bytes", second, len(fw["tispl"].Data))
		}
	})
}
