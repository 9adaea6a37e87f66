//go:build linux

package usbfs_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
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

// drivers are loaded before a device wants them.
const drivers = "modprobe -a vhci-hcd usbhid"

// TestVM runs the TestKernel tests in one VM.
func TestVM(t *testing.T) {
	lab.GoTest(t, ".", "^TestKernel", lab.Job{Script: drivers, Udev: true, Timeout: 9 * time.Minute})
}

// TestKernelSuite runs the suite of all transports.
func TestKernelSuite(t *testing.T) {
	lab.Inside(t)
	const ports = 8
	suite := usbtest.Lab{Host: usbfs.Host{}, AtOnce: ports}
	var taken []*vhci.Port
	for range ports {
		p, err := vhci.OpenApart(taken...)
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

// Endpoints of a usbtest.Device's interface 0: bulk, and in alternate setting 1 interrupt with packets of 1024 bytes.
const (
	bulkIn, bulkOut = 0x81, 0x01
	interruptOut    = 0x02
	narrowIn        = 0x83 // of interface 1: interrupt
)

// plug plugs a device in, and waits until it is configured.
func plug(t testing.TB, dev usbdev.Device) (*vhci.Port, usb.Device) {
	t.Helper()
	port, err := vhci.Open("")
	if err != nil {
		t.Fatal(err)
	}
	if err := port.Attach(t.Context(), dev); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Detach() })
	return port, await(t, port.Name(), "a device with interfaces", func(d usb.Device, there bool) bool {
		return there && d.Config != 0 && len(d.Interfaces) > 0
	})
}

// await waits until what is on a port is as it should be.
func await(t testing.TB, port usb.Port, what string, good func(d usb.Device, there bool) bool) usb.Device {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	changes, err := usbfs.Host{}.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range changes {
		d, err := usbfs.Host{}.Device(port)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if good(d, err == nil) {
			return d
		}
	}
	t.Fatalf("port %s: expected %s", port, what)
	panic("unreached")
}

// until waits until something holds of which nobody tells.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("expected that %s", what)
		}
	}
}

// open opens a device and claims its interface 0.
func open(t testing.TB, d usb.Device) usb.Handle {
	t.Helper()
	h, err := usbfs.Host{}.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := h.Claim(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	return h
}

// pending starts transfers that the device does not answer.
func pending(t *testing.T, h usb.Handle) <-chan error {
	errs := make(chan error, 2)
	go func() { _, err := h.In(t.Context(), bulkIn, make([]byte, 512)); errs <- err }()
	go func() { _, err := h.Out(t.Context(), bulkOut, make([]byte, 1<<20)); errs <- err }()
	return errs
}

// TestKernelNothingLeft opens and closes handles with transfers in flight.
func TestKernelNothingLeft(t *testing.T) {
	lab.Inside(t)
	_, d := plug(t, usbtest.NewDevice(usbtest.Options{}))
	fds := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := fds()
	for i := range 20 {
		h := open(t, d)
		errs := pending(t, h)
		time.Sleep(time.Duration(i) * time.Millisecond) // the close comes at all stages
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-errs; !errors.Is(err, os.ErrClosed) {
				t.Errorf("%v, expected os.ErrClosed", err)
			}
		}
	}
	if n := fds(); n > before {
		t.Errorf("%d open files, %d before", n, before)
	}
	all := make([]byte, 1<<20)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) { // a timer's function may be about to return
		stacks := all[:runtime.Stack(all, true)]
		if !bytes.Contains(stacks, []byte("usbfs.(*handle)")) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("goroutines are left\n%s", stacks)
		}
	}
}

// TestKernelMemory has handles that want more of the kernel's memory than there is.
func TestKernelMemory(t *testing.T) {
	lab.Inside(t)
	const parameter = "/sys/module/usbcore/parameters/usbfs_memory_mb"
	if err := os.WriteFile(parameter, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(parameter, []byte("16"), 0)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const boards, size = 4, 2 << 20
	var devices []*usbtest.Device
	errs := make(chan error, boards)
	for i := range boards {
		dev := usbtest.NewDevice(usbtest.Options{NoHID: true})
		_, d := plug(t, dev)
		h := open(t, d)
		devices = append(devices, dev)
		go func() {
			_, err := h.Out(ctx, bulkOut, bytes.Repeat([]byte{byte(i)}, size))
			errs <- err
		}()
	}
	for i, dev := range devices {
		go func() {
			buf := make([]byte, size)
			n, err := dev.OutPipe(bulkOut).Read(ctx, buf)
			if n != size || err != nil || !bytes.Equal(buf, bytes.Repeat([]byte{byte(i)}, size)) {
				t.Errorf("board %d: %d bytes, %v, or others than were sent", i, n, err)
			}
		}()
	}
	for range boards {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// held is a device that answers no control transfer to it before it is let go.
type held struct {
	usbdev.Device
	free chan struct{}
}

func (d *held) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	if s.Type == 0x40 {
		select {
		case <-d.free:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return d.Device.Control(ctx, s, data)
}

// TestKernelControlsInFlight has a device that takes nothing until many control transfers are in flight, but not all.
func TestKernelControlsInFlight(t *testing.T) {
	lab.Inside(t)
	const count, few = 1000, 40
	dev := &held{usbtest.NewDevice(usbtest.Options{}), make(chan struct{})}
	_, d := plug(t, dev)
	h := open(t, d)
	asked := 0
	n, err := h.StreamControl(t.Context(), 30*time.Second, func(yield func(usb.Setup, []byte) bool) {
		s := usb.Setup{Type: 0x40, Request: 1, Length: 1025}
		for ; asked < count && yield(s, make([]byte, 1025)); asked++ {
			if asked == few {
				close(dev.free)
			}
		}
	})
	if n != count || err != nil {
		t.Errorf("%d control transfers, %v; after %d were asked for", n, err, asked)
	}
}

// TestKernelPairs performs control transfers in pairs: in their order, the second behind one that is refused too, and
// neither for ever.
func TestKernelPairs(t *testing.T) {
	lab.Inside(t)
	_, d := plug(t, usbtest.NewDevice(usbtest.Options{}))
	h := open(t, d)
	const store, stall, silent = 1, 2, 3 // the device's requests
	pair := func(ctx context.Context, request uint8, data []byte) (first, second usb.ControlTransfer) {
		first = usb.ControlTransfer{Setup: usb.Setup{Type: 0x40, Request: request, Length: uint16(len(data))}, Data: data}
		second = usb.ControlTransfer{Setup: usb.Setup{Type: 0xc0, Request: store, Length: 6}, Data: make([]byte, 6)}
		h.(usb.Pairer).ControlPair(ctx, &first, &second)
		return first, second
	}
	for _, data := range []string{"before", "at 1st", "now"} {
		a, b := pair(t.Context(), store, []byte(data))
		if a.N != len(data) || a.Err != nil || b.Err != nil || string(b.Data[:b.N]) != data {
			t.Errorf("%+v, %+v", a, b)
		}
	}
	a, b := pair(t.Context(), stall, nil)
	if !errors.Is(a.Err, usb.ErrStall) || b.Err != nil || string(b.Data[:b.N]) != "now" {
		t.Errorf("behind a stall: %+v, %+v", a, b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	a, b = pair(ctx, silent, nil)
	if !errors.Is(a.Err, context.DeadlineExceeded) || !errors.Is(b.Err, context.DeadlineExceeded) {
		t.Errorf("without an answer: %+v, %+v", a, b)
	}
	if a, b := pair(t.Context(), store, []byte("after")); a.Err != nil || string(b.Data[:b.N]) != "after" {
		t.Errorf("afterwards: %+v, %+v", a, b)
	}
}

// changing is a device that is another one once it was reset.
type changing struct{ usbdev.Device }

func (c *changing) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	n, err := c.Device.Control(ctx, s, data)
	if s.Type == 0x40 && s.Request == 1 {
		c.Device = usbtest.NewDevice(usbtest.Options{ID: usb.ID{Vendor: 0x1209, Product: 2}})
	}
	return n, err
}

// TestKernelResetChanges resets a device that comes back as another one.
func TestKernelResetChanges(t *testing.T) {
	lab.Inside(t)
	_, d := plug(t, &changing{usbtest.NewDevice(usbtest.Options{})})
	h := open(t, d)
	if _, err := h.Control(t.Context(), usb.Setup{Type: 0x40, Request: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if err := h.Reset(t.Context()); !errors.Is(err, usb.ErrGone) {
		t.Errorf("%v, expected ErrGone", err)
	}
	select {
	case <-h.Gone():
	case <-time.After(30 * time.Second):
		t.Error("Gone is not closed")
	}
}

// TestKernelWithoutUdev is the last one in its VM: it ends udevd.
func TestKernelWithoutUdev(t *testing.T) {
	lab.Inside(t)
	if out, err := exec.Command("udevadm", "control", "--exit").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	until(t, "udevd has ended", func() bool { return exec.Command("pidof", "systemd-udevd").Run() != nil })
	os.Remove("/run/udev/control") // systemd's socket unit would keep it; here nobody is behind it
	took, said := userOpens(t, labuser)
	if !strings.HasPrefix(said, "denied: ") || !strings.Contains(said, "root:root") || took > 8*time.Second {
		t.Errorf("expected a refusal that names the owner after a second")
	}
	if _, said := userOpens(t, nil); !strings.HasPrefix(said, "opened <nil>") {
		t.Error("expected root to open the device")
	}
}
