package main

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// punctual is how long before a datagram is due the relay no longer sleeps: to be woken takes a time that varies.
const punctual = 100 * time.Microsecond

// relay passes datagrams between one client and a TFTP server, each of them late by the given time. It is one loop over
// two sockets: the client's requests go to port 69, all else to the port that the server answered from.
// The clock is the kernel's: the Go runtime's timers are not exact to less than a millisecond.
func relay(delay string) error {
	d, err := time.ParseDuration(delay)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0); err != nil {
		return err
	}
	front, err := udpSocket(netip.MustParseAddrPort("127.0.0.1:69"))
	if err != nil {
		return err
	}
	back, err := udpSocket(netip.AddrPortFrom(clientAddr, 0))
	if err != nil {
		return err
	}
	request := &unix.SockaddrInet4{Port: 69, Addr: serverAddr.As4()}
	var client, server unix.Sockaddr = nil, request
	type late struct {
		fd  int
		b   []byte
		to  unix.Sockaddr
		due time.Time
	}
	var queue []late // in the order of due, as all are late by the same time
	buf := make([]byte, 65536)
	poll := []unix.PollFd{{Fd: int32(front), Events: unix.POLLIN}, {Fd: int32(back), Events: unix.POLLIN}}
	for {
		var wait *unix.Timespec
		if len(queue) > 0 {
			ts := unix.NsecToTimespec(max(int64(time.Until(queue[0].due)-punctual), 0))
			wait = &ts
			if ts == (unix.Timespec{}) {
				_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			}
		}
		if _, err := unix.Ppoll(poll, wait, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("relay: %w", err)
		}
		for _, from := range []int{front, back} {
			for {
				n, addr, err := unix.Recvfrom(from, buf, unix.MSG_DONTWAIT)
				if err != nil || n < 2 {
					break
				}
				l := late{b: append([]byte(nil), buf[:n]...), due: time.Now().Add(d)}
				if from == front {
					if buf[1] == 1 { // RRQ: another transfer
						client, server = addr, request
					}
					l.fd, l.to = back, server
				} else {
					server = addr
					l.fd, l.to = front, client
				}
				queue = append(queue, l)
			}
		}
		for len(queue) > 0 && !queue[0].due.After(time.Now()) {
			_ = unix.Sendto(queue[0].fd, queue[0].b, 0, queue[0].to)
			queue = queue[1:]
		}
	}
}

func udpSocket(a netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20); err != nil {
		return 0, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()})
}
