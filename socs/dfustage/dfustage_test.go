package dfustage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/sim/dfu"
	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/socs"
	"snag/socs/dfustage"
	"snag/socs/socstest"
	"snag/usb"
	client "snag/usb/dfu"
)

// bench is a socs.Board: the virtual one on the port of a host.
type bench struct {
	*dfu.Board
	t      *testing.T
	host   *inproc.Host
	number int // of the last device that was handed out
	texts  []string
	last   event.Progress
	done   []event.StageSummary
}

// Next implements socs.Board.
func (b *bench) Next(ctx context.Context) (*socs.Stage, error) {
	changed, err := b.host.Watch(ctx)
	if err != nil {
		return nil, err
	}
	for range changed {
		devices, err := b.host.Devices()
		if err != nil {
			return nil, err
		}
		if len(devices) == 0 || devices[0].Address == b.number || devices[0].Config == 0 {
			continue
		}
		h, err := b.host.Open(ctx, devices[0])
		if err != nil {
			return nil, err
		}
		b.number = devices[0].Address
		return &socs.Stage{Port: devices[0].Port, ID: devices[0].ID, USB: h, Gone: h.Gone()}, nil
	}
	return nil, fmt.Errorf("no next stage: %w", context.Cause(ctx))
}

// Emit implements socs.Board.
func (b *bench) Emit(stage string, body event.Body) {
	switch body := body.(type) {
	case event.Warning:
		b.texts = append(b.texts, stage+": "+body.Text)
	case event.StageBegun:
		b.last = event.Progress{Total: body.Bytes}
	case event.Progress:
		if body.Bytes < b.last.Bytes || body.Total != b.last.Total {
			b.t.Errorf("%+v after %+v", body, b.last)
		}
		b.last = body
	case event.StageDone:
		if b.last.Bytes != b.last.Total || body.Summary.Bytes != b.last.Total {
			b.t.Errorf("%+v at the end of %+v", b.last, body.Summary)
		}
		b.done = append(b.done, body.Summary)
	}
}

// on has f work on a virtual board with a fault, which may be empty, in a bubble of its own time.
func on(t *testing.T, cfg dfu.Config, fault string, f func(*testing.T, context.Context, *bench)) {
	t.Helper()
	cfg.Faults = append(cfg.Faults, socstest.Faults(t, dfu.ParseFault, fault)...)
	if cfg.Model.Name == "" {
		cfg.Model.Name = "stm32mp13"
	}
	var err error
	if cfg.Model, err = dfu.FindModel(cfg.Model.Name); err != nil {
		t.Fatal(err)
	}
	cfg.AnyFile = true
	synctest.Test(t, func(t *testing.T) {
		board, err := dfu.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{Board: board, t: t, host: inproc.New()}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := board.Run(ctx, b.host.Port(port)); err != nil {
				t.Error(err)
			}
		})
		f(t, ctx, b)
		cancel()
		wg.Wait()
	})
}

func ready(*client.Device) bool { return true }

// open opens the board's next stage.
func (b *bench) open(ctx context.Context) *dfustage.Session {
	b.t.Helper()
	stage, err := b.Next(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := dfustage.Open(ctx, b, stage, ready)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// send sends a file of 5000 bytes to the setting of number 0, and tells how long it took.
func send(ctx context.Context, s *dfustage.Session) (left bool, took time.Duration, err error) {
	begun := time.Now()
	left, err = s.Send(ctx, "one", s.Alts[0], dfustage.File{Path: "file.bin", Data: make([]byte, 5000)})
	return left, time.Since(begun), err
}

// What becomes of a file, and how long it takes: what the device asks for, or the deadline.
func TestSend(t *testing.T) {
	early := dfu.Config{Model: dfu.Model{Name: "am62x"}, EarlyLeave: true}
	for _, tc := range []struct {
		name  string
		cfg   dfu.Config
		fault string
		left  bool
		err   error  // what it is
		says  string // what it says
		took  time.Duration
	}{
		{name: "well"},
		{name: "it leaves early", cfg: early, left: true},
		{name: "slow blocks", cfg: dfu.Config{Block: time.Second}, took: 5 * time.Second},
		{name: "slow blocks that say nothing of it", cfg: dfu.Config{Block: time.Second, ShortPoll: true}, took: 5 * time.Second},
		{name: "block as slow as may be", cfg: dfu.Config{Block: 9 * time.Second}, took: 45 * time.Second},
		{name: "block too slow", cfg: dfu.Config{Block: 11 * time.Second}, err: context.DeadlineExceeded, says: `file.bin: DFU block 0, at byte 0 of 5000 to alternate setting 0 "@FSBL /0x01/1*1Me": `},
		{name: "block too slow that says nothing of it", cfg: dfu.Config{Block: 11 * time.Second, ShortPoll: true}, err: context.DeadlineExceeded, says: "block 0", took: 10*time.Second - time.Millisecond},
		{name: "slow manifestation", cfg: dfu.Config{Manifest: 29 * time.Second}, took: 29 * time.Second},
		{name: "slow manifestation that says nothing of it", cfg: dfu.Config{Manifest: 29 * time.Second, ShortPoll: true}, took: 29 * time.Second},
		{name: "manifestation too slow", cfg: dfu.Config{Manifest: 31 * time.Second}, err: context.DeadlineExceeded, says: "manifestation: DFU device 0483:df11 on port 231-1, status OK, state dfuMANIFEST, wants to be left alone for 31s"},
		{name: "manifestation too slow that says nothing of it", cfg: dfu.Config{Manifest: 31 * time.Second, ShortPoll: true}, err: context.DeadlineExceeded, says: "manifestation", took: 30*time.Second - time.Millisecond},
		{name: "no answer for a while", fault: "nak:rom:2000", took: 3 * time.Second},
		{name: "no answer", fault: "hang:rom:2000", err: context.DeadlineExceeded, says: `alternate setting 0 "@FSBL /0x01/1*1Me": block 1, at byte 1024 of 5000: `, took: 10 * time.Second},
		{name: "no answer at the end", fault: "hang:rom:manifest", left: true, took: 10 * time.Second},
		{name: "stall", fault: "stall:rom:2000", err: usb.ErrStall, says: `alternate setting 0 "@FSBL /0x01/1*1Me": block 1, at byte 1024 of 5000: refused with a stall, status OK, state dfuDNLOAD-IDLE`},
		{name: "stall at the end", fault: "stall:rom:manifest", err: usb.ErrStall, says: "the end of the file: refused with a stall"},
		{name: "it leaves", fault: "unplug:rom:2000", err: usb.ErrGone, says: "block 1, at byte 1024 of 5000"},
		{name: "it leaves at the end", fault: "unplug:rom:manifest", left: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			on(t, tc.cfg, tc.fault, func(t *testing.T, ctx context.Context, b *bench) {
				left, took, err := send(ctx, b.open(ctx))
				if left != tc.left || !errors.Is(err, tc.err) || !strings.Contains(fmt.Sprint(err), tc.says) {
					t.Errorf("left %t, %v; want %t, %v with %q", left, err, tc.left, tc.err, tc.says)
				}
				if took < tc.took || took > tc.took+100*time.Millisecond {
					t.Errorf("it took %s, want %s", took, tc.took)
				}
				if want := map[bool]int{true: 1}[tc.err == nil]; len(b.done) != want {
					t.Errorf("%d stages are told to be done, want %d", len(b.done), want)
				}
				files := 0
				for _, s := range b.Report().Stages {
					files += len(s.Files)
				}
				if tc.err == nil && !tc.left && files != 1 {
					t.Errorf("the board has %d files", files)
				}
			})
		})
	}
}

// Every status is in the error, and in the board's, whose hint goes by it.
func TestStatuses(t *testing.T) {
	for status := client.Status(1); status <= 15; status++ {
		for _, when := range []string{"2000", "manifest"} {
			on(t, dfu.Config{}, fmt.Sprintf("error:rom:%s:%d", when, status), func(t *testing.T, ctx context.Context, b *bench) {
				err := dfustage.Drive(ctx, b, func(ctx context.Context, stage *socs.Stage) (bool, error) {
					s, err := dfustage.Open(ctx, b, stage, ready)
					if err != nil {
						t.Fatal(err)
					}
					left, _, err := send(ctx, s)
					if left {
						t.Error("it has left")
					}
					return false, err
				}, func() string { return "one" }, dfustage.Hint)
				stuck, _ := errors.AsType[*socs.BoardError](err)
				said, ok := errors.AsType[*client.StatusError](err)
				if stuck == nil || stuck.Stage != "one" || !strings.Contains(stuck.Hint, "for this board and its SoC") {
					t.Errorf("%#v", err)
				}
				if !ok || said.Status != status || said.State != client.Error || said.Alt.Name != "@FSBL /0x01/1*1Me" || !strings.Contains(err.Error(), "file.bin: ") {
					t.Errorf("%v, want %s", err, status)
				}
			})
		}
	}
}

// A setting that is missing is an error that names those that there are.
func TestMissing(t *testing.T) {
	on(t, dfu.Config{Model: dfu.Model{Name: "am62x"}, Missing: []string{"bootloader"}}, "", func(t *testing.T, ctx context.Context, b *bench) {
		err := dfustage.Drive(ctx, b, func(ctx context.Context, stage *socs.Stage) (bool, error) {
			s, err := dfustage.Open(ctx, b, stage, ready)
			if err == nil {
				_, err = s.Find("bootloader")
			}
			return true, err
		}, func() string { return "one" }, dfustage.Hint)
		stuck, _ := errors.AsType[*socs.BoardError](err)
		if stuck == nil || stuck.Stage != "one" || !strings.Contains(stuck.Hint, "all files are of one build") ||
			!strings.Contains(err.Error(), `there is no alternate setting "bootloader", it has 0 "SocId"`) {
			t.Errorf("%#v: %v", err, err)
		}
	})
}

// A board that leaves in the middle is waited for, and its next enumeration is served; an interruption ends that.
func TestDrive(t *testing.T) {
	const reset, unplug = "reset:rom:2000", "unplug:rom:2000"
	var runs int
	serve := func(b *bench) func(context.Context, *socs.Stage) (bool, error) {
		runs = 0
		return func(ctx context.Context, stage *socs.Stage) (bool, error) {
			runs++
			s, err := dfustage.Open(ctx, b, stage, ready)
			if err != nil {
				return false, err
			}
			_, _, err = send(ctx, s)
			return err == nil, err
		}
	}
	name := func() string { return "one" }
	t.Run("it comes back", func(t *testing.T) {
		on(t, dfu.Config{}, reset, func(t *testing.T, ctx context.Context, b *bench) {
			err := dfustage.Drive(ctx, b, serve(b), name, dfustage.Hint)
			if err != nil || runs != 2 || len(b.texts) != 1 || !strings.Contains(b.texts[0], "one: the board left port 231-1: file.bin: ") {
				t.Errorf("%v after %d runs: %q", err, runs, b.texts)
			}
		})
	})
	t.Run("it does not", func(t *testing.T) {
		on(t, dfu.Config{}, unplug, func(t *testing.T, ctx context.Context, b *bench) {
			ctx, cancel := context.WithTimeout(ctx, 7*time.Second)
			defer cancel()
			if err := dfustage.Drive(ctx, b, serve(b), name, dfustage.Hint); !errors.Is(err, context.DeadlineExceeded) || runs != 1 {
				t.Errorf("%v after %d runs", err, runs)
			}
		})
	})
	interrupted := errors.New("interrupted")
	t.Run("interrupted", func(t *testing.T) {
		on(t, dfu.Config{Block: time.Second}, "", func(t *testing.T, ctx context.Context, b *bench) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(2500*time.Millisecond, func() { cancel(interrupted) })
			begun := time.Now()
			if err := dfustage.Drive(ctx, b, serve(b), name, dfustage.Hint); err != interrupted || time.Since(begun) > 2600*time.Millisecond {
				t.Errorf("%v after %s", err, time.Since(begun))
			}
		})
	})
	t.Run("a board's error is left as it is", func(t *testing.T) {
		on(t, dfu.Config{}, "", func(t *testing.T, ctx context.Context, b *bench) {
			want := &socs.BoardError{Stage: "two", Err: errors.New("such"), Hint: "so"}
			err := dfustage.Drive(ctx, b, func(context.Context, *socs.Stage) (bool, error) { return false, want }, name, dfustage.Hint)
			if err != want {
				t.Errorf("%#v", err)
			}
		})
	})
	t.Run("an error on the wire of a board that stays", func(t *testing.T) {
		on(t, dfu.Config{}, "", func(t *testing.T, ctx context.Context, b *bench) {
			begun := time.Now()
			err := dfustage.Drive(ctx, b, func(context.Context, *socs.Stage) (bool, error) { return false, usb.ErrProtocol }, name, dfustage.Hint)
			if stuck, _ := errors.AsType[*socs.BoardError](err); stuck == nil || !strings.Contains(stuck.Hint, "another cable") || time.Since(begun) != time.Second {
				t.Errorf("%#v after %s", err, time.Since(begun))
			}
		})
	})
	t.Run("an error on the wire of a board that leaves", func(t *testing.T) {
		on(t, dfu.Config{}, unplug, func(t *testing.T, ctx context.Context, b *bench) {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			err := dfustage.Drive(ctx, b, func(ctx context.Context, stage *socs.Stage) (bool, error) {
				_, err := serve(b)(ctx, stage)
				if !errors.Is(err, usb.ErrGone) {
					t.Error(err)
				}
				return false, usb.ErrProtocol // as a host says that has not noticed yet
			}, name, dfustage.Hint)
			if !errors.Is(err, context.DeadlineExceeded) || len(b.texts) != 1 {
				t.Errorf("%v; %q", err, b.texts)
			}
		})
	})
}

// A stage that does not tell its settings yet is asked again, but not for ever, and not if it leaves.
func TestOpen(t *testing.T) {
	for _, tc := range []struct {
		name  string
		asked int // until it is ready; 0: never
		took  time.Duration
	}{
		{"at once", 1, 0}, {"soon", 4, 300 * time.Millisecond}, {"never", 0, 4100 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			on(t, dfu.Config{}, "", func(t *testing.T, ctx context.Context, b *bench) {
				stage, err := b.Next(ctx)
				if err != nil {
					t.Fatal(err)
				}
				n, begun := 0, time.Now()
				s, err := dfustage.Open(ctx, b, stage, func(*client.Device) bool { n++; return n == tc.asked })
				if err != nil || time.Since(begun) > tc.took {
					t.Fatalf("%v after %s, want %s", err, time.Since(begun), tc.took)
				}
				if _, _, err := send(ctx, s); err != nil {
					t.Error(err)
				}
			})
		})
	}
	t.Run("it leaves", func(t *testing.T) {
		on(t, dfu.Config{}, "", func(t *testing.T, ctx context.Context, b *bench) {
			stage, err := b.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(time.Second, func() { b.host.Port(port).Detach() })
			begun := time.Now()
			_, err = dfustage.Open(ctx, b, stage, func(*client.Device) bool { return false })
			if !errors.Is(err, usb.ErrGone) || !strings.Contains(err.Error(), "0483:df11 on port 231-1") || time.Since(begun) > 1100*time.Millisecond {
				t.Errorf("%v after %s", err, time.Since(begun))
			}
		})
	})
}

// DETACH counts as heeded when the device is gone.
func TestLeave(t *testing.T) {
	for _, tc := range []struct {
		name  string
		delay time.Duration
		send  bool
		says  string
		took  time.Duration
	}{
		{name: "at once", delay: -1, send: true},
		{name: "slow", delay: 9 * time.Second, send: true, took: 9 * time.Second},
		{name: "too slow", delay: 11 * time.Second, send: true, says: "DFU device 0483:df11 on port 231-1 did not leave within 10s after DETACH", took: 10 * time.Second},
		{name: "without a file", delay: -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			on(t, dfu.Config{LeaveDelay: tc.delay}, "", func(t *testing.T, ctx context.Context, b *bench) {
				s := b.open(ctx)
				if tc.send {
					if _, _, err := send(ctx, s); err != nil {
						t.Fatal(err)
					}
				}
				begun := time.Now()
				err := s.Leave(ctx)
				if took := time.Since(begun); (err != nil) != (tc.says != "") || !strings.Contains(fmt.Sprint(err), tc.says) || took < tc.took || took > tc.took+100*time.Millisecond {
					t.Errorf("%v after %s, want %q after %s", err, took, tc.says, tc.took)
				}
			})
		})
	}
	t.Run("it knows no DETACH", func(t *testing.T) {
		on(t, dfu.Config{Model: dfu.Model{Name: "am62x"}}, "", func(t *testing.T, ctx context.Context, b *bench) {
			if err := b.open(ctx).Leave(ctx); !errors.Is(err, usb.ErrStall) {
				t.Error(err)
			}
		})
	})
}

// patient is a DFU device that waits for a reset of the bus behind DETACH.
type patient struct {
	usbdev.Inert
	port     *inproc.Port
	detached bool
}

func (p *patient) Control(_ context.Context, s usbdev.Setup, _ []byte) (int, error) {
	p.detached = s.Request == 0
	return 0, nil
}

func (p *patient) Configured(uint8) {
	if p.detached {
		go p.port.Detach()
	}
}

func TestLeaveByReset(t *testing.T) {
	for _, attributes := range []byte{0x01, 0x09} { // bitCanDnload, bitWillDetach
		synctest.Test(t, func(t *testing.T) {
			b := &bench{t: t, host: inproc.New()}
			f := &patient{port: b.host.Port(port)}
			err := f.port.Attach(t.Context(), usbdev.NewGadget(&usbdev.Descriptors{Speed: usbdev.HighSpeed, Configs: []usbdev.Config{{Value: 1, Interfaces: []usbdev.Interface{
				{Class: 0xfe, SubClass: 1, Protocol: 2, Extra: []byte{9, 0x21, attributes, 0, 0, 0, 4, 0x10, 1}},
			}}}}, f))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if err := b.open(ctx).Leave(ctx); (err == nil) != (attributes == 0x01) {
				t.Errorf("attributes %#x: %v", attributes, err)
			}
			f.port.Detach()
		})
	}
}

// A device that does not answer after its file has started that, unless it stays and is mute.
func TestStarted(t *testing.T) {
	for _, tc := range []struct {
		fault string
		says  string
		took  time.Duration
	}{
		{"unplug", "", 0}, {"hang", `alternate setting 0 "@FSBL /0x01/1*1Me": it has the whole file, and neither answers nor leaves`, 2 * time.Second},
	} {
		on(t, dfu.Config{}, tc.fault+":rom:manifest", func(t *testing.T, ctx context.Context, b *bench) {
			s := b.open(ctx)
			if left, _, err := send(ctx, s); err != nil || !left {
				t.Fatal(left, err)
			}
			begun := time.Now()
			err := s.Started(ctx, s.Alts[0])
			if (err != nil) != (tc.says != "") || !strings.Contains(fmt.Sprint(err), tc.says) || time.Since(begun) != tc.took {
				t.Errorf("%s: %v after %s, want %q", tc.fault, err, time.Since(begun), tc.says)
			}
		})
	}
	on(t, dfu.Config{}, "hang:rom:manifest", func(t *testing.T, ctx context.Context, b *bench) {
		s := b.open(ctx)
		if left, _, err := send(ctx, s); err != nil || !left {
			t.Fatal(left, err)
		}
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(1500*time.Millisecond, cancel)
		if err := s.Started(ctx, s.Alts[0]); !errors.Is(err, context.Canceled) {
			t.Errorf("an interruption is no start: %v", err)
		}
	})
}

func TestRuns(t *testing.T) {
	var runs dfustage.Runs
	b := &bench{t: t}
	for n := 1; n <= dfustage.MaxRuns; n++ {
		if err := runs.Begin(b, "rom"); err != nil || len(b.texts) != n-1 {
			t.Errorf("run %d: %v, %q", n, err, b.texts)
		}
	}
	stuck, _ := errors.AsType[*socs.BoardError](runs.Begin(b, "rom"))
	if stuck == nil || stuck.Stage != "rom" || stuck.Hint == "" || !strings.Contains(stuck.Error(), "sent 3 times") {
		t.Errorf("%#v", stuck)
	}
}

func TestHint(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{usb.ErrBusy, "end the other program"},
		{&client.PollError{}, "reset the board"},
		{context.DeadlineExceeded, "serial console"},
		{usb.ErrStall, "the board refuses this"},
		{&client.StatusError{Status: 3, State: client.Error}, "for this board and its SoC"},
		{&client.AltError{}, "all files are of one build"},
		{errors.New("something"), "another cable"},
	} {
		if got := dfustage.Hint(fmt.Errorf("block 1: %w", tc.err)); !strings.Contains(got, tc.want) {
			t.Errorf("%T: %q, want %q", tc.err, got, tc.want)
		}
	}
}
