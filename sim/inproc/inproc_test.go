package inproc

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"snag/sim/usbdev"
	"snag/usb"
)

// recorder is a function that answers everything and keeps the standard requests that reach it.
type recorder struct {
	configured []uint8
	selected   [][2]uint8
	requests   []usb.Setup
}

func (r *recorder) Configured(v uint8)        { r.configured = append(r.configured, v) }
func (r *recorder) Selected(iface, alt uint8) { r.selected = append(r.selected, [2]uint8{iface, alt}) }
func (r *recorder) Control(_ context.Context, s usb.Setup, data []byte) (int, error) {
	r.requests = append(r.requests, s)
	return len(data), nil
}

func gadget(id uint16, speed usbdev.Speed) (*usbdev.Gadget, *recorder) {
	r := &recorder{}
	return usbdev.NewGadget(&usbdev.Descriptors{
		Speed: speed, ID: usb.ID{Vendor: 0x1234, Product: id}, Manufacturer: "maker", Product: "thing",
		Configs: []usbdev.Config{{Value: 3, Interfaces: []usbdev.Interface{
			{Number: 0, Class: 3, Extra: []byte{9, 0x21, 0x10, 1, 0, 1, 0x22, 52, 0},
				Endpoints: []usbdev.Endpoint{{Address: 0x81, Type: usbdev.Interrupt, MaxPacket: 64}}},
			{Number: 1, Class: 0xff, Endpoints: []usbdev.Endpoint{{Address: 0x02, Type: usbdev.Bulk, MaxPacket: 512}}},
			{Number: 1, Alt: 1, Class: 0xff, Endpoints: []usbdev.Endpoint{{Address: 0x03, Type: usbdev.Bulk, MaxPacket: 512}}},
		}}, {Value: 1}},
	}, r), r
}

func one(t *testing.T, h *Host) usb.Device {
	t.Helper()
	synctest.Wait()
	list, err := h.Devices()
	if err != nil || len(list) != 1 {
		t.Fatalf("%d devices, %v", len(list), err)
	}
	return list[0]
}

func TestEnumeration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New()
		g, r := gadget(1, usbdev.HighSpeed)
		port := h.Port("1-2.3")
		if err := port.Attach(t.Context(), g); err != nil {
			t.Fatal(err)
		}
		want := usb.Device{
			Port: "1-2.3", ID: usb.ID{Vendor: 0x1234, Product: 1}, Bus: 1, Address: 1, Speed: "480", Config: 3,
			Manufacturer: "maker", Product: "thing",
			Interfaces: []usb.Interface{{Number: 0, Class: 3, Driver: "usbhid"}, {Number: 1, Class: 0xff}},
		}
		if d := cmp.Diff(want, one(t, h)); d != "" {
			t.Errorf("device (-want +got):\n%s", d)
		}
		if d := cmp.Diff([]usb.Setup{
			{Type: 0x21, Request: 0x0a},
			{Type: 0x81, Request: 6, Value: 0x2200, Length: 52},
		}, r.requests); d != "" {
			t.Errorf("usbhid's requests (-want +got):\n%s", d)
		}
		if !cmp.Equal(r.configured, []uint8{3}) || r.selected != nil {
			t.Errorf("configurations %v and settings %v were selected", r.configured, r.selected)
		}
		if err := port.Attach(t.Context(), g); err == nil {
			t.Error("two devices in one port")
		}
		if err := port.Detach(); err != nil {
			t.Fatal(err)
		}
		if list, _ := h.Devices(); len(list) != 0 {
			t.Errorf("after the detach: %v", list)
		}
		port.Attach(t.Context(), g)
		if d := one(t, h); d.Address != 2 {
			t.Errorf("device number %d, expected the next", d.Address)
		}
		port.Detach()
	})
}

// TestReleasedInterface checks what Linux does when an interface is given back.
func TestReleasedInterface(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New()
		g, r := gadget(1, usbdev.HighSpeed)
		h.Port("1-1").Attach(t.Context(), g)
		defer h.Port("1-1").Detach()
		dev, err := h.Open(t.Context(), one(t, h))
		if err != nil {
			t.Fatal(err)
		}
		for iface := range uint8(2) {
			if err := dev.Claim(t.Context(), iface); err != nil {
				t.Fatal(err)
			}
		}
		if err := dev.SetAlt(t.Context(), 1, 1); err != nil {
			t.Fatal(err)
		}
		if d := one(t, h); d.Interfaces[0].Driver != "" {
			t.Errorf("driver %s on a claimed interface", d.Interfaces[0].Driver)
		}
		dev.Close()
		if d := one(t, h); d.Interfaces[0].Driver != "usbhid" {
			t.Error("usbhid did not get its interface back")
		}
		if d := cmp.Diff([][2]uint8{{1, 1}, {1, 0}}, r.selected); d != "" {
			t.Errorf("settings (-want +got):\n%s", d)
		}
	})
}

// TestPairedBuses lets a board come back at another speed.
func TestPairedBuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Pair{1, 2})
		port := h.Port("2-3")
		for _, tc := range []struct {
			speed usbdev.Speed
			want  usb.Port
			mbps  string
		}{{usbdev.HighSpeed, "1-3", "480"}, {usbdev.SuperSpeed, "2-3", "5000"}, {usbdev.FullSpeed, "1-3", "12"}} {
			g, _ := gadget(1, tc.speed)
			if err := port.Attach(t.Context(), g); err != nil {
				t.Fatal(err)
			}
			d := one(t, h)
			if d.Port != tc.want || d.Speed != tc.mbps {
				t.Errorf("speed %d: port %s, %s Mbit/s, expected %s", tc.speed, d.Port, d.Speed, tc.want)
			}
			if peer, err := h.Peer(d.Port); err != nil || peer == d.Port || h.Port(peer) != port {
				t.Errorf("the peer of %s is %s, %v", d.Port, peer, err)
			}
			port.Detach()
		}
		if peer, err := h.Peer("3-1"); peer != "" || err != nil {
			t.Errorf("peer of an unpaired port: %s, %v", peer, err)
		}
	})
}

// TestStreamBounds lets a device take nothing: how much does the host read ahead?
func TestStreamBounds(t *testing.T) {
	for _, tc := range []struct{ size, want int }{{100, maxFlights}, {300 << 10, 4}, {8 << 20, 1}} {
		synctest.Test(t, func(t *testing.T) {
			h := New()
			g, _ := gadget(1, usbdev.HighSpeed)
			h.Port("1-1").Attach(t.Context(), g)
			defer h.Port("1-1").Detach()
			dev, err := h.Open(t.Context(), one(t, h))
			if err != nil {
				t.Fatal(err)
			}
			dev.Claim(t.Context(), 1)
			taken := 0
			data := bytes.Repeat([]byte{1}, tc.size)
			n, err := dev.Stream(t.Context(), 0x02, time.Second, func(yield func([]byte) bool) {
				for {
					taken++
					if !yield(data) {
						return
					}
				}
			})
			if n != 0 || !errors.Is(err, context.DeadlineExceeded) || taken != tc.want {
				t.Errorf("%d bytes went, %v; %d transfers of %d bytes were in flight, expected %d", n, err, taken, tc.size, tc.want)
			}
		})
	}
}

// TestResetToAnother has a device that describes itself otherwise after a reset.
func TestResetToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New()
		g, _ := gadget(1, usbdev.HighSpeed)
		h.Port("1-1").Attach(t.Context(), g)
		defer h.Port("1-1").Detach()
		dev, err := h.Open(t.Context(), one(t, h))
		if err != nil {
			t.Fatal(err)
		}
		if err := dev.Reset(t.Context()); err != nil {
			t.Errorf("reset: %v", err)
		}
		g.Descriptors().ID.Product = 2
		if err := dev.Reset(t.Context()); !errors.Is(err, usb.ErrGone) {
			t.Errorf("reset to another device: %v", err)
		}
		<-dev.Gone()
		if d := one(t, h); d.ID.Product != 2 || d.Address != 2 {
			t.Errorf("on the port now: %+v", d)
		}
		if _, err := h.Open(t.Context(), dev.Device()); !errors.Is(err, usb.ErrGone) {
			t.Errorf("open of the old device: %v", err)
		}
	})
}
