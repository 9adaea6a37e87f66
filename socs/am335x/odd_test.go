package am335x_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/recovery"
	board "snag/sim/am335x"
	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/socs"
	"snag/socs/am335x"
	"snag/socs/socstest"
	"snag/usb"
)

// userOptions are those of a recovery of small firmware without the kernel's network; no port is any, no time the usual.
func userOptions(t *testing.T, port usb.Port, timeout time.Duration) recovery.Options {
	return recovery.Options{
		Backend: am335x.Backend{}, Net: recovery.NetUser, Model: socstest.Model(t, "am335x"), Port: port, Timeout: timeout,
		Firmware: socs.Firmware{"spl": {Path: "spl", Data: board.GenerateSPL(8<<10, 1)}, "u-boot": {Path: "u-boot.img", Data: board.GenerateUBoot(8<<10, 1)}},
	}
}

// Addresses on the wire that no card is sold with.
func TestUserAddresses(t *testing.T) {
	mac := func(s string) net.HardwareAddr {
		m, err := net.ParseMAC(s)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, tc := range []struct{ name, board, host string }{
		{"nothing to the host", "00:18:31:00:00:01", "00:00:00:00:00:00"},
		{"a group's to the host", "00:18:31:00:00:01", "01:00:5e:00:00:01"},
		{"all ones to the host", "00:18:31:00:00:01", "ff:ff:ff:ff:ff:ff"},
		{"one for both", "00:18:31:00:00:01", "00:18:31:00:00:01"},
		{"a board of zeros", "00:00:00:00:00:00", "00:18:31:00:00:02"},
		{"a board that calls itself a group", "03:18:31:00:00:01", "00:18:31:00:00:02"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				trial{small: true, cfg: board.Config{
					ROMMAC: mac(tc.board), ROMHostMAC: mac(tc.host), SPLMAC: mac(tc.board), SPLHostMAC: mac(tc.host),
				}}.run(t).booted(t)
			})
		})
	}
}

// interrupted is a port that counts the board's control requests of a class, and acts at one of them in the place of an
// answer.
type interrupted struct {
	usbdev.Port
	at  int32
	now atomic.Int32
	act func()
}

type interruptedDevice struct {
	usbdev.Device
	p *interrupted
}

func (d interruptedDevice) Control(ctx context.Context, s usbdev.Setup, data []byte) (int, error) {
	if s.Type&0x60 != 0 && d.p.now.Add(1) == d.p.at {
		d.p.act()
		<-ctx.Done() // it is not answered
		return 0, ctx.Err()
	}
	return d.Device.Control(ctx, s, data)
}

func (p *interrupted) Attach(ctx context.Context, dev usbdev.Device) error {
	return p.Port.Attach(ctx, interruptedDevice{dev, p})
}

// Whichever request of the way up a recovery is interrupted at, it ends at once, and the kernel's driver has the board.
func TestUserInterruptedOnTheWayUp(t *testing.T) {
	for at := int32(1); at <= 6; at++ { // command and answer of INITIALIZE, QUERY and SET
		t.Run(fmt.Sprint("request ", at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, err := board.New(board.Config{ROMRetries: []time.Duration{time.Second}, JumpDelay: time.Hour, SPLDelay: time.Hour})
				if err != nil {
					t.Fatal(err)
				}
				host := inproc.New()
				ctx, cancel := context.WithCancel(t.Context())
				var since time.Time
				interrupt := func() { since = time.Now(); cancel() }
				_, unplug := socstest.Plug(t, &interrupted{Port: host.Port("219-1"), at: at, act: interrupt}, b)
				defer unplug()
				a := socstest.Try(ctx, host, userOptions(t, "", 20*time.Second))
				cancel()
				if code, took := recovery.ExitCode(a.Err), time.Since(since); code != 130 || took > time.Second {
					t.Errorf("exit code %d after %s: %v", code, took, a.Err)
				}
				synctest.Wait()
				devices, _ := host.Devices()
				if len(devices) != 1 || devices[0].Interfaces[0].Driver != "rndis_host" {
					t.Errorf("afterwards there is %+v", devices)
				}
			})
		})
	}
}

// A board that is reset on the way up is taken when it is back, whichever request it was at.
func TestUserResetOnTheWayUp(t *testing.T) {
	for at := int32(1); at <= 12; at++ { // the ROM's, then SPL's
		t.Run(fmt.Sprint("request ", at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				spl, uboot := board.GenerateSPL(8<<10, 1), board.GenerateUBoot(8<<10, 1)
				first, err := board.New(board.Config{ROMRetries: []time.Duration{time.Second}})
				if err != nil {
					t.Fatal(err)
				}
				second, err := board.New(board.Config{ROMRetries: []time.Duration{time.Second}})
				if err != nil {
					t.Fatal(err)
				}
				host := inproc.New()
				reset := make(chan struct{})
				_, unplug := socstest.Plug(t, &interrupted{Port: host.Port("219-1"), at: at, act: func() { close(reset) }}, first)
				go func() {
					select {
					case <-reset:
					case <-first.Settled():
						unplug()
						return
					}
					unplug()
					time.Sleep(time.Second)
					_, again := socstest.Plug(t, host.Port("219-1"), second)
					<-second.Settled()
					again()
				}()
				a := socstest.Try(t.Context(), host, recovery.Options{Backend: am335x.Backend{}, Net: recovery.NetUser, Model: socstest.Model(t, "am335x"),
					Firmware: socs.Firmware{"spl": {Path: "spl", Data: spl}, "u-boot": {Path: "u-boot.img", Data: uboot}}, Timeout: time.Minute})
				if a.Err != nil {
					t.Error(a.Err)
				}
				select {
				case <-reset:
				default:
					t.Fatal("not reached")
				}
				<-second.Settled()
				r := second.Report()
				if s := r.Last(board.StageSPL); s == nil || !bytes.Equal(s.Data, uboot) {
					t.Errorf("the board %s: %s", r.Outcome, r.Error)
				}
			})
		})
	}
}

// An SPL that leaves on the way up, and does not come back, was there.
func TestUserGoneOnTheWayUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := board.New(board.Config{ROMRetries: []time.Duration{time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		host := inproc.New()
		leave := make(chan struct{})
		_, unplug := socstest.Plug(t, &interrupted{Port: host.Port("219-1"), at: 7, act: func() { close(leave) }}, b)
		var leaving sync.WaitGroup
		leaving.Go(func() {
			<-leave
			unplug()
		})
		a := socstest.Try(t.Context(), host, userOptions(t, "", 0))
		a.Bad(t, 6, "the next stage did not appear on port 219-1 within 30s: 0451:d022 was there, and left before it could be opened")
		leaving.Wait()
	})
}

// late is a port that a board comes back to after a time, and does not answer any more.
type late struct {
	usbdev.Port
	after time.Duration
	times int
}

func (p *late) Attach(ctx context.Context, dev usbdev.Device) error {
	if p.times++; p.times == 1 {
		return p.Port.Attach(ctx, dev)
	}
	time.Sleep(p.after)
	return (&interrupted{Port: p.Port, at: 1, act: func() {}}).Attach(ctx, dev)
}

// A board that is back, and is not heard of until the time for that is over, is told of as such.
func TestUserBackAndMute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := board.New(board.Config{ROMRetries: []time.Duration{time.Second}, Faults: []board.Fault{{Kind: board.Reset, Stage: board.StageROM, At: 4096}}})
		if err != nil {
			t.Fatal(err)
		}
		host := inproc.New()
		_, unplug := socstest.Plug(t, &late{Port: host.Port("219-1"), after: 12 * time.Second}, b)
		defer unplug()
		a := socstest.Try(t.Context(), host, userOptions(t, "", 0))
		a.Bad(t, 6, "did not come back within 15s: 0451:6141 is there, and could not be opened in time")
	})
}

// moving is a board's port whose second device comes up elsewhere.
type moving struct {
	usbdev.Port
	other usbdev.Port
	times int
}

func (p *moving) Attach(ctx context.Context, dev usbdev.Device) error {
	if p.times++; p.times > 1 {
		return p.other.Attach(ctx, dev)
	}
	return p.Port.Attach(ctx, dev)
}

func (p *moving) Detach() error { return errors.Join(p.Port.Detach(), p.other.Detach()) }

// A stage on another port is not the board's: where the port was named it is not looked at, else it is a second board.
func TestUserElsewhere(t *testing.T) {
	for _, tc := range []struct {
		named usb.Port
		code  int
		says  string
	}{
		{"219-1", 6, "the next stage did not appear on port 219-1 within 30s"},
		{"", 2, "219-2 (0451:d022)"},
	} {
		t.Run("named "+string(tc.named), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, err := board.New(board.Config{ROMRetries: []time.Duration{time.Second}, SPLWindow: time.Hour})
				if err != nil {
					t.Fatal(err)
				}
				host := inproc.New()
				_, unplug := socstest.Plug(t, &moving{Port: host.Port("219-1"), other: host.Port("219-2")}, b)
				defer unplug()
				a := socstest.Try(t.Context(), host, userOptions(t, tc.named, 0))
				if code := recovery.ExitCode(a.Err); code != tc.code || !strings.Contains(fmt.Sprint(a.Err), tc.says) {
					t.Errorf("exit code %d: %v", code, a.Err)
				}
				if s := b.Report().Last(board.StageSPL); s == nil || s.BOOTPLost != 0 || len(s.Data) != 0 {
					t.Errorf("SPL was served: %+v", s)
				}
			})
		})
	}
}

// A board that does not answer is told of as what it is, and as the one on its port.
func TestUserMute(t *testing.T) {
	for _, tc := range []struct {
		named   usb.Port
		timeout time.Duration
		code    int
		says    string
		hint    string
	}{
		{"219-1", 3 * time.Second, 3, "0451:6141 (AM335x USB) is on port 219-1, and could not be opened in time", "--timeout"},
		{"", 3 * time.Second, 3, "0451:6141 (AM335x USB) is on port 219-1, and could not be opened in time", "--timeout"},
		{"219-1", 20 * time.Second, 6, "am335x on 219-1: the board's network link did not come up", "reset the board"},
		{"", 20 * time.Second, 6, "am335x on 219-1: the board's network link did not come up", "reset the board"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, err := board.New(board.Config{})
			if err != nil {
				t.Fatal(err)
			}
			host := inproc.New()
			_, unplug := socstest.Plug(t, &interrupted{Port: host.Port("219-1"), at: 1, act: func() {}}, b)
			defer unplug()
			a := socstest.Try(t.Context(), host, userOptions(t, tc.named, tc.timeout))
			a.Bad(t, tc.code, tc.says)
			if hint := recovery.Hint(a.Err); !strings.Contains(hint, tc.hint) {
				t.Errorf("hint %q", hint)
			}
			if last := a.Events[len(a.Events)-1]; tc.code == 6 && last.Port != "219-1" {
				t.Errorf("the last event is of port %q", last.Port)
			}
		})
	}
}

// again is a port whose devices all get the number that its first one had.
type again struct{ *inproc.Port }

func (p again) Attach(ctx context.Context, dev usbdev.Device) error { return p.AttachSame(ctx, dev) }

// A boot ROM that gets the number of what was no stage on its port is not taken for that.
func TestUserNumberOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := inproc.New()
		port := again{host.Port("219-1")}
		other := usbdev.NewGadget(&usbdev.Descriptors{Speed: usbdev.HighSpeed, ID: board.SPLID,
			Configs: []usbdev.Config{{Value: 1, Interfaces: []usbdev.Interface{{Class: 8, SubClass: 6, Protocol: 0x50}}}}}, usbdev.Inert{})
		if err := port.Attach(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		b, err := board.New(board.Config{ROMRetries: []time.Duration{time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		plugged := make(chan func(), 1)
		time.AfterFunc(2*time.Second, func() {
			port.Detach()
			time.Sleep(100 * time.Millisecond)
			_, unplug := socstest.Plug(t, port, b)
			plugged <- unplug
		})
		a := socstest.Try(t.Context(), host, userOptions(t, "", time.Minute))
		if a.Err != nil {
			t.Error(a.Err)
		}
		(<-plugged)()
	})
}

// Two boards, of which none was named, are refused; a port at which a recovery is under way is refused to another.
func TestUserTwo(t *testing.T) {
	for _, same := range []bool{false, true} {
		t.Run(fmt.Sprint("one port ", same), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host := inproc.New()
				for _, port := range []usb.Port{"219-1", "219-2"} {
					b, err := board.New(board.Config{ROMRetries: []time.Duration{time.Second}})
					if err != nil {
						t.Fatal(err)
					}
					_, unplug := socstest.Plug(t, host.Port(port), b)
					defer unplug()
				}
				time.Sleep(time.Second)
				opt := userOptions(t, "", 0)
				if !same {
					a := socstest.Try(t.Context(), host, opt)
					if code := recovery.ExitCode(a.Err); code != 2 || !strings.Contains(fmt.Sprint(a.Err), "2 boards match") {
						t.Errorf("exit code %d: %v", code, a.Err)
					}
					return
				}
				opt.Port = "219-1"
				var second socstest.Attempt
				begun := make(chan struct{})
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					<-begun
					second = socstest.Try(t.Context(), host, opt)
				}()
				first := opt
				first.Emit = func(e event.Event) {
					if _, ok := e.Body.(event.BoardSeen); ok && e.Port == "219-1" {
						select {
						case <-begun:
						default:
							close(begun)
						}
					}
				}
				a := socstest.Try(t.Context(), host, first)
				<-ended
				if a.Err != nil {
					t.Error(a.Err)
				}
				if code := recovery.ExitCode(second.Err); code != 1 || !strings.Contains(fmt.Sprint(second.Err), "219-1") {
					t.Errorf("exit code %d: %v", code, second.Err)
				}
			})
		})
	}
}

// Whatever the files are called, the board asks for what it was offered, and gets it.
func TestUserFileNames(t *testing.T) {
	for _, name := range []string{
		"v2:u-boot.img", "2026-11-23T20:15:00.img", "u boot.img", "ü-böt.img", "\"quoted\".img", "a\nb.img", "a\x1b[2Jb.img", ".img",
		strings.Repeat("x", 127), strings.Repeat("long", 60), strings.Repeat("ö", 100),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := trial{small: true, paths: [2]string{"/some/where/" + name, name}}.run(t)
				o.booted(t)
				if s := o.Texts(); s != "" {
					t.Errorf("it says %q", s)
				}
			})
		})
	}
}
