package recovery

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// portLock is the right to work on a port. It is a listening socket in the abstract namespace:
// the kernel gives the name to one process, frees it however that process ends, and tells a second
// one who holds it. Nothing is left in the file system.
type portLock struct{ fd int }

func lockAddr(port string) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: "@snag/port/" + port}
}

// lockPort takes the lock of a port or tty. The error is a *LockedError if another process has it.
func lockPort(port string) (*portLock, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		if err = unix.Bind(fd, &unix.SockaddrUnix{Name: lockAddr(port).Name}); err == nil {
			err = unix.Listen(fd, unix.SOMAXCONN)
		}
		if err != nil {
			unix.Close(fd)
		}
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, holder(port, lockAddr(port))
	}
	if err != nil {
		return nil, fmt.Errorf("lock port %s: %w", port, err)
	}
	return &portLock{fd}, nil
}

// portLocked reports whether a process works on a port.
func portLocked(port string) bool {
	conn, err := net.DialUnix("unix", nil, lockAddr(port))
	if err != nil {
		return errors.Is(err, syscall.EAGAIN) // its queue is full of those who asked before
	}
	conn.Close()
	return true
}

// holder asks the kernel who listens at addr.
func holder(port string, addr *net.UnixAddr) *LockedError {
	e := &LockedError{Port: port, Command: "unknown"}
	conn, err := net.DialUnix("unix", nil, addr)
	if err != nil {
		return e
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return e
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			e.PID = int(cred.Pid)
		}
	})
	if cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", e.PID)); err == nil {
		e.Command = strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " "))
	}
	return e
}

// claimTTY takes a tty for snag alone, as terminal programs do, with flock(2); the other custom is exclusive mode
// (ioctl_tty(2), TIOCEXCL), which the kernel enforces, but not against root. It is to be called before the tty is
// opened otherwise.
func claimTTY(tty string) (ttyClaim, error) {
	fd, err := unix.Open(tty, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		unix.Close(fd)
		return -1, fmt.Errorf("it is locked: %w", unix.EBUSY)
	}
	return ttyClaim(fd), nil
}

// ttyClaim is the descriptor that holds a tty.
type ttyClaim int

func (c ttyClaim) release() {
	if c >= 0 {
		unix.Close(int(c))
	}
}

func (p *portLock) release() {
	if p != nil {
		unix.Close(p.fd)
	}
}
