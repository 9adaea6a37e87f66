//go:build linux

package usbfs

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"snag/usb"
)

// transfer is an URB and what belongs to it. It may be submitted again once it was reaped.
type transfer struct {
	urb    urb
	pinner runtime.Pinner
	number uint64        // of the submission, in their order
	done   chan struct{} // has a value when the URB was reaped
	lost   bool          // the kernel did not give it back
	failed chan struct{} // gets a value if the transfer ends in an error, unless it has one; may be nil
}

func newTransfer() *transfer { return &transfer{done: make(chan struct{}, 1)} }

// end tells who waits that the transfer was reaped, or lost.
func (t *transfer) end() {
	failed := t.failed
	if !t.lost && t.urb.Status == 0 {
		failed = nil
	}
	t.done <- struct{}{} // t may be in use again from here on
	select {
	case failed <- struct{}{}:
	default:
	}
}

// submit hands an URB to the kernel. If it returns nil, done will receive a value.
func (h *handle) submit(t *transfer, kind, ep uint8, flags uint32, buf []byte) error {
	t.urb = urb{Type: kind, Endpoint: ep, Flags: flags, Length: int32(len(buf))}
	t.lost = false
	if len(buf) > 0 {
		t.urb.Buffer = unsafe.Pointer(unsafe.SliceData(buf))
		t.pinner.Pin(t.urb.Buffer)
	}
	t.pinner.Pin(&t.urb)
	key := uintptr(unsafe.Pointer(&t.urb))

	h.mu.Lock()
	var err error
	switch {
	case h.closing:
		err = os.ErrClosed
	case h.lost:
		err = unix.ENODEV
	default:
		h.submitted++
		t.number = h.submitted
		h.flights[key] = t // before it is submitted: it may be reaped at once
	}
	h.mu.Unlock()
	if err == nil {
		if err = h.ioctl(reqSubmitURB, unsafe.Pointer(&t.urb)); err != nil {
			h.mu.Lock()
			h.land(key)
			h.mu.Unlock()
		}
	}
	if err != nil {
		t.pinner.Unpin()
	}
	return err
}

// land removes a transfer from those in flight; nil if it is none of them. h.mu is held.
func (h *handle) land(key uintptr) *transfer {
	t := h.flights[key]
	delete(h.flights, key)
	if h.closing && len(h.flights) == 0 && h.landed != nil {
		close(h.landed)
		h.landed = nil
	}
	return t
}

// discard asks the kernel to cancel an URB, which is reaped then as any other. The kernel knows none that is done
// already, and none of a device that is gone: no error matters.
func (h *handle) discard(t *transfer) {
	_ = h.ioctl(reqDiscardURB, unsafe.Pointer(&t.urb))
}

// discardAll discards what is in flight, last things first, so that nothing overtakes what was before it.
func (h *handle) discardAll() {
	h.mu.Lock()
	var all []*transfer
	for _, t := range h.flights {
		all = append(all, t)
	}
	h.mu.Unlock()
	slices.SortFunc(all, func(a, b *transfer) int { return int(int64(b.number) - int64(a.number)) })
	for _, t := range all {
		h.discard(t)
	}
}

// result is how a reaped transfer ended.
func (h *handle) result(t *transfer) (int, error) {
	if t.lost {
		return 0, usb.ErrGone
	}
	n, errno := int(t.urb.Actual), unix.Errno(-t.urb.Status)
	switch errno {
	case 0:
		return n, nil
	case unix.ENOENT, unix.ECONNRESET, unix.ESHUTDOWN:
		// Cancelled: by the caller, who knows, by another request, or because the device leaves.
		switch err := h.connected(); {
		case errors.Is(err, unix.ENODEV):
			return n, cause(unix.ENODEV)
		case err != nil:
			return n, err
		}
		return n, errCancelled
	}
	return n, cause(errno)
}

// errCancelled ends transfers of an interface that was released, set to another setting or reset meanwhile.
var errCancelled = errors.New("cancelled by another request")

// connected returns nil while the kernel has the device, and the handle is open.
func (h *handle) connected() error {
	h.mu.Lock()
	closing := h.closing
	h.mu.Unlock()
	if closing {
		return os.ErrClosed
	}
	var caps uint32
	err := h.ioctl(reqCapabilities, unsafe.Pointer(&caps))
	if errors.Is(err, unix.ENOTTY) {
		return nil
	}
	return err
}

// ioctl performs a request on the node. Errors are the kernel's, or wrap os.ErrClosed.
func (h *handle) ioctl(req uintptr, arg unsafe.Pointer) error {
	var errno unix.Errno
	err := h.conn.Control(func(fd uintptr) {
		for {
			if _, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, req, uintptr(arg)); errno != unix.EINTR {
				return
			}
		}
	})
	switch {
	case err != nil:
		return os.ErrClosed
	case errno != 0:
		return errno
	}
	return nil
}

// systemError is an error of package usb with the system's that says it.
type systemError struct {
	kind  error
	errno unix.Errno
}

func (e *systemError) Error() string { return fmt.Sprintf("%v (%s)", e.kind, unix.ErrnoName(e.errno)) }

func (e *systemError) Unwrap() []error { return []error{e.kind, e.errno} }

// cause names a system's error as package usb does (Documentation/driver-api/usb/error-codes.rst).
func cause(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	var kind error
	switch errno {
	case unix.EPIPE:
		kind = usb.ErrStall
	case unix.ENODEV, unix.ESHUTDOWN, unix.ENXIO:
		kind = usb.ErrGone
	case unix.EOVERFLOW:
		kind = usb.ErrOverflow
	case unix.EPROTO, unix.EILSEQ, unix.ETIME, unix.ETIMEDOUT:
		kind = usb.ErrProtocol
	case unix.EBUSY:
		kind = usb.ErrBusy
	default:
		return err
	}
	return &systemError{kind, errno}
}
