package stm32mp_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/firmware/firmwaretest"
	"snag/recovery"
	"snag/sim/dfu"
	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/socs"
	"snag/socs/stm32mp"
	"snag/usb"
)

// models are all of the family.
var models = []string{"stm32mp13", "stm32mp15", "stm32mp21", "stm32mp23", "stm32mp25"}

// trial is one recovery of one virtual board.
type trial struct {
	model    string
	cfg      dfu.Config // Model apart
	firmware socs.Firmware
	cut      []string // stages in the middle of whose files recoveries before it were ended
	twice    bool     // recover it again when it is up
	port     usb.Port
	host     *inproc.Host
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

// stm32 makes a first stage for a model.
func stm32(model string, size int) firmwaretest.STM32 {
	f := firmwaretest.STM32{Version: [2]byte{2, 2}, Type: 0x10, Load: 0x0e012000, Entry: 0x0e012000, Payload: firmwaretest.Pattern(size)}
	switch model {
	case "stm32mp15":
		f.Version, f.Load, f.Entry = [2]byte{1, 0}, 0x2ffc2500, 0x2ffc2500
	case "stm32mp13":
		f.Version, f.Load, f.Entry = [2]byte{2, 0}, 0x2ffe4000, 0x2ffe4000
	}
	return f
}

// uuidFW is that of FW_CONFIG.
const uuidFW = "5807e16a845947be8ed5648e8dddab0e"

func fip(size int) []byte {
	return firmwaretest.FIP(
		firmwaretest.FIPImage{UUID: uuidFW, Data: firmwaretest.Pattern(500)},
		firmwaretest.FIPImage{UUID: firmwaretest.UUIDBL31, Data: firmwaretest.Pattern(3000)},
		firmwaretest.FIPImage{UUID: firmwaretest.UUIDBL33, Data: firmwaretest.Pattern(size)})
}

func ddrFIP(size int) []byte {
	return firmwaretest.FIP(firmwaretest.FIPImage{UUID: firmwaretest.UUIDDDR, Data: firmwaretest.Pattern(size)})
}

func firmwareOf(files map[string][]byte) socs.Firmware {
	fw := socs.Firmware{}
	for slot, data := range files {
		fw[slot] = socs.Image{Path: slot + ".bin", Data: data}
	}
	return fw
}

// files generates a model's firmware.
func files(model string) map[string][]byte {
	f := map[string][]byte{"tf-a": stm32(model, 100_000).Bytes(), "fip": fip(300_000)}
	if strings.HasPrefix(model, "stm32mp2") {
		f["fip-ddr"] = ddrFIP(30_000)
	}
	return f
}

// run plugs in a board, which is to be done in a bubble of its own time, and recovers it.
func (tr trial) run(t *testing.T) *outcome {
	t.Helper()
	m, err := dfu.FindModel(tr.model)
	if err != nil {
		t.Fatal(err)
	}
	tr.cfg.Model = m
	if tr.firmware == nil {
		tr.firmware = firmwareOf(files(tr.model))
	}
	if tr.port == "" {
		tr.port = "203-1"
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
	for _, stage := range tr.cut {
		cut, stop := context.WithCancel(ctx)
		err := tr.recover(t, cut, func(e event.Event) {
			if p, ok := e.Body.(event.Progress); ok && p.Bytes < p.Total && e.Stage == stage {
				stop()
			}
		})
		if cut.Err() == nil {
			t.Errorf("the recovery was over before it was ended: %v", err)
		}
		stop()
	}
	o := &outcome{}
	begun := time.Now()
	var mu sync.Mutex
	o.err = tr.recover(t, ctx, func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		o.events = append(o.events, e)
	})
	o.took = time.Since(begun)
	if o.err == nil {
		select {
		case <-board.Settled():
		case <-time.After(time.Minute):
			t.Error("the board did not settle")
		}
	}
	o.report = board.Report()
	if tr.twice && o.err == nil {
		o.err = tr.recover(t, ctx, func(event.Event) {})
	}
	cancel()
	wg.Wait()
	return o
}

// recover recovers what is plugged in.
func (tr trial) recover(t *testing.T, ctx context.Context, emit event.Sink) error {
	t.Helper()
	model, err := socs.Lookup(tr.model)
	if err != nil {
		t.Fatal(err)
	}
	return recovery.Run(ctx, recovery.Options{
		Backend: stm32mp.Backend{}, USB: tr.host, Model: model, Firmware: tr.firmware, Port: tr.port, Emit: emit,
	})
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

// bad fails the test unless the recovery failed with a code and a text, and a hint.
func (o *outcome) bad(t *testing.T, code int, says string) {
	t.Helper()
	if got := recovery.ExitCode(o.err); got != code || !strings.Contains(fmt.Sprint(o.err), says) {
		t.Errorf("exit code %d: %v, want %d and %q\n%s", got, o.err, code, says, o.texts())
	}
	if o.err != nil && recovery.Hint(o.err) == "" {
		t.Errorf("no hint for: %v", o.err)
	}
}

// sent lists which setting got how much, in all enumerations since the last power-on.
func (o *outcome) sent() (s []string) {
	for _, st := range o.report.Stages {
		if st.Name == dfu.StageROM {
			s = nil
		}
		for _, f := range st.Files {
			s = append(s, fmt.Sprintf("%s %s %d", st.Name, strings.Fields(f.Name)[0], f.Bytes))
		}
	}
	return s
}

// Every model comes up, and each file goes to its place once.
func TestModels(t *testing.T) {
	for _, model := range models {
		t.Run(model, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := trial{model: model}.run(t)
				o.good(t)
				if strings.Contains(o.texts(), "warning") {
					t.Error(o.texts())
				}
				fip := map[string]string{"stm32mp13": "@SSBL", "stm32mp15": "@Partition3"}[model]
				want := []string{"rom @FSBL 100512"}
				switch {
				case model == "stm32mp15":
					want[0] = "rom @FSBL 100256"
				case fip == "":
					fip = "@FIP"
					want = append(want, "tfa @DDR 30096")
				}
				want = append(want, "tfa "+fip+" 303676")
				if got := o.sent(); !slices.Equal(got, want) {
					t.Errorf("sent %q, want %q", got, want)
				}
				if o.took > 3*time.Second {
					t.Errorf("it took %s", o.took)
				}
			})
		})
	}
}

// A recovery goes on where another one was ended, in the middle of a file.
func TestGoOn(t *testing.T) {
	for _, model := range models {
		for _, cut := range [][]string{{"rom"}, {"tf-a"}, {"rom", "tf-a", "tf-a"}} {
			t.Run(fmt.Sprint(model, cut), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := trial{model: model, cut: cut, cfg: dfu.Config{Block: 5 * time.Millisecond}}.run(t)
					o.good(t)
					if o.report.Resets != 0 || strings.Contains(o.texts(), "starting over") {
						t.Errorf("it was begun again:\n%s", o.texts())
					}
				})
			})
		}
	}
}

// TF-A of ST's ecosystem 3 wants a flash layout first.
func TestOldTFA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := trial{model: "stm32mp15", cfg: dfu.Config{OldTFA: true}}.run(t)
		o.good(t)
		if want := []string{"rom @FSBL 100256", "tfa @Partition0 323", "tfa @Partition3 303676"}; !slices.Equal(o.sent(), want) {
			t.Errorf("sent %q, want %q", o.sent(), want)
		}
		if !strings.Contains(o.texts(), "flash layout") {
			t.Error(o.texts())
		}
	})
}

// U-Boot that is up is not taken for a stage that wants a flash layout.
func TestUp(t *testing.T) {
	for _, model := range models {
		synctest.Test(t, func(t *testing.T) {
			o := trial{model: model, twice: true}.run(t)
			o.bad(t, 6, "runs U-Boot's stm32prog already")
		})
	}
}

// The times are the board's alone.
func TestTimes(t *testing.T) {
	for _, model := range models {
		for _, cfg := range []dfu.Config{
			{LeaveDelay: -1, StageDelay: -1},
			{LeaveDelay: time.Second, StageDelay: 5 * time.Second},
			{SameAddress: true},
			{Block: 2 * time.Millisecond, Manifest: 3 * time.Second},
			{Block: 2 * time.Millisecond, Manifest: time.Second, ShortPoll: true},
		} {
			t.Run(fmt.Sprintf("%s %v %v %v", model, cfg.StageDelay, cfg.Manifest, cfg.ShortPoll), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { trial{model: model, cfg: cfg}.run(t).good(t) })
			})
		}
	}
}

// Boards on one host do not disturb each other.
func TestTwoBoards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := inproc.New()
		results := make(chan *outcome)
		for i, model := range models {
			go func() { results <- trial{model: model, host: host, port: usb.Port(fmt.Sprintf("204-%d", i+1))}.run(t) }()
		}
		for range models {
			(<-results).good(t)
		}
	})
}
