//go:build linux

package netsetup

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setCapabilities leaves all threads of the process with the capabilities of set, a bit each, permitted
// and effective. unix.Capset is for the calling thread only.
func setCapabilities(set uint32) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: set, Permitted: set}}
	_, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data)), 0)
	if e != 0 {
		return e
	}
	return nil
}
