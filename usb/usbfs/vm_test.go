//go:build linux

package usbfs_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/usbdev"
	"snag/sim/usbtest"
	"snag/sim/vhci"
	"snag/usb"
	"snag/usb/usbfs"
)

// TestVM runs the TestKernel tests in one VM.
func TestVM(t *testing.T) {
	lab.GoTest(t, ".", "^TestKernel", lab.Job{Script: "modprobe -a vhci-hcd usbhid", Udev: true, Timeout: 9 * time.Minute})
}

// TestKernelSuite runs the suite of all transports.
func TestKernelSuite(t *testing.T) {
	lab.Inside(t)
	suite := usbtest.Lab{Host: usbfs.Host{}}
	var taken []*vhci.Port
	for range 5 {
		p, err := vhci.Open("", taken...)
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, p)
		suite.Ports = append(suite.Ports, p)
	}
	if peer, err := (usbfs.Host{}).Peer(taken[0].Name()); err == nil && peer != "" {
		super, err := vhci.Open(peer)
		if err != nil {
			t.Fatal(err)
		}
		suite.Super = super
	}
	usbtest.Run(t, suite)
}

// gadget is a vendor device with an endpoint of each kind and direction; what it receives on an OUT endpoint it sends
// on the IN endpoint of the same number, if asked to. Vendor request 1 keeps data, 2 returns it, 3 stalls, 4 never ends.
// Interface 1 is a HID device.
type gadget struct {
	*usbdev.Gadget
	kept []byte
}

func newGadget() *gadget {
	g := &gadget{}
	hid := []byte{9, 0x21, 0x11, 0x01, 0, 1, 0x22, byte(len(hidReport)), 0}
	g.Gadget = usbdev.NewGadget(&usbdev.Descriptors{
		Speed: usbdev.HighSpeed, ID: usb.ID{Vendor: 0x1209, Product: 0x0001}, Release: 0x0100, Product: "loopback", Serial: "1",
		Configs: []usbdev.Config{{Value: 1, Interfaces: []usbdev.Interface{
			{Number: 0, Class: 0xff, Endpoints: []usbdev.Endpoint{
				{Address: 0x01, Type: usbdev.Bulk, MaxPacket: 512}, {Address: 0x81, Type: usbdev.Bulk, MaxPacket: 512},
				{Address: 0x02, Type: usbdev.Interrupt, MaxPacket: 1024, Interval: 1}, {Address: 0x82, Type: usbdev.Interrupt, MaxPacket: 64, Interval: 1},
			}},
			{Number: 1, Class: 3, Extra: hid, Endpoints: []usbdev.Endpoint{{Address: 0x83, Type: usbdev.Interrupt, MaxPacket: 8, Interval: 4}}},
		}}, {Value: 2, Interfaces: []usbdev.Interface{{Number: 0, Class: 0xff}}}},
	}, g)
	return g
}

// hidReport describes a vendor's report of 8 bytes (HID 1.11, section 6.2.2).
var hidReport = []byte{0x06, 0, 0xff, 0x09, 1, 0xa1, 1, 0x15, 0, 0x26, 0xff, 0, 0x75, 8, 0x95, 8, 0x09, 1, 0x81, 2, 0xc0}

func (g *gadget) Configured(uint8)      {}
func (g *gadget) Selected(uint8, uint8) {}

func (g *gadget) control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	switch {
	case s.Type == 0x81 && s.Request == 6: // the HID report descriptor
		return copy(data, hidReport), nil
	case s.Type&0x7f == 0x21: // SET_IDLE
		return len(data), nil
	case s.Request == 1:
		g.kept = bytes.Clone(data)
		return len(data), nil
	case s.Request == 2:
		return copy(data, g.kept), nil
	case s.Request == 4:
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return 0, usb.ErrStall
}

func (g *gadget) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	if s.Standard() && s.Type != 0x81 {
		return g.Gadget.Control(ctx, s, data)
	}
	return g.control(ctx, s, data)
}

// plug plugs a gadget in and opens it.
func plug(t testing.TB) (*gadget, *vhci.Port, *usbfs.Handle) {
	t.Helper()
	port, err := vhci.Open("")
	if err != nil {
		t.Fatal(err)
	}
	g := newGadget()
	if err := port.Attach(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Detach(); g.Close() })
	d := find(t, port.Name())
	h, err := usbfs.Host{}.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return g, port, h.(*usbfs.Handle)
}

// find waits for a configured device on a port.
func find(t testing.TB, port usb.Port) usb.Device {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	changes, err := usbfs.Host{}.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range changes {
		devices, err := usbfs.Host{}.Devices()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range devices {
			if d.Port == port && d.Config != 0 && len(d.Interfaces) == 2 && d.Interfaces[1].Driver != "" {
				return d
			}
		}
	}
	t.Fatalf("nothing on port %s", port)
	panic("unreached")
}

func claim(t testing.TB, h *usbfs.Handle, iface uint8) {
	t.Helper()
	if err := h.Claim(t.Context(), iface); err != nil {
		t.Fatal(err)
	}
}

func TestKernelControl(t *testing.T) {
	lab.Inside(t)
	_, _, h := plug(t)
	ctx := t.Context()
	for _, n := range []int{0, 1, 64, 4096, 65535} {
		sent := bytes.Repeat([]byte{byte(n), 1, 2}, n)[:n]
		if m, err := h.Control(ctx, usb.Setup{Type: 0x40, Request: 1, Length: uint16(n)}, sent); m != n || err != nil {
			t.Fatalf("%d bytes out: %d, %v", n, m, err)
		}
		got := make([]byte, 65535)
		if m, err := h.Control(ctx, usb.Setup{Type: 0xc0, Request: 2, Length: 65535}, got); m != n || err != nil || !bytes.Equal(got[:m], sent) {
			t.Fatalf("%d bytes in: %d, %v", n, m, err)
		}
	}
	if _, err := h.Control(ctx, usb.Setup{Type: 0x40, Request: 3}, nil); !errors.Is(err, usb.ErrStall) {
		t.Errorf("%v, expected a stall", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := h.Control(short, usb.Setup{Type: 0x40, Request: 4}, nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 2*time.Second {
		t.Errorf("%v after %v, expected a timeout after 50 ms", err, time.Since(begin))
	}
	if s, err := usb.String(ctx, h, h.Descriptors().Product); s != "loopback" || err != nil {
		t.Errorf("product %q, %v", s, err)
	}
}

func TestKernelBulk(t *testing.T) {
	lab.Inside(t)
	g, _, h := plug(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := h.Out(ctx, 1, []byte{1}); err == nil || !strings.Contains(err.Error(), "not claimed") {
		t.Errorf("%v, expected to be told to claim", err)
	}
	claim(t, h, 0)
	for _, ep := range []uint8{1, 2} {
		for _, n := range []int{0, 1, 512, 513, 64 << 10, 16 << 20} {
			sent := make([]byte, n)
			for i := range sent {
				sent[i] = byte(i*7 + i>>9)
			}
			got := make([]byte, n+1024)
			received := make(chan int, 1)
			go func() {
				total := 0
				for total < n || n == 0 {
					m, err := g.OutPipe(ep).Read(ctx, got[total:n])
					total += m
					if err != nil || n == 0 {
						break
					}
				}
				received <- total
			}()
			if m, err := h.Out(ctx, ep, sent); m != n || err != nil {
				t.Fatalf("endpoint %d: %d bytes out: %d, %v", ep, n, m, err)
			}
			if m := <-received; m != n || !bytes.Equal(got[:m], sent) {
				t.Fatalf("endpoint %d: the gadget received %d of %d bytes, or others", ep, m, n)
			}
			go func() {
				g.InPipe(0x80|ep).Write(ctx, sent)
			}()
			if m, err := h.In(ctx, 0x80|ep, got[:n]); m != n || err != nil || !bytes.Equal(got[:m], sent) {
				t.Fatalf("endpoint %d: %d bytes in: %d, %v", ep, n, m, err)
			}
		}
	}
}

func TestKernelUnplug(t *testing.T) {
	lab.Inside(t)
	g, port, h := plug(t)
	claim(t, h, 0)
	errs := make(chan error)
	go func() { _, err := h.In(t.Context(), 0x81, make([]byte, 512)); errs <- err }()
	go func() { _, err := h.Out(t.Context(), 0x01, make([]byte, 1<<20)); errs <- err }()
	time.Sleep(100 * time.Millisecond)
	port.Detach()
	g.Close()
	for range 2 {
		if err := <-errs; !errors.Is(err, usb.ErrGone) {
			t.Errorf("%v, expected ErrGone", err)
		}
	}
	select {
	case <-h.Gone():
	case <-time.After(5 * time.Second):
		t.Error("Gone is not closed")
	}
	if _, err := h.Control(t.Context(), usb.Setup{Type: 0xc0, Request: 2}, nil); !errors.Is(err, usb.ErrGone) {
		t.Errorf("%v, expected ErrGone", err)
	}
	if _, err := (usbfs.Host{}).Open(t.Context(), h.Device()); !errors.Is(err, usb.ErrGone) {
		t.Errorf("open: %v, expected ErrGone", err)
	}
}

// TestKernelDriver checks that a kernel driver is detached and given back, and that two programs do not share.
func TestKernelDriver(t *testing.T) {
	lab.Inside(t)
	_, port, h := plug(t)
	driver := func() string {
		d, err := usb.Sysfs{}.Device(port.Name())
		if err != nil {
			t.Fatal(err)
		}
		return d.Interfaces[1].Driver
	}
	other, err := usbfs.Host{}.Open(t.Context(), h.Device())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, end := range []func() error{
		func() error { return h.Release(t.Context(), 1) },
		func() error { return h.Reset(t.Context()) },
		h.Close,
	} {
		claim(t, h, 1)
		if d := driver(); d != "usbfs" {
			t.Errorf("%s after Claim, expected usbfs", d)
		}
		if err := other.Claim(t.Context(), 1); !errors.Is(err, usb.ErrBusy) {
			t.Errorf("%v, expected ErrBusy", err)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	}
	if d := driver(); d != "usbhid" {
		t.Errorf("%q after Close, expected usbhid", d)
	}
	if err := other.Configure(t.Context(), 2); err != nil {
		t.Error(err)
	}
	if d, err := (usb.Sysfs{}).Device(port.Name()); err != nil || d.Config != 2 {
		t.Errorf("configuration %d, %v", d.Config, err)
	}
}

// TestKernelNothingLeft opens and closes handles with transfers in flight.
func TestKernelNothingLeft(t *testing.T) {
	lab.Inside(t)
	_, _, h := plug(t)
	fds := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := fds()
	for range 20 {
		o, err := usbfs.Host{}.Open(t.Context(), h.Device())
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Claim(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		errs := make(chan error)
		go func() { _, err := o.In(t.Context(), 0x81, make([]byte, 512)); errs <- err }()
		go func() { _, err := o.Out(t.Context(), 0x01, make([]byte, 1<<20)); errs <- err }()
		time.Sleep(5 * time.Millisecond)
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-errs; !errors.Is(err, os.ErrClosed) {
				t.Errorf("%v, expected os.ErrClosed", err)
			}
		}
	}
	if n := fds(); n != before {
		t.Errorf("%d open files, %d before", n, before)
	}
	h.Close()
	stacks := make([]byte, 1<<20)
	if stacks = stacks[:runtime.Stack(stacks, true)]; bytes.Contains(stacks, []byte("usbfs.(*Handle)")) {
		t.Errorf("goroutines are left\n%s", stacks)
	}
}
