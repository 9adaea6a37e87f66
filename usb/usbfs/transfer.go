//go:build linux

package usbfs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"snag/usb"
)

// What is in flight on an OUT endpoint (the package comment has what was measured): URBs, and bytes if they are
// several.
const (
	depth       = 64
	flightBytes = 1 << 20
)

const (
	// The longest URB, where the kernel's copy may be in pieces and where it must be contiguous.
	chunkScattered  = 256 << 10
	chunkContiguous = 16 << 10

	// setupSize is the length of the setup packet, with which the buffer of a control transfer begins.
	setupSize = 8

	// memoryPause is the time after which memory is asked for again that other handles have, which nobody announces.
	memoryPause = 10 * time.Millisecond
)

// bounded gives a context without a deadline the default one.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return usb.Within(ctx, usb.DefaultTimeout, errLate)
}

var errLate = fmt.Errorf("%w: no end within %v", context.DeadlineExceeded, usb.DefaultTimeout)

// Control implements [usb.Handle].
func (h *handle) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	n, err := h.control(ctx, s, data)
	return n, h.failed("control", int(s.Type&0x80), err)
}

func (h *handle) control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	if len(data) != int(s.Length) {
		return 0, fmt.Errorf("%d bytes of data with a setup packet that says %d", len(data), s.Length)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := h.lock(ctx, 0); err != nil {
		return 0, err
	}
	defer h.unlock(0)
	c := h.takeSpares()
	defer h.putSpares(c)
	t := c[0]
	if err := h.submitControl(ctx, t, s, data); err != nil {
		return 0, err
	}
	n, err := h.finish(ctx, t)
	if s.ToHost() {
		copy(data, t.buf[setupSize:setupSize+n])
	}
	return n, err
}

// submitControl submits the URB of a control transfer, once there is memory for it: the setup packet and the data, or
// room for it.
func (h *handle) submitControl(ctx context.Context, t *transfer, s usb.Setup, data []byte) error {
	setup, buf := s.Bytes(), t.room(setupSize+len(data))
	copy(buf, setup[:])
	if !s.ToHost() {
		copy(buf[setupSize:], data)
	}
	for {
		if err := h.submit(t, urbControl, 0, 0, buf); err == nil {
			return nil
		} else if !errors.Is(err, unix.ENOMEM) {
			return cause(err)
		}
		if err := pause(ctx, h.closed); err != nil {
			return err
		}
	}
}

// In implements [usb.Handle].
func (h *handle) In(ctx context.Context, ep uint8, buf []byte) (int, error) {
	n, err := h.in(ctx, ep, buf)
	return n, h.failed("in", int(ep), err)
}

// in has one URB in flight: data that the device sends behind a short packet must not land in the next one.
func (h *handle) in(ctx context.Context, ep uint8, buf []byte) (n int, err error) {
	if ep&0x80 == 0 {
		return 0, errors.New("not an endpoint to the host")
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := h.lock(ctx, ep); err != nil {
		return 0, err
	}
	defer h.unlock(ep)
	packet, err := h.packet(ep)
	if err != nil {
		return 0, err
	}
	chunk := pieces(h.chunk, packet)
	t := newTransfer()
	defer t.free()
	for {
		piece := buf[n:min(len(buf), n+chunk)]
		err := h.submit(t, urbBulk, ep, 0, piece)
		if errors.Is(err, unix.ENOMEM) {
			if chunk > packet {
				chunk = pieces(chunk/2, packet)
			} else if err := pause(ctx, h.closed); err != nil {
				return n, err
			}
			continue
		}
		if err != nil {
			return n, cause(err)
		}
		m, err := h.finish(ctx, t)
		n += m
		if err != nil || m < len(piece) || n == len(buf) {
			return n, err
		}
	}
}

// finish waits for a submitted URB's end, or cancels it when ctx ends.
func (h *handle) finish(ctx context.Context, t *transfer) (int, error) {
	if h.direct(ctx, t, nil, t); !t.over.Load() {
		done := h.await(t)
		select {
		case <-done:
		case <-ctx.Done():
			h.discard(t)
			<-done
		}
	}
	n, err := h.result(t)
	if errors.Is(err, errCancelled) && ctx.Err() != nil {
		err = why(ctx)
	}
	return n, err
}

// why is a context's error, with its cause.
func why(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// pieces is the largest multiple of an endpoint's packets up to n bytes, but one packet at least.
func pieces(n, packet int) int { return max(n/packet, 1) * packet }

// pause waits until memory may be there again.
func pause(ctx context.Context, closed <-chan struct{}) error {
	select {
	case <-time.After(memoryPause):
		return nil
	case <-closed:
		return nil // the next submission says so
	case <-ctx.Done():
		return fmt.Errorf("%w while the kernel has no memory for transfers (parameter usbfs_memory_mb of usbcore)", why(ctx))
	}
}

// Out implements [usb.Handle].
func (h *handle) Out(ctx context.Context, ep uint8, data []byte) (int, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	n, err := h.out(ctx, ep, 0, func(yield func([]byte) bool) { yield(data) })
	return int(n), h.failed("out", int(ep), err)
}

// Stream implements [usb.Handle]. The copy of a transfer is the kernel's, made when it is submitted.
func (h *handle) Stream(ctx context.Context, ep uint8, idle time.Duration, transfers iter.Seq[[]byte]) (int64, error) {
	if idle <= 0 {
		idle = usb.DefaultTimeout
	}
	n, err := h.out(ctx, ep, idle, transfers)
	return n, h.failed("stream", int(ep), err)
}

// StreamControl implements [usb.Handle]. Each transfer is one URB. The kernel hands all of them to the host
// controller's driver, whose queue for endpoint 0 is in their order.
func (h *handle) StreamControl(ctx context.Context, idle time.Duration, transfers iter.Seq2[usb.Setup, []byte]) (int, error) {
	if idle <= 0 {
		idle = usb.DefaultTimeout
	}
	n, err := h.controls(ctx, idle, transfers)
	return n, h.failed("control stream", 0, err)
}

// controls performs control transfers to the device, several of them in flight.
func (h *handle) controls(ctx context.Context, idle time.Duration, transfers iter.Seq2[usb.Setup, []byte]) (int, error) {
	if err := h.lock(ctx, 0); err != nil {
		return 0, err
	}
	defer h.unlock(0)
	const whole = setupSize + 0xffff // such an URB is never cut
	w := &window{h: h, kind: urbControl, head: setupSize, packet: whole, chunk: whole, idle: idle, failed: make(chan struct{}, 1)}
	var err error
	var buf []byte
	for s, data := range transfers {
		if s.ToHost() || len(data) != int(s.Length) {
			if err = w.drain(ctx); err != nil {
				break
			}
			err = fmt.Errorf("%d bytes of data with a setup packet of type %#02x that says %d", len(data), s.Type, s.Length)
			break
		}
		setup := s.Bytes()
		buf = append(append(buf[:0], setup[:]...), data...)
		if err = w.send(ctx, buf); err != nil {
			break
		}
	}
	if err == nil {
		err = w.drain(ctx)
	}
	w.end()
	return w.whole, err
}

// out performs transfers to an endpoint, each as one URB or several, several of them in flight.
func (h *handle) out(ctx context.Context, ep uint8, idle time.Duration, transfers iter.Seq[[]byte]) (int64, error) {
	if ep&0x80 != 0 {
		return 0, errors.New("not an endpoint from the host")
	}
	if err := h.lock(ctx, ep); err != nil {
		return 0, err
	}
	defer h.unlock(ep)
	packet, err := h.packet(ep)
	if err != nil {
		return 0, err
	}
	w := &window{h: h, kind: urbBulk, ep: ep, packet: packet, chunk: pieces(h.chunk, packet), idle: idle, failed: make(chan struct{}, 1)}
	for b := range transfers {
		if err = w.send(ctx, b); err != nil {
			break
		}
	}
	if err == nil {
		err = w.drain(ctx)
	}
	w.end()
	return w.sent, err
}

// window is what is in flight on an OUT endpoint.
type window struct {
	h             *handle
	kind, ep      uint8
	head          int // bytes of each URB that are not counted
	packet, chunk int
	idle          time.Duration // 0: the context is enough
	timer         *time.Timer   // of idle, once it was needed
	flights       []*transfer   // the oldest first
	bytes         int           // of the flights
	spare         []*transfer
	failed        chan struct{} // has a value once an URB has ended in an error
	begun         bool          // an URB was submitted
	sent          int64         // bytes that the device took
	whole         int           // URBs that it took before one failed
	broken        bool          // one has failed
}

// send submits the URBs of one transfer, as soon as there is room for them.
func (w *window) send(ctx context.Context, data []byte) error {
	for first := true; first || len(data) > 0; first = false {
		n := 0
		for {
			n = min(len(data), w.chunk)
			for len(w.flights) == w.h.depth || len(w.flights) > 0 && w.bytes+n > w.h.room {
				if err := w.wait(ctx); err != nil {
					return err
				}
			}
			err := w.submit(data[:n])
			if err == nil {
				break
			}
			switch {
			case errors.Is(err, unix.EREMOTEIO) && len(w.flights) > 0:
				// One before it has failed, and says how when its turn comes.
				err = w.wait(ctx)
			case !errors.Is(err, unix.ENOMEM):
				return cause(err)
			case len(w.flights) > 0:
				err = w.wait(ctx)
			case w.chunk > w.packet:
				w.chunk, err = pieces(w.chunk/2, w.packet), nil
			default:
				err = pause(ctx, w.h.closed)
			}
			if err != nil {
				return err
			}
		}
		data = data[n:]
	}
	return nil
}

func (w *window) submit(piece []byte) error {
	if len(w.spare) == 0 {
		w.spare = append(w.spare, newTransfer())
	}
	t := w.spare[len(w.spare)-1]
	w.spare = w.spare[:len(w.spare)-1]
	t.failed = w.failed
	var flags uint32
	if w.begun && w.kind == urbBulk {
		flags = urbContinuation // what follows an error would leave a hole
	}
	if err := w.h.submit(t, w.kind, w.ep, flags, piece); err != nil {
		w.spare = append(w.spare, t)
		return err
	}
	w.begun = true
	w.flights, w.bytes = append(w.flights, t), w.bytes+len(piece)
	return nil
}

// drain waits until nothing is in flight.
func (w *window) drain(ctx context.Context) error {
	for len(w.flights) > 0 {
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// wait waits until half of the URBs have ended, or one in an error: to be woken for each costs more than a short one
// takes. After an error what was in flight has ended, too.
func (w *window) wait(ctx context.Context) error {
	t := w.flights[len(w.flights)/2]
	var late <-chan time.Time
	if w.idle > 0 {
		if w.timer == nil {
			w.timer = time.NewTimer(w.idle)
		} else {
			w.timer.Reset(w.idle)
		}
		defer w.timer.Stop()
		late = w.timer.C
	}
	w.h.direct(ctx, t, w.failed, w.flights...)
	var reason error
	if !t.over.Load() {
		select {
		case <-w.h.await(t):
		case <-w.failed:
		case <-ctx.Done():
			reason = why(ctx)
		case <-late:
			reason = fmt.Errorf("%w: nothing was taken for %v", context.DeadlineExceeded, w.idle)
		}
	}
	landed := false
	for len(w.flights) > 0 && w.flights[0].over.Load() {
		landed = true
		if err := w.land(w.flights[0]); err != nil {
			return err
		}
	}
	if reason == nil && len(w.flights) > 0 && ctx.Err() != nil {
		reason = why(ctx)
	}
	if reason == nil || landed && ctx.Err() == nil {
		return nil
	}
	if err := w.stop(); err != nil && !errors.Is(err, errCancelled) {
		return err
	}
	return reason
}

// land counts the oldest URB, which was reaped.
func (w *window) land(t *transfer) error {
	n, err := w.h.result(t)
	w.sent += int64(n)
	if length := int(t.urb.Length) - w.head; err == nil && n < length {
		err = fmt.Errorf("%d of %d bytes were taken", n, length)
	}
	if w.broken = w.broken || err != nil; !w.broken {
		w.whole++
	}
	w.bytes -= int(t.urb.Length)
	w.flights, w.spare = slices.Delete(w.flights, 0, 1), append(w.spare, t)
	return err
}

// end is that of the window.
func (w *window) end() {
	w.stop()
	for _, t := range w.spare {
		t.free()
	}
}

// stop ends what is in flight, the last first, and counts it. It returns the first error.
func (w *window) stop() error {
	if len(w.flights) == 0 {
		return nil
	}
	for i := len(w.flights) - 1; i >= 0; i-- {
		w.h.discard(w.flights[i])
	}
	w.h.watched()
	var first error
	for len(w.flights) > 0 {
		t := w.flights[0]
		w.h.wait(t)
		if err := w.land(t); first == nil {
			first = err
		}
	}
	return first
}
