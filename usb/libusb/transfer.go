package libusb

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/google/gousb"

	"snag/usb"
)

const (
	depth = 4 // transfers in flight on an OUT endpoint

	// The longest transfer of libusb's. Linux's copy of an interrupt transfer is in one piece of memory.
	chunkBulk      = 64 << 10
	chunkInterrupt = 16 << 10
)

// bounded gives a context without a deadline the default one.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, usb.DefaultTimeout, fmt.Errorf("%w: no end within %v", context.DeadlineExceeded, usb.DefaultTimeout))
}

// Control implements [usb.Handle]. It ends after usb.DefaultTimeout at the latest, whatever the context says, since
// libusb does not let it be cancelled: a device has five seconds for most requests (USB 2.0, 9.2.6.4).
func (h *Handle) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	n, err := h.control(ctx, s, data)
	return n, h.failed("control", int(s.Type&0x80), err)
}

func (h *Handle) control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	if len(data) != int(s.Length) {
		return 0, fmt.Errorf("%d bytes of data with a setup packet that says %d", len(data), s.Length)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	unlock, err := h.lock(ctx, 0)
	if err != nil {
		return 0, err
	}
	if err := h.busy(); err != nil {
		unlock()
		return 0, err
	}
	limit := usb.DefaultTimeout
	deadline, _ := ctx.Deadline()
	byContext := time.Until(deadline) <= limit
	if byContext {
		limit = time.Until(deadline)
	}
	// 0 would be for ever, and fractions of a millisecond are cut.
	limit = max(limit+time.Millisecond-1, time.Millisecond).Truncate(time.Millisecond)

	buf := make([]byte, len(data))
	if !s.ToHost() {
		copy(buf, data)
	}
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		defer h.work.Done()
		h.dev.ControlTimeout = limit
		n, err := h.dev.Control(s.Type, s.Request, s.Value, s.Index, buf)
		runtime.KeepAlive(buf)
		unlock()
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		switch {
		case codeOf(r.err) == gousb.ErrorTimeout && byContext:
			<-ctx.Done()
			return 0, why(ctx)
		case r.err != nil:
			return 0, r.err // n is libusb's code
		}
		if s.ToHost() {
			copy(data, buf[:r.n])
		}
		return r.n, nil
	case <-ctx.Done():
		return 0, why(ctx)
	case <-h.ctx.Done():
		return 0, os.ErrClosed
	}
}

// StreamControl implements [usb.Handle]. One transfer is in flight at a time: gousb has no other control transfers than
// those that it waits for.
func (h *Handle) StreamControl(ctx context.Context, idle time.Duration, transfers iter.Seq2[usb.Setup, []byte]) (n int, err error) {
	if idle <= 0 {
		idle = usb.DefaultTimeout
	}
	perform := func(s usb.Setup, data []byte) error {
		if s.ToHost() {
			return errors.New("not a transfer to the device")
		}
		ctx, cancel := context.WithTimeout(ctx, idle)
		defer cancel()
		took, err := h.control(ctx, s, data)
		if err == nil && took < len(data) {
			err = fmt.Errorf("%d of %d bytes were taken", took, len(data))
		}
		return err
	}
	for s, data := range transfers {
		if err = perform(s, data); err != nil {
			break
		}
		n++
	}
	return n, h.failed("control stream", 0, err)
}

// flight is a transfer that libusb has.
type flight struct {
	length int
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when n and err say how it ended
	n      int
	err    error
}

// launch begins a transfer on an endpoint of a claimed interface. begin hands it to libusb and returns what waits for
// its end, which cancels it when its context ends.
func (h *Handle) launch(ep uint8, length int, begin func(*gousb.Interface) (func(context.Context) (int, error), error)) (*flight, error) {
	f := &flight{length: length, ended: make(chan struct{})}
	h.mu.Lock()
	iface, _, err := h.find(ep)
	if err == nil && h.closing {
		err = os.ErrClosed
	}
	if err != nil {
		h.mu.Unlock()
		return nil, err
	}
	c := h.claims[iface]
	ctx, cancel := context.WithCancelCause(context.Background())
	f.cancel = cancel
	c.flights = append(c.flights, f)
	h.mu.Unlock()

	land := func() {
		cancel(nil)
		h.mu.Lock()
		c.flights = slices.DeleteFunc(c.flights, func(other *flight) bool { return other == f })
		h.mu.Unlock()
		close(f.ended)
	}
	wait, err := begin(c.intf)
	if err != nil {
		land()
		return nil, err
	}
	go func() {
		f.n, f.err = wait(ctx)
		if errors.Is(f.err, gousb.TransferCancelled) && ctx.Err() != nil {
			f.err = context.Cause(ctx)
		}
		land()
	}()
	return f, nil
}

// chunk is the size of the longest transfers on an endpoint, whole packets.
func (h *Handle) chunk(ep uint8) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, e, err := h.find(ep)
	packet, chunk := max(e.MaxPacket, 1), chunkBulk
	if e.Type == usb.Interrupt {
		chunk = chunkInterrupt
	}
	return max(chunk/packet, 1) * packet, err
}

// In implements [usb.Handle].
func (h *Handle) In(ctx context.Context, ep uint8, buf []byte) (int, error) {
	n, err := h.in(ctx, ep, buf)
	return n, h.failed("in", int(ep), err)
}

// in has one transfer in flight: data that the device sends behind a short packet must not land in the next one.
func (h *Handle) in(ctx context.Context, ep uint8, buf []byte) (n int, err error) {
	if ep&0x80 == 0 {
		return 0, errors.New("not an endpoint to the host")
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	unlock, err := h.lock(ctx, ep)
	if err != nil {
		return 0, err
	}
	defer unlock()
	chunk, err := h.chunk(ep)
	if err != nil {
		return 0, err
	}
	for {
		piece := buf[n:min(len(buf), n+chunk)]
		f, err := h.launch(ep, len(piece), func(i *gousb.Interface) (func(context.Context) (int, error), error) {
			in, err := i.InEndpoint(int(ep & 0xf))
			return func(ctx context.Context) (int, error) { return in.ReadContext(ctx, piece) }, err
		})
		if err != nil {
			return n, err
		}
		select {
		case <-f.ended:
		case <-ctx.Done():
			f.cancel(why(ctx))
			<-f.ended
		}
		n += f.n
		if f.err != nil || f.n < len(piece) || n == len(buf) {
			return n, f.err
		}
	}
}

// Out implements [usb.Handle].
func (h *Handle) Out(ctx context.Context, ep uint8, data []byte) (int, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	n, err := h.out(ctx, ep, 0, func(yield func([]byte) bool) { yield(data) })
	return int(n), h.failed("out", int(ep), err)
}

// Stream implements [usb.Handle].
func (h *Handle) Stream(ctx context.Context, ep uint8, idle time.Duration, transfers iter.Seq[[]byte]) (int64, error) {
	if idle <= 0 {
		idle = usb.DefaultTimeout
	}
	n, err := h.out(ctx, ep, idle, transfers)
	return n, h.failed("stream", int(ep), err)
}

// out performs transfers to an endpoint, each as one of libusb's or several, with up to depth of them in flight.
func (h *Handle) out(ctx context.Context, ep uint8, idle time.Duration, transfers iter.Seq[[]byte]) (int64, error) {
	if ep&0x80 != 0 {
		return 0, errors.New("not an endpoint from the host")
	}
	unlock, err := h.lock(ctx, ep)
	if err != nil {
		return 0, err
	}
	defer unlock()
	chunk, err := h.chunk(ep)
	if err != nil {
		return 0, err
	}
	w := &window{h: h, ep: ep, chunk: chunk, idle: idle}
	for b := range transfers {
		if err = w.send(ctx, b); err != nil {
			break
		}
	}
	if err == nil {
		err = w.drain(ctx)
	}
	w.stop(errCancelled)
	return w.sent, err
}

// window is what is in flight on an OUT endpoint.
type window struct {
	h       *Handle
	ep      uint8
	chunk   int
	idle    time.Duration // 0: the context is enough
	flights []*flight     // the oldest first
	sent    int64         // bytes that the device took
}

// send begins one transfer, as soon as there is room for it.
func (w *window) send(ctx context.Context, data []byte) error {
	if len(data) == 0 {
		return w.sendEmpty(ctx)
	}
	for len(data) > 0 {
		if len(w.flights) == depth {
			if err := w.wait(ctx); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return w.fail(why(ctx))
		}
		piece := data[:min(len(data), w.chunk)]
		data = data[len(piece):]
		f, err := w.h.launch(w.ep, len(piece), func(i *gousb.Interface) (func(context.Context) (int, error), error) {
			return submit(i, int(w.ep), piece)
		})
		if err != nil {
			return w.fail(err)
		}
		w.flights = append(w.flights, f)
	}
	return nil
}

// submit hands a transfer to libusb: gousb's stream of one buffer returns from Write with it submitted, and waits for
// it in CloseContext.
func submit(i *gousb.Interface, number int, data []byte) (wait func(context.Context) (int, error), err error) {
	out, err := i.OutEndpoint(number)
	if err != nil {
		return nil, err
	}
	stream, err := out.NewStream(len(data), 1)
	if err != nil {
		return nil, err
	}
	if _, err := stream.Write(data); err != nil {
		return nil, err
	}
	return func(ctx context.Context) (int, error) {
		err := stream.CloseContext(ctx)
		return stream.Written(), err
	}, nil
}

// sendEmpty performs a transfer of one zero-length packet, alone, since it is not known when it is handed to libusb.
func (w *window) sendEmpty(ctx context.Context) error {
	if err := w.drain(ctx); err != nil {
		return err
	}
	f, err := w.h.launch(w.ep, 0, func(i *gousb.Interface) (func(context.Context) (int, error), error) {
		out, err := i.OutEndpoint(int(w.ep))
		return func(ctx context.Context) (int, error) { return out.WriteContext(ctx, nil) }, err
	})
	if err != nil {
		return err
	}
	w.flights = append(w.flights, f)
	return w.drain(ctx)
}

// drain waits for all that is in flight.
func (w *window) drain(ctx context.Context) error {
	for len(w.flights) > 0 {
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// wait waits for the oldest transfer. After an error nothing is in flight.
func (w *window) wait(ctx context.Context) error {
	f := w.flights[0]
	var late <-chan time.Time
	if w.idle > 0 {
		timer := time.NewTimer(w.idle)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-f.ended:
		w.flights = w.flights[1:]
		w.sent += int64(f.n)
		err := f.err
		if err == nil && f.n < f.length {
			err = fmt.Errorf("%d of %d bytes were taken", f.n, f.length)
		}
		if err != nil {
			w.stop(errCancelled)
		}
		return err
	case <-ctx.Done():
		return w.fail(why(ctx))
	case <-late:
		return w.fail(fmt.Errorf("%w: nothing was taken for %v", context.DeadlineExceeded, w.idle))
	}
}

// fail ends what is in flight. An error that one of it had met already comes before the reason.
func (w *window) fail(reason error) error {
	if err := w.stop(reason); err != nil {
		return err
	}
	return reason
}

// stop cancels what is in flight, the last first, so that nothing overtakes what was before it, and counts it. It
// returns the first error that is not reason.
func (w *window) stop(reason error) error {
	for i := len(w.flights) - 1; i >= 0; i-- {
		w.flights[i].cancel(reason)
		<-w.flights[i].ended
	}
	var first error
	for _, f := range w.flights {
		w.sent += int64(f.n)
		if first == nil && f.err != nil && !errors.Is(f.err, reason) {
			first = f.err
		}
	}
	w.flights = nil
	return first
}
