// Package usbtest is what every transport has to pass: a suite of tests for a [usb.Host] into whose ports virtual
// devices can be plugged.
//
// [Run] is called by the tests of each transport with a [Lab]: the host, five ports or more, and the list of what the
// host cannot do, which may neither be too long nor too short. [Device] is the device that the suite plugs in; the
// tests themselves are its other end. No test asks for an answer within less than seconds: hosts may be emulated.
package usbtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"snag/sim/usbdev"
	"snag/usb"
)

// Port is a port of the host under test.
type Port interface {
	usbdev.Port
	Name() usb.Port
}

// Lab is where the suite runs.
type Lab struct {
	Host usb.Host

	// Ports are at least five free ports for devices of high speed.
	Ports []Port

	// Super is where a device of super speed is plugged into the connector that Ports[0] is a half of. It may be
	// Ports[0]. Without it, or if the Host is no [usb.Peerer], nothing is said of companion buses.
	Super usbdev.Port

	// patience bounds a step that ends quickly everywhere.
	patience time.Duration

	// Cannot names the tests that this host cannot pass, each with the reason. One that it does pass fails.
	Cannot map[string]string
}

// limit bounds a test. It is far beyond what an emulated machine needs.
const limit = 3 * time.Minute

// defaultPatience is far beyond that, too.
const defaultPatience = 30 * time.Second

// cases are all tests.
var cases = []struct {
	name string
	f    func(*T)
}{
	{"control", control},
	{"strings", stringDescriptors},
	{"descriptors", descriptors},
	{"short packets", shortPackets},
	{"early end of a large buffer", earlyEnd},
	{"zero-length packets", zeroLength},
	{"exact multiples", exactMultiples},
	{"overflow", overflow},
	{"control stall", controlStall},
	{"stall and recovery", stall},
	{"cancel", cancel},
	{"deadline", deadline},
	{"default deadline", defaultDeadline},
	{"ended context", endedContext},
	{"unplug", unplug},
	{"64 KiB", func(t *T) { large(t, 64<<10) }},
	{"16 MiB", func(t *T) { large(t, 16<<20) }},
	{"stream of wide reports", func(t *T) { stream(t, wideOut, 1025, 300) }},
	{"stream of narrow reports", func(t *T) { stream(t, narrowOut, 64, 300) }},
	{"stream of bulk transfers", func(t *T) { stream(t, bulkOut, 5000, 300) }},
	{"stream of many sizes", streamSizes},
	{"stream has several in flight", streamInFlight},
	{"stream idle", streamIdle},
	{"stream error", streamError},
	{"stream cancelled", streamCancel},
	{"stream unplugged", streamUnplug},
	{"control stream", controlStream},
	{"control stream error", controlStreamError},
	{"control stream idle", controlStreamIdle},
	{"control stream cancelled", controlStreamCancel},
	{"control stream unplugged", controlStreamUnplug},
	{"control stream refused", controlStreamRefused},
	{"two interfaces", twoInterfaces},
	{"order", order},
	{"alternate settings", settings},
	{"claim conflict", conflict},
	{"not claimed", notClaimed},
	{"kernel driver", kernelDriver},
	{"configure", configure},
	{"reset", reset},
	{"re-enumeration", reenumeration},
	{"replaced by its like", replaced},
	{"companion bus", companion},
	{"five devices", fiveDevices},
	{"watch", watch},
	{"close", closing},
}

// Run runs the suite.
func Run(t *testing.T, lab Lab) {
	if len(lab.Ports) < 5 {
		t.Fatalf("%d ports, the suite needs five", len(lab.Ports))
	}
	lab.patience = defaultPatience
	for name := range lab.Cannot {
		if find(name) == nil {
			t.Errorf("there is no test %q", name)
		}
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			begin := time.Now()
			skip, err := perform(t, &lab, c.f)
			reason, listed := lab.Cannot[c.name]
			if skip == "" {
				skip, err = judge(reason, listed, err)
			}
			if err != nil {
				t.Error(err)
			}
			if skip != "" {
				t.Skip(skip)
			}
			t.Logf("%.1f s", time.Since(begin).Seconds())
		})
	}
}

// find finds a test's function; nil if there is none.
func find(name string) func(*T) {
	for _, c := range cases {
		if c.name == name {
			return c.f
		}
	}
	return nil
}

// judge says what a test's result means for a host that has the test on its list, or has not.
func judge(reason string, listed bool, err error) (skip string, fail error) {
	switch {
	case listed && err == nil:
		return "", fmt.Errorf("this host can do it, although it is said not to: %s", reason)
	case listed:
		return fmt.Sprintf("%s: %v", reason, err), nil
	default:
		return "", err
	}
}

// T is one test. A failure is an error, not the end of a testing.T, since failures may be expected.
type T struct {
	ctx     context.Context
	lab     *Lab
	cleanup []func()

	mu     sync.Mutex
	failed []error
	skip   string
}

// errStop ends a test; what there is to say was said.
var errStop = errors.New("stop")

// perform runs a test in a goroutine of its own, so that a host that hangs is told apart.
func perform(t *testing.T, lab *Lab, f func(*T)) (skip string, err error) {
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	test := &T{ctx: ctx, lab: lab}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test.guard(func() { f(test) })
		test.guard(test.clean)
	}()
	select {
	case <-done:
	case <-time.After(limit + 2*defaultPatience):
		stacks := make([]byte, 1<<20)
		t.Fatalf("hangs\n%s", stacks[:runtime.Stack(stacks, true)])
	}
	cancel()
	if n := leaked(before, lab.patience); n > 0 {
		stacks := make([]byte, 1<<20)
		test.errorf("%d goroutines are left\n%s", n, stacks[:runtime.Stack(stacks, true)])
	}
	return test.skip, errors.Join(test.failed...)
}

// clean runs what after was given, the last one first.
func (t *T) clean() {
	for len(t.cleanup) > 0 {
		last := len(t.cleanup) - 1
		f := t.cleanup[last]
		t.cleanup = t.cleanup[:last]
		f()
	}
}

// guard runs f until it ends or stops the test.
func (t *T) guard(f func()) {
	defer func() {
		if r := recover(); r != nil && r != errStop {
			t.errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	f()
}

// leaked waits until there are no more goroutines than before, and returns how many more there are.
func leaked(before int, patience time.Duration) int {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		n := runtime.NumGoroutine() - before
		if n <= 0 || time.Now().After(end) {
			return n
		}
	}
}

func (t *T) errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = append(t.failed, fmt.Errorf(format, args...))
}

// fatalf ends the test. Only the test's own goroutine calls it.
func (t *T) fatalf(format string, args ...any) {
	t.errorf(format, args...)
	panic(errStop)
}

func (t *T) must(err error) {
	if err != nil {
		t.fatalf("%w", err)
	}
}

func (t *T) skipf(format string, args ...any) {
	t.skip = fmt.Sprintf(format, args...)
	panic(errStop)
}

func (t *T) after(f func()) { t.cleanup = append(t.cleanup, f) }

// is complains if err is not what it should be.
func (t *T) is(what string, err, want error) {
	if !errors.Is(err, want) {
		t.errorf("%s: %v; expected: %w", what, err, want)
	}
}

// step is the context of something that ends quickly.
func (t *T) step() context.Context {
	ctx, cancel := context.WithTimeout(t.ctx, t.lab.patience)
	context.AfterFunc(t.ctx, cancel) // at the latest
	return ctx
}

// wait waits for a channel.
func wait[V any](t *T, what string, ch <-chan V) (v V) {
	select {
	case v = <-ch:
	case <-t.step().Done():
		t.fatalf("%s: nothing after %v", what, t.lab.patience)
	}
	return v
}

// until waits until something holds of what the host lists.
func (t *T) until(what string, holds func([]usb.Device) bool) {
	ctx, stop := context.WithTimeout(t.ctx, t.lab.patience)
	defer stop()
	changes, err := t.lab.Host.Watch(ctx)
	t.must(err)
	for {
		select {
		case <-changes:
		case <-time.After(100 * time.Millisecond): // drivers come and go without a change of the list
		}
		list, err := t.lab.Host.Devices()
		t.must(err)
		if holds(list) {
			return
		}
		if ctx.Err() != nil {
			t.fatalf("%s: not after %v; there are %+v", what, t.lab.patience, list)
		}
	}
}

// on finds the device on a port.
func on(list []usb.Device, port usb.Port) (usb.Device, bool) {
	i := slices.IndexFunc(list, func(d usb.Device) bool { return d.Port == port })
	if i < 0 {
		return usb.Device{}, false
	}
	return list[i], true
}

// plug plugs a device in and waits until it is configured.
func (t *T) plug(i int, dev *Device) usb.Device {
	return t.plugAs(t.lab.Ports[i], t.lab.Ports[i].Name(), dev)
}

func (t *T) plugAs(port usbdev.Port, name usb.Port, dev *Device) (d usb.Device) {
	t.must(port.Attach(t.step(), dev))
	t.after(func() { t.unplug(port, name, dev) })
	count := len(dev.Descriptors().Configs[0].Interfaces) - 1 // interface 0 has two settings
	t.until("enumeration on port "+string(name), func(list []usb.Device) (ok bool) {
		d, ok = on(list, name)
		return ok && d.Config != 0 && d.ID == dev.Descriptors().ID && len(d.Interfaces) == count
	})
	return d
}

// unplug unplugs a device and waits until the host knows it.
func (t *T) unplug(port usbdev.Port, name usb.Port, dev *Device) {
	if err := port.Detach(); err != nil {
		t.errorf("unplug port %s: %w", name, err)
	}
	dev.Close()
	for end := time.Now().Add(t.lab.patience); ; time.Sleep(5 * time.Millisecond) {
		list, err := t.lab.Host.Devices()
		if _, there := on(list, name); err == nil && !there {
			return
		}
		if time.Now().After(end) {
			t.errorf("unplug port %s: the device is listed %v later (%v)", name, t.lab.patience, err)
			return
		}
	}
}

// open opens a device and claims interfaces.
func (t *T) open(d usb.Device, ifaces ...uint8) usb.Handle {
	h, err := t.lab.Host.Open(t.step(), d)
	t.must(err)
	t.after(func() { h.Close() })
	for _, iface := range ifaces {
		t.must(h.Claim(t.step(), iface))
	}
	return h
}

// board is a device that is plugged in and opened, its interfaces 0 and 1 claimed.
func (t *T) board() (*Device, usb.Handle) {
	dev := NewDevice(Options{})
	return dev, t.open(t.plug(0, dev), ifaceBulk, ifaceNarrow)
}

// result is how a transfer ended.
type result struct {
	n    int
	err  error
	data []byte
}

// start does something at the same time.
func start(f func() (int, error)) <-chan result {
	ch := make(chan result, 1)
	go func() {
		n, err := f()
		ch <- result{n: n, err: err}
	}()
	return ch
}

// receive lets the device read one transfer, of at most size bytes.
func (t *T) receive(dev *Device, ep uint8, size int) <-chan result {
	ch := make(chan result, 1)
	ctx := t.ctx
	go func() {
		buf := make([]byte, size)
		n, err := dev.OutPipe(ep).Read(ctx, buf)
		ch <- result{n, err, buf[:n]}
	}()
	return ch
}

// pattern is data whose parts all differ.
func pattern(n int, seed uint32) []byte {
	b := make([]byte, n)
	x := seed*2654435761 + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}
