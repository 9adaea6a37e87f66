package libusb

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/google/gousb"

	"snag/internal/lab"
	"snag/sim/usbdev"
	"snag/sim/usbtest"
	"snag/sim/vhci"
	"snag/usb"
)

// cannot is what gousb keeps this transport from.
var cannot = map[string]string{}

// TestKernelSuite runs the tests that every transport has to pass.
func TestKernelSuite(t *testing.T) {
	lab.Inside(t)
	l := usbtest.Lab{Host: Host{}, Cannot: cannot}
	var taken []*vhci.Port
	for range 5 {
		port, err := vhci.Open("", taken...)
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, port)
		l.Ports = append(l.Ports, port)
	}
	if peer, err := (Host{}).Peer(taken[0].Name()); err == nil && peer != "" {
		super, err := vhci.Open(peer)
		if err != nil {
			t.Fatal(err)
		}
		l.Super = super
	}
	usbtest.Run(t, l)
}

// plug plugs a device in and waits until it is configured.
func plug(t *testing.T, dev interface {
	usbdev.Device
	Close()
}) usb.Device {
	t.Helper()
	port, err := vhci.Open("")
	if err != nil {
		t.Fatal(err)
	}
	if err := port.Attach(t.Context(), dev); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Detach(); dev.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	changes, err := Host{}.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range changes {
		d, err := usb.Sysfs{}.Device(port.Name())
		if err == nil && d.Config != 0 && len(d.Interfaces) > 0 {
			return d
		}
	}
	t.Fatalf("nothing on port %s", port.Name())
	panic("unreached")
}

// TestKernelList compares libusb's list, which is what other systems have, with sysfs's.
func TestKernelList(t *testing.T) {
	lab.Inside(t)
	d := plug(t, usbtest.NewDevice(usbtest.Options{}))
	lib, err := start()
	if err != nil {
		t.Fatal(err)
	}
	defer lib.Close()
	all := list(lib)
	if len(all) != 1 {
		t.Fatalf("%d devices, expected one: %+v", len(all), all)
	}
	got := all[0]
	if got.ID != d.ID || got.Release != d.Release || got.Bus != d.Bus || got.Address != d.Address || got.Speed != d.Speed || got.Config != d.Config || len(got.Interfaces) != len(d.Interfaces) {
		t.Errorf("%+v, sysfs has %+v", got, d)
	}
	if want := usb.Port(fmt.Sprintf("%d-%d", d.Bus, d.Address)); got.Port != want {
		t.Errorf("port %s, expected %s: gousb has port paths? Then doc.go is out of date", got.Port, want)
	}
	for i, want := range d.Interfaces {
		if got := got.Interfaces[i]; got.Number != want.Number || got.Class != want.Class {
			t.Errorf("interface %+v, sysfs has %+v", got, want)
		}
	}
}

// TestKernelGetDescriptors compares what the device answers with what sysfs has.
func TestKernelGetDescriptors(t *testing.T) {
	lab.Inside(t)
	h, err := Host{}.Open(t.Context(), plug(t, usbtest.NewDevice(usbtest.Options{})))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	raw, err := getDescriptors(t.Context(), h)
	if err != nil || !bytes.Equal(raw, h.Descriptors().Raw) {
		t.Errorf("% x, %v; sysfs has % x", raw, err, h.Descriptors().Raw)
	}
}

// odd is a device with descriptors that gousb panics at.
type odd struct {
	*usbdev.Gadget
	alt uint8
}

func newOdd(ifaces ...usbdev.Interface) *odd {
	o := &odd{}
	o.Gadget = usbdev.NewGadget(&usbdev.Descriptors{
		Speed: usbdev.HighSpeed, ID: usb.ID{Vendor: 0x1209, Product: 0x0003},
		Configs: []usbdev.Config{{Value: 1, Interfaces: ifaces}},
	}, o)
	return o
}

func (o *odd) Configured(uint8)          {}
func (o *odd) Selected(_, setting uint8) { o.alt = setting }

// TestKernelOddNumber claims an interface that is not at the place of its number in its configuration.
func TestKernelOddNumber(t *testing.T) {
	lab.Inside(t)
	dev := newOdd(usbdev.Interface{Number: 4, Class: 0xff}, usbdev.Interface{Number: 4, Alt: 1, Class: 0xff})
	h, err := Host{}.Open(t.Context(), plug(t, dev))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Claim(t.Context(), 4); err != nil {
		t.Error(err)
	}
	if err := h.SetAlt(t.Context(), 4, 1); err != nil || dev.alt != 1 {
		t.Errorf("setting %d, %v", dev.alt, err)
	}
}

// TestKernelTwice has a device that describes an interface in two places.
func TestKernelTwice(t *testing.T) {
	lab.Inside(t)
	d := plug(t, newOdd(usbdev.Interface{Number: 0, Class: 0xff}, usbdev.Interface{Number: 1, Class: 0xff}, usbdev.Interface{Number: 0, Class: 0xff}))
	if h, err := (Host{}).Open(t.Context(), d); err == nil {
		t.Error("gousb bears it: doc.go is out of date")
		h.Close()
	}
}

// TestKernelNoAccess opens a device as an ordinary user, first in vain, then while permission is given.
func TestKernelNoAccess(t *testing.T) {
	lab.Inside(t)
	const given = "SNAG_TEST_DEVICE"
	if port := os.Getenv(given); port != "" {
		d, err := usb.Sysfs{}.Device(usb.Port(port))
		if err != nil {
			t.Fatal(err)
		}
		h, err := Host{}.Open(t.Context(), d)
		var access *usb.AccessError
		if !errors.As(err, &access) {
			t.Fatalf("%v, expected an *usb.AccessError", err)
		}
		fmt.Println("refused")
		for err != nil {
			if h, err = (Host{}).Open(t.Context(), d); err != nil && !errors.As(err, &access) {
				t.Fatal(err)
			}
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		return
	}
	d := plug(t, usbtest.NewDevice(usbtest.Options{}))
	cmd := exec.CommandContext(t.Context(), "/lab/test", "-test.run", "^TestKernelNoAccess$", "-test.v")
	cmd.Env = append(os.Environ(), given+"="+string(d.Port))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1001, Gid: 1001}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(&all, lines.Text())
		if lines.Text() == "refused" {
			if err := os.Chmod(d.Node, 0o666); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !bytes.Contains(all.Bytes(), []byte("--- PASS")) {
		t.Errorf("%v\n%s", err, all.Bytes())
	}
}

// TestKernelCommand lists the device by the command.
func TestKernelCommand(t *testing.T) {
	lab.Inside(t)
	d := plug(t, usbtest.NewDevice(usbtest.Options{}))
	out, err := exec.CommandContext(t.Context(), "snag-libusb", "list").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte(string(d.Port)+"   1209:0001")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestNoLibusb lets libusb not start, since the process may have no more files: gousb panics.
func TestNoLibusb(t *testing.T) {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	lib, err := start()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err == nil {
		lib.Close()
	}
	if err == nil || codeOf(err) == gousb.Success {
		t.Errorf("%v, expected libusb's reason", err)
	}
}

func TestCause(t *testing.T) {
	for _, tc := range []struct{ err, want error }{
		{gousb.ErrorPipe, usb.ErrStall},
		{gousb.TransferStall, usb.ErrStall},
		{gousb.ErrorNoDevice, usb.ErrGone},
		{gousb.TransferOverflow, usb.ErrOverflow},
		{gousb.ErrorIO, usb.ErrProtocol},
		{gousb.ErrorTimeout, context.DeadlineExceeded},
		{fmt.Errorf("failed to claim interface 0 on x: %v", gousb.ErrorBusy), usb.ErrBusy},
		{fmt.Errorf("libusb: 1 [code -6] and more"), nil},
		{os.ErrClosed, os.ErrClosed},
	} {
		got := cause(tc.err)
		if tc.want == nil {
			tc.want = tc.err
		}
		if !errors.Is(got, tc.want) || !errors.Is(got, tc.err) {
			t.Errorf("%v is %v, expected %v", tc.err, got, tc.want)
		}
	}
	for _, status := range []gousb.TransferStatus{gousb.TransferCompleted, gousb.TransferCancelled} {
		if got := cause(status); got != error(status) {
			t.Errorf("%v is %v", status, got)
		}
	}
}
