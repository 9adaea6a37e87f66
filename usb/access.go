package usb

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
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
	if errors.Is(e.Err, syscall.EPERM) {
		return "the container's device rules refuse it: allow it character devices 189:* (docker: --device-cgroup-rule 'c 189:* rwm')"
	}
	return fmt.Sprintf("run `sudo snag setup` once (it installs the rule below), replug the board, and be in group plugdev or logged in at the seat:\n"+
		`SUBSYSTEM=="usb", ATTR{idVendor}=="%04x", ATTR{idProduct}=="%04x", MODE="0660", GROUP="plugdev", TAG+="uaccess"`, e.ID.Vendor, e.ID.Product)
}
