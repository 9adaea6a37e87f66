package dfu_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/dfu"
	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/usb"
	client "snag/usb/dfu"
)

// step is a file for a setting.
type step struct {
	alt    string // as client.Device.Find takes it; "#1" is a number
	file   string
	detach bool
	reset  bool // after it, for the descriptors
	same   bool // the next step is in the same session
}

// ways is what each board takes, by its model and the SPL's age.
func way(c dfu.Config) []step {
	switch m := c.Model; m.Family {
	case dfu.STM32MP1, dfu.STM32MP2:
		switch m.Name {
		case "stm32mp15":
			all := []step{{alt: "@FSBL*", file: "tf-a", reset: true}, {alt: "@Partition3*", file: "fip", detach: true}}
			if c.OldTFA {
				all = slices.Insert(all, 1, step{alt: "@Partition0*", file: "tf-a", same: true})
			}
			return append(all, step{alt: "@FlashLayout*", file: "tf-a"})
		case "stm32mp13":
			return []step{{alt: "@FSBL*", file: "tf-a", detach: true}, {alt: "@SSBL*", file: "fip", detach: true}, {alt: "@FlashLayout*", file: "tf-a"}}
		}
		return []step{
			{alt: "@FSBL*", file: "tf-a", detach: true, reset: true}, {alt: "@DDR FIP*", file: "fip-ddr", detach: true, same: true},
			{alt: "@FIP*", file: "fip", detach: true}, {alt: "@FlashLayout*", file: "tf-a"},
		}
	case dfu.K3:
		all := []step{{alt: "bootloader", file: "tiboot3"}}
		if m.Name == "am62lx" {
			return append(all, step{alt: "bootloader", file: "tispl"}, step{alt: "u-boot.img", file: "u-boot", detach: true})
		}
		if c.Twice {
			all = append(all, all[0])
		}
		if m.Split {
			all = append(all, step{alt: "sysfw.itb", file: "sysfw", detach: true})
		}
		if c.SPL == dfu.SPLOld {
			return append(all, step{alt: "tispl.bin", file: "tispl", same: true}, step{alt: "u-boot.img", file: "u-boot", detach: true})
		}
		return append(all, step{alt: "tispl.bin", file: "tispl", detach: true}, step{alt: "u-boot.img", file: "u-boot", detach: true})
	case dfu.Gadget:
		return []step{{alt: "boot", file: "image", detach: true}}
	case dfu.RZN1:
		return []step{{alt: "#0", file: "u-boot"}}
	}
	return []step{{alt: "#0", file: "fsbl"}, {alt: "#1", file: "boot"}}
}

// session is a host with a board.
type session struct {
	t     *testing.T
	host  *inproc.Host
	board *dfu.Board
	last  int // device number
}

func power(t *testing.T, cfg dfu.Config) *session {
	t.Helper()
	b, err := dfu.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, host: inproc.New(), board: b}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Run(ctx, s.host.Port("1-1")) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// open waits for another enumeration.
func (s *session) open(ctx context.Context) (usb.Handle, *client.Device, error) {
	for {
		list, err := s.host.Devices()
		if err == nil && len(list) == 1 && list[0].Address != s.last {
			s.last = list[0].Address
			h, err := s.host.Open(ctx, list[0])
			if err != nil {
				return nil, nil, err
			}
			d, err := client.Open(ctx, h)
			if err != nil {
				h.Close()
			}
			return h, d, err
		}
		time.Sleep(5 * time.Millisecond)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
	}
}

// recover takes a board through its steps.
func (s *session) recover(ctx context.Context, steps []step, files map[string][]byte) error {
	var h usb.Handle
	var d *client.Device
	var err error
	for _, st := range steps {
		if h == nil {
			if h, d, err = s.open(ctx); err != nil {
				return err
			}
		}
		find := func() (client.Alt, error) { return d.Find(st.alt) }
		if n, ok := strings.CutPrefix(st.alt, "#"); ok {
			find = func() (client.Alt, error) { return d.Number(n[0] - '0') }
		}
		d.NoRecovery = st.alt == "#1"
		a, err := find()
		if err == nil {
			err = d.Select(ctx, a)
		}
		if err == nil {
			err = d.Download(ctx, files[st.file], nil)
		}
		if errors.Is(err, client.ErrLeft) {
			err = nil
		}
		if err == nil && st.detach {
			err = d.Detach(ctx)
		}
		if err == nil && st.reset {
			if err = d.Reset(ctx); errors.Is(err, usb.ErrGone) {
				err = nil
			} else {
				s.last = 0 // the same one is right
			}
		}
		if err != nil || !st.same {
			h.Close()
			h = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settle waits for the board.
func (s *session) settle() dfu.Report {
	select {
	case <-s.board.Settled():
	case <-time.After(10 * time.Minute):
		s.t.Error("not settled")
	}
	return s.board.Report()
}

func model(t *testing.T, name string) dfu.Model {
	t.Helper()
	m, err := dfu.FindModel(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestModels(t *testing.T) {
	var all []dfu.Config
	for _, m := range dfu.Models() {
		all = append(all, dfu.Config{Model: m})
	}
	for _, c := range []dfu.Config{
		{SPL: dfu.SPLNext}, {SPL: dfu.SPLOld}, {Twice: true}, {EarlyLeave: true}, {SameAddress: false, Block: 5 * time.Millisecond, Manifest: 5 * time.Second},
		{Block: 5 * time.Millisecond, ShortPoll: true},
	} {
		c.Model = model(t, "am64x")
		all = append(all, c)
	}
	all = append(all, dfu.Config{Model: model(t, "stm32mp15"), OldTFA: true}, dfu.Config{Model: model(t, "zynqmp"), OldFSBL: true},
		dfu.Config{Model: model(t, "stm32mp25"), Block: 5 * time.Millisecond, Manifest: time.Second})
	for _, c := range all {
		t.Run(fmt.Sprintf("%s %s %t %t", c.Model.Name, c.SPL, c.Twice, c.OldFSBL), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := power(t, c)
				files := dfu.Generate(c.Model, 20_000, 1)
				if err := s.recover(t.Context(), way(c), files); err != nil {
					t.Fatal(err, s.board.Report())
				}
				if c.Model.Family == dfu.Gadget { // settled before
					time.Sleep(time.Second)
				}
				r := s.settle()
				if r.Outcome != virtual.Booted || len(r.Violations) > 0 {
					t.Errorf("%s, %v\n%s", r.Error, r.Violations, r.Effects())
				}
				n := 0
				for _, stage := range r.Stages {
					n += len(stage.Files)
				}
				if n != len(way(c)) {
					t.Errorf("%d files, expected %d\n%s", n, len(way(c)), r.Effects())
				}
			})
		})
	}
}

func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		model  string
		faults []string
		config dfu.Config
		want   string // of the client's error
	}{
		{model: "stm32mp15", faults: []string{"error:rom:4096:3"}, want: "errWRITE"},
		{model: "stm32mp15", faults: []string{"error:tfa:4096:7"}, want: "errVERIFY"},
		{model: "am62x", faults: []string{"error:spl-r5:4096"}, want: "errUNKNOWN"},
		{model: "am62x", faults: []string{"error:spl-a53:manifest:0x0a"}, want: "errFIRMWARE"},
		{model: "zynqmp", faults: []string{"error:fsbl:4096:15"}, want: "errSTALLEDPKT"},
		{model: "zynqmp", faults: []string{"busy:fsbl:4096:2s"}},
		{model: "am62x", faults: []string{"busy:spl-r5:manifest:30s", "busy:rom:100:5s", "nak:rom:4000:2s"}},
		{model: "am62x", faults: []string{"lie:spl-r5:5000"}, want: "left alone for 4h"},
		{model: "am62x", faults: []string{"lie:spl-a53:manifest"}, want: "left alone for 4h"},
		{model: "am62x", faults: []string{"stall:rom:1024"}, want: "refused with a stall, status OK"},
		{model: "rzn1", faults: []string{"hang:rom:1024"}, want: "deadline"},
		{model: "zynqmp", faults: []string{"unplug:fsbl:1024"}, want: "gone"},
		{model: "stm32mp25", faults: []string{"reset:tfa:8000"}, want: "gone"},
		{model: "am62x", config: dfu.Config{Missing: []string{"tispl.bin"}}, want: `there is no alternate setting "tispl.bin", it has 0 "u-boot.img"`},
		{model: "am62x", config: dfu.Config{Never: dfu.StageSPLR5}, want: "deadline"},
	} {
		t.Run(tc.model+" "+strings.Join(tc.faults, " "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.config.Model = model(t, tc.model)
				for _, f := range tc.faults {
					fault, err := dfu.ParseFault(f)
					if err != nil {
						t.Fatal(err)
					}
					tc.config.Faults = append(tc.config.Faults, fault)
				}
				s := power(t, tc.config)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				err := s.recover(ctx, way(tc.config), dfu.Generate(tc.config.Model, 20_000, 1))
				if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%v, expected %q", err, tc.want)
				}
				if r := s.board.Report(); len(r.Violations) > 0 {
					t.Error(r.Violations)
				}
			})
		})
	}
}

// TestWrongFile sends each board a file that is for another one's slot.
func TestWrongFile(t *testing.T) {
	for _, tc := range []struct{ model, file, with, client, board string }{
		{"stm32mp15", "tf-a", "fip", "errFILE", "no STM32 header"},
		{"stm32mp15", "fip", "tf-a", "refused with a stall, status OK, state dfuMANIFEST", "no FIP header"},
		{"am62x", "tiboot3", "tispl", "", "certificate"},
		{"am62x", "tispl", "tiboot3", "", "no FIT"},
		{"zynqmp", "boot", "fsbl", "", "1 partitions"},
	} {
		t.Run(tc.model+" "+tc.file, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := dfu.Config{Model: model(t, tc.model)}
				s := power(t, c)
				files := dfu.Generate(c.Model, 20_000, 1)
				files[tc.file] = files[tc.with]
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := s.recover(ctx, way(c), files)
				r := s.board.Report()
				if tc.client != "" && (err == nil || !strings.Contains(err.Error(), tc.client)) {
					t.Errorf("%v, expected %q", err, tc.client)
				}
				if e := r.Stages[len(r.Stages)-1].Error; !strings.Contains(e, tc.board) || r.Outcome == virtual.Booted && tc.file != "x" {
					t.Errorf("%v, %s, %q, expected %q", err, r.Outcome, e, tc.board)
				}
			})
		})
	}
}

// TestViolations sees what a host should not do.
func TestViolations(t *testing.T) {
	for _, tc := range []struct {
		name, model string
		do          func(context.Context, usb.Handle, *client.Device)
		want        string
	}{
		{"CLRSTATUS", "stm32mp15", func(ctx context.Context, h usb.Handle, _ *client.Device) {
			h.Control(ctx, usb.Setup{Type: 0x21, Request: 4}, nil)
		}, "rom: CLRSTATUS in dfuIDLE"},
		{"virtual", "stm32mp15", func(ctx context.Context, _ usb.Handle, d *client.Device) {
			a, _ := d.Find("@virtual*")
			d.Select(ctx, a)
			d.Download(ctx, []byte("x"), nil)
		}, "not the phase's"},
		{"too large a block", "rzn1", func(ctx context.Context, h usb.Handle, _ *client.Device) {
			h.Control(ctx, usb.Setup{Type: 0x21, Request: 1, Length: 2000}, make([]byte, 2000))
		}, "more than wTransferSize"},
		{"two blocks", "am62x", func(ctx context.Context, h usb.Handle, _ *client.Device) {
			for range 2 {
				h.Control(ctx, usb.Setup{Type: 0x21, Request: 1, Length: 2}, make([]byte, 2))
			}
		}, "DNLOAD in dfuDNLOAD-SYNC"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := power(t, dfu.Config{Model: model(t, tc.model)})
				h, d, err := s.open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer h.Close()
				tc.do(t.Context(), h, d)
				if r := s.board.Report(); len(r.Violations) == 0 || !strings.Contains(r.Violations[0].Text, tc.want) {
					t.Errorf("%v, expected %q", r.Violations, tc.want)
				}
			})
		})
	}
}

// TestPhase reads STM32MP's phases.
func TestPhase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := dfu.Config{Model: model(t, "stm32mp15")}
		s := power(t, c)
		h, d, err := s.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		files := dfu.Generate(c.Model, 5000, 1)
		get := func() string {
			a, _ := d.Find("@virtual*")
			d.Select(t.Context(), a)
			b, err := d.Upload(t.Context(), 512)
			return fmt.Sprintf("%x %v", b, err)
		}
		send := func(alt, file string) {
			a, _ := d.Find(alt)
			d.Select(t.Context(), a)
			if err := d.Download(t.Context(), files[file], nil); err != nil {
				t.Error(err)
			}
		}
		got := []string{get()}
		send("@FSBL*", "tf-a")
		got = append(got, get())
		send("@Partition3*", "fip")
		got = append(got, get())
		want := []string{"01000000c000000000 <nil>", "03000000c000000000 <nil>", "00ffffffff0000000001 <nil>"}
		if !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
	})
}

// TestManifest asks ROMs for their status behind a file until there is no answer.
func TestManifest(t *testing.T) {
	for _, tc := range []struct {
		model, alt, file string
		early            bool
		want             string // states
	}{
		{"am62x", "bootloader", "tiboot3", false, "[6 2]"},
		{"am62x", "bootloader", "tiboot3", true, "[]"},
		{"rzn1", "#0", "u-boot", false, "[7]"},
		{"rzn1", "#0", "u-boot", true, "[]"},
	} {
		t.Run(fmt.Sprint(tc.model, " ", tc.early), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := dfu.Config{Model: model(t, tc.model), EarlyLeave: tc.early}
				s := power(t, c)
				h, d, err := s.open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer h.Close()
				data := dfu.Generate(c.Model, 100, 1)[tc.file]
				block := uint16(0)
				for ; len(data) > 0; block++ {
					n := min(len(data), 512)
					if _, err := h.Control(t.Context(), usb.Setup{Type: 0x21, Request: 1, Value: block, Length: uint16(n)}, data[:n]); err != nil {
						t.Fatal(err)
					}
					if _, err := d.Status(t.Context()); err != nil {
						t.Fatal(err)
					}
					data = data[n:]
				}
				if _, err := h.Control(t.Context(), usb.Setup{Type: 0x21, Request: 1, Value: block}, nil); err != nil {
					t.Fatal(err)
				}
				states := []int{}
				for {
					a, err := d.Status(t.Context())
					if err != nil {
						break
					}
					if states = append(states, int(a.State)); a.State == client.Idle {
						break
					}
				}
				if got := fmt.Sprint(states); got != tc.want {
					t.Errorf("states %s, expected %s", got, tc.want)
				}
			})
		})
	}
}
