//go:build linux

package netsetup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ProbeUserNamespaces makes a namespace as [Open] does for an ordinary user, and gives it up again. The
// error, if it does not work, is a [*SetupError] that says why. Root may do more than users: for root the
// settings that restrict users are looked at as well, but AppArmor's profiles are not known here.
func ProbeUserNamespaces(ctx context.Context) error {
	if os.Geteuid() == 0 {
		if e := restricted("/proc"); e != nil {
			return e
		}
	}
	ns, err := Open(ctx, Options{user: true})
	if err != nil {
		return err
	}
	return ns.Close()
}

// explainNamespace finds out why the kernel does not give snag a namespace (user_namespaces(7), and
// clone(2)). proc is where procfs is mounted.
func explainNamespace(proc string, err error) error {
	e := &SetupError{Op: "create a network namespace", Reason: ReasonDenied, Err: err, Hint: "run snag as root"}
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		if r := restricted(proc); r != nil {
			r.Err = fmt.Errorf("%w: %w", err, r.Err)
			return r
		}
		e.Reason = ReasonMaxUserNS
		e.Err = fmt.Errorf("%w: all namespaces that a user may have are in use, or they are nested too deeply", err)
		e.Hint = "end what uses them, raise user.max_user_namespaces and user.max_net_namespaces, or run snag as root"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		e.Reason = ReasonKernel
		e.Err = fmt.Errorf("%w: the kernel was built without namespaces", err)
		e.Hint = "use a kernel with CONFIG_NET_NS and CONFIG_USER_NS"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		if chrooted(proc) {
			e.Reason = ReasonChroot
			e.Err = fmt.Errorf("%w: the kernel refuses user namespaces to a chrooted process", err)
			e.Hint = "run snag outside the chroot, or as root in it"
			break
		}
		if r := restricted(proc); r != nil {
			r.Err = fmt.Errorf("%w: %w", err, r.Err)
			return r
		}
		switch {
		case sysctl(proc, "kernel/apparmor_restrict_unprivileged_userns") == "1":
			e.Reason = ReasonAppArmor
			e.Err = fmt.Errorf("%w: AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns = 1)", err)
			e.Hint = setupHint + ": it installs a profile for snag"
		case filtered(proc):
			e.Reason = ReasonSeccomp
			e.Err = fmt.Errorf("%w: a system call filter is in place, as in a container", err)
			e.Hint = "run snag outside the container, or give the container --security-opt seccomp=unconfined, or --cap-add SYS_ADMIN,NET_ADMIN and run snag as root"
		}
	default:
		return fmt.Errorf("start the network worker: %w", err)
	}
	return e
}

// restricted looks at the settings by which namespaces are kept from users.
func restricted(proc string) *SetupError {
	for _, s := range []struct {
		name   string
		reason Reason
		mend   string
	}{
		{"kernel/unprivileged_userns_clone", ReasonSysctl, "1"},
		{"user/max_user_namespaces", ReasonMaxUserNS, "10000"},
		{"user/max_net_namespaces", ReasonMaxNetNS, "10000"},
	} {
		if sysctl(proc, s.name) != "0" {
			continue
		}
		name := strings.ReplaceAll(s.name, "/", ".")
		return &SetupError{
			Op: "create a network namespace", Reason: s.reason,
			Err:  fmt.Errorf("%s is 0", name),
			Hint: fmt.Sprintf("run \"sudo sysctl %s=%s\" (and put it into /etc/sysctl.d), or run snag as root", name, s.mend),
		}
	}
	return nil
}

func sysctl(proc, name string) string {
	b, _ := os.ReadFile(filepath.Join(proc, "sys", name))
	return strings.TrimSpace(string(b))
}

// filtered says whether a seccomp filter is in place (proc_pid_status(5)).
func filtered(proc string) bool {
	b, _ := os.ReadFile(filepath.Join(proc, "self/status"))
	return bytes.Contains(b, []byte("\nSeccomp:\t2\n"))
}

// chrooted says whether the process seems to have another root directory than its mount namespace has.
// The list of mounts (proc_pid_mountinfo(5)) is told from there: nothing is mounted at "/" of a directory
// that is no mount point; and process 1, if it shares the mount namespace, and so the mounts' numbers,
// sees them elsewhere.
func chrooted(proc string) bool {
	own, err := os.ReadFile(filepath.Join(proc, "self/mountinfo"))
	if err != nil {
		return false
	}
	mine := mountPoints(string(own))
	root := false
	for _, at := range mine {
		root = root || at == "/"
	}
	if !root {
		return true
	}
	first, err := os.ReadFile(filepath.Join(proc, "1/mountinfo"))
	if err != nil {
		return false
	}
	for id, at := range mountPoints(string(first)) {
		if here, ok := mine[id]; ok && here != at {
			return true
		}
	}
	return false
}

// mountPoints reads a mountinfo: mount point by mount number.
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//	(number, parent, device, root, mount point, ...)
func mountPoints(mountinfo string) map[string]string {
	points := make(map[string]string)
	for line := range strings.Lines(mountinfo) {
		if f := strings.Fields(line); len(f) > 4 {
			points[f[0]] = f[4]
		}
	}
	return points
}
