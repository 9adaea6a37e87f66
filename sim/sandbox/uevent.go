package sandbox

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// openUevents returns a function that sends uevents as the kernel's to its netlink group 1, to whoever
// listens in this network namespace: the kernel lets the owner of a namespace do so. A message is
//
//	ACTION@DEVPATH NUL ACTION=… NUL DEVPATH=… NUL SUBSYSTEM=… NUL … (the kernel adds SEQNUM)
//
// after a netlink header (length, type, flags, sequence, port). Where the kernel refuses, there are none.
// The kernel's own events for the veth interface, under /devices/virtual, are heard besides.
func openUevents() func(action, devpath string, env ...string) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return func(string, string, ...string) {}
	}
	return func(action, devpath string, env ...string) {
		devpath = "/" + devpath
		body := action + "@" + devpath + "\x00ACTION=" + action + "\x00DEVPATH=" + devpath + "\x00"
		for _, e := range env {
			body += e + "\x00"
		}
		b := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(body))
		binary.NativeEndian.PutUint32(b[0:], uint32(unix.NLMSG_HDRLEN+len(body)))
		binary.NativeEndian.PutUint16(b[4:], unix.NLMSG_MIN_TYPE)
		binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
		unix.Sendto(fd, append(b, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) // nobody may be listening
	}
}
