package usbip

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket reads and writes a socket with calls that never wait, of which Go's scheduler is not told: it would wake its
// monitor for each, a thread that takes the processor from whoever recovers the board, more often than the calls
// themselves. Waiting is the runtime's, as in a net.Conn.
type socket struct {
	raw     syscall.RawConn
	in, out call
}

// call is a read or a write that is under way.
type call struct {
	b     []byte
	n     int
	errno syscall.Errno
	try   func(fd uintptr) bool
}

// streams are what is read from and written to conn.
func streams(conn net.Conn) (io.Reader, io.Writer) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return conn, conn
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return conn, conn
	}
	s := &socket{raw: raw}
	s.in.try = func(fd uintptr) bool { return s.in.perform(unix.SYS_RECVFROM, fd, unix.MSG_DONTWAIT) }
	s.out.try = func(fd uintptr) bool { return s.out.perform(unix.SYS_SENDTO, fd, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) }
	return reader{s}, writer{s}
}

// perform makes the call. It returns false if that would have to wait.
func (c *call) perform(trap, fd, flags uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(c.b))), uintptr(len(c.b)), flags, 0, 0)
		switch errno {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		}
		c.n, c.errno = int(n), errno
		return true
	}
}

type reader struct{ *socket }

// Read implements [io.Reader].
func (r reader) Read(b []byte) (int, error) {
	c := &r.in
	c.b = b
	if err := r.raw.Read(c.try); err != nil {
		return 0, err
	}
	switch {
	case c.errno != 0:
		return 0, os.NewSyscallError("recvfrom", c.errno)
	case c.n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return c.n, nil
}

type writer struct{ *socket }

// Write implements [io.Writer].
func (w writer) Write(b []byte) (int, error) {
	c := &w.out
	for n := 0; n < len(b); n += c.n {
		c.b = b[n:]
		if err := w.raw.Write(c.try); err != nil {
			return n, err
		}
		if c.errno != 0 {
			return n, os.NewSyscallError("sendto", c.errno)
		}
	}
	return len(b), nil
}
