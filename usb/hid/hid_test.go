package hid_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/usb"
	"snag/usb/hid"
)

// sdp has reports 1 (16 bytes) and 2 (1024) out, 4 (64) in.
var sdp = []byte{
	0x06, 0x00, 0xff, 0x09, 0x01, 0xa1, 0x01, 0x75, 0x08,
	0x85, 1, 0x95, 16, 0x91, 2, 0x85, 2, 0x96, 0, 4, 0x91, 2, 0x85, 4, 0x95, 64, 0x81, 2, 0xc0,
}

// board is a HID device that keeps the reports it gets: each with an i or a c in front, for the endpoint, and the
// wValue of SET_REPORT.
type board struct {
	gadget     *usbdev.Gadget
	descriptor []byte // stalled if nil
	asked      int
	got        []string
	takes      []int // how much each read of the interrupt endpoint takes; all of every report if nil
	refuses    int   // the SET_REPORT that is stalled, counted from 1; 0 for none
}

const in, out = 0x81, 0x02

func newBoard(descriptor []byte, interruptOut bool) *board {
	b := &board{descriptor: descriptor}
	endpoints := []usbdev.Endpoint{{Address: in, Type: usbdev.Interrupt, MaxPacket: 64}}
	if interruptOut {
		endpoints = append(endpoints, usbdev.Endpoint{Address: out, Type: usbdev.Interrupt, MaxPacket: 1024})
	}
	b.gadget = usbdev.NewGadget(&usbdev.Descriptors{
		Speed: usbdev.HighSpeed, ID: usb.ID{Vendor: 0x15a2, Product: 0x54},
		Configs: []usbdev.Config{{Value: 1, Interfaces: []usbdev.Interface{
			{Number: 0, Class: 0xff},
			{Number: 1, Class: 3, Extra: []byte{9, 0x21, 0x10, 1, 0, 1, 0x22, byte(len(descriptor)), 0}, Endpoints: endpoints},
		}}},
	}, b)
	return b
}

func (b *board) Configured(uint8)        {}
func (b *board) Selected(_, _ uint8)     {}
func (b *board) keep(s string, d []byte) { b.got = append(b.got, fmt.Sprintf("%s %x", s, d)) }
func (b *board) Control(_ context.Context, s usb.Setup, data []byte) (int, error) {
	switch {
	case s.Type == 0x81 && s.Request == usb.ReqGetDescriptor && s.Index == 1 && s.Value == 0x2200 && b.descriptor != nil:
		b.asked++
		return copy(data, b.descriptor), nil
	case s.Type == 0x21 && s.Request == 9 && s.Index == 1:
		if len(b.got)+1 == b.refuses {
			return 0, usb.ErrStall
		}
		b.keep(fmt.Sprintf("c%04x", s.Value), data)
		return len(data), nil
	}
	return 0, usb.ErrStall
}

// serve keeps the reports of the interrupt endpoint, each a transfer.
func (b *board) serve(ctx context.Context) {
	for i := 0; b.gadget.OutPipe(out) != nil; i++ {
		buf := make([]byte, 1025)
		if b.takes != nil {
			if i == len(b.takes) {
				return
			}
			buf = buf[:b.takes[i]]
		}
		n, err := b.gadget.OutPipe(out).Read(ctx, buf)
		if err != nil {
			return
		}
		b.keep("i", buf[:n])
	}
}

// open plugs a board in and opens it.
func open(t *testing.T, b *board) (usb.Handle, *hid.Device) {
	t.Helper()
	host := inproc.New()
	port := host.Port("1-1")
	ctx, cancel := context.WithCancel(t.Context())
	go b.serve(ctx)
	if err := port.Attach(ctx, b.gadget); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	list, err := host.Devices()
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	h, err := host.Open(ctx, list[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(); port.Detach(); cancel() })
	b.asked = 0
	d, err := hid.Open(ctx, h)
	if err != nil {
		t.Fatal(err)
	}
	return h, d
}

func TestSend(t *testing.T) {
	for _, tc := range []struct {
		name       string
		descriptor []byte
		out, force bool
		id         uint8
		padTo      int
		want       string
	}{
		{name: "interrupt", descriptor: sdp, out: true, id: 1, padTo: 4, want: "i 01aabb0000"},
		{name: "no padding", descriptor: sdp, out: true, id: 1, want: "i 01aabb"},
		{name: "control", descriptor: sdp, id: 2, padTo: 3, want: "c0202 02aabb00"},
		{name: "forced control", descriptor: sdp, out: true, force: true, id: 1, want: "c0201 01aabb"},
		{name: "no report ID", descriptor: []byte{0x75, 8, 0x95, 2, 0x91, 2}, want: "c0200 aabb"},
		{name: "no descriptor", id: 1, out: true, want: "i 01aabb"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBoard(tc.descriptor, tc.out)
				_, d := open(t, b)
				if b.descriptor != nil && b.asked != 1 {
					t.Errorf("the report descriptor was asked for %d times", b.asked)
				}
				d.ForceControl = tc.force
				if err := d.Send(t.Context(), tc.id, []byte{0xaa, 0xbb}, tc.padTo); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if !slices.Equal(b.got, []string{tc.want}) {
					t.Errorf("the board got %q, expected %q", b.got, tc.want)
				}
			})
		})
	}
}

// TestSendAll sends 5000 bytes in reports of 1024.
func TestSendAll(t *testing.T) {
	data := make([]byte, 5000)
	for i := range data {
		data[i] = byte(i ^ i>>8)
	}
	var want [][]byte
	for p := range slices.Chunk(data, 1024) {
		want = append(want, append(append([]byte{2}, p...), make([]byte, 1024-len(p))...))
	}
	for _, interrupt := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newBoard(sdp, interrupt)
			_, d := open(t, b)
			n, err := d.SendAll(t.Context(), 2, 1024, 0, slices.Chunk(data, 1024))
			if n != int64(len(data)) || err != nil {
				t.Errorf("interrupt %t: %d bytes, %v", interrupt, n, err)
			}
			synctest.Wait()
			way := "c0202"
			if interrupt {
				way = "i"
			}
			for i := range want {
				if s := fmt.Sprintf("%s %x", way, want[i]); i >= len(b.got) || b.got[i] != s {
					t.Errorf("interrupt %t: report %d is not what was sent", interrupt, i)
				}
			}
			if len(b.got) != len(want) {
				t.Errorf("interrupt %t: %d reports, expected %d", interrupt, len(b.got), len(want))
			}
		})
	}
}

// TestSendAllStuck has a board that takes four reports, and of the fifth one the first packet.
func TestSendAllStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(sdp, true)
		b.takes = []int{1025, 1025, 1025, 1025, 1024}
		_, d := open(t, b)
		n, err := d.SendAll(t.Context(), 2, 1024, time.Second, slices.Chunk(make([]byte, 20480), 1024))
		if n != 4*1024+1023 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

// TestSendAllRefused has a board that stalls the fifth report that comes by SET_REPORT.
func TestSendAllRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(sdp, false)
		b.refuses = 5
		_, d := open(t, b)
		n, err := d.SendAll(t.Context(), 2, 1024, time.Second, slices.Chunk(make([]byte, 20000), 1024))
		if n != 4*1024 || !errors.Is(err, usb.ErrStall) || len(b.got) != 4 {
			t.Errorf("%d bytes, %v; the board got %d reports", n, err, len(b.got))
		}
		if n, err := d.SendAll(t.Context(), 2, 1<<16, time.Second, slices.Values([][]byte{make([]byte, 1<<16)})); n != 0 || err == nil {
			t.Errorf("a report that SET_REPORT cannot carry: %d bytes, %v", n, err)
		}
	})
}

func TestReceive(t *testing.T) {
	for _, tc := range []struct {
		name       string
		descriptor []byte
		sent       []byte
		id         uint8
		want       []byte
	}{
		{"short", sdp, []byte{3, 0x56, 0x78, 0x78, 0x56}, 3, []byte{0x56, 0x78, 0x78, 0x56}},
		{"more than a packet", sdp, append([]byte{4}, bytes.Repeat([]byte{7}, 64)...), 4, bytes.Repeat([]byte{7}, 64)},
		{"no report ID, a whole packet", []byte{0x75, 8, 0x95, 64, 0x81, 2}, bytes.Repeat([]byte{7}, 64), 0, bytes.Repeat([]byte{7}, 64)},
		{"longer than stated", []byte{0x75, 8, 0x95, 2, 0x81, 2}, []byte("five!"), 0, []byte("five!")},
		{"no descriptor", nil, append([]byte{4}, bytes.Repeat([]byte{7}, 64)...), 4, bytes.Repeat([]byte{7}, 64)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBoard(tc.descriptor, true)
				_, d := open(t, b)
				go b.gadget.InPipe(in).Write(t.Context(), tc.sent)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				id, got, err := d.Receive(ctx)
				if id != tc.id || !bytes.Equal(got, tc.want) || err != nil {
					t.Errorf("report %d, % x, %v", id, got, err)
				}
			})
		})
	}
}

func TestReceiveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(sdp, true)
		_, d := open(t, b)
		go b.gadget.InPipe(in).Write(t.Context(), nil)
		if _, _, err := d.Receive(t.Context()); err == nil {
			t.Error("an empty report has an ID")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := d.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, expected the deadline", err)
		}
	})
}

// TestRelease checks who holds the interface.
func TestRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, d := open(t, newBoard(sdp, true))
		if _, err := hid.Open(t.Context(), h); err != nil {
			t.Errorf("opened twice: %v", err)
		}
		if err := d.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := d.Send(t.Context(), 1, nil, 16); err == nil {
			t.Error("a report after the release")
		}
	})
}

func TestOpenNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := inproc.New()
		g := usbdev.NewGadget(&usbdev.Descriptors{Configs: []usbdev.Config{{Value: 1, Interfaces: []usbdev.Interface{{Class: 0xff}}}}}, newBoard(nil, false))
		host.Port("1-1").Attach(t.Context(), g)
		defer host.Port("1-1").Detach()
		synctest.Wait()
		list, _ := host.Devices()
		h, err := host.Open(t.Context(), list[0])
		if err != nil {
			t.Fatal(err)
		}
		if d, err := hid.Open(t.Context(), h); err == nil {
			t.Errorf("%v, %v", d, err)
		}
	})
}
