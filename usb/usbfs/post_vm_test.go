//go:build linux

package usbfs_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/usbtest"
	"snag/usb"
	"snag/usb/usbfs"
)

// TestKernelPost begins transfers that nobody waits for.
func TestKernelPost(t *testing.T) {
	lab.Inside(t)
	dev := usbtest.NewDevice(usbtest.Options{})
	_, d := plug(t, dev)
	h := open(t, d)
	poster := h.(usb.Poster)
	const depth = 4
	usbfs.SetFlight(h, depth, 512)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	read := func(want string) {
		t.Helper()
		buf := make([]byte, 512)
		if n, err := dev.OutPipe(bulkOut).Read(ctx, buf); err != nil || string(buf[:n]) != want {
			t.Fatalf("the device got %q, %v; expected %q", buf[:n], err, want)
		}
	}
	taken := 0
	post := func(text string) error {
		b := []byte(text)
		n, err := poster.Post(bulkOut, b)
		clear(b) // it has to be copied
		taken += n
		return err
	}
	// until posts until it ends so, once the watcher has taken back what was in flight before. What is posted on the way
	// has no text.
	until := func(text string, want error) {
		t.Helper()
		for {
			err := post(text)
			if errors.Is(err, want) {
				return
			}
			if ctx.Err() != nil || err != nil && !errors.Is(err, usb.ErrNoRoom) {
				t.Fatalf("%v, expected %v", err, want)
			}
			time.Sleep(time.Millisecond)
		}
	}

	// There is room for so many, and again when the device has taken one.
	for i := range depth {
		if err := post(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := post("more"); !errors.Is(err, usb.ErrNoRoom) {
		t.Errorf("%v, expected ErrNoRoom", err)
	}
	for i := range 20 {
		read(fmt.Sprint(i))
		until(fmt.Sprint(i+depth), nil)
	}
	for i := range depth {
		read(fmt.Sprint(20 + i))
	}
	until("last", nil)
	read("last")
	if taken < 20 || taken > 20+depth {
		t.Errorf("%d transfers were seen to be taken, of %d", taken, 21+depth)
	}

	// Another call has the endpoint.
	out := make(chan error, 1)
	go func() { _, err := h.Out(ctx, bulkOut, []byte("waits")); out <- err }()
	until("", usb.ErrNoRoom)
	for { // what was posted before the call had the endpoint came first
		buf := make([]byte, 512)
		n, err := dev.OutPipe(bulkOut).Read(ctx, buf)
		if err != nil {
			t.Fatal(err)
		}
		if string(buf[:n]) == "waits" {
			break
		}
	}
	if err := <-out; err != nil {
		t.Error(err)
	}

	// One that is stalled is told by one behind it, and nothing else is wrong then.
	dev.Halt(bulkOut)
	until("stalled", usb.ErrStall)
	if err := h.ClearHalt(ctx, bulkOut); err != nil {
		t.Fatal(err)
	}
	for err := usb.ErrStall; errors.Is(err, usb.ErrStall); { // those in flight behind it
		err = post("again")
	}
	for got := "stalled"; got != "again"; { // what was in flight when the halt ended may come before
		buf := make([]byte, 512)
		n, err := dev.OutPipe(bulkOut).Read(ctx, buf)
		if got = string(buf[:n]); err != nil || got != "again" && got != "stalled" {
			t.Fatalf("the device got %q, %v; expected \"again\"", got, err)
		}
	}

	// What is in flight when the handle is closed is nobody's.
	for range depth {
		_ = post("left")
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := post("closed"); err == nil {
		t.Error("a closed handle posts")
	}
}
