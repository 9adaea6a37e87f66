package usbtest

import (
	"bytes"
	"context"
	"iter"
	"slices"
	"time"

	"snag/usb"
)

// transfers yields the transfers that a stream is to send, in one buffer: Stream has to copy them.
func transfers(size, count int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		buf := make([]byte, size)
		for i := range count {
			copy(buf, pattern(size, uint32(i)))
			if !yield(buf) {
				return
			}
			clear(buf)
		}
	}
}

// collect lets the device read transfers of at most size bytes, until one fails. The result's n counts the transfers
// that are as they were sent, its data is the first that is not.
func (t *T) collect(dev *Device, ep uint8, size, count int, want func(i int) []byte) <-chan result {
	ch := make(chan result, 1)
	ctx := t.ctx
	go func() {
		var r result
		buf := make([]byte, size)
		for ; r.n < count; r.n++ {
			var n int
			n, r.err = dev.OutPipe(ep).Read(ctx, buf)
			if r.err != nil {
				break
			}
			if !bytes.Equal(buf[:n], want(r.n)) {
				r.data = buf[:n]
				break
			}
		}
		ch <- r
	}()
	return ch
}

// streamer is a board whose endpoint for streams is active.
func (t *T) streamer(ep uint8) (*Device, usb.Handle) {
	dev, h := t.board()
	if ep == wideOut {
		t.must(h.SetAlt(t.step(), ifaceBulk, 1))
	}
	return dev, h
}

// stream sends equal transfers. The device's buffer ends a read where a transfer of full packets does.
func stream(t *T, ep uint8, size, count int) {
	dev, h := t.streamer(ep)
	got := t.collect(dev, ep, size, count, func(i int) []byte { return pattern(size, uint32(i)) })
	n, err := h.Stream(t.ctx, ep, t.lab.patience, transfers(size, count))
	if n != int64(size*count) || err != nil {
		t.errorf("stream: %d bytes, %v; expected %d", n, err, size*count)
	}
	if r := wait(t, "the device's end", got); r.n != count || r.err != nil {
		t.errorf("the device got %d transfers as they were sent, then one of %d bytes, %v", r.n, len(r.data), r.err)
	}
	// The next transfer comes after all of them.
	t.send(dev, h, ep, size, []byte{1})
}

func streamSizes(t *T) {
	dev, h := t.streamer(bulkOut)
	sizes := []int{1, 513, 0, 40_000, 511, 600_001, 0, 0, 3, 100_001}
	got := t.collect(dev, bulkOut, 1<<20, len(sizes), func(i int) []byte { return pattern(sizes[i], uint32(i)) })
	total := 0
	n, err := h.Stream(t.ctx, bulkOut, t.lab.patience, func(yield func([]byte) bool) {
		for i, size := range sizes {
			total += size
			if !yield(pattern(size, uint32(i))) {
				return
			}
		}
	})
	if n != int64(total) || err != nil {
		t.errorf("stream: %d bytes, %v; expected %d", n, err, total)
	}
	if r := wait(t, "the device's end", got); r.n != len(sizes) || r.err != nil {
		t.errorf("the device got %d transfers as they were sent, then one of %d bytes, %v", r.n, len(r.data), r.err)
	}
	if n, err := h.Stream(t.ctx, bulkOut, t.lab.patience, func(func([]byte) bool) {}); n != 0 || err != nil {
		t.errorf("a stream of nothing: %d, %w", n, err)
	}
}

// streamInFlight has a device that takes nothing until the host has asked for several transfers, but not for all.
func streamInFlight(t *T) {
	const size, count, few, most = 1025, 2000, 4, 1000
	dev, h := t.streamer(wideOut)
	asked := make(chan struct{}, count)
	result := start(func() (int, error) {
		n, err := h.Stream(t.ctx, wideOut, t.lab.patience, func(yield func([]byte) bool) {
			for b := range transfers(size, count) {
				asked <- struct{}{}
				if !yield(b) {
					return
				}
			}
		})
		return int(n), err
	})
	for range few {
		wait(t, "transfers in flight", asked)
	}
	time.Sleep(100 * time.Millisecond)
	if n := len(asked) + few; n > most {
		t.errorf("%d transfers of %d bytes are in flight", n, size)
	}
	got := t.collect(dev, wideOut, size, count, func(i int) []byte { return pattern(size, uint32(i)) })
	if r := wait(t, "stream", result); r.n != size*count || r.err != nil {
		t.errorf("stream: %d bytes, %w", r.n, r.err)
	}
	if r := wait(t, "the device's end", got); r.n != count {
		t.errorf("the device got %d transfers as they were sent, %v", r.n, r.err)
	}
}

// streamIdle has a device that takes some transfers slowly, but each in time, and then no more.
func streamIdle(t *T) {
	const size, count, pause, idle = 1025, 4, time.Second, 3 * time.Second
	dev, h := t.streamer(wideOut)
	begin := time.Now()
	go func() {
		for range count {
			time.Sleep(pause)
			dev.OutPipe(wideOut).Read(t.ctx, make([]byte, size))
		}
	}()
	n, err := h.Stream(t.ctx, wideOut, idle, transfers(size, 100))
	t.is("stream", err, context.DeadlineExceeded)
	t.described(err, h, wideOut)
	if took := time.Since(begin); n != size*count || took < count*pause+idle {
		t.errorf("stream: %d bytes, %v; expected %d, and at least %v", n, took, size*count, count*pause+idle)
	}
	t.send(dev, h, wideOut, size, []byte{1})
}

// streamError has a device that stalls in the middle.
func streamError(t *T) {
	const size, count = 1025, 20
	dev, h := t.streamer(wideOut)
	got := t.collect(dev, wideOut, size, count, func(i int) []byte { return pattern(size, uint32(i)) })
	go func() {
		r := <-got
		dev.Halt(wideOut)
		if r.n != count {
			t.errorf("the device got %d transfers as they were sent, %v", r.n, r.err)
		}
	}()
	n, err := h.Stream(t.ctx, wideOut, t.lab.patience, transfers(size, 100_000))
	t.is("stream", err, usb.ErrStall)
	if n != size*count {
		t.errorf("stream: %d bytes, expected %d", n, size*count)
	}
	t.must(h.ClearHalt(t.step(), wideOut))
	t.send(dev, h, wideOut, size, []byte{1})
}

func streamCancel(t *T) {
	const size, count = 1025, 20
	dev, h := t.streamer(wideOut)
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	got := t.collect(dev, wideOut, size, count, func(i int) []byte { return pattern(size, uint32(i)) })
	result := start(func() (int, error) {
		n, err := h.Stream(ctx, wideOut, t.lab.patience, transfers(size, 100_000))
		return int(n), err
	})
	wait(t, "the device's end", got)
	time.Sleep(20 * time.Millisecond) // the host knows of the last one by now, or does not yet
	cancel()
	r := wait(t, "stream", result)
	t.is("stream", r.err, context.Canceled)
	if r.n > size*count || r.n < 0 {
		t.errorf("stream: %d bytes, at most %d went", r.n, size*count)
	}
	t.send(dev, h, wideOut, size, []byte{1})
	// The caller may also end it, by ending the sequence.
	got = t.collect(dev, wideOut, size, 3, func(i int) []byte { return pattern(size, uint32(i)) })
	n, err := h.Stream(t.ctx, wideOut, t.lab.patience, slices.Values([][]byte{pattern(size, 0), pattern(size, 1), pattern(size, 2)}))
	if n != 3*size || err != nil || wait(t, "the device's end", got).n != 3 {
		t.errorf("after the cancelled stream: %d bytes, %w", n, err)
	}
}

func streamUnplug(t *T) {
	const size, count = 1025, 20
	dev, h := t.streamer(wideOut)
	got := t.collect(dev, wideOut, size, count, func(i int) []byte { return pattern(size, uint32(i)) })
	result := start(func() (int, error) {
		n, err := h.Stream(t.ctx, wideOut, t.lab.patience, transfers(size, 100_000))
		return int(n), err
	})
	wait(t, "the device's end", got)
	t.unplug(t.lab.Ports[0], t.lab.Ports[0].Name(), dev)
	r := wait(t, "stream", result)
	t.is("stream", r.err, usb.ErrGone)
	if r.n > size*count || r.n < 0 {
		t.errorf("stream: %d bytes, at most %d went", r.n, size*count)
	}
}
