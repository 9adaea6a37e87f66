package usb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// AccessError says that the caller may not open a device's usbfs node, and how that is mended.
type AccessError struct {
	Port  Port
	ID    ID
	Node  string
	Owner string // "root:plugdev 0660"; empty if the node is missing
	Err   error
}

func (e *AccessError) Error() string {
	if e.Owner == "" {
		return fmt.Sprintf("USB device %s on port %s: open %s: %v", e.ID, e.Port, e.Node, e.Err)
	}
	return fmt.Sprintf("USB device %s on port %s: open %s (%s): %v", e.ID, e.Port, e.Node, e.Owner, e.Err)
}

func (e *AccessError) Unwrap() error { return e.Err }

// Hint is what the user can do about it.
func (e *AccessError) Hint() string {
	if errors.Is(e.Err, fs.ErrNotExist) {
		return "the node is missing: in a container, pass /dev/bus/usb through; else check that udevd or devtmpfs runs"
	}
	if errors.Is(e.Err, unix.EPERM) {
		return "the container's device rules refuse it: allow it character devices 189:* (docker: --device-cgroup-rule 'c 189:* rwm')"
	}
	return fmt.Sprintf("run `sudo snag setup` once (it installs the rule below), replug the board, and be in group plugdev or logged in at the seat:\n"+
		`SUBSYSTEM=="usb", ATTR{idVendor}=="%04x", ATTR{idProduct}=="%04x", MODE="0660", GROUP="plugdev", TAG+="uaccess"`, e.ID.Vendor, e.ID.Product)
}

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
