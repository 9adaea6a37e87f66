// Package pty makes pseudo-terminals that stand for a board's serial line (pts(4)).
package pty

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Line is the board's end of a serial line. Its reads take a deadline.
type Line struct {
	TTY string // the other end: what a terminal program opens

	*os.File          // read what is typed
	slave    *os.File // held, so that a closing host is no hang-up
}

// Open makes a serial line. It is raw, as a UART is: no echo, no line editing.
func Open() (*Line, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("/dev/ptmx: %w", err)
	}
	l := &Line{TTY: "/dev/pts/" + strconv.Itoa(n), File: os.NewFile(uintptr(fd), "/dev/ptmx")}
	if l.slave, err = openSlave(l.TTY); err != nil {
		l.File.Close()
		return nil, err
	}
	return l, nil
}

// Write puts b on the line. It does not wait: what nobody reads is lost when the line's buffer is full.
func (l *Line) Write(b []byte) (int, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return 0, err
	}
	var writeErr error
	err = raw.Write(func(fd uintptr) bool {
		_, writeErr = unix.Write(int(fd), b)
		return true
	})
	if writeErr == unix.EAGAIN {
		writeErr = nil
	}
	if err = errors.Join(err, writeErr); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close hangs up.
func (l *Line) Close() error { return errors.Join(l.File.Close(), l.slave.Close()) }

func openSlave(tty string) (*os.File, error) {
	f, err := os.OpenFile(tty, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err == nil {
		t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
		t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		err = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", tty, err)
	}
	return f, nil
}
