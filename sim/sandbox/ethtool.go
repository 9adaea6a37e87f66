package sandbox

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtool performs SIOCETHTOOL on an interface. value points to a structure of <linux/ethtool.h>, which
// begins with the command.
func ethtool(fd int, name string, value *uint32) error {
	// struct ifreq: 16 bytes of name, then a union, here a pointer; 40 bytes on 64-bit machines.
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	req.data = unsafe.Pointer(value)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}
