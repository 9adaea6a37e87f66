package usbtest

import (
	"bytes"
	"context"
	"iter"
	"time"

	"snag/usb"
)

// The sizes of the data stages of a control stream, in turns. With 1025 it is what HID makes of reports of 1024 bytes.
var controlSizes = []int{1025, 0, 1, 64, 1025, 512, 63}

// appends yields count requests whose data the device keeps, in one buffer: StreamControl has to copy them. Each has
// its number as wIndex.
func appends(count int) iter.Seq2[usb.Setup, []byte] {
	return func(yield func(usb.Setup, []byte) bool) {
		buf := make([]byte, 1025)
		for i := range count {
			n := copy(buf, appended(i))
			s := vendorOut(reqAppend, n)
			s.Index = uint16(i)
			if !yield(s, buf[:n]) {
				return
			}
			clear(buf)
		}
	}
}

// appended is the data of request i.
func appended(i int) []byte { return pattern(controlSizes[i%len(controlSizes)], uint32(i)) }

// then has another request follow so many of the first sequence, and the rest of them follow that.
func then(count int, first iter.Seq2[usb.Setup, []byte], s usb.Setup, data []byte) iter.Seq2[usb.Setup, []byte] {
	return func(yield func(usb.Setup, []byte) bool) {
		n := 0
		for f, b := range first {
			if n == count && !yield(s, data) || !yield(f, b) {
				return
			}
			n++
		}
	}
}

// gotAppends checks that the device got at least the first so many requests of appends, and no more than most, without
// a gap and with their data.
func (t *T) gotAppends(dev *Device, least, most int) {
	dev.mu.Lock()
	n := 0
	for _, s := range dev.requests {
		if s.Type != 0x40 || s.Request != reqAppend {
			continue
		}
		if int(s.Index) != n {
			t.errorf("request %d came as number %d", s.Index, n)
		}
		n++
	}
	dev.mu.Unlock()
	if n < least || n > most {
		t.errorf("the device got %d requests, expected %d to %d", n, least, most)
	}
	var want []byte
	for i := range n {
		want = append(want, appended(i)...)
	}
	if got := dev.kept(); !bytes.Equal(got, want) {
		t.errorf("the device has %d bytes, expected %d, or others than were sent", len(got), len(want))
	}
}

func controlStream(t *T) {
	const count = 300
	dev, h := t.board()
	if n, err := h.StreamControl(t.ctx, t.lab.patience, appends(count)); n != count || err != nil {
		t.errorf("stream: %d transfers, %v; expected %d", n, err, count)
	}
	t.gotAppends(dev, count, count)
	if n, err := h.StreamControl(t.ctx, 0, func(func(usb.Setup, []byte) bool) {}); n != 0 || err != nil {
		t.errorf("a stream of nothing: %d, %w", n, err)
	}
	t.works(dev, h)
}

// controlStreamError has a device that stalls one request, and is ready for those behind it.
func controlStreamError(t *T) {
	const count, all = 20, 5000
	dev, h := t.board()
	n, err := h.StreamControl(t.ctx, t.lab.patience, then(count, appends(all), vendorOut(reqStall, 3), []byte{1, 2, 3}))
	t.is("stream", err, usb.ErrStall)
	t.described(err, h, 0)
	if n != count {
		t.errorf("stream: %d transfers, expected %d", n, count)
	}
	t.gotAppends(dev, count, all/2)
	t.works(dev, h)
}

func controlStreamIdle(t *T) {
	const count, idle = 20, 3 * time.Second
	dev, h := t.board()
	begin := time.Now()
	n, err := h.StreamControl(t.ctx, idle, then(count, appends(1000), vendorOut(reqSilent, 0), nil))
	t.is("stream", err, context.DeadlineExceeded)
	t.described(err, h, 0)
	if took := time.Since(begin); n != count || took < idle {
		t.errorf("stream: %d transfers, expected %d, after %v", n, count, took)
	}
	t.gotAppends(dev, count, count)
	t.works(dev, h)
}

// silentStream streams to a device that answers so many requests and then none.
func (t *T) silentStream(ctx context.Context, dev *Device, h usb.Handle, count int) <-chan result {
	r := start(func() (int, error) {
		return h.StreamControl(ctx, t.lab.patience, then(count, appends(1000), vendorOut(reqSilent, 0), nil))
	})
	wait(t, "the request that is not answered", dev.silent)
	time.Sleep(20 * time.Millisecond) // those behind it are in flight, most likely; otherwise the result is the same
	return r
}

func controlStreamCancel(t *T) {
	const count = 20
	dev, h := t.board()
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	stream := t.silentStream(ctx, dev, h, count)
	cancel()
	r := wait(t, "stream", stream)
	t.is("stream", r.err, context.Canceled)
	t.described(r.err, h, 0)
	if r.n != count {
		t.errorf("stream: %d transfers, expected %d", r.n, count)
	}
	t.gotAppends(dev, count, count)
	t.works(dev, h)
	if n, err := h.StreamControl(ctx, 0, appends(1)); n != 0 || err == nil {
		t.errorf("a stream whose context has ended: %d, %v", n, err)
	}
}

func controlStreamUnplug(t *T) {
	const count = 20
	dev, h := t.board()
	stream := t.silentStream(t.ctx, dev, h, count)
	t.unplug(t.lab.Ports[0], t.lab.Ports[0].Name(), dev)
	r := wait(t, "stream", stream)
	t.is("stream", r.err, usb.ErrGone)
	t.described(r.err, h, 0)
	if r.n != count {
		t.errorf("stream: %d transfers, expected %d", r.n, count)
	}
	t.gotAppends(dev, count, count)
	_, err := h.StreamControl(t.step(), 0, appends(1))
	t.is("stream after the unplug", err, usb.ErrGone)
}

// controlStreamRefused has requests that no stream can have.
func controlStreamRefused(t *T) {
	dev, h := t.board()
	for what, s := range map[string]usb.Setup{"a request to the host": vendorIn(reqStore, 1), "a length that is not the data's": vendorOut(reqStore, 2)} {
		if _, err := h.Control(t.step(), vendorOut(reqStore, 0), nil); err != nil { // forgets what was kept
			t.errorf("before %s: %w", what, err)
		}
		n, err := h.StreamControl(t.step(), 0, then(3, appends(5), s, []byte{1}))
		if n != 3 || err == nil {
			t.errorf("%s behind 3 transfers: %d, %v", what, n, err)
		}
		t.described(err, h, 0)
		if got, want := len(dev.kept()), controlSizes[0]+controlSizes[1]+controlSizes[2]; got != want {
			t.errorf("%s: the device got %d bytes, expected %d", what, got, want)
		}
	}
	t.works(dev, h)
}
