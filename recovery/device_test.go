package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/socs"
	"snag/usb"
)

var (
	romA, romB, splAny = usb.ID{Vendor: 1, Product: 0xa}, usb.ID{Vendor: 1, Product: 0xb}, usb.ID{Vendor: 1, Product: 0x5}
	stranger           = usb.ID{Vendor: 9, Product: 9}
)

// twoStages is a family of two models, whose boards are recovered by reading the product's name of two stages.
type twoStages struct{}

func (twoStages) Family() socs.Family {
	return socs.Family{
		Name: "fake", Carriers: []socs.Carrier{socs.USB}, Reenumerate: 10 * time.Second,
		ROM: []socs.Identity{
			{ID: romA, First: 2, Last: 9, Models: []string{"a"}},
			{ID: romB, Models: []string{"b"}},
		},
		Later: []socs.Identity{{ID: splAny}},
	}
}

func (twoStages) Check(_ socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	return fw, nil, nil
}

func (twoStages) Recover(ctx context.Context, job socs.Job) error {
	for _, name := range []string{"rom", "spl"} {
		s, err := job.Board.Next(ctx)
		if err != nil {
			return err
		}
		job.Board.Emit(name, event.StageBegun{})
		if _, err := usb.String(ctx, s.USB, s.USB.Descriptors().Product); err != nil {
			return &socs.BoardError{Stage: name, Err: err}
		}
		job.Board.Emit(name, event.StageDone{Summary: event.StageSummary{Stage: name, File: fmt.Sprintf("%s rom=%v", s.ID, s.ROM)}})
		if !s.ROM {
			return nil
		}
	}
	return nil
}

// plug attaches a device that has nothing but a name.
func plug(t *testing.T, p usbdev.Port, id usb.ID, release uint16, speed usbdev.Speed) {
	t.Helper()
	d := usbdev.NewGadget(&usbdev.Descriptors{
		Speed: speed, ID: id, Release: release, Product: "stage",
		Configs: []usbdev.Config{{Value: 1, Interfaces: []usbdev.Interface{{Class: 255}}}},
	}, nothing{})
	if err := p.Attach(t.Context(), d); err != nil {
		t.Error(err)
	}
}

type nothing struct{}

func (nothing) Configured(uint8)      {}
func (nothing) Selected(uint8, uint8) {}
func (nothing) Control(context.Context, usbdev.Setup, []byte) (int, error) {
	return 0, usbdev.ErrStall
}

// run recovers model a on a host, while act plays the board. It returns what was done at each stage.
func run(t *testing.T, host usb.Host, opt Options, act func()) ([]string, error) {
	opt.Backend, opt.USB, opt.Model = twoStages{}, host, socs.Model{Name: "a", Family: "fake"}
	opt.Timeout = 30 * time.Second
	var mu sync.Mutex
	var stages []string
	opt.Emit = func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		if d, ok := e.Body.(event.StageDone); ok {
			stages = append(stages, d.Summary.File)
		}
	}
	var wg sync.WaitGroup
	wg.Go(act)
	err := Run(t.Context(), opt)
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	return stages, err
}

func TestDevice(t *testing.T) {
	rom, spl := "0001:000a rom=true", "0001:0005 rom=false"
	for _, tc := range []struct {
		name  string
		opt   Options
		there []usb.Port // where model a's ROM stands from the beginning
		act   func(t *testing.T, h *inproc.Host)
		want  []string
		code  int
		text  string // of the error
	}{
		{name: "plugged in already, SPL later", act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-1"), romA, 2, usbdev.HighSpeed)
			time.Sleep(time.Second)
			h.Port("1-1").Detach()
			time.Sleep(5 * time.Second)
			plug(t, h.Port("1-1"), splAny, 0, usbdev.HighSpeed)
		}, want: []string{rom, spl}},
		{name: "SPL under an ID of its own, at super speed", act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-1"), romA, 2, usbdev.HighSpeed)
			time.Sleep(time.Second)
			h.Port("1-1").Detach()
			plug(t, h.Port("1-1"), stranger, 0, usbdev.SuperSpeed)
		}, want: []string{rom, "0009:0009 rom=false"}},
		{name: "standing at SPL", act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-1.4"), splAny, 0, usbdev.HighSpeed)
		}, want: []string{spl}},
		{name: "others are left alone", act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-1"), romB, 0, usbdev.HighSpeed)
			plug(t, h.Port("1-2"), stranger, 0, usbdev.HighSpeed)
			plug(t, h.Port("1-4"), romA, 1, usbdev.HighSpeed) // an older chip
			time.Sleep(time.Second)
			plug(t, h.Port("1-3"), romA, 9, usbdev.HighSpeed)
			time.Sleep(time.Second)
			h.Port("1-3").Detach()
			plug(t, h.Port("1-3"), splAny, 0, usbdev.HighSpeed)
		}, want: []string{rom, spl}},
		{name: "two boards", there: []usb.Port{"1-1", "1-2"}, act: func(*testing.T, *inproc.Host) {}, code: ExitUsage, text: "2 boards match: 1-1 (0001:000a), 1-2 (0001:000a)"},
		{name: "two boards, one of them enumerates later", act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-2"), romA, 2, usbdev.HighSpeed)
			time.Sleep(200 * time.Millisecond)
			plug(t, h.Port("1-1"), romA, 2, usbdev.HighSpeed)
			time.Sleep(time.Second)
			h.Port("1-2").Detach()
			plug(t, h.Port("1-2"), splAny, 2, usbdev.HighSpeed)
		}, want: []string{rom}, code: ExitUsage, text: "2 boards match, plugged in together: 1-2 (0001:000a), which was begun with, and 1-1 (0001:000a)"},
		{name: "two boards that show the ID named", opt: Options{ID: romA}, act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-2"), romA, 2, usbdev.HighSpeed)
			plug(t, h.Port("1-3"), splAny, 2, usbdev.HighSpeed) // does not
			time.Sleep(200 * time.Millisecond)
			plug(t, h.Port("1-1"), romA, 2, usbdev.HighSpeed)
		}, want: []string{rom}, code: ExitUsage, text: "plugged in together: 1-2 (0001:000a), which was begun with, and 1-1 (0001:000a)"},
		{name: "another board while one is at work", act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-1"), romA, 2, usbdev.HighSpeed)
			time.Sleep(2100 * time.Millisecond)
			plug(t, h.Port("1-2"), romA, 2, usbdev.HighSpeed)
			time.Sleep(time.Second)
			h.Port("1-1").Detach()
			plug(t, h.Port("1-1"), splAny, 2, usbdev.HighSpeed)
		}, want: []string{rom, spl}},
		{name: "two boards, port named", opt: Options{Port: "1-2"}, act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-1"), romA, 2, usbdev.HighSpeed)
			plug(t, h.Port("1-2"), romA, 2, usbdev.HighSpeed)
			time.Sleep(time.Second)
			h.Port("1-2").Detach()
			plug(t, h.Port("1-2"), splAny, 2, usbdev.HighSpeed)
		}, want: []string{rom, spl}},
		{name: "ROM under another ID", opt: Options{ROM: stranger}, act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-1"), romA, 2, usbdev.HighSpeed)
			plug(t, h.Port("1-2"), stranger, 2, usbdev.HighSpeed)
			time.Sleep(time.Second)
			h.Port("1-2").Detach()
			plug(t, h.Port("1-2"), splAny, 2, usbdev.HighSpeed)
		}, want: []string{"0009:0009 rom=true", spl}},
		{name: "another model on the named port", opt: Options{Port: "1-2"}, act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-2"), romB, 0, usbdev.HighSpeed)
		}, code: ExitBoard, text: "the board on port 1-2 is no a: its boot ROM shows 0001:000b, which is b"},
		{name: "another model on any port", act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-2"), romB, 0, usbdev.HighSpeed)
		}, code: ExitNoBoard, text: "which is b"},
		{name: "something else on the named port", opt: Options{Port: "1-2"}, act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-2"), stranger, 0, usbdev.HighSpeed)
		}, code: ExitNoBoard, text: "on port 1-2 is 0009:0009 (stage), which is no boot ROM of a a"},
		{name: "nothing", act: func(*testing.T, *inproc.Host) {}, code: ExitNoBoard, text: "no board within 30s"},
		{name: "no next stage", act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-1"), romA, 2, usbdev.HighSpeed)
		}, want: []string{rom}, code: ExitBoard, text: "did not appear on port 1-1 within 10s: the device of the stage before is still there"},
		{name: "leaves for good", act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-1"), romA, 2, usbdev.HighSpeed)
			time.Sleep(time.Second)
			h.Port("1-1").Detach()
		}, want: []string{rom}, code: ExitBoard, text: "did not appear on port 1-1 within 10s: nothing enumerated there"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host := inproc.New(inproc.Pair{High: 1, Super: 2})
				for _, p := range tc.there {
					plug(t, host.Port(p), romA, 2, usbdev.HighSpeed)
				}
				synctest.Wait()
				got, err := run(t, host, tc.opt, func() { tc.act(t, host) })
				for _, p := range []usb.Port{"1-1", "1-2", "1-3", "1-4", "1-1.4"} {
					host.Port(p).Detach()
				}
				if !slices.Equal(got, tc.want) || ExitCode(err) != tc.code || err != nil && !strings.Contains(err.Error(), tc.text) {
					t.Errorf("stages %q, exit code %d, error %v; want %q, %d, %q", got, ExitCode(err), err, tc.want, tc.code, tc.text)
				}
				if tc.code == ExitBoard && Hint(err) == "" {
					t.Errorf("no hint for %v", err)
				}
			})
		})
	}
}

// slowHost is a host that does not come to open the second stage, or only waits for permission.
type slowHost struct {
	*inproc.Host
	denied bool
}

func (h slowHost) Open(ctx context.Context, d usb.Device) (usb.Handle, error) {
	if d.ID == splAny {
		<-ctx.Done()
		if h.denied {
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), d.Denied(fs.ErrPermission))
		}
		return nil, fmt.Errorf("opening: %w", context.Cause(ctx))
	}
	return h.Host.Open(ctx, d)
}

// A wait that ends while a stage is being opened ends as any other does, and says what it was that took so long.
func TestDeviceSlow(t *testing.T) {
	for _, tc := range []struct {
		denied bool
		code   int
		text   string
	}{
		{false, ExitBoard, "did not appear on port 1-1 within 10s: 0001:0005 is there, and could not be opened in time"},
		{true, ExitPermission, "USB device 0001:0005 on port 1-1: open"},
	} {
		synctest.Test(t, func(t *testing.T) {
			host := inproc.New(inproc.Pair{High: 1, Super: 2})
			port := host.Port("1-1")
			_, err := run(t, slowHost{host, tc.denied}, Options{}, func() {
				plug(t, port, romA, 2, usbdev.HighSpeed)
				time.Sleep(time.Second)
				port.Detach()
				plug(t, port, splAny, 0, usbdev.HighSpeed)
				time.Sleep(20 * time.Second)
			})
			port.Detach()
			if ExitCode(err) != tc.code || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("exit code %d, %v; want %d, %q", ExitCode(err), err, tc.code, tc.text)
			}
		})
	}
}

// lateHost lists devices before they are configured. Those that it opens have the configuration then, or none.
type lateHost struct {
	usb.Host
	none bool
}

func (h lateHost) Devices() ([]usb.Device, error) {
	list, err := h.Host.Devices()
	for i := range list {
		list[i].Config, list[i].Interfaces = 0, nil
	}
	return list, err
}

func (h lateHost) Open(ctx context.Context, d usb.Device) (usb.Handle, error) {
	handle, err := h.Host.Open(ctx, d)
	if err == nil && h.none {
		handle = unconfigured{handle}
	}
	return handle, err
}

type unconfigured struct{ usb.Handle }

func (h unconfigured) Device() usb.Device {
	d := h.Handle.Device()
	d.Config = 0
	return d
}

// asIs fails with what it was handed.
type asIs struct{ twoStages }

func (asIs) Recover(ctx context.Context, job socs.Job) error {
	s, err := job.Board.Next(ctx)
	if err != nil {
		return err
	}
	return fmt.Errorf("configuration %d, %d interfaces", s.Device.Config, len(s.Device.Interfaces))
}

// A stage is what it is when it was opened, and the user is told if that has no configuration.
func TestDeviceConfigured(t *testing.T) {
	for _, tc := range []struct {
		none bool
		want string
	}{
		{false, "configuration 1, 1 interfaces"},
		{true, "configuration 0"},
	} {
		synctest.Test(t, func(t *testing.T) {
			host := inproc.New()
			plug(t, host.Port("1-1"), romA, 2, usbdev.HighSpeed)
			defer host.Port("1-1").Detach()
			warned := 0
			err := Run(t.Context(), Options{
				Backend: asIs{}, USB: lateHost{host, tc.none}, Model: socs.Model{Name: "a", Family: "fake"}, Timeout: time.Minute,
				Emit: func(e event.Event) {
					if w, ok := e.Body.(event.Warning); ok && strings.Contains(w.Text, "not configured") {
						warned++
					}
				},
			})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, expected %s", err, tc.want)
			}
			if warned > 0 != tc.none {
				t.Errorf("%d warnings", warned)
			}
		})
	}
}

// A port has one lock, whichever of its two names is used; another host's port has another.
func TestDeviceLock(t *testing.T) {
	host := inproc.New(inproc.Pair{High: 101, Super: 102})
	other := &board{opt: Options{USB: host}}
	if err := other.hold("102-7"); err != nil {
		t.Fatal(err)
	}
	defer other.lock.release()
	b := &board{opt: Options{USB: host}}
	var locked *LockedError
	if err := b.hold("101-7"); !errors.As(err, &locked) {
		t.Errorf("the companion port: %v", err)
	}
	b = &board{opt: Options{USB: inproc.New(inproc.Pair{High: 101, Super: 102})}}
	if err := b.hold("102-7"); err != nil {
		t.Errorf("another host's: %v", err)
	} else {
		b.lock.release()
	}
}

// shyHost is a host whose port 1-1 nothing stays on for as long as it takes to open it.
type shyHost struct{ *inproc.Host }

func (h shyHost) Open(ctx context.Context, d usb.Device) (usb.Handle, error) {
	if d.Port == "1-1" {
		return nil, usb.ErrGone
	}
	return h.Host.Open(ctx, d)
}

// The port that is locked is that of the board, not one on which something was that left.
func TestDeviceLockOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := inproc.New(inproc.Pair{High: 1, Super: 2})
		stages, err := run(t, shyHost{host}, Options{}, func() {
			plug(t, host.Port("1-1"), romA, 2, usbdev.HighSpeed)
			time.Sleep(time.Second)
			host.Port("1-1").Detach()
			plug(t, host.Port("1-2"), romA, 2, usbdev.HighSpeed)
			time.Sleep(time.Second)
			for port, want := range map[string]bool{"1-1": false, "1-2": true} {
				if got := portLocked(host.Name() + "/" + port); got != want {
					t.Errorf("port %s is locked: %v", port, got)
				}
			}
			host.Port("1-2").Detach()
			plug(t, host.Port("1-2"), splAny, 0, usbdev.HighSpeed)
		})
		host.Port("1-2").Detach()
		if err != nil || len(stages) != 2 {
			t.Errorf("stages %q, %v", stages, err)
		}
	})
}

// looker takes model a's ROM, and looks at what comes then, to find that it has no use for it.
type looker struct{ twoStages }

func (looker) Recover(ctx context.Context, job socs.Job) error {
	if _, err := job.Board.Next(ctx); err != nil {
		return err
	}
	job.Board.Emit("rom", event.StageDone{Summary: event.StageSummary{File: "looked at the ROM"}})
	_, err := job.Board.Next(ctx)
	return err
}

// taker takes whatever comes.
type taker struct{ twoStages }

func (taker) Family() socs.Family {
	return socs.Family{Name: "taker", Carriers: []socs.Carrier{socs.USB, socs.Disk}, ComeBack: 40 * time.Second, Reenumerate: 40 * time.Second,
		Later: []socs.Identity{{Class: socs.Class{Class: 255}}, {Class: socs.MassStorage}}}
}

func (taker) Recover(ctx context.Context, job socs.Job) error {
	s, err := job.Board.Next(ctx)
	if err != nil {
		return err
	}
	job.Board.Emit("any", event.StageDone{Summary: event.StageSummary{File: fmt.Sprintf("took %s, opened %t", s.ID, s.USB != nil)}})
	return nil
}

func TestLegs(t *testing.T) {
	model := socs.Model{Name: "a", Family: "fake"}
	leg := func(b socs.Backend) Leg { return Leg{Backend: b, Model: model} }
	for _, tc := range []struct {
		name string
		then []Leg
		act  func(t *testing.T, h *inproc.Host)
		want []string
		text string // of the error
	}{
		{name: "what the leg before had no use for", then: []Leg{leg(taker{})}, act: func(t *testing.T, h *inproc.Host) {
			plug(t, h.Port("1-1"), romA, 2, usbdev.HighSpeed)
			time.Sleep(time.Second)
			h.Port("1-1").Detach()
			plug(t, h.Port("1-1"), stranger, 0, usbdev.HighSpeed)
		}, want: []string{"looked at the ROM", "took 0009:0009, opened true"}},
		{name: "to the ROM again, past something else", then: []Leg{leg(taker{}), leg(twoStages{})}, act: func(t *testing.T, h *inproc.Host) {
			for _, id := range []usb.ID{romA, stranger, stranger, romA, splAny} {
				plug(t, h.Port("1-1"), id, 2, usbdev.HighSpeed)
				time.Sleep(time.Second)
				h.Port("1-1").Detach()
			}
		}, want: []string{"looked at the ROM", "took 0009:0009, opened true", "0001:000a rom=true", "0001:0005 rom=false"}},
		{name: "never to the ROM again", then: []Leg{leg(taker{}), leg(twoStages{})}, act: func(t *testing.T, h *inproc.Host) {
			for _, id := range []usb.ID{romA, stranger, stranger} {
				h.Port("1-1").Detach()
				plug(t, h.Port("1-1"), id, 2, usbdev.HighSpeed)
				time.Sleep(time.Second)
			}
		}, want: []string{"looked at the ROM", "took 0009:0009, opened true"}, text: "0009:0009 (stage) is there, which is none of 0001:000a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := inproc.New()
				var mu sync.Mutex
				var got []string
				var wg sync.WaitGroup
				wg.Go(func() { tc.act(t, h) })
				err := Run(t.Context(), Options{Backend: looker{}, Model: model, Then: tc.then, USB: h, Timeout: time.Minute, Emit: func(e event.Event) {
					mu.Lock()
					defer mu.Unlock()
					if d, ok := e.Body.(event.StageDone); ok {
						got = append(got, d.Summary.File)
					}
				}})
				wg.Wait()
				if !slices.Equal(got, tc.want) || (err == nil) != (tc.text == "") || err != nil && !strings.Contains(err.Error(), tc.text) {
					t.Errorf("got %q, %v, want %q, %q", got, err, tc.want, tc.text)
				}
			})
		})
	}
}
