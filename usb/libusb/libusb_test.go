package libusb

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/gousb"

	"snag/internal/lab"
	"snag/sim/imx"
	"snag/sim/usbdev"
	"snag/sim/usbtest"
	"snag/sim/vhci"
	"snag/sim/virtual"
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
	interfaces uint8 // bNumInterfaces
}

func newOdd(fn usbdev.Function, ifaces ...usbdev.Interface) odd {
	return odd{usbdev.NewGadget(&usbdev.Descriptors{
		Speed: usbdev.HighSpeed, ID: usb.ID{Vendor: 0x1209, Product: 0x0003},
		Configs: []usbdev.Config{{Value: 1, Interfaces: ifaces}},
	}, fn), uint8(len(ifaces))}
}

// Control counts settings where the gadget counts interfaces.
func (o odd) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	n, err := o.Gadget.Control(ctx, s, data)
	if s.Type == 0x80 && s.Request == usb.ReqGetDescriptor && s.Value>>8 == 2 && n > 4 {
		data[4] = o.interfaces
	}
	return n, err
}

// settings keeps the last alternate setting.
type settings struct{ alt atomic.Int32 }

func (f *settings) Configured(uint8)          {}
func (f *settings) Selected(_, setting uint8) { f.alt.Store(int32(setting)) }
func (f *settings) Control(context.Context, usb.Setup, []byte) (int, error) {
	return 0, usb.ErrStall
}

// TestKernelOddNumber claims an interface that is not at the place of its number in its configuration.
func TestKernelOddNumber(t *testing.T) {
	lab.Inside(t)
	var fn settings
	dev := newOdd(&fn, usbdev.Interface{Number: 4, Class: 0xff}, usbdev.Interface{Number: 4, Alt: 1, Class: 0xff})
	h, err := Host{}.Open(t.Context(), plug(t, dev))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Claim(t.Context(), 4); err != nil {
		t.Error(err)
	}
	if err := h.SetAlt(t.Context(), 4, 1); err != nil || fn.alt.Load() != 1 {
		t.Errorf("setting %d, %v", fn.alt.Load(), err)
	}
}

// TestKernelTwice has a device that describes an interface in two places.
func TestKernelTwice(t *testing.T) {
	lab.Inside(t)
	d := plug(t, newOdd(&settings{}, usbdev.Interface{Number: 0, Class: 0xff}, usbdev.Interface{Number: 1, Class: 0xff}, usbdev.Interface{Number: 0, Class: 0xff}))
	h, err := Host{}.Open(t.Context(), d)
	if err == nil {
		h.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "does not bear") {
		t.Errorf("%v; if gousb bears it doc.go is out of date", err)
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

// TestKernelRecover recovers boards by the command, one for each kind of transfer that boot ROMs use.
func TestKernelRecover(t *testing.T) {
	lab.Inside(t)
	for _, tc := range []struct{ model, slot string }{
		{"imx53", "u-boot-with-dcd"}, // bulk both ways
		{"imx6q", "u-boot-with-dcd"}, // SET_REPORT, interrupt IN
		{"imx8mm", "flash-bin"},      // and SPL on the same port
		{"imx93", "flash-bin"},       // interrupt OUT
	} {
		t.Run(tc.model, func(t *testing.T) {
			model, err := imx.FindModel(tc.model)
			if err != nil {
				t.Fatal(err)
			}
			cfg := imx.Config{Model: model}
			images, err := imx.Generate(cfg, 300_000, 1)
			if err != nil {
				t.Fatal(err)
			}
			board, err := imx.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			yaml := filepath.Join(dir, "board.yaml")
			for name, data := range map[string][]byte{
				filepath.Join(dir, "first.bin"): images.First,
				yaml:                            []byte("paths-relative-to: THIS_FILE\n" + tc.slot + ":\n  path: first.bin\n"),
			} {
				if err := os.WriteFile(name, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			port, err := vhci.Open("")
			if err != nil {
				t.Fatal(err)
			}
			ctx, unplug := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- board.Run(ctx, port) }()
			defer func() {
				unplug()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}()
			out, err := exec.CommandContext(t.Context(), "snag-libusb", "recover", "-soc", tc.model, "-f", yaml, "-usb-path", string(port.Name()), "-timeout", "2m").CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s\n%+v", err, out, board.Report())
			}
			<-board.Settled()
			if r := board.Report(); r.Outcome != virtual.Booted || len(r.Violations) > 0 {
				t.Errorf("%s\n%+v", out, r)
			}
		})
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
