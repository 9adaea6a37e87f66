//go:build linux

package netsetup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// pollInterval is how often interfaces are looked at without being told of a change. It is the net under
// the kernel's messages, none of which was ever seen to be missing; with many boards on a machine it is to cost little.
const pollInterval = time.Second

// linkEvents listens for changes of interfaces (RTNLGRP_LINK, rtnetlink(7)) in the network namespace
// of the calling thread, until ctx ends. It only tells that there was a change: whoever listens looks
// for himself, so that nothing is lost when the kernel had to drop messages.
func linkEvents(ctx context.Context) (<-chan struct{}, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_LINK - 1)}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "rtnetlink") // non-blocking, so that Close ends a Read
	context.AfterFunc(ctx, func() { f.Close() })
	events := make(chan struct{}, 1)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			// ENOBUFS tells of changes as well: of more than there was room for.
			if _, err := f.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			select {
			case events <- struct{}{}:
			default:
			}
		}
	}()
	return events, nil
}

// inNetNS calls f on a thread that is in the network namespace of the file path. Sockets that f opens
// stay in that namespace; f must not start goroutines that are to be there.
func inNetNS(path string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(own)
			other, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(other)
			if err := unix.Setns(other, unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter %s: %w", path, err)
			}
			err = f()
			// Only a thread that is back where it was may be used by others. One that is not ends with
			// this goroutine.
			if unix.Setns(own, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			return err
		}()
	}()
	return <-done
}
