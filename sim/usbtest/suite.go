// Package usbtest is what every transport has to pass: a suite of tests for a [usb.Host] into whose ports virtual
// devices can be plugged.
//
// [Run] is called by the tests of each transport with a [Lab]: the host, five ports or more, and the list of what the
// host cannot do, which may neither be too long nor too short. [Device] is the device that the suite plugs in; the
// tests themselves are its other end. No test asks for an answer within less than seconds: hosts may be emulated.
package usbtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
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

	// AtOnce is how many tests run at the same time, each on one of the Ports; 0 means 1.
	AtOnce int

	// patience bounds a step that ends quickly everywhere.
	patience time.Duration

	// Cannot names the tests that this host cannot pass, each with the reason. One that it does pass fails.
	Cannot map[string]string
}

// limit bounds a test. It is far beyond what an emulated machine needs.
const limit = 3 * time.Minute

// defaultPatience is far beyond that, too.
const defaultPatience = 30 * time.Second

// cases are all tests. Each has a port of its own, Ports[0] to it, except those that have the lab to themselves: for
// their ports, or since they count on what a host does within a tenth of a second, or a second.
var cases = []struct {
	name  string
	f     func(*T)
	alone bool
}{
	{"control", control, false},
	{"strings", stringDescriptors, false},
	{"descriptors", descriptors, false},
	{"short packets", shortPackets, false},
	{"early end of a large buffer", earlyEnd, false},
	{"zero-length packets", zeroLength, false},
	{"exact multiples", exactMultiples, false},
	{"overflow", overflow, false},
	{"control stall", controlStall, false},
	{"stall and recovery", stall, false},
	{"cancel", cancel, false},
	{"deadline", deadline, false},
	{"default deadline", defaultDeadline, false},
	{"ended context", endedContext, false},
	{"unplug", unplug, false},
	{"64 KiB", func(t *T) { large(t, 64<<10) }, false},
	{"16 MiB", func(t *T) { large(t, 16<<20) }, false},
	{"stream of wide reports", func(t *T) { stream(t, wideOut, 1025, 300) }, false},
	{"stream of narrow reports", func(t *T) { stream(t, narrowOut, 64, 300) }, false},
	{"stream of bulk transfers", func(t *T) { stream(t, bulkOut, 5000, 300) }, false},
	{"stream of many sizes", streamSizes, false},
	{"stream has several in flight", streamInFlight, false},
	{"stream idle", streamIdle, false},
	{"stream error", streamError, false},
	{"stream cancelled", streamCancel, false},
	{"stream unplugged", streamUnplug, false},
	{"control stream", controlStream, false},
	{"control stream error", controlStreamError, false},
	{"control stream idle", controlStreamIdle, false},
	{"control stream cancelled", controlStreamCancel, false},
	{"control stream unplugged", controlStreamUnplug, false},
	{"control stream refused", controlStreamRefused, false},
	{"two interfaces", twoInterfaces, false},
	{"order", order, true},
	{"alternate settings", settings, false},
	{"claim conflict", conflict, false},
	{"not claimed", notClaimed, false},
	{"kernel driver", kernelDriver, false},
	{"configure", configure, false},
	{"reset", reset, false},
	{"re-enumeration", reenumeration, false},
	{"replaced by its like", replaced, false},
	{"companion bus", companion, true},
	{"five devices", fiveDevices, true},
	{"watch", watch, false},
	{"close", closing, false},
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
	run := func(c int, lab *Lab) {
		name := cases[c].name
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			skip, err := perform(t, lab, cases[c].f)
			reason, listed := lab.Cannot[name]
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
	before := runtime.NumGoroutine()
	rest := make(chan int, len(cases))
	for c := range cases {
		if cases[c].alone {
			run(c, &lab)
		} else {
			rest <- c
		}
	}
	close(rest)
	var all sync.WaitGroup
	for i := range min(max(lab.AtOnce, 1), len(lab.Ports)) {
		own := lab
		own.Ports, own.Super = lab.Ports[i:i+1], nil
		all.Go(func() {
			for c := range rest {
				run(c, &own)
			}
		})
	}
	all.Wait()
	if n := leaked(func() int { return runtime.NumGoroutine() - before }, lab.patience); n > 0 {
		t.Errorf("%d goroutines are left that are none of the tests'\n%s", n, stacks())
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

// perform runs a test in goroutines of its own, so that a host that hangs is told apart, and that those which it leaves
// behind are known by their label.
func perform(t *testing.T, lab *Lab, f func(*T)) (skip string, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	test := &T{ctx: ctx, lab: lab}
	name := t.Name() + " " + rand.Text() // not test's address: when test is gone, the next one may have the same
	done := make(chan struct{})
	go pprof.Do(ctx, pprof.Labels("usbtest", name), func(context.Context) {
		defer close(done)
		test.guard(func() { f(test) })
		test.guard(test.clean)
	})
	select {
	case <-done:
	case <-time.After(limit + 2*defaultPatience):
		t.Fatalf("hangs\n%s", stacks())
	}
	cancel()
	if n := leaked(func() int { return labelled(name) }, lab.patience); n > 0 {
		test.errorf("%d goroutines are left\n%s", n, stacks())
	}
	return test.skip, errors.Join(test.failed...)
}

// stacks are those of all goroutines.
func stacks() []byte {
	b := make([]byte, 1<<20)
	return b[:runtime.Stack(b, true)]
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

// leaked waits until no goroutines are left, and returns how many are.
func leaked(left func() int, patience time.Duration) int {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		n := left()
		if n <= 0 || time.Now().After(end) {
			return n
		}
	}
}

// labelled counts the goroutines of a test: a goroutine has the label of the one that started it. The profile has an
// entry for those that are alike (package runtime/pprof, "debug=1"):
//
//	2 @ 0x47b6ae 0x4141c5 ...
//	# labels: {"usbtest":"TestKernelSuite/close 3Z6W..."}
func labelled(test string) int {
	var profile bytes.Buffer
	pprof.Lookup("goroutine").WriteTo(&profile, 1)
	label := fmt.Sprintf("# labels: {%q:%q}", "usbtest", test)
	n, total := 0, 0
	for line := range strings.Lines(profile.String()) {
		if count, _, ok := strings.Cut(line, " @ "); ok {
			n, _ = strconv.Atoi(count)
		} else if strings.TrimSpace(line) == label {
			total += n
		}
	}
	return total
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
	for end := time.Now().Add(t.lab.patience); ; time.Sleep(10 * time.Millisecond) {
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
