//go:build linux

package netsetup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"snag/usb"
)

// HelperPath is where the privileged helper is below a prefix: /usr/local if "snag setup" put it there, /usr if a
// package did.
func HelperPath(prefix string) string { return prefix + "/libexec/snag/snag-netmove" }

// helperPaths is where it is looked for.
func helperPaths() []string { return []string{HelperPath("/usr/local"), HelperPath("/usr")} }

// HelperConf is the list of USB IDs that the helper accepts beside [HelperIDs]: one VID:PID a line, four
// hexadecimal digits each, and comments after '#'. It must belong to root, who alone may write it.
const HelperConf = "/etc/snag/netmove.conf"

// HelperIDs are the USB IDs that are built into the helper.
func HelperIDs() []usb.ID {
	return []usb.ID{{Vendor: 0x0451, Product: 0x6141}, {Vendor: 0x0451, Product: 0xd022}}
}

// Exit codes of the helper. It imports nothing of this project: a test compares them with its source.
const (
	exitOK         = 0
	exitUsage      = 2
	exitNamespace  = 3
	exitNotUSB     = 4
	exitGone       = 5
	exitNotCapable = 6
	exitNotListed  = 7
	exitNode       = 8
	exitConf       = 9
	exitBusy       = 10
	exitSystem     = 11
)

// helperTimeout is how long the helper may take. It takes some milliseconds, but on a machine that does
// much else.
const helperTimeout = 20 * time.Second

const setupHint = "run \"sudo snag setup\" once"

// findHelper is the helper's path: the one asked for, or the first that exists.
func findHelper(path string) (string, error) {
	if path != "" {
		return path, nil
	}
	for _, p := range helperPaths() {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", &SetupError{
		Op: "find the helper snag-netmove", Reason: ReasonNoHelper, Hint: setupHint + ", or run snag as root",
		Err: fmt.Errorf("neither %s exists", strings.Join(helperPaths(), " nor ")),
	}
}

// moveByHelper has the helper move an interface of the host into the namespace.
func (ns *Namespace) moveByHelper(ctx context.Context, index int, parent string) error {
	if ns.host.NetNS != "" {
		return &SetupError{
			Op: "move an interface out of network namespace " + ns.host.NetNS, Reason: ReasonNotPermitted,
			Err: unix.EPERM, Hint: "run snag as root, or leave --netns out",
		}
	}
	path, err := findHelper(ns.helper)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	stderr := &tail{}
	cmd := exec.CommandContext(limited, path, strconv.Itoa(index))
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stderr = stderr
	cmd.ExtraFiles = []*os.File{ns.netns}
	cmd.WaitDelay = helperTimeout // only its own end closes its stderr
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case limited.Err() != nil:
		return fmt.Errorf("%s has not done its work in %v", path, helperTimeout)
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return ns.helperError(exit, stderr.String(), parent)
	}
	return helperStartError(path, err)
}

// helperStartError says why the helper could not be started at all.
func helperStartError(path string, err error) error {
	e := &SetupError{Op: "start " + path, Err: err, Hint: setupHint}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		e.Reason = ReasonNoHelper
	case errors.Is(err, unix.EACCES):
		e.Reason = ReasonHelperFile
		e.Hint = "be in the group that may execute " + path + " (a new group needs a new login), or " + setupHint
	case errors.Is(err, unix.EPERM):
		// execve(2): the capability is in no set that the process could get it from.
		e.Reason = ReasonNotCapable
		e.Hint = "snag runs where CAP_NET_ADMIN is out of reach, as in most containers: run it outside, or as root of a container with --cap-add NET_ADMIN"
	default:
		return e.Err
	}
	return e
}

// helperError says what the helper's refusal means for the user.
func (ns *Namespace) helperError(exit *exec.ExitError, text, parent string) error {
	if text == "" {
		text = exit.Error()
	}
	e := &SetupError{Op: "move the network interface", Err: errors.New(text)}
	switch exit.ExitCode() {
	case exitGone:
		return ErrGone
	case exitBusy:
		return fmt.Errorf("%w: %s", errBusy, text)
	case exitNode:
		return fmt.Errorf("%w: %s", errNode, text)
	case exitNamespace:
		e.Reason = ReasonNamespace
		e.Hint = "snag and its helper work together in the initial user namespace only; " + setupHint + " if the helper was installed by hand"
	case exitNotUSB:
		e.Reason = ReasonNotUSB
		e.Hint = "only root may use an interface that is not a board's"
	case exitNotCapable:
		e.Reason = ReasonNotCapable
		e.Hint = setupHint + ": it gives the helper its capability"
		if noNewPrivs() {
			e.Reason = ReasonNoNewPrivs
			e.Hint = "start snag without no_new_privs (systemd: NoNewPrivileges=no; not in a container with that option), or as root"
		}
	case exitNotListed:
		var i Interface
		ns.host.describe(&i, parent)
		e.Reason = ReasonNotListed
		e.Hint = fmt.Sprintf("run \"sudo snag setup --usb %v\" if this is your board", i.ID)
	case exitConf:
		e.Reason = ReasonConf
		e.Hint = "have root mend " + HelperConf + ": one VID:PID a line, owner root, writable by nobody else"
	default:
		return errors.New(text)
	}
	return e
}

func noNewPrivs() bool {
	v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && v == 1
}

// HelperStatus looks whether the helper at path (empty: where it is looked for) is installed so that
// the user can use it. The error is a [*SetupError].
func HelperStatus(path string) error {
	path, err := findHelper(path)
	if err != nil {
		return err
	}
	bad := func(reason Reason, hint string, format string, args ...any) error {
		return &SetupError{Op: "check " + path, Reason: reason, Hint: hint, Err: fmt.Errorf(format, args...)}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return helperStartError(path, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return bad(ReasonHelperFile, setupHint, "not a regular file")
	case st.Uid != 0 || st.Mode&0o022 != 0:
		return bad(ReasonHelperFile, setupHint, "others than root may change it")
	case st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0:
		return bad(ReasonHelperFile, setupHint, "installed setuid or setgid, which it refuses")
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return helperStartError(path, err)
	}
	attr := make([]byte, 64)
	n, err := unix.Getxattr(path, "security.capability", attr)
	if err != nil || !hasNetAdmin(attr[:n]) {
		return bad(ReasonNotCapable, setupHint+": it gives the helper its capability", "no file capability cap_net_admin=ep")
	}
	var vfs unix.Statfs_t
	if err := unix.Statfs(path, &vfs); err == nil && vfs.Flags&unix.ST_NOSUID != 0 {
		return bad(ReasonNotCapable, "install it on a file system that is not mounted nosuid", "its file system is mounted nosuid")
	}
	if noNewPrivs() {
		return bad(ReasonNoNewPrivs, "start snag without no_new_privs", "this process runs with no_new_privs")
	}
	return nil
}

// hasNetAdmin reads the attribute security.capability (linux/capability.h, struct vfs_cap_data, little
// endian): is CAP_NET_ADMIN permitted, and effective from the start?
//
//	0 u32 revision in the upper byte, bit 0: effective
//	4 u32 permitted, capabilities 0 to 31
//	8 u32 inheritable, then the capabilities from 32 on, and in revision 3 the root user ID
func hasNetAdmin(b []byte) bool {
	if len(b) < 12 {
		return false
	}
	magic := binary.LittleEndian.Uint32(b)
	permitted := binary.LittleEndian.Uint32(b[4:])
	return magic>>24 >= 1 && magic&1 != 0 && permitted&(1<<unix.CAP_NET_ADMIN) != 0
}
