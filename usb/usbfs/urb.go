//go:build linux

package usbfs

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"snag/usb"
)

// transfer is an URB and what belongs to it. It may be submitted again once it is over. Who made it frees it.
type transfer struct {
	urb    urb
	own    runtime.Pinner // of the URB and buf, until it is freed
	buf    []byte         // what is sent or received, if that is not the caller's
	pinner runtime.Pinner // of what is the caller's, while it is in flight to the host
	pinned bool
	lost   bool          // the kernel did not give it back
	failed chan struct{} // gets a value if the transfer ends in an error, unless it has one; may be nil

	over    atomic.Bool   // it was reaped, or lost
	awaited bool          // done gets a value when it is; h.mu is held for it
	done    chan struct{} // see handle.await
}

func newTransfer() *transfer {
	t := &transfer{done: make(chan struct{}, 1)}
	t.over.Store(true)
	t.own.Pin(&t.urb)
	return t
}

// free ends the use of a transfer, which is not in flight.
func (t *transfer) free() { t.own.Unpin() }

func (t *transfer) unpin() {
	if t.pinned {
		t.pinner.Unpin()
		t.pinned = false
	}
}

// room makes buf n bytes long. What was in it is lost.
func (t *transfer) room(n int) []byte {
	if n > cap(t.buf) {
		t.own.Unpin()
		t.buf = make([]byte, n)
		t.own.Pin(&t.urb)
		t.own.Pin(unsafe.SliceData(t.buf))
	}
	t.buf = t.buf[:n]
	return t.buf
}

// end says that the transfer was reaped, or lost. h.mu is held.
func (t *transfer) end() {
	failed := t.failed
	if !t.lost && t.urb.Status == 0 {
		failed = nil
	}
	t.unpin()
	t.over.Store(true) // its URB may be in use again from here on
	if t.awaited {
		t.done <- struct{}{}
	}
	if failed == nil {
		return
	}
	select {
	case failed <- struct{}{}:
	default:
	}
}

// submit hands an URB to the kernel. If it returns nil, the transfer will be over.
func (h *handle) submit(t *transfer, kind, ep uint8, flags uint32, buf []byte) error {
	t.urb = urb{Type: kind, Endpoint: ep, Flags: flags, Length: int32(len(buf))}
	t.lost = false
	if len(buf) > 0 {
		data := unsafe.SliceData(buf)
		if ep&0x80 != 0 && data != unsafe.SliceData(t.buf) {
			t.pinner.Pin(data)
			t.pinned = true
		}
		t.urb.Buffer = unsafe.Pointer(data)
	}
	if err := h.launch(t); err != nil {
		t.unpin()
		return err
	}
	var errno unix.Errno = unix.EINTR
	for errno == unix.EINTR {
		errno = h.brief(reqSubmitURB, unsafe.Pointer(&t.urb))
	}
	h.requests.Done()
	if errno == 0 {
		return nil
	}
	h.mu.Lock()
	h.land(t)
	h.mu.Unlock()
	t.unpin()
	return errno
}

// brief makes an ioctl that as a rule waits for nothing. If the host is a quick one Go's scheduler is not told of it,
// unless too few of its processors were left that way.
func (h *handle) brief(request uintptr, arg unsafe.Pointer) (errno unix.Errno) {
	if h.quick {
		defer untold.Add(-1)
		if untold.Add(1) < h.processors.Load() {
			_, _, errno = unix.RawSyscall(unix.SYS_IOCTL, uintptr(h.fd), request, uintptr(arg))
			return errno
		}
	}
	_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(h.fd), request, uintptr(arg))
	return errno
}

// untold counts the system calls of all handles that Go's scheduler does not know of. Each keeps one of its processors.
var untold atomic.Int32

// launch counts a transfer among those in flight, before it is submitted: it may be reaped at once. It counts a request,
// too, so that the node is not closed before.
func (h *handle) launch(t *transfer) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closing:
		return os.ErrClosed
	case h.lost:
		return unix.ENODEV
	}
	if t.awaited {
		t.awaited = false
		select {
		case <-t.done: // nobody came for it
		default:
		}
	}
	t.over.Store(false)
	h.flights = append(h.flights, t)
	h.requests.Add(1)
	return nil
}

// reaped is the transfer in flight whose URB is at an address; nil if there is none. h.mu is held.
func (h *handle) reaped(urb uintptr) *transfer {
	for _, t := range h.flights { // the oldest is mostly it
		if uintptr(unsafe.Pointer(&t.urb)) == urb {
			return t
		}
	}
	return nil
}

// land removes a transfer from those in flight, of which it may be none. h.mu is held.
func (h *handle) land(t *transfer) {
	i := slices.Index(h.flights, t)
	if i < 0 {
		return
	}
	h.flights = slices.Delete(h.flights, i, i+1)
	if h.closing && len(h.flights) == 0 && h.landed != nil {
		close(h.landed)
		h.landed = nil
	}
}

// await returns a channel that has a value once t is over, and has the watcher reap it. Who leads need not wait so.
func (h *handle) await(t *transfer) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !t.awaited {
		t.awaited = true
		if t.over.Load() {
			t.done <- struct{}{}
		}
	}
	h.ask()
	return t.done
}

// wait waits until t is over.
func (h *handle) wait(t *transfer) {
	if !t.over.Load() {
		<-h.await(t)
	}
}

// discard asks the kernel to cancel an URB, which is reaped then as any other. The kernel knows none that is done
// already, and none of a device that is gone: no error matters.
func (h *handle) discard(t *transfer) {
	_ = h.ioctl(reqDiscardURB, unsafe.Pointer(&t.urb))
}

// discardAll discards what is in flight, last things first, so that nothing overtakes what was before it.
func (h *handle) discardAll() {
	h.mu.Lock()
	all := slices.Clone(h.flights) // in the order of their submissions
	h.mu.Unlock()
	for _, t := range slices.Backward(all) {
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
	if err == nil {
		return nil // as it mostly is; what follows allocates
	}
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
