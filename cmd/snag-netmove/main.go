// Without these two the runtime would hold descriptors of its own for the CPU limit of a cgroup, which
// close_range in run would close under it.

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command snag-netmove moves the network interface of a USB board into a network namespace of its
// caller. It is the only code of this project that ever runs with a capability, and it needs one:
//
//	setcap cap_net_admin=ep snag-netmove
//
// Usage: snag-netmove IFINDEX, with the namespace open as file descriptor 3. It does one netlink
// write and exits; there is no daemon, no state, no environment and no second option.
//
// Before that write it makes sure that the caller gains nothing that he did not have: the namespace
// is his own (its user namespace was made by him), the interface is a plain USB network device of an
// allowed driver and an allowed USB ID, and the caller may already open that device's usbfs node for
// writing, which lets him detach the driver and talk to the device anyway. Everything is addressed by
// file descriptor and interface index, never by PID or name: a device that is replaced meanwhile has
// another index, and the move fails. The goal is that of bubblewrap's setuid mode: the helper must not
// allow what an unprivileged user namespace and the device's node would not.
//
// The files: main.go has the order of the checks and the exit codes, caller.go who calls and into
// which namespace, device.go what the interface is, conf.go the list of further IDs, rtnl.go the two
// rtnetlink messages (linux/rtnetlink.h, linux/if_link.h). The program imports nothing of this project
// and nothing large; deps_test.go pins what it imports. It is to be built without cgo.
package main

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit codes. Package netsetup knows the same numbers; a test there compares.
const (
	exitOK         = 0
	exitUsage      = 2  // not exactly one interface index
	exitNamespace  = 3  // the caller is not plainly himself, or the namespace is not his
	exitNotUSB     = 4  // the interface is not a USB network device
	exitGone       = 5  // there is no such interface (any more)
	exitNotCapable = 6  // the helper does not have its capability
	exitNotListed  = 7  // a USB network device of an ID that is not on the list
	exitNode       = 8  // the caller may not open the device's usbfs node for writing
	exitConf       = 9  // the list of further IDs is not to be trusted or not to be understood
	exitBusy       = 10 // the kernel would not move the interface just now: try again
	exitSystem     = 11 // anything else that the system refused
)

// netnsFD is where the caller put the namespace.
const netnsFD = 3

func main() {
	args := os.Args
	syscall.Clearenv()
	err := run(args)
	if err == nil {
		os.Exit(exitOK)
	}
	unix.Write(2, []byte("snag-netmove: "+err.text+"\n"))
	os.Exit(err.code)
}

// refusal is why the interface was not moved: the exit code, and one line that holds no data of the
// caller but integers and USB IDs.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string { return r.text }

// run does everything. The runtime has made sure that descriptors 0 to 2 are open (runtime.checkfds).
func run(args []string) *refusal {
	if len(args) != 2 {
		return &refusal{exitUsage, "usage: snag-netmove IFINDEX, with the network namespace on file descriptor 3"}
	}
	index, ok := parseIndex(args[1])
	if !ok {
		return &refusal{exitUsage, "the argument must be an interface index above 1"}
	}
	if err := unix.CloseRange(netnsFD+1, ^uint(0)>>32, 0); err != nil {
		return system("close_range", err)
	}
	unix.Umask(0o077)
	if err := unix.Chdir("/"); err != nil {
		return system("chdir", err)
	}

	c, r := caller("/proc")
	if r != nil {
		return r
	}
	if r := c.check(); r != nil {
		return r
	}
	ns, r := netns(netnsFD, "/proc/self/ns/net")
	if r != nil {
		return r
	}
	if r := ns.check(c.uid); r != nil {
		return r
	}

	conn, err := dialRtnetlink()
	if err != nil {
		return system("rtnetlink socket", err)
	}
	l, err := conn.link(index)
	switch {
	case err == unix.ENODEV:
		return gone(index)
	case err != nil:
		return system("RTM_GETLINK", err)
	}
	host := host{sysfs: "/sys", dev: "/dev", conf: confPath, openNode: openNode}
	if r := host.check(index, l); r != nil {
		return r
	}

	switch err := conn.move(index, netnsFD); err {
	case nil:
		return nil
	case unix.ENODEV:
		return gone(index)
	case unix.EBUSY, unix.EEXIST, unix.EAGAIN, unix.EINTR:
		return &refusal{exitBusy, "the kernel does not move interface " + itoa(index) + " just now: " + err.Error()}
	default:
		return system("RTM_SETLINK", err)
	}
}

// parseIndex reads an interface index as the kernel prints it: decimal, no sign, no leading zero,
// and neither 0 nor 1, which is the loopback interface.
func parseIndex(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n < 2 || s[0] == '0' {
		return 0, false
	}
	return int(n), true
}

func gone(index int) *refusal {
	return &refusal{exitGone, "there is no interface " + itoa(index) + " (any more)"}
}

func system(what string, err error) *refusal {
	return &refusal{exitSystem, what + ": " + err.Error()}
}

func itoa(n int) string { return strconv.Itoa(n) }
