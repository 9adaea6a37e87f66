package usb

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The credentials of a message that root has sent, or somebody else.
func credentials(uid uint32) []byte { return unix.UnixCredentials(&unix.Ucred{Pid: 1, Uid: uid}) }

func TestUeventSender(t *testing.T) {
	const both = groupKernel | groupUdev
	for _, tc := range []struct {
		name           string
		groups         uint32
		from           unix.Sockaddr
		uid            uint32
		trusted, early bool
	}{
		{"kernel, and nobody else is heard", groupKernel, &unix.SockaddrNetlink{Groups: groupKernel}, 0, true, false},
		{"kernel, before udevd", both, &unix.SockaddrNetlink{Groups: groupKernel}, 0, true, true},
		{"udevd", both, &unix.SockaddrNetlink{Groups: groupUdev, Pid: 300}, 0, true, false},
		{"another process in the kernel's name", both, &unix.SockaddrNetlink{Groups: groupKernel, Pid: 300}, 0, false, true},
		{"a user in udevd's name", both, &unix.SockaddrNetlink{Groups: groupUdev, Pid: 300}, 1000, false, false},
		{"no netlink", both, &unix.SockaddrInet4{}, 0, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := trusted(tc.from, credentials(tc.uid)); got != tc.trusted {
				t.Errorf("trusted: %v, expected %v", got, tc.trusted)
			}
			if got := early(tc.groups, tc.from); got != tc.early {
				t.Errorf("early: %v, expected %v", got, tc.early)
			}
		})
	}
}
