package usb

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Netlink multicast groups of NETLINK_KOBJECT_UEVENT.
const (
	groupKernel = 1 // from the kernel, before any rule has run
	groupUdev   = 2 // from udevd, when the node's permissions are set
)

// Hotplug calls f for every uevent of USB, the network and block devices until ctx ends. It listens to udevd where one
// runs, because only then a device node has its permissions, else to the kernel. That a USB device is there, and that it
// has its configuration and its drivers, it hears from the kernel in any case: whoever may open the node already need not
// wait for udevd, which may have other events to see to. Inside a user namespace no uevent arrives, which cannot be told
// from silence: callers poll underneath.
//
// Hotplug returns when the socket is open; f is called from one goroutine of its own.
func Hotplug(ctx context.Context, f func(Uevent)) error {
	group := uint32(groupKernel)
	if _, err := os.Stat("/run/udev/control"); err == nil {
		group |= groupUdev
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("uevent socket: %w", err)
	}
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: group}),
	); err != nil {
		unix.Close(fd)
		return fmt.Errorf("uevent socket: %w", err)
	}
	// A burst of events must not be lost to a small buffer; a refusal is harmless.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)

	file := os.NewFile(uintptr(fd), "uevents") // non-blocking: served by the runtime's poller
	stop := context.AfterFunc(ctx, func() { file.Close() })
	go func() {
		defer stop()
		defer file.Close()
		readUevents(file, group, f)
	}()
	return nil
}

func readUevents(file *os.File, group uint32, f func(Uevent)) {
	conn, err := file.SyscallConn()
	if err != nil {
		return
	}
	buf, oob := make([]byte, maxUevent+1), make([]byte, 256)
	for {
		var n, oobn int
		var from unix.Sockaddr
		var rerr error
		err := conn.Read(func(fd uintptr) bool {
			n, oobn, _, from, rerr = unix.Recvmsg(int(fd), buf, oob, 0)
			return !errors.Is(rerr, unix.EAGAIN) && !errors.Is(rerr, unix.EINTR)
		})
		switch {
		case err != nil:
			return // closed
		case errors.Is(rerr, unix.ENOBUFS):
			continue // events were lost: the caller's poll finds out
		case rerr != nil:
			return
		}
		if !trusted(from, oob[:oobn]) {
			continue
		}
		u, err := ParseUevent(buf[:n])
		if err != nil || early(group, from) && !(u.DevType == "usb_device" && (u.Action == "add" || u.Action == "bind")) {
			continue
		}
		switch u.Subsystem {
		case "usb", "net", "block":
			f(u)
		}
	}
}

// early reports whether a message is the kernel's where udevd is listened to as well.
func early(groups uint32, from unix.Sockaddr) bool {
	sender, ok := from.(*unix.SockaddrNetlink)
	return ok && groups&groupUdev != 0 && sender.Groups == groupKernel
}

// trusted reports whether a message comes from the kernel itself or from a udevd that runs as
// root: any process with CAP_NET_ADMIN over some namespace may multicast to these groups.
func trusted(from unix.Sockaddr, oob []byte) bool {
	sender, ok := from.(*unix.SockaddrNetlink)
	if !ok || sender.Groups&groupKernel != 0 && sender.Pid != 0 {
		return false
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return false
	}
	for i := range msgs {
		if cred, err := unix.ParseUnixCredentials(&msgs[i]); err == nil {
			return cred.Uid == 0
		}
	}
	return false
}
