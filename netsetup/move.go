//go:build linux

package netsetup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// How long the move of an interface may have to wait for others.
const (
	nodeWait = time.Minute // for udev to let the user open the device's node: one with many boards to see to is slow
	lateWait = time.Second // likewise, once udev has seen to the device, or where there is no udev
	busyWait = time.Second // for the kernel: an interface that is just being renamed is not moved
	retry    = 10 * time.Millisecond

	nodeTick = 50 * time.Millisecond // for what no change of the node tells: that udev is done with it
)

var errBusy = errors.New("the kernel does not move the interface just now")

// errNode is the helper's word that the caller may not open the device's node.
var errNode = errors.New("no permission for the node of the USB device")

// move moves an interface of the host into the namespace. It returns what the kernel calls the device
// that it belongs to, by which the worker knows it again; empty for a virtual one.
func (ns *Namespace) move(ctx context.Context, index int, a *Adopted) (parent string, err error) {
	begun := time.Now()
	defer func() { a.Moved = time.Since(begun) - a.Waited }()

	var link netlink.Link
	err = ns.host.do(func() (err error) {
		link, err = netlink.LinkByIndex(index)
		return err
	})
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return "", ErrGone
	}
	if err != nil {
		return "", fmt.Errorf("look up interface %d: %w", index, err)
	}
	parent = link.Attrs().ParentDev

	step := func() error { return ns.moveByHelper(ctx, index, parent) }
	if os.Geteuid() == 0 {
		step = func() error { return ns.moveByNetlink(index) }
	} else if i := (Interface{}); ns.host.describe(&i, parent) && slices.Contains(HelperIDs(), i.ID) {
		// The helper is not started in vain, which takes the processor from udev. Of other IDs only
		// the helper knows whether they are on its list, and that is to be said first.
		if err := ns.waitForNode(ctx, parent); err != nil {
			return "", err
		}
		a.Waited = time.Since(begun)
	}
	for waited := false; ; {
		err := step()
		switch {
		case errors.Is(err, errNode) && !waited:
			waited = true
			waiting := time.Now()
			werr := ns.waitForNode(ctx, parent)
			a.Waited += time.Since(waiting)
			if werr != nil {
				return "", werr
			}
			continue
		case errors.Is(err, errNode):
			return "", ns.nodeError(parent, err)
		case errors.Is(err, errBusy) && time.Since(begun)-a.Waited < busyWait:
			if err := sleep(ctx, retry); err != nil {
				return "", err
			}
			continue
		case err != nil:
			return "", fmt.Errorf("move interface %d: %w", index, err)
		}
		return parent, nil
	}
}

// moveByNetlink is for root, who needs no helper.
func (ns *Namespace) moveByNetlink(index int) error {
	err := ns.host.do(func() error {
		// With an index, the name of the interface plays no part.
		return netlink.LinkSetNsFd(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, int(ns.netns.Fd()))
	})
	switch {
	case errors.Is(err, unix.ENODEV):
		return ErrGone
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST), errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("%w: %w", errBusy, err)
	case errors.Is(err, unix.EPERM):
		return &SetupError{
			Op: "move the network interface", Reason: ReasonNotPermitted, Err: err,
			Hint: "this root lacks CAP_NET_ADMIN: give it to the container (--cap-add NET_ADMIN --network host), or run snag outside",
		}
	}
	return err
}

// waitForNode waits until the user may open the USB device's node: udev changes its owner, mode and
// access list some time after the interface has appeared.
//
// A user whom no rule lets in is to be told soon, and one whose udev is behind is to be let in: the wait
// is short from the moment when udev has written down what it made of the device.
func (ns *Namespace) waitForNode(ctx context.Context, parent string) error {
	path, err := ns.host.node(parent)
	if err != nil {
		return ErrGone
	}
	changed, stop := watchNode(path)
	defer stop()
	tick := time.NewTicker(nodeTick)
	defer tick.Stop()
	deadline := time.Now().Add(nodeWait)
	late := false
	for {
		err := unix.Access(path, unix.R_OK|unix.W_OK)
		if err == nil {
			return nil
		}
		if errors.Is(err, unix.ENOENT) {
			if now, err := ns.host.node(parent); err != nil || now != path {
				return ErrGone
			}
		}
		if !late && udevDone(path) {
			late, deadline = true, time.Now().Add(lateWait)
		}
		if time.Now().After(deadline) {
			if !late {
				return ns.nodeError(parent, fmt.Errorf("%s: %w, and udev has not seen to it in %v", path, err, nodeWait))
			}
			return ns.nodeError(parent, fmt.Errorf("%s: %w", path, err))
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// watchNode tells when the owner, the mode or the access list of a node changes (inotify(7)), until stop is called.
// Where that cannot be had it never does.
func watchNode(path string) (changed <-chan struct{}, stop func()) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, func() {}
	}
	f := os.NewFile(uintptr(fd), "inotify") // non-blocking, so that Close ends a Read
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_ATTRIB|unix.IN_DELETE_SELF); err != nil {
		f.Close()
		return nil, func() {}
	}
	events := make(chan struct{}, 1)
	go func() {
		var buf [512]byte
		for {
			if _, err := f.Read(buf[:]); err != nil {
				return
			}
			select {
			case events <- struct{}{}:
			default:
			}
		}
	}()
	return events, func() { f.Close() }
}

// udevDone says whether udev is done with the device of a node, or does not run at all. Its data base
// has a file for each device, "c189:3", which it writes when the rules have been run
// (systemd, src/libsystemd/sd-device/device-private.c, device_update_db).
func udevDone(node string) bool {
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		return false
	}
	if _, err := os.Stat("/run/udev/control"); err != nil {
		return true
	}
	_, err := os.Stat(fmt.Sprintf("/run/udev/data/c%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	return err == nil
}

func (ns *Namespace) nodeError(parent string, err error) error {
	var i Interface
	ns.host.describe(&i, parent)
	return &SetupError{
		Op:     fmt.Sprintf("open USB device %v on port %s", i.ID, i.Port),
		Reason: ReasonNode,
		Err:    err,
		Hint:   "run \"sudo snag setup\" once for the udev rules, be in the group plugdev (or at the machine's own screen), and plug the board in again",
	}
}

// node is the path of the usbfs node of the device that a USB interface belongs to.
func (h Host) node(parent string) (string, error) {
	port, _, _, ok := parseUSBInterface(parent)
	if !ok {
		return "", fmt.Errorf("%.63q is not the name of a USB interface", parent)
	}
	dir := h.sysfs("bus/usb/devices", string(port))
	bus, err := readNumber(filepath.Join(dir, "busnum"), 10, 12)
	if err != nil {
		return "", err
	}
	device, err := readNumber(filepath.Join(dir, "devnum"), 10, 7)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/dev/bus/usb/%03d/%03d", bus, device), nil
}

// sleep waits for d, or less if ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
