package usbtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"snag/sim/usbdev"
	"snag/usb"
)

// twoInterfaces uses both while a transfer of each is pending.
func twoInterfaces(t *T) {
	dev, h := t.board()
	in := start(func() (int, error) { return h.In(t.step(), narrowIn, make([]byte, 64)) })
	out := start(func() (int, error) { return h.Out(t.step(), narrowOut, make([]byte, 5)) })
	t.write(dev, bulkIn, pattern(3000, 1))
	t.read(h, bulkIn, 4096, pattern(3000, 1))
	t.send(dev, h, bulkOut, 4096, pattern(3000, 2))
	t.write(dev, narrowIn, []byte{1, 2})
	if r := wait(t, "IN", in); r.n != 2 || r.err != nil {
		t.errorf("IN on the other interface: %d, %w", r.n, r.err)
	}
	got := t.receive(dev, narrowOut, 64)
	if r := wait(t, "OUT", out); r.n != 5 || r.err != nil {
		t.errorf("OUT on the other interface: %d, %w", r.n, r.err)
	}
	if r := wait(t, "the device's end", got); r.n != 5 {
		t.errorf("the device got %d bytes, %w", r.n, r.err)
	}
	// One is released, the other one works on.
	t.must(h.Release(t.step(), ifaceNarrow))
	t.send(dev, h, bulkOut, 4096, pattern(30, 2))
}

// order has one call after the other on one endpoint while all are pending. Nothing tells when a call was made, and on
// a busy computer it may be made after the next one: then they have more time.
func order(t *T) {
	const short, long = 100 * time.Millisecond, time.Second
	if ordered(t, short) != nil {
		t.must(ordered(t, long))
	}
}

// ordered makes calls with a pause between them.
func ordered(t *T, pause time.Duration) error {
	dev, h := t.board()
	const count, size = 8, 1700
	var all sync.WaitGroup
	wrong := make(chan error, 2*count+1)
	for i := range count {
		want := pattern(size, uint32(i))
		all.Go(func() {
			if n, err := h.Out(t.step(), bulkOut, want); n != size || err != nil {
				wrong <- fmt.Errorf("OUT %d: %d, %w", i, n, err)
			}
		})
		all.Go(func() {
			buf := make([]byte, 4096)
			if n, err := h.In(t.step(), bulkIn, buf); err != nil || !bytes.Equal(buf[:n], want) {
				wrong <- fmt.Errorf("IN %d: %d bytes, %w, as they were sent: %t", i, n, err, bytes.Equal(buf[:n], want))
			}
		})
		time.Sleep(pause)
	}
	got := t.collect(dev, bulkOut, 4096, count, func(i int) []byte { return pattern(size, uint32(i)) })
	var transfers [][]byte
	for i := range uint32(count) {
		b := pattern(size, i)
		transfers = append(transfers, b[:1024], b[1024:]) // one transfer all the same: the first part is full packets
	}
	t.write(dev, bulkIn, transfers...)
	if r := wait(t, "the device's end", got); r.n != count {
		wrong <- fmt.Errorf("%d OUT transfers are where they belong", r.n)
		t.unplug(t.lab.Ports[0], t.lab.Ports[0].Name(), dev) // the others would wait
	}
	all.Wait()
	t.clean()
	close(wrong)
	var errs []error
	for err := range wrong {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func settings(t *T) {
	dev, h := t.board()
	dead := func(ep uint8) {
		ctx := t.step()
		var err error
		if ep&0x80 != 0 {
			_, err = h.In(ctx, ep, make([]byte, 1024))
		} else {
			_, err = h.Out(ctx, ep, []byte{1})
		}
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.errorf("endpoint %#02x of the setting that is not active: %v, expected another error", ep, err)
		}
	}
	alive := func(in, out uint8) {
		t.write(dev, in, pattern(1500, 1))
		t.read(h, in, 2048, pattern(1500, 1))
		t.send(dev, h, out, 2048, pattern(1500, 2))
	}
	alive(bulkIn, bulkOut)
	dead(wideIn)
	dead(wideOut)
	t.must(h.SetAlt(t.step(), ifaceBulk, 1))
	alive(wideIn, wideOut)
	dead(bulkIn)
	dead(bulkOut)
	for range 2 {
		t.must(h.SetAlt(t.step(), ifaceBulk, 0))
		alive(bulkIn, bulkOut)
	}
	for alt, want := range []int{2, 1} {
		if n := dev.count(usb.Setup{Type: 1, Request: usb.ReqSetInterface, Value: uint16(alt), Index: ifaceBulk}); n != want {
			t.errorf("SET_INTERFACE %d came %d times, expected %d", alt, n, want)
		}
	}
	if err := h.SetAlt(t.step(), ifaceBulk, 7); err == nil {
		t.errorf("a setting that is not there")
	}
	alive(bulkIn, bulkOut)
	// A setting may end a halt.
	dev.Halt(bulkOut)
	t.must(h.SetAlt(t.step(), ifaceBulk, 0))
	alive(bulkIn, bulkOut)
}

func conflict(t *T) {
	dev := NewDevice(Options{})
	d := t.plug(0, dev)
	a, b := t.open(d, ifaceBulk), t.open(d)
	t.must(a.Claim(t.step(), ifaceBulk)) // one's own is no conflict
	err := b.Claim(t.step(), ifaceBulk)
	t.is("claim of another's interface", err, usb.ErrBusy)
	t.described(err, b, -1)
	t.must(b.Claim(t.step(), ifaceNarrow))
	t.send(dev, a, bulkOut, 64, []byte{1})
	t.send(dev, b, narrowOut, 64, []byte{2})
	t.must(a.Release(t.step(), ifaceBulk))
	t.must(b.Claim(t.step(), ifaceBulk))
	t.send(dev, b, bulkOut, 64, []byte{3})
	b.Close()
	t.must(a.Claim(t.step(), ifaceBulk))
	t.must(a.Claim(t.step(), ifaceNarrow))
	t.works(dev, a)
}

func notClaimed(t *T) {
	dev := NewDevice(Options{})
	h := t.open(t.plug(0, dev))
	if err := h.Claim(t.step(), 9); err == nil {
		t.errorf("claimed an interface that is not there")
	}
	if err := h.Release(t.step(), ifaceBulk); err == nil {
		t.errorf("released an interface that was not claimed")
	}
	if err := h.SetAlt(t.step(), ifaceBulk, 1); err == nil {
		t.errorf("set an interface that was not claimed")
	}
	if n, err := h.Control(t.step(), vendorOut(reqStore, 2), []byte{1, 2}); n != 2 || err != nil {
		t.errorf("control needs no claim: %d, %w", n, err)
	}
}

// driver is the name of the driver of the HID interface on the first port.
func (t *T) driver(list []usb.Device) string {
	d, _ := on(list, t.lab.Ports[0].Name())
	for _, i := range d.Interfaces {
		if i.Number == ifaceHID {
			return i.Driver
		}
	}
	return ""
}

func kernelDriver(t *T) {
	const name = "usbhid"
	bound := func(list []usb.Device) bool { return t.driver(list) == name }
	dev := NewDevice(Options{})
	d := t.plug(0, dev)
	t.until("usbhid is bound", bound)
	for _, giveBack := range []func(usb.Handle) error{
		func(h usb.Handle) error { return h.Release(t.step(), ifaceHID) },
		usb.Handle.Close,
		func(h usb.Handle) error { return errors.Join(h.Reset(t.step()), h.Close()) },
	} {
		h := t.open(d, ifaceHID)
		t.until("usbhid is detached", func(list []usb.Device) bool { return t.driver(list) != name })
		t.write(dev, hidIn, pattern(8, 1))
		t.read(h, hidIn, 8, pattern(8, 1))
		t.must(giveBack(h))
		t.until("usbhid is bound again", bound)
	}
	// What was not claimed is left alone.
	h := t.open(d, ifaceBulk)
	t.must(h.Close())
	t.until("usbhid is still bound", bound)
}

func configure(t *T) {
	// A driver may hold an interface of the configuration that ends.
	for _, noHID := range []bool{true, false} {
		t.guard(func() {
			dev := NewDevice(Options{NoHID: noHID})
			port := t.lab.Ports[0]
			h := t.open(t.plug(0, dev))
			sent := func(value uint8) int {
				return dev.count(usb.Setup{Request: usb.ReqSetConfiguration, Value: uint16(value)})
			}
			before := sent(1)
			t.must(h.Configure(t.step(), 1))
			if n := sent(1); n != before {
				t.errorf("the active configuration was selected again")
			}
			t.must(h.Configure(t.step(), 2))
			if n := sent(2); n != 1 {
				t.errorf("configuration 2 was selected %d times", n)
			}
			t.until("configuration 2 is listed", func(list []usb.Device) bool {
				d, ok := on(list, port.Name())
				return ok && d.Config == 2 && len(d.Interfaces) == 1
			})
			t.must(h.Claim(t.step(), ifaceBulk))
			t.send(dev, h, bulkOut, 64, []byte{1})
			if err := h.Claim(t.step(), ifaceNarrow); err == nil {
				t.errorf("claimed an interface of the other configuration")
			}
			if err := h.Configure(t.step(), 1); err == nil {
				t.errorf("configured while an interface is claimed")
			}
			t.must(h.Release(t.step(), ifaceBulk))
			if err := h.Configure(t.step(), 7); err == nil {
				t.errorf("selected a configuration that is not there")
			}
			t.must(h.Configure(t.step(), 1))
			t.must(h.Claim(t.step(), ifaceBulk))
			t.must(h.Claim(t.step(), ifaceNarrow))
			t.works(dev, h)
			t.must(h.Close())
			t.unplug(port, port.Name(), dev)
		})
	}
}

func reset(t *T) {
	dev, h := t.board()
	dev.Halt(bulkOut)
	t.must(h.SetAlt(t.step(), ifaceBulk, 1))
	for range 2 {
		before := dev.count(usb.Setup{Request: usb.ReqSetConfiguration, Value: 1})
		t.must(h.Reset(t.step()))
		if n := dev.count(usb.Setup{Request: usb.ReqSetConfiguration, Value: 1}); n == before {
			t.errorf("the device was not configured again")
		}
		t.works(dev, h) // the claims are as before
	}
	select {
	case <-h.Gone():
		t.errorf("gone after a reset to the same device")
	default:
	}
}

func reenumeration(t *T) {
	first, second := NewDevice(Options{}), NewDevice(Options{ID: usb.ID{Vendor: 0x1209, Product: 0x0002}})
	port := t.lab.Ports[0]
	d := t.plug(0, first)
	h := t.open(d, ifaceBulk)
	in := start(func() (int, error) { return h.In(t.step(), bulkIn, make([]byte, 512)) })
	t.must(port.Detach())
	first.Close()
	t.must(port.Attach(t.step(), second))
	t.after(func() { t.unplug(port, port.Name(), second) })
	t.is("pending transfer", wait(t, "pending transfer", in).err, usb.ErrGone)
	wait(t, "Gone", h.Gone())
	var e usb.Device
	t.until("the other ID on the port", func(list []usb.Device) (ok bool) {
		e, ok = on(list, port.Name())
		return ok && e.ID.Product == 2 && e.Config != 0 && len(e.Interfaces) == 3
	})
	if e.Address == d.Address {
		t.errorf("device number %d as before", e.Address)
	}
	_, err := t.lab.Host.Open(t.step(), d)
	t.is("open of the device that left", err, usb.ErrGone)
	t.is("old handle", h.Claim(t.step(), ifaceNarrow), usb.ErrGone)
	if err := h.Close(); err != nil {
		t.errorf("close of the old handle: %w", err)
	}
	t.works(second, t.open(e, ifaceBulk, ifaceNarrow))
}

// replaced has another device of the same ID.
func replaced(t *T) {
	first, second := NewDevice(Options{}), NewDevice(Options{})
	d := t.plug(0, first)
	t.unplug(t.lab.Ports[0], t.lab.Ports[0].Name(), first)
	_, err := t.lab.Host.Open(t.step(), d)
	t.is("open of a device that left", err, usb.ErrGone)
	e := t.plug(0, second)
	_, err = t.lab.Host.Open(t.step(), d)
	t.is("open of a device that was replaced", err, usb.ErrGone)
	t.works(second, t.open(e, ifaceBulk, ifaceNarrow))
}

// companion has a board that comes back at super speed, and then at high speed again.
func companion(t *T) {
	peers, ok := t.lab.Host.(usb.Peerer)
	if !ok || t.lab.Super == nil {
		t.skipf("this lab has no port of a super-speed bus, or the host tells nothing of it")
	}
	high := t.lab.Ports[0]
	super, err := peers.Peer(high.Name())
	t.must(err)
	if super == "" || super == high.Name() {
		t.fatalf("the peer of port %s is %q", high.Name(), super)
	}
	if back, err := peers.Peer(super); back != high.Name() || err != nil {
		t.errorf("the peer of port %s is %q, %v; expected %s", super, back, err, high.Name())
	}
	for _, speed := range []usbdev.Speed{usbdev.HighSpeed, usbdev.SuperSpeed, usbdev.HighSpeed} {
		dev := NewDevice(Options{Speed: speed})
		var port usbdev.Port = high
		name := high.Name()
		if speed == usbdev.SuperSpeed {
			port, name = t.lab.Super, super
		}
		d := t.plugAs(port, name, dev)
		if d.Speed != speed.Mbps() {
			t.errorf("%s Mbit/s, expected %s", d.Speed, speed.Mbps())
		}
		t.works(dev, t.open(d, ifaceBulk, ifaceNarrow))
		t.unplug(port, name, dev)
	}
}

func fiveDevices(t *T) {
	const size = 1 << 20
	var all sync.WaitGroup
	for i := range 5 {
		all.Go(func() {
			one := &T{ctx: t.ctx, lab: t.lab}
			one.guard(func() {
				dev := NewDevice(Options{ID: usb.ID{Vendor: 0x1209, Product: uint16(0x10 + i)}})
				h := one.open(one.plug(i, dev), ifaceBulk)
				data := pattern(size, uint32(i))
				got := one.receive(dev, bulkOut, size)
				if n, err := h.Out(t.ctx, bulkOut, data); n != size || err != nil {
					one.fatalf("OUT: %d, %w", n, err)
				}
				if r := wait(one, "the device's end", got); !bytes.Equal(r.data, data) {
					one.errorf("the device got other data, %v", r.err)
				}
				one.write(dev, bulkIn, data)
				one.read(h, bulkIn, size, data)
				if s, err := usb.String(one.step(), h, stringExtra); s != texts[stringExtra] {
					one.errorf("string %q, %v", s, err)
				}
			})
			one.guard(one.clean)
			for _, err := range one.failed {
				t.errorf("port %d: %w", i, err)
			}
		})
	}
	all.Wait()
}

func watch(t *T) {
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	changes, err := t.lab.Host.Watch(ctx)
	t.must(err)
	wait(t, "the first value", changes)
	// until the list is as it should be, only by what Watch says.
	until := func(what string, holds func([]usb.Device) bool) {
		for {
			list, err := t.lab.Host.Devices()
			t.must(err)
			if holds(list) {
				return
			}
			wait(t, what, changes)
		}
	}
	port := t.lab.Ports[0]
	for i := range 3 {
		dev := NewDevice(Options{ID: usb.ID{Vendor: 0x1209, Product: uint16(i)}})
		t.must(port.Attach(t.step(), dev))
		until("plugged in", func(list []usb.Device) bool {
			d, ok := on(list, port.Name())
			return ok && d.ID.Product == uint16(i)
		})
		t.must(port.Detach())
		dev.Close()
		until("unplugged", func(list []usb.Device) bool { _, ok := on(list, port.Name()); return !ok })
	}
	cancel()
	for end := t.step(); ; {
		select {
		case _, open := <-changes:
			if !open {
				return
			}
		case <-end.Done():
			t.fatalf("the channel is open after %v", t.lab.patience)
		}
	}
}

func closing(t *T) {
	dev := NewDevice(Options{})
	d := t.plug(0, dev)
	h := t.open(d, ifaceBulk, ifaceNarrow)
	results := make(map[string]<-chan result)
	for name, f := range pending(h) {
		results[name] = start(func() (int, error) { return f(t.step()) })
	}
	wait(t, "control request at the device", dev.silent)
	for i := range 2 {
		if err := h.Close(); err != nil {
			t.errorf("close %d: %w", i, err)
		}
	}
	for name, result := range results {
		if r := wait(t, name, result); r.err == nil || errors.Is(r.err, context.DeadlineExceeded) {
			t.errorf("%s ended with %v by the close, expected another error", name, r.err)
		}
	}
	for name, f := range pending(h) {
		if _, err := f(t.step()); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.errorf("%s after the close: %v, expected another error", name, err)
		}
	}
	if err := h.Claim(t.step(), ifaceHID); err == nil {
		t.errorf("claimed after the close")
	}
	t.works(dev, t.open(d, ifaceBulk, ifaceNarrow))
}
