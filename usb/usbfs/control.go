//go:build linux

package usbfs

import (
	"context"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"snag/usb"
)

// lingerTime bounds a wait that Go's scheduler does not know of.
const lingerTime = 50 * time.Millisecond

// linger waits for the end of a transfer that is likely to be over at once, as the one before was. For a process that
// waits, Go's scheduler wakes a second thread with every event (its monitor), which on a machine with one processor costs
// more than a control transfer takes. Therefore the thread waits in the kernel, and keeps its place in the scheduler
// meanwhile. Those who can run are let run before.
func (h *handle) linger(t *transfer) {
	if !h.quick {
		return
	}
	runtime.Gosched()
	end := time.Now().Add(lingerTime)
	_ = h.conn.Control(func(fd uintptr) {
		for len(t.done) == 0 {
			switch h.reapOne(fd) {
			case 0, unix.EINTR:
				continue
			case unix.EAGAIN:
			default: // reap's business
				return
			}
			left := time.Until(end)
			if left <= 0 {
				return
			}
			ready := unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT}
			timeout := unix.NsecToTimespec(left.Nanoseconds())
			unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&ready)), 1, uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
			if ready.Revents&^unix.POLLOUT != 0 {
				return
			}
		}
	})
}

// ControlPair implements [usb.Pairer].
func (h *handle) ControlPair(ctx context.Context, first, second *usb.ControlTransfer) {
	first.Err, second.Err = h.controlPair(ctx, first, second)
	for _, c := range []*usb.ControlTransfer{first, second} {
		c.Err = h.failed("control", int(c.Setup.Type&0x80), c.Err)
	}
}

func (h *handle) controlPair(ctx context.Context, first, second *usb.ControlTransfer) (firstErr, secondErr error) {
	pair := [2]*usb.ControlTransfer{first, second}
	var buf [2][]byte
	for i, c := range pair {
		if c.N = 0; len(c.Data) != int(c.Setup.Length) {
			err := fmt.Errorf("%d bytes of data with a setup packet that says %d", len(c.Data), c.Setup.Length)
			return err, err
		}
		buf[i] = controlBuffer(c.Setup, c.Data)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	unlock, err := h.lock(ctx, 0)
	if err != nil {
		return err, err
	}
	defer unlock()
	begun := time.Now()
	t := [2]*transfer{newTransfer(), newTransfer()}
	if err := h.submitControl(ctx, t[0], buf[0]); err != nil {
		return err, err
	}
	last := t[1]
	if secondErr = h.submitControl(ctx, t[1], buf[1]); secondErr != nil {
		last = t[0]
	}
	h.linger(last)
	select {
	case <-last.done:
		last.done <- struct{}{} // for await
	case <-ctx.Done():
		h.discard(last) // the first must not be followed by it when it is discarded
	}
	var errs [2]error
	for i, c := range pair {
		if i == 1 && secondErr != nil {
			break
		}
		if c.N, errs[i] = h.await(ctx, t[i]); c.Setup.ToHost() {
			copy(c.Data, buf[i][setupSize:setupSize+c.N])
		}
	}
	h.quick = time.Since(begun) < lingerTime
	if secondErr == nil {
		secondErr = errs[1]
	}
	return errs[0], secondErr
}
