package setup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// xattrCapability is the extended attribute that holds a file's capabilities.
const xattrCapability = "security.capability"

// netAdminEP is the value of xattrCapability for "cap_net_admin=ep": struct vfs_cap_data of
// linux/capability.h in revision 2, all little-endian.
//
//	offset  length
//	     0       4  revision 0x02000000, flag 0x000001: permitted ones are effective at exec
//	     4       4  permitted, capabilities 0 to 31
//	     8       4  inheritable, capabilities 0 to 31
//	    12       4  permitted, capabilities 32 to 63
//	    16       4  inheritable, capabilities 32 to 63
func netAdminEP() []byte {
	v := make([]byte, 20)
	binary.LittleEndian.PutUint32(v[0:], 0x02000000|0x000001)
	binary.LittleEndian.PutUint32(v[4:], 1<<unix.CAP_NET_ADMIN)
	return v
}

// readCapability returns the capability attribute of the file, nil if it has none. It does not follow a
// symbolic link and needs no right to read the file.
func readCapability(path string) ([]byte, error) {
	v := make([]byte, 64)
	n, err := unix.Lgetxattr(path, xattrCapability, v)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "getxattr " + xattrCapability, Path: path, Err: err}
	}
	return v[:n], nil
}

// writeCapability gives the open file the capability attribute.
func writeCapability(f *os.File, v []byte) error {
	err := unix.Fsetxattr(int(f.Fd()), xattrCapability, v, 0)
	if errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("%s: the file system holds no capabilities: %w", f.Name(), err)
	}
	if err != nil {
		return &os.PathError{Op: "setxattr " + xattrCapability, Path: f.Name(), Err: err}
	}
	return nil
}
