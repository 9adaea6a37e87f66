//go:build linux

package usbfs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/usbtest"
	"snag/sim/vhci"
	"snag/usb"
	"snag/usb/usbfs"
)

// store is a control transfer that a usbtest.Device answers.
var store = usb.Setup{Type: 0x40, Request: 1}

// TestKernelLeader has transfers waited for by a leader that never leaves it to the watcher.
func TestKernelLeader(t *testing.T) {
	lab.Inside(t)
	led := func(t *testing.T) (*held, *vhci.Port, usb.Handle) {
		dev := &held{usbtest.NewDevice(usbtest.Options{}), make(chan struct{})}
		port, d := plug(t, dev)
		h := open(t, d)
		usbfs.LeadForEver(h)
		return dev, port, h
	}
	// begin has a transfer led; its end is sent.
	begin := func(t *testing.T, ctx context.Context, h usb.Handle) <-chan error {
		ended := make(chan error, 1)
		go func() { _, err := h.Control(ctx, store, nil); ended <- err }()
		until(t, "somebody leads", func() bool { return usbfs.Led(h) })
		return ended
	}
	end := func(t *testing.T, ended <-chan error, want error) {
		t.Helper()
		select {
		case err := <-ended:
			if !errors.Is(err, want) {
				t.Errorf("%v, expected %v", err, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no end, expected %v", want)
		}
	}
	t.Run("cancelled", func(t *testing.T) {
		_, _, h := led(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := begin(t, ctx, h)
		time.AfterFunc(20*time.Millisecond, cancel)
		end(t, ended, context.Canceled)
	})
	t.Run("closed", func(t *testing.T) {
		_, _, h := led(t)
		ended := begin(t, t.Context(), h)
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		end(t, ended, os.ErrClosed)
	})
	t.Run("gone", func(t *testing.T) {
		_, port, h := led(t)
		ended := begin(t, t.Context(), h)
		port.Detach()
		end(t, ended, usb.ErrGone)
		gone(t, h)
	})
	t.Run("beside others", func(t *testing.T) {
		dev, _, h := led(t)
		ended := begin(t, t.Context(), h)
		others := make(chan error, 2)
		receive := func() {
			buf := make([]byte, 512)
			n, err := h.In(t.Context(), bulkIn, buf)
			if err == nil && string(buf[:n]) != "answer" {
				err = fmt.Errorf("received %q", buf[:n])
			}
			others <- err
		}
		send := func() {
			if _, err := dev.Device.(*usbtest.Device).InPipe(bulkIn).Write(t.Context(), []byte("answer")); err != nil {
				t.Error(err)
			}
		}
		go receive()
		send()
		end(t, others, nil) // by the leader
		go receive()
		until(t, "somebody else waits", func() bool { return usbfs.Asked(h) })
		close(dev.free)
		end(t, ended, nil)
		if usbfs.Aside(h) {
			t.Error("the watcher is not back for who waits for it")
		}
		send()
		end(t, others, nil) // by the watcher
	})
}

// TestKernelQuickLeader has a quick host's leader wait, in the kernel, for what does not come: where Go's scheduler
// interrupts who does so, and where it does not.
func TestKernelQuickLeader(t *testing.T) {
	lab.Inside(t)
	const off = "asyncpreemptoff=1"
	if os.Getenv("GODEBUG") != off {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // its own timers may be what hangs
		defer cancel()
		cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG="+off)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("with GODEBUG=%s: %v\n%s", off, err, out)
		}
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4)) // the device is in this process, too
	port, d := plug(t, usbtest.NewDevice(usbtest.Options{}))
	h, err := usbfs.Host{Quick: true}.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Claim(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	usbfs.LeadForEver(h)
	over := func(what string, want error, f func(context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		begun, ended := time.Now(), make(chan error, 1)
		go func() { ended <- f(ctx) }()
		select {
		case err := <-ended:
			if took := time.Since(begun); !errors.Is(err, want) || took > 2*time.Second {
				t.Errorf("%s: %v after %v, expected %v after 200ms", what, err, took, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: no end", what)
		}
	}
	over("a transfer", context.DeadlineExceeded, func(ctx context.Context) error {
		_, err := h.In(ctx, bulkIn, make([]byte, 512))
		return err
	})
	over("receiving", context.DeadlineExceeded, func(ctx context.Context) error {
		return usb.Receive(ctx, h, bulkIn, 512, 4, func([]byte) {})
	})
	over("a transfer while garbage is collected", context.DeadlineExceeded, func(ctx context.Context) error {
		time.AfterFunc(50*time.Millisecond, runtime.GC)
		_, err := h.In(ctx, bulkIn, make([]byte, 512))
		return err
	})
	time.AfterFunc(100*time.Millisecond, func() { port.Detach() })
	over("a device that leaves", usb.ErrGone, func(context.Context) error {
		_, err := h.In(t.Context(), bulkIn, make([]byte, 512))
		return err
	})
}

// TestKernelReceiveGone has a device leave while what it has sent waits for who receives.
func TestKernelReceiveGone(t *testing.T) {
	lab.Inside(t)
	const sent = 8
	dev := usbtest.NewDevice(usbtest.Options{})
	port, d := plug(t, dev)
	h := open(t, d)
	go dev.InPipe(bulkIn).Write(t.Context(), []byte("0"))
	var got []string
	err := usb.Receive(t.Context(), h, bulkIn, 512, sent, func(b []byte) {
		if got = append(got, string(b)); len(got) > 1 {
			return
		}
		for i := range sent - 1 {
			if _, err := dev.InPipe(bulkIn).Write(t.Context(), []byte(fmt.Sprint(i+1))); err != nil {
				t.Error(err)
			}
		}
		port.Detach()
		gone(t, h)
	})
	if !errors.Is(err, usb.ErrGone) {
		t.Error(err)
	}
	if len(got) != sent {
		t.Errorf("%q came of %d", got, sent)
	}
}

// gone waits until a device's leaving is noticed.
func gone(t *testing.T, h usb.Handle) {
	t.Helper()
	select {
	case <-h.Gone():
	case <-time.After(10 * time.Second):
		t.Fatal("Gone is not closed")
	}
}

// TestKernelGoneAside unplugs devices behind transfers that the watcher was put aside for. Nobody waits for anything.
func TestKernelGoneAside(t *testing.T) {
	lab.Inside(t)
	aside := 0
	const devices = 4
	for i := range devices {
		port, d := plug(t, usbtest.NewDevice(usbtest.Options{}))
		h := open(t, d)
		for range 20 {
			if _, err := h.Control(t.Context(), store, nil); err != nil {
				t.Fatal(err)
			}
		}
		if usbfs.Aside(h) {
			aside++
		}
		time.Sleep(time.Duration(5*i) * time.Millisecond)
		port.Detach()
		gone(t, h)
		if _, err := h.Control(t.Context(), store, nil); !errors.Is(err, usb.ErrGone) {
			t.Errorf("%v, expected ErrGone", err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	if aside == 0 {
		t.Errorf("the watcher was there behind the transfers of all %d devices", devices)
	}
}

// TestKernelReceiveLeads has one that receives take the lead from who waited before, and never leave the reaping to the
// watcher, while that still waits.
func TestKernelReceiveLeads(t *testing.T) {
	lab.Inside(t)
	dev := usbtest.NewDevice(usbtest.Options{})
	_, d := plug(t, dev)
	h := open(t, d)
	if err := h.Claim(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	usbfs.LeadForEver(h)
	write := func(ep uint8, text string) {
		t.Helper()
		if _, err := dev.InPipe(ep).Write(t.Context(), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	other := make(chan error, 1)
	go func() { _, err := h.In(t.Context(), narrowIn, make([]byte, 64)); other <- err }()
	until(t, "somebody leads", func() bool { return usbfs.Led(h) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- usb.Receive(ctx, h, bulkIn, 512, 4, func(b []byte) {
			if _, err := h.(usb.Poster).Post(bulkOut, b); err != nil {
				t.Error(err)
			}
			got <- string(b)
		})
	}()
	for i := range 20 {
		write(bulkIn, fmt.Sprint(i))
		if s := <-got; s != fmt.Sprint(i) {
			t.Errorf("%q came as number %d", s, i)
		}
		buf := make([]byte, 512)
		if n, err := dev.OutPipe(bulkOut).Read(t.Context(), buf); err != nil || string(buf[:n]) != fmt.Sprint(i) {
			t.Errorf("%q was sent as number %d, %v", buf[:n], i, err)
		}
	}
	until(t, "who receives leads", func() bool {
		all := make([]byte, 1<<20)
		for stack := range strings.SplitSeq(string(all[:runtime.Stack(all, true)]), "\n\n") {
			if strings.Contains(stack, ".(*handle).receive(") && strings.Contains(stack, ".(*handle).direct(") {
				return true
			}
		}
		return false
	})
	write(narrowIn, "other")
	select {
	case err := <-other:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("who waits beside it has no end")
	}
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("receiving has no end")
	}
}
