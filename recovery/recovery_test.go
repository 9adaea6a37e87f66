package recovery

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/netsetup"
	"snag/sim/pty"
	"snag/socs"
	"snag/socs/am335x"
	"snag/usb"
)

func TestChoose(t *testing.T) {
	rom, spl, gadget := usb.ID{Vendor: 0x0451, Product: 0x6141}, usb.ID{Vendor: 0x0451, Product: 0xd022}, usb.ID{Vendor: 0x0525, Product: 0xa4a2}
	on := func(port usb.Port, id usb.ID, index int) netsetup.Interface {
		return netsetup.Interface{Port: port, ID: id, Index: index}
	}
	for _, tc := range []struct {
		name   string
		opt    Options
		port   usb.Port // followed
		there  []netsetup.Interface
		want   int // index, 0 for none
		refuse string
	}{
		{name: "nothing", want: 0},
		{name: "the ROM", there: []netsetup.Interface{on("1-1", rom, 5)}, want: 5},
		{name: "SPL stands there already", there: []netsetup.Interface{on("1-1", spl, 5)}, want: 5},
		{name: "any gadget", there: []netsetup.Interface{on("1-1", gadget, 5)}, want: 0},
		{name: "any gadget, port named", opt: Options{Port: "1-1"}, there: []netsetup.Interface{on("1-1", gadget, 5)}, want: 5},
		{name: "any gadget where the ROM was", port: "1-1", there: []netsetup.Interface{on("1-1", gadget, 5), on("1-2", rom, 6)}, want: 5},
		{name: "two boards", there: []netsetup.Interface{on("1-1", rom, 5), on("1-2", spl, 6)}, refuse: "1-1 (0451:6141), 1-2 (0451:d022)"},
		{name: "two boards, port named", opt: Options{Port: "1-2"}, there: []netsetup.Interface{on("1-1", rom, 5), on("1-2", spl, 6)}, want: 6},
		{name: "two interfaces of one board", there: []netsetup.Interface{on("1-1", rom, 5), on("1-1", rom, 6)}, want: 5},
		{name: "ID named", opt: Options{ID: spl}, there: []netsetup.Interface{on("1-1", rom, 5), on("1-2", spl, 6)}, want: 6},
		{name: "other ROM", opt: Options{ROM: gadget}, there: []netsetup.Interface{on("1-1", rom, 5), on("1-2", gadget, 6)}, want: 6},
		{name: "other SPL", opt: Options{SPL: gadget}, there: []netsetup.Interface{on("1-2", gadget, 6)}, want: 6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.opt.Backend = am335x.Backend{}
			b := newBoard(tc.opt)
			if tc.port != "" {
				b.port = tc.port
			}
			got, ok, err := b.choose(tc.there)
			var usage *UsageError
			if tc.refuse != "" {
				if !errors.As(err, &usage) || !strings.Contains(err.Error(), tc.refuse) {
					t.Fatalf("got %v, want a usage error with %q", err, tc.refuse)
				}
				return
			}
			if err != nil || got.Index != tc.want || ok != (tc.want != 0) {
				t.Errorf("got %+v, %v, %v, want index %d", got, ok, err, tc.want)
			}
		})
	}
}

func TestLockPort(t *testing.T) {
	port := fmt.Sprintf("255-%d", os.Getpid()) // which another run of this test has not
	lock, err := lockPort(port)
	if err != nil {
		t.Fatal(err)
	}
	_, err = lockPort(port)
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() || !strings.Contains(err.Error(), filepath.Base(os.Args[0])) {
		t.Errorf("second lock: %v, want one held by %d", err, os.Getpid())
	}
	// Who asks is never answered, and stays in the socket's queue.
	for i := range 5000 {
		if !portLocked(port) {
			t.Fatalf("not locked after %d looks", i)
		}
	}
	if _, err = lockPort(port); !errors.As(err, &locked) {
		t.Errorf("after many looks: %v, want it held", err)
	}
	if other, err := lockPort(port + ".1"); err != nil {
		t.Errorf("another port: %v", err)
	} else {
		other.release()
	}
	lock.release()
	again, err := lockPort(port)
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	again.release()
}

// A tty that another program works on is not taken from it, and is free when that has ended.
func TestTTYInUse(t *testing.T) {
	line, err := pty.Open()
	if err != nil {
		t.Skip(err)
	}
	defer line.Close()
	other, err := os.OpenFile(line.TTY, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(other.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	b := newBoard(Options{Backend: am335x.Backend{}, UART: line.TTY})
	err = b.openUART(t.Context())
	b.close()
	var busy *TTYBusyError
	if !errors.As(err, &busy) || ExitCode(err) != ExitFailed || !strings.Contains(Hint(err), "fuser -v "+line.TTY) {
		t.Errorf("%v, exit code %d, hint %q", err, ExitCode(err), Hint(err))
	}
	other.Close()
	for range 2 {
		b := newBoard(Options{Backend: am335x.Backend{}, UART: line.TTY})
		if err := b.openUART(t.Context()); err != nil {
			t.Error(err)
		}
		b.close()
	}
}

// The end of the overall time says where the board stood then.
func TestOverallTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(Options{Backend: am335x.Backend{}, Timeout: time.Minute, Emit: func(event.Event) {}})
		b.seen = true
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errTimeout)
		defer cancel()
		b.Emit("spl", event.StageBegun{File: "u-boot.img", Bytes: 7000})
		time.Sleep(5 * time.Second)
		b.Emit("spl", event.Progress{Bytes: 1468, Total: 7000})
		time.Sleep(5 * time.Second)
		b.Emit("spl", event.Progress{Bytes: 1468, Total: 7000})
		<-ctx.Done()
		err := b.explain(ctx, errors.New("x"))
		if want := "overall timeout of 1m0s: 1468 of 7000 bytes of u-boot.img were through, and nothing new since 55s"; ExitCode(err) != ExitBoard || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		b.Emit("spl", event.StageDone{})
		b.Emit("", event.Waiting{For: "the next stage"})
		if err := b.explain(ctx, errors.New("x")); !strings.HasSuffix(err.Error(), "1m0s: still waiting for the next stage") {
			t.Error(err)
		}
	})
}

func TestExitCode(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{&LockedError{}, 1},
		{&UsageError{Err: errors.New("x")}, 2},
		{&socs.UnknownModelError{}, 2},
		{&NoBoardError{}, 3},
		{&usb.AccessError{Err: os.ErrPermission}, 4},
		{&TTYError{Err: os.ErrPermission}, 4},
		{&netsetup.SetupError{Err: os.ErrPermission}, 4},
		{errors.Join(&socs.FirmwareError{Err: errors.New("x")}, &socs.FirmwareError{Err: errors.New("y")}), 5},
		{&socs.BoardError{Err: errors.New("x")}, 6},
		{ErrInterrupted, 130},
		{fmt.Errorf("x: %w", context.Canceled), 130},
	} {
		if got := ExitCode(&Error{Err: tc.err}); tc.err != nil && got != tc.want {
			t.Errorf("%T: wrapped: %d, want %d", tc.err, got, tc.want)
		}
		if got := ExitCode(tc.err); got != tc.want {
			t.Errorf("%T: %d, want %d", tc.err, got, tc.want)
		}
	}
}

func TestParseNet(t *testing.T) {
	for word, want := range map[string]Net{"auto": NetAuto, "kernel": NetKernel, "user": NetUser} {
		if got, err := ParseNet(word); got != want || err != nil {
			t.Errorf("%s: %q, %v", word, got, err)
		}
	}
	for _, word := range []string{"", "usb0", "Kernel"} {
		if _, err := ParseNet(word); err == nil {
			t.Errorf("%q was taken", word)
		}
	}
}

// The longest time that there is does not overflow.
func TestLongestTimeout(t *testing.T) {
	b := newBoard(Options{Backend: am335x.Backend{}, Timeout: math.MaxInt64})
	if d := b.nextPatience(); d != math.MaxInt64 {
		t.Errorf("the board is awaited for %s", d)
	}
}
