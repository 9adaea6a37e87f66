package stm32mp_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/firmware/firmwaretest"
	"snag/recovery"
	"snag/sim/dfu"
	"snag/sim/inproc"
	"snag/socs"
	"snag/socs/socstest"
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

type outcome struct{ *socstest.Outcome[dfu.Report] }

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

// files generates a model's firmware.
func files(model string) map[string][]byte {
	f := map[string][]byte{"tf-a": stm32(model, 100_000).Bytes(), "fip": fip(300_000)}
	if strings.HasPrefix(model, "stm32mp2") {
		f["fip-ddr"] = ddrFIP(30_000)
	}
	return f
}

// run plugs in a board, which is to be done in a bubble of its own time, and recovers it.
func (tr trial) run(t *testing.T) outcome {
	t.Helper()
	m, err := dfu.FindModel(tr.model)
	if err != nil {
		t.Fatal(err)
	}
	tr.cfg.Model = m
	if tr.firmware == nil {
		tr.firmware = socstest.Firmware(files(tr.model))
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
	ctx, unplug := socstest.Plug(t, tr.host.Port(tr.port), board)
	defer unplug()
	opt := recovery.Options{Backend: stm32mp.Backend{}, Model: socstest.Model(t, tr.model), Firmware: tr.firmware, Port: tr.port}
	for _, stage := range tr.cut {
		cut, stop := context.WithCancel(ctx)
		opt.Emit = func(e event.Event) {
			if p, ok := e.Body.(event.Progress); ok && p.Bytes < p.Total && e.Stage == stage {
				stop()
			}
		}
		if a := socstest.Try(cut, tr.host, opt); cut.Err() == nil {
			t.Errorf("the recovery was over before it was ended: %v", a.Err)
		}
		stop()
	}
	opt.Emit = nil
	o := outcome{socstest.Recover(t, ctx, tr.host, board, opt)}
	if tr.twice && o.Err == nil {
		o.Err = socstest.Try(ctx, tr.host, opt).Err
	}
	return o
}

// sent lists which setting got how much, in all enumerations since the last power-on.
func (o outcome) sent() (s []string) {
	for _, st := range o.Report.Stages {
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
				o.Good(t)
				if strings.Contains(o.Texts(), "warning") {
					t.Error(o.Texts())
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
				if o.Took > 3*time.Second {
					t.Errorf("it took %s", o.Took)
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
					o.Good(t)
					if o.Report.Resets != 0 || strings.Contains(o.Texts(), "starting over") {
						t.Errorf("it was begun again:\n%s", o.Texts())
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
		o.Good(t)
		if want := []string{"rom @FSBL 100256", "tfa @Partition0 323", "tfa @Partition3 303676"}; !slices.Equal(o.sent(), want) {
			t.Errorf("sent %q, want %q", o.sent(), want)
		}
		if !strings.Contains(o.Texts(), "flash layout") {
			t.Error(o.Texts())
		}
	})
}

// U-Boot that is up is not taken for a stage that wants a flash layout.
func TestUp(t *testing.T) {
	for _, model := range models {
		synctest.Test(t, func(t *testing.T) {
			o := trial{model: model, twice: true}.run(t)
			o.Bad(t, 6, "runs U-Boot's stm32prog already")
		})
	}
}

// The times are the board's alone.
func TestTimes(t *testing.T) {
	for _, model := range models {
		for _, cfg := range []dfu.Config{
			{LeaveDelay: -1, StageDelay: -1},
			{LeaveDelay: time.Second, StageDelay: 5 * time.Second}, {StageDelay: 14 * time.Second},
			{SameAddress: true},
			// At no instant at which the host asks: between two of its requests no time passes here.
			{Linger: 207 * time.Millisecond, LeaveDelay: 7 * time.Second},
			{Linger: 8003 * time.Millisecond},
			{Block: 2 * time.Millisecond, Manifest: 3 * time.Second},
			{Block: 2 * time.Millisecond, Manifest: time.Second, ShortPoll: true},
		} {
			t.Run(fmt.Sprintf("%s %v %v %v %v", model, cfg.StageDelay, cfg.Manifest, cfg.ShortPoll, cfg.Linger), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { trial{model: model, cfg: cfg}.run(t).Good(t) })
			})
		}
	}
}

// Boards on one host do not disturb each other.
func TestTwoBoards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := inproc.New()
		results := make(chan outcome)
		for i, model := range models {
			go func() { results <- trial{model: model, host: host, port: usb.Port(fmt.Sprintf("204-%d", i+1))}.run(t) }()
		}
		for range models {
			(<-results).Good(t)
		}
	})
}
