package usb

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Access checks that the caller may open the device's node for reading and writing, without
// opening it. The error is an *AccessError. Right after a plug udevd may not have run yet:
// retry on the device's next uevent.
func (d Device) Access() error {
	if err := unix.Faccessat(unix.AT_FDCWD, d.Node, unix.R_OK|unix.W_OK, unix.AT_EACCESS); err != nil {
		return d.Denied(err)
	}
	return nil
}

// Denied is the *AccessError for an error with which the device's node could not be opened.
func (d Device) Denied(err error) error {
	e := &AccessError{Port: d.Port, ID: d.ID, Node: d.Node, Err: err}
	if fi, serr := os.Stat(d.Node); serr == nil {
		e.Owner = ownerOf(fi)
	}
	return e
}

func ownerOf(fi fs.FileInfo) string {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	uid, gid := strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid))
	if u, err := user.LookupId(uid); err == nil {
		uid = u.Username
	}
	if g, err := user.LookupGroupId(gid); err == nil {
		gid = g.Name
	}
	return fmt.Sprintf("%s:%s %04o", uid, gid, fi.Mode().Perm())
}
