package netboot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is a UDP socket of IPv4 that stands outside of the Go runtime's poller. That poller, by its edge-triggered
// registration, wakes a thread of the process for each datagram that comes and for each that has left, whoever
// waits for it; in lock-step this costs a third of the throughput. Here the reader waits in the kernel itself.
// Only one goroutine may read.
type Socket struct {
	fd, wake int // wake is an eventfd: a deadline was moved
	addr     net.Addr
	quick    int       // datagrams in a row that came within spin; the reader's
	short    bool      // the last datagram came within brief; the reader's
	yielded  time.Time // to other goroutines; the reader's

	use      sync.RWMutex // held while the descriptors are in use
	deadline atomic.Pointer[time.Time]
	closed   atomic.Bool
}

// Detach takes a socket out of the runtime's poller. c is closed, whether it succeeds or not.
func Detach(c *net.UDPConn) (*Socket, error) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Socket{addr: c.LocalAddr()}
	s.deadline.Store(new(time.Time))
	cerr := raw.Control(func(fd uintptr) { s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("duplicating a socket: %w", err)
	}
	timeout := unix.NsecToTimeval(int64(brief))
	if err = errors.Join(unix.SetNonblock(s.fd, false), unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)); err != nil {
		unix.Close(s.fd)
		return nil, fmt.Errorf("having a socket wait: %w", err)
	}
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(s.fd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return s, nil
}

// spin is how long a reader looks again and again before it lets the kernel wake it, provided that so many datagrams
// before came as quickly: waking up takes longer than a local client's answer. A USB device's takes longer than
// this, so with a real board no reader ever spins.
const (
	spin        = 40 * time.Microsecond
	quickEnough = 16
)

// brief is how long a reader waits in recvfrom, where the Go scheduler does not know of it, provided that the datagram
// before came within that time: a thread that comes back from a system call that the scheduler knows of wakes others, and
// to ask for a datagram, wait for one in ppoll and ask again are three calls for one. The kernel counts the time in its
// ticks: up to 8 ms are meant at 250 of them a second. So long a deadline that is moved, or passes, may not be heeded,
// and the reader's processor (GOMAXPROCS) is taken; but for no longer than the runtime lets goroutines run anyway: its
// signal ends the wait.
//
// A goroutine that has been running for 10 ms is taken by the scheduler's monitor for one that hogs its processor: it is
// interrupted, and the monitor looks every 20 µs from then on (retake in runtime/proc.go). So it gives way before.
const (
	brief     = 2 * time.Millisecond
	yieldTime = 7 * time.Millisecond
)

// ReadFromUDPAddrPort is as that of net.UDPConn.
func (s *Socket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	s.use.RLock()
	defer s.use.RUnlock()
	poll := [2]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}, {Fd: int32(s.wake), Events: unix.POLLIN}}
	begin := time.Now()
	for now := begin; ; now = time.Now() {
		deadline := *s.deadline.Load()
		switch {
		case s.closed.Load():
			return 0, netip.AddrPort{}, net.ErrClosed
		case !deadline.IsZero() && !now.Before(deadline):
			return 0, netip.AddrPort{}, os.ErrDeadlineExceeded
		}
		spinning := s.quick >= quickEnough && now.Sub(begin) < spin
		if spinning {
			// The client may be waiting for this very processor.
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
		waiting := !spinning && s.short && now.Sub(begin) < brief && (deadline.IsZero() || deadline.Sub(now) > brief)
		if waiting && now.Sub(s.yielded) > yieldTime {
			s.yielded = now
			runtime.Gosched()
		}
		n, from, errno := s.receive(b, waiting)
		switch {
		case errno == 0:
			waited := now.Sub(begin)
			if s.quick++; waited >= spin {
				s.quick = 0
			}
			s.short = waited < brief
			return n, from, nil
		case errno != unix.EAGAIN && errno != unix.EINTR:
			return 0, netip.AddrPort{}, os.NewSyscallError("recvfrom", errno)
		case spinning, waiting:
			continue
		}
		var timeout *unix.Timespec
		if !deadline.IsZero() {
			ts := unix.NsecToTimespec(int64(deadline.Sub(now)))
			timeout = &ts
		}
		if _, err := unix.Ppoll(poll[:], timeout, nil); err != nil && err != unix.EAGAIN && err != unix.EINTR {
			return 0, netip.AddrPort{}, os.NewSyscallError("ppoll", err)
		}
		if poll[1].Revents != 0 {
			var count [8]byte
			_, _ = unix.Read(s.wake, count[:])
		}
	}
}

// receive takes a datagram that is there, or waits for one briefly. The Go scheduler need not know of the call.
func (s *Socket) receive(b []byte, wait bool) (int, netip.AddrPort, syscall.Errno) {
	flags := unix.MSG_DONTWAIT
	if wait {
		flags = 0
	}
	var from unix.RawSockaddrInet4
	size := uint32(unsafe.Sizeof(from))
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
		uintptr(len(b)), uintptr(flags), uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, netip.AddrPort{}, errno
	}
	port := (*[2]byte)(unsafe.Pointer(&from.Port))
	return int(n), netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(port[0])<<8|uint16(port[1])), 0
}

// WriteToUDPAddrPort is as that of net.UDPConn. While the socket's buffer is full it waits, but not for long: a
// datagram may be lost.
func (s *Socket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	s.use.RLock()
	defer s.use.RUnlock()
	if s.closed.Load() {
		return 0, net.ErrClosed
	}
	addr := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().Unmap().As4()}
	port := (*[2]byte)(unsafe.Pointer(&addr.Port))
	port[0], port[1] = byte(to.Port()>>8), byte(to.Port())
	for range 2 {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
			uintptr(len(b)), unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&addr)), unsafe.Sizeof(addr))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
		default:
			return 0, os.NewSyscallError("sendto", errno)
		}
		poll := [1]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
		_, _ = unix.Poll(poll[:], 10)
	}
	return 0, os.NewSyscallError("sendto", syscall.ENOBUFS)
}

// WriteSegments sends b as several datagrams of size bytes, of which the last may be shorter: as one that the kernel
// cuts (UDP_SEGMENT, Linux 4.18). It takes 64, as long together as one of IPv4 may be. Linux from 6.11 on miscounts
// their checksums where they pass NAT and the interface computes none, as USB adapters do not (seen on 6.18). While the
// socket's buffer is full it waits as WriteToUDPAddrPort does.
func (s *Socket) WriteSegments(b []byte, size int, to netip.AddrPort) error {
	s.use.RLock()
	defer s.use.RUnlock()
	if s.closed.Load() {
		return net.ErrClosed
	}
	addr := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().Unmap().As4()}
	port := (*[2]byte)(unsafe.Pointer(&addr.Port))
	port[0], port[1] = byte(to.Port()>>8), byte(to.Port())
	var oob struct {
		unix.Cmsghdr
		size uint16
		_    [6]byte // CMSG_SPACE
	}
	oob.Level, oob.Type, oob.size = unix.IPPROTO_UDP, unix.UDP_SEGMENT, uint16(size)
	oob.SetLen(unix.CmsgLen(2))
	iov := unix.Iovec{Base: unsafe.SliceData(b)}
	iov.SetLen(len(b))
	msg := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&addr)), Namelen: uint32(unsafe.Sizeof(addr)), Iov: &iov, Control: (*byte)(unsafe.Pointer(&oob))}
	msg.SetIovlen(1)
	msg.SetControllen(int(unsafe.Sizeof(oob)))
	for range 2 {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT)
		switch errno {
		case 0:
			return nil
		case unix.EAGAIN:
		default:
			return os.NewSyscallError("sendmsg", errno)
		}
		poll := [1]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
		_, _ = unix.Poll(poll[:], 10)
	}
	return os.NewSyscallError("sendmsg", syscall.ENOBUFS)
}

// ReadFrom is as in net.PacketConn.
func (s *Socket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.ReadFromUDPAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteTo is as in net.PacketConn.
func (s *Socket) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok || !a.AddrPort().Addr().Unmap().Is4() {
		return 0, fmt.Errorf("sending to %v: not a UDP address of IPv4", to)
	}
	return s.WriteToUDPAddrPort(b, a.AddrPort())
}

// SetReadDeadline is as in net.PacketConn.
func (s *Socket) SetReadDeadline(t time.Time) error {
	s.use.RLock()
	defer s.use.RUnlock()
	if s.closed.Load() {
		return net.ErrClosed
	}
	s.deadline.Store(&t)
	return s.kick()
}

// kick makes a waiting reader look again. It is called with use held.
func (s *Socket) kick() error {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, err := unix.Write(s.wake, one[:])
	if err == unix.EAGAIN { // it was kicked often enough already
		err = nil
	}
	return err
}

// SetDeadline is SetReadDeadline: writing waits for a few milliseconds at most.
func (s *Socket) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetWriteDeadline does nothing.
func (s *Socket) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr is as in net.PacketConn.
func (s *Socket) LocalAddr() net.Addr { return s.addr }

// Close makes a read that is under way, and what follows, fail with net.ErrClosed.
func (s *Socket) Close() error {
	s.use.RLock()
	if s.closed.Swap(true) {
		s.use.RUnlock()
		return net.ErrClosed
	}
	err := s.kick()
	s.use.RUnlock()

	s.use.Lock() // nobody uses the descriptors any more, and nobody will
	defer s.use.Unlock()
	return errors.Join(err, unix.Close(s.fd), unix.Close(s.wake))
}

// SetReadBuffer is as that of net.UDPConn.
func (s *Socket) SetReadBuffer(n int) error {
	return unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, n)
}

// SetWriteBuffer is as that of net.UDPConn.
func (s *Socket) SetWriteBuffer(n int) error {
	return unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, n)
}
