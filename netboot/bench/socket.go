package main

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is the client's UDP socket. Boot loaders poll their network device; so does it, for a time that covers
// the answers of a local server, and then it waits in the kernel. It stands outside of the Go runtime's poller, which
// would wake a second thread for each datagram.
type socket struct {
	fd       int
	deadline atomic.Pointer[time.Time]
}

const look = 50 * time.Microsecond

func newSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &socket{fd: fd}
	s.deadline.Store(new(time.Time))
	return s, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
}

// ReadFromUDPAddrPort is as that of net.UDPConn. A deadline that is moved while it waits counts some milliseconds
// later.
func (s *socket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	begin := time.Now()
	for {
		var from unix.RawSockaddrInet4
		size := uint32(unsafe.Sizeof(from))
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
			uintptr(len(b)), unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
		if errno == 0 {
			port := (*[2]byte)(unsafe.Pointer(&from.Port))
			return int(n), netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(port[0])<<8|uint16(port[1])), nil
		}
		now := time.Now()
		switch d := *s.deadline.Load(); {
		case errno != unix.EAGAIN && errno != unix.EINTR:
			return 0, netip.AddrPort{}, os.NewSyscallError("recvfrom", errno)
		case !d.IsZero() && !now.Before(d):
			return 0, netip.AddrPort{}, os.ErrDeadlineExceeded
		case now.Sub(begin) < look:
			// On a busy machine the server may be waiting for this very processor.
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			continue
		}
		poll := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, 5); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, netip.AddrPort{}, os.NewSyscallError("poll", err)
		}
	}
}

// WriteToUDPAddrPort is as that of net.UDPConn.
func (s *socket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	addr := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().Unmap().As4()}
	port := (*[2]byte)(unsafe.Pointer(&addr.Port))
	port[0], port[1] = byte(to.Port()>>8), byte(to.Port())
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
		uintptr(len(b)), 0, uintptr(unsafe.Pointer(&addr)), unsafe.Sizeof(addr))
	if errno != 0 {
		return 0, os.NewSyscallError("sendto", errno)
	}
	return int(n), nil
}

// ReadFrom is as in net.PacketConn.
func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.ReadFromUDPAddrPort(b)
	return n, net.UDPAddrFromAddrPort(from), err
}

// WriteTo is as in net.PacketConn.
func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, syscall.EAFNOSUPPORT
	}
	return s.WriteToUDPAddrPort(b, a.AddrPort())
}

// SetReadDeadline is as in net.PacketConn.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.deadline.Store(&t)
	return nil
}

// SetDeadline is SetReadDeadline: writing does not wait for long.
func (s *socket) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetWriteDeadline does nothing.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr is not known.
func (s *socket) LocalAddr() net.Addr { return &net.UDPAddr{} }

// Close closes the socket. Nobody may be reading.
func (s *socket) Close() error { return unix.Close(s.fd) }
