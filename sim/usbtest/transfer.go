package usbtest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"snag/usb"
)

func vendorOut(request uint8, n int) usb.Setup {
	return usb.Setup{Type: 0x40, Request: request, Value: 0x1234, Index: 0x5678, Length: uint16(n)}
}

func vendorIn(request uint8, n int) usb.Setup {
	s := vendorOut(request, n)
	s.Type |= 0x80
	return s
}

func control(t *T) {
	dev, h := t.board()
	for _, size := range []int{0, 1, 63, 64, 65, 300, maxStore} {
		data := pattern(size, uint32(size))
		if n, err := h.Control(t.step(), vendorOut(reqStore, size), data); n != size || err != nil {
			t.errorf("OUT of %d bytes: %d, %w", size, n, err)
		}
		// As much as there is, less and more.
		for _, room := range []int{size, size / 2, min(size+100, maxStore)} {
			buf := make([]byte, room)
			n, err := h.Control(t.step(), vendorIn(reqStore, room), buf)
			if want := min(room, size); n != want || err != nil || !bytes.Equal(buf[:n], data[:n]) {
				t.errorf("IN of %d bytes of %d: %d, %v, as they were sent: %t", room, size, n, err, bytes.Equal(buf[:n], data[:n]))
			}
		}
	}
	if dev.count(vendorOut(reqStore, 0)) != 7 || dev.count(vendorIn(reqStore, 0)) != 21 {
		t.errorf("%d OUT and %d IN requests arrived", dev.count(vendorOut(reqStore, 0)), dev.count(vendorIn(reqStore, 0)))
	}
}

func stringDescriptors(t *T) {
	dev := NewDevice(Options{})
	d := t.plug(0, dev)
	if d.Manufacturer != texts[1] || d.Product != texts[2] || d.Serial != texts[3] {
		t.errorf("listed as %q, %q, %q", d.Manufacturer, d.Product, d.Serial)
	}
	h := t.open(d)
	for i, want := range texts {
		if want == "" && i != 0 {
			continue
		}
		if got, err := usb.String(t.step(), h, uint8(i)); got != want || err != nil {
			t.errorf("string %d: %q, %v; expected %q", i, got, err, want)
		}
	}
	_, err := usb.String(t.step(), h, 99)
	t.is("a string that is not there", err, usb.ErrStall)
}

func descriptors(t *T) {
	dev := NewDevice(Options{})
	d := t.plug(0, dev)
	if d.ID != dev.Descriptors().ID || d.Release != 0x123 || d.Speed != "480" || d.Config != 1 || d.Bus == 0 || d.Address == 0 {
		t.errorf("listed as %+v", d)
	}
	if len(d.Interfaces) != 3 || d.Interfaces[2].Number != ifaceHID || d.Interfaces[2].Class != 3 || d.Interfaces[0].Class != 0xff {
		t.errorf("interfaces %+v", d.Interfaces)
	}
	h := t.open(d)
	if got := h.Device(); got.Port != d.Port || got.Address != d.Address || got.ID != d.ID {
		t.errorf("opened %+v", got)
	}
	want := append(append(dev.Descriptors().Device(), dev.Descriptors().Config(0)...), dev.Descriptors().Config(1)...)
	got := h.Descriptors()
	if !bytes.Equal(got.Raw, want) {
		t.errorf("descriptors\n% x, expected\n% x", got.Raw, want)
	}
	if s := got.Setting(1, ifaceBulk, 0); s == nil || !bytes.Equal(s.Extra, dfu) {
		t.errorf("setting 0 of interface 0: %+v, expected the class descriptor % x", s, dfu)
	}
	for _, tc := range []struct {
		config, iface, alt uint8
		typ                usb.TransferType
		in                 bool
		want               usb.Endpoint
	}{
		{1, ifaceBulk, 0, usb.Bulk, true, usb.Endpoint{Address: bulkIn, MaxPacket: 512}},
		{2, ifaceBulk, 1, usb.Interrupt, false, usb.Endpoint{Address: wideOut, MaxPacket: 1024}},
		{1, ifaceHID, 0, usb.Interrupt, true, usb.Endpoint{Address: hidIn, MaxPacket: 8}},
	} {
		s := got.Setting(tc.config, tc.iface, tc.alt)
		if s == nil {
			t.errorf("no setting %d.%d.%d", tc.config, tc.iface, tc.alt)
			continue
		}
		if e, ok := s.Find(tc.typ, tc.in); !ok || e.Address != tc.want.Address || e.MaxPacket != tc.want.MaxPacket {
			t.errorf("setting %d.%d.%d has %+v, expected %+v", tc.config, tc.iface, tc.alt, e, tc.want)
		}
	}
}

// write lets the device send transfers.
func (t *T) write(dev *Device, ep uint8, transfers ...[]byte) {
	ctx := t.ctx
	go func() {
		for _, b := range transfers {
			dev.InPipe(ep).Write(ctx, b)
		}
	}()
}

// read reads a transfer and compares.
func (t *T) read(h usb.Handle, ep uint8, size int, want []byte) {
	buf := make([]byte, size)
	n, err := h.In(t.step(), ep, buf)
	if err != nil || !bytes.Equal(buf[:n], want) {
		t.errorf("IN on endpoint %#02x with a buffer of %d: %d bytes, %v; expected %d bytes, as they were sent: %t",
			ep, size, n, err, len(want), n == len(want) && bytes.Equal(buf[:n], want))
	}
}

// send sends a transfer and compares what the device gets in a buffer of some size.
func (t *T) send(dev *Device, h usb.Handle, ep uint8, size int, data []byte) {
	got := t.receive(dev, ep, size)
	if n, err := h.Out(t.step(), ep, data); n != len(data) || err != nil {
		t.errorf("OUT on endpoint %#02x of %d bytes: %d, %w", ep, len(data), n, err)
		return
	}
	if r := wait(t, "the device's end", got); r.err != nil || !bytes.Equal(r.data, data) {
		t.errorf("OUT on endpoint %#02x of %d bytes: the device got %d, %v", ep, len(data), r.n, r.err)
	}
}

func shortPackets(t *T) {
	dev, h := t.board()
	a, b, c := pattern(10, 1), pattern(600, 2), pattern(1300, 3)
	t.write(dev, bulkIn, a, b, c)
	t.read(h, bulkIn, 512, a)
	t.read(h, bulkIn, 4096, b)
	t.read(h, bulkIn, 1024, c[:1024])
	t.read(h, bulkIn, 512, c[1024:])
	t.write(dev, narrowIn, a, pattern(100, 4))
	t.read(h, narrowIn, 64, a)
	t.read(h, narrowIn, 128, pattern(100, 4))
	for _, data := range [][]byte{a, b, c, pattern(1, 4)} {
		t.send(dev, h, bulkOut, 4096, data)
		t.send(dev, h, narrowOut, 4096, data)
	}
}

// earlyEnd has transfers that end long before the buffer: what follows is not of this transfer.
func earlyEnd(t *T) {
	dev, h := t.board()
	sizes := []int{20000, 3000, 300001, 5, 16385, 0, 100}
	var transfers [][]byte
	for i, n := range sizes {
		transfers = append(transfers, pattern(n, uint32(i)))
	}
	t.write(dev, bulkIn, transfers...)
	for _, want := range transfers {
		t.read(h, bulkIn, 1<<20, want)
	}
}

func zeroLength(t *T) {
	dev, h := t.board()
	full := pattern(1024, 1)
	t.write(dev, bulkIn, nil, full, nil, []byte{1})
	t.read(h, bulkIn, 512, nil)
	t.read(h, bulkIn, 4096, full)
	t.read(h, bulkIn, 512, []byte{1})

	t.send(dev, h, bulkOut, 512, nil)
	t.send(dev, h, narrowOut, 64, nil)
	// None is added: the device's transfer goes on.
	got := t.receive(dev, bulkOut, 4096)
	for _, data := range [][]byte{full, {7}} {
		if n, err := h.Out(t.step(), bulkOut, data); n != len(data) || err != nil {
			t.fatalf("OUT of %d bytes: %d, %w", len(data), n, err)
		}
	}
	if r := wait(t, "the device's end", got); r.n != 1025 {
		t.errorf("the device got %d bytes, %v; expected 1025: no zero-length packet in between", r.n, r.err)
	}
	got = t.receive(dev, bulkOut, 4096)
	for _, data := range [][]byte{full, nil} {
		if n, err := h.Out(t.step(), bulkOut, data); n != len(data) || err != nil {
			t.fatalf("OUT of %d bytes: %d, %w", len(data), n, err)
		}
	}
	if r := wait(t, "the device's end", got); r.n != 1024 {
		t.errorf("the device got %d bytes, %v; expected 1024, ended by a zero-length packet", r.n, r.err)
	}
}

func exactMultiples(t *T) {
	dev, h := t.board()
	for _, tc := range []struct {
		in, out uint8
		packet  int
	}{{bulkIn, bulkOut, 512}, {narrowIn, narrowOut, 64}} {
		for _, packets := range []int{1, 2, 33} {
			data := pattern(packets*tc.packet, uint32(packets))
			t.write(dev, tc.in, data, data[:1])
			t.read(h, tc.in, len(data), data)
			t.read(h, tc.in, tc.packet, data[:1])
			t.send(dev, h, tc.out, len(data), data)
		}
	}
}

func overflow(t *T) {
	dev, h := t.board()
	t.write(dev, bulkIn, pattern(512, 1), []byte{9})
	_, err := h.In(t.step(), bulkIn, make([]byte, 100))
	t.is("a packet larger than the buffer", err, usb.ErrOverflow)
	t.read(h, bulkIn, 512, []byte{9})
}

// described checks that an error names the port and the endpoint.
func (t *T) described(err error, h usb.Handle, ep int) {
	var e *usb.TransferError
	if !errors.As(err, &e) {
		t.errorf("no *usb.TransferError: %w", err)
	} else if e.Port != h.Device().Port || e.ID != h.Device().ID || ep >= 0 && e.Endpoint != ep || e.Op == "" {
		t.errorf("described as %+v", e)
	}
}

func controlStall(t *T) {
	_, h := t.board()
	for range 2 {
		_, err := h.Control(t.step(), vendorOut(reqStall, 0), nil)
		t.is("OUT", err, usb.ErrStall)
		t.described(err, h, -1)
		_, err = h.Control(t.step(), vendorIn(reqStall, 64), make([]byte, 64))
		t.is("IN", err, usb.ErrStall)
		if _, err = h.Control(t.step(), vendorOut(reqStore, 2), []byte{1, 2}); err != nil {
			t.errorf("after the stall: %w", err)
		}
	}
}

func stall(t *T) {
	dev, h := t.board()
	in := func() error { _, err := h.In(t.step(), bulkIn, make([]byte, 512)); return err }
	out := func() error { _, err := h.Out(t.step(), bulkOut, make([]byte, 512)); return err }
	for range 2 {
		dev.Halt(bulkIn)
		dev.Halt(bulkOut)
		for range 2 {
			err := in()
			t.is("IN", err, usb.ErrStall)
			t.described(err, h, bulkIn)
			err = out()
			t.is("OUT", err, usb.ErrStall)
			t.described(err, h, bulkOut)
		}
		t.must(h.ClearHalt(t.step(), bulkIn))
		t.must(h.ClearHalt(t.step(), bulkOut))
		t.write(dev, bulkIn, pattern(700, 1))
		t.read(h, bulkIn, 4096, pattern(700, 1))
		t.send(dev, h, bulkOut, 4096, pattern(700, 2))
	}
	if n := dev.count(usb.Setup{Type: 2, Request: usb.ReqClearFeature, Index: bulkIn}); n != 2 {
		t.errorf("CLEAR_FEATURE came %d times, expected 2", n)
	}
	// A transfer that is pending already.
	pending := start(func() (int, error) { return h.In(t.step(), bulkIn, make([]byte, 512)) })
	time.Sleep(20 * time.Millisecond) // on the wire, most likely; before it the result is the same
	dev.Halt(bulkIn)
	t.is("pending IN", wait(t, "pending IN", pending).err, usb.ErrStall)
	t.must(h.ClearHalt(t.step(), bulkIn))
	t.write(dev, bulkIn, []byte{1})
	t.read(h, bulkIn, 512, []byte{1})
}

// pending are transfers that the device does not answer.
func pending(h usb.Handle) map[string]func(context.Context) (int, error) {
	return map[string]func(context.Context) (int, error){
		"control IN": func(ctx context.Context) (int, error) {
			return h.Control(ctx, vendorIn(reqSilent, 10), make([]byte, 10))
		},
		"control OUT": func(ctx context.Context) (int, error) {
			return h.Control(ctx, vendorOut(reqSilent, 10), make([]byte, 10))
		},
		"IN":            func(ctx context.Context) (int, error) { return h.In(ctx, bulkIn, make([]byte, 100_000)) },
		"OUT":           func(ctx context.Context) (int, error) { return h.Out(ctx, bulkOut, make([]byte, 100_000)) },
		"interrupt IN":  func(ctx context.Context) (int, error) { return h.In(ctx, narrowIn, make([]byte, 64)) },
		"interrupt OUT": func(ctx context.Context) (int, error) { return h.Out(ctx, narrowOut, make([]byte, 64)) },
	}
}

// works checks that all endpoints work.
func (t *T) works(dev *Device, h usb.Handle) {
	if n, err := h.Control(t.step(), vendorOut(reqStore, 3), []byte{1, 2, 3}); n != 3 || err != nil {
		t.errorf("control afterwards: %d, %w", n, err)
	}
	for i, ep := range []uint8{bulkIn, narrowIn} {
		t.write(dev, ep, pattern(70, uint32(i)))
		t.read(h, ep, 1024, pattern(70, uint32(i)))
	}
	for i, ep := range []uint8{bulkOut, narrowOut} {
		t.send(dev, h, ep, 1024, pattern(70, uint32(i)))
	}
}

func cancel(t *T) {
	dev, h := t.board()
	for name, f := range pending(h) {
		ctx, cancel := context.WithCancel(t.step())
		result := start(func() (int, error) { return f(ctx) })
		time.Sleep(20 * time.Millisecond) // on the wire, most likely; before it the result is the same
		cancel()
		r := wait(t, name, result)
		t.is(name, r.err, context.Canceled)
		t.described(r.err, h, -1)
		t.works(dev, h)
	}
}

func deadline(t *T) {
	dev, h := t.board()
	for name, f := range pending(h) {
		const d = 100 * time.Millisecond
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.step(), d)
		_, err := f(ctx)
		cancel()
		t.is(name, err, context.DeadlineExceeded)
		if took := time.Since(begin); took < d {
			t.errorf("%s: ended after %v", name, took)
		}
		t.works(dev, h)
	}
}

// defaultDeadline has contexts without a deadline.
func defaultDeadline(t *T) {
	if testing.Short() {
		t.skipf("it takes %v", usb.DefaultTimeout)
	}
	dev, h := t.board()
	begin := time.Now()
	results := make(map[string]<-chan result)
	for name, f := range pending(h) {
		if name != "control OUT" { // it would wait for the other one
			results[name] = start(func() (int, error) { return f(context.WithoutCancel(t.ctx)) })
		}
	}
	for name, result := range results {
		t.is(name, wait(t, name, result).err, context.DeadlineExceeded)
	}
	if took := time.Since(begin); took < usb.DefaultTimeout {
		t.errorf("ended after %v", took)
	}
	t.works(dev, h)
}

// endedContext has contexts that ended before: nothing reaches the device.
func endedContext(t *T) {
	dev, h := t.board()
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	t.write(dev, bulkIn, []byte{1})
	for name, f := range pending(h) {
		_, err := f(ctx)
		t.is(name, err, context.Canceled)
	}
	if n := dev.count(vendorIn(reqSilent, 0)) + dev.count(vendorOut(reqSilent, 0)); n > 0 {
		t.errorf("%d control requests came", n)
	}
	t.read(h, bulkIn, 512, []byte{1})
}

func unplug(t *T) {
	dev, h := t.board()
	results := make(map[string]<-chan result)
	for name, f := range pending(h) {
		results[name] = start(func() (int, error) { return f(t.step()) })
	}
	wait(t, "control request at the device", dev.silent)
	select {
	case <-h.Gone():
		t.errorf("gone while it is there")
	default:
	}
	t.unplug(t.lab.Ports[0], t.lab.Ports[0].Name(), dev)
	for name, result := range results {
		r := wait(t, name, result)
		t.is(name, r.err, usb.ErrGone)
		t.described(r.err, h, -1)
	}
	wait(t, "Gone", h.Gone())
	for name, f := range pending(h) {
		_, err := f(t.step())
		t.is(name+" after the unplug", err, usb.ErrGone)
	}
	t.is("claim", h.Claim(t.step(), ifaceHID), usb.ErrGone)
	t.is("reset", h.Reset(t.step()), usb.ErrGone)
}

// large moves much data, each way in one transfer.
func large(t *T, size int) {
	dev, h := t.board()
	data := pattern(size, 1)
	got := t.receive(dev, bulkOut, size)
	if n, err := h.Out(t.ctx, bulkOut, data); n != size || err != nil {
		t.fatalf("OUT: %d bytes, %w", n, err)
	}
	if r := wait(t, "the device's end", got); r.err != nil || !bytes.Equal(r.data, data) {
		t.errorf("OUT: the device got %d bytes, %v, as they were sent: %t", r.n, r.err, bytes.Equal(r.data, data))
	}
	data = pattern(size, 2)
	t.write(dev, bulkIn, data)
	buf := make([]byte, size)
	ctx, cancel := context.WithTimeout(t.ctx, limit)
	defer cancel()
	n, err := h.In(ctx, bulkIn, buf)
	if n != size || err != nil || !bytes.Equal(buf, data) {
		t.errorf("IN: %d bytes, %v, as they were sent: %t", n, err, bytes.Equal(buf, data))
	}
	// What is next is another transfer.
	t.write(dev, bulkIn, []byte{1})
	t.read(h, bulkIn, 512, []byte{1})
}
