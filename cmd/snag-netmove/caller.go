package main

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// identity is who runs the helper, and with what.
type identity struct {
	uid, euid  int
	initial    bool // in the initial user namespace
	netAdmin   bool // CAP_NET_ADMIN is in the effective set
	noNewPrivs bool
}

// caller finds out who runs the helper. proc is where procfs is mounted.
func caller(proc string) (identity, *refusal) {
	c := identity{uid: unix.Getuid(), euid: unix.Geteuid()}

	uidMap, err := readSmall(proc + "/self/uid_map")
	if err != nil {
		return c, system("read uid_map", err)
	}
	c.initial = isIdentity(uidMap)

	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return c, system("capget", err)
	}
	c.netAdmin = data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0

	nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	c.noNewPrivs = err == nil && nnp == 1
	return c, nil
}

// check refuses a caller whose identity is not plain. File capabilities leave the user ID alone, so
// one that differs means a setuid installation, with which the node's permission would say nothing.
// In another user namespace than the initial one the numbers of users and the owner of files mean
// something else.
func (c identity) check() *refusal {
	switch {
	case c.uid != c.euid:
		return &refusal{exitNamespace, "installed setuid: remove that bit, it needs only the file capability cap_net_admin"}
	case !c.initial:
		return &refusal{exitNamespace, "works only in the initial user namespace"}
	case !c.netAdmin && c.noNewPrivs:
		return &refusal{exitNotCapable, "not capable: the caller runs with no_new_privs, so the kernel ignores the file capability"}
	case !c.netAdmin:
		return &refusal{exitNotCapable, "not capable: run setcap cap_net_admin=ep on it, on a file system that is not mounted nosuid"}
	}
	return nil
}

// isIdentity says whether a uid_map is that of the initial user namespace (user_namespaces(7)):
// one line that maps all IDs to themselves.
func isIdentity(uidMap []byte) bool {
	f := bytes.Fields(uidMap)
	return len(f) == 3 && string(f[0]) == "0" && string(f[1]) == "0" && string(f[2]) == "4294967295"
}

// namespace is what a descriptor refers to.
type namespace struct {
	net   bool   // a network namespace, and not anything else
	own   bool   // the one that the helper itself is in
	owner uint32 // who made the user namespace that it belongs to
}

// netns looks at the descriptor that the caller passed. self is the path of the helper's own namespace.
func netns(fd int, self string) (namespace, *refusal) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return namespace{}, nil // not even open
	}
	if fs.Type != unix.NSFS_MAGIC {
		return namespace{}, nil
	}
	// ioctl_ns(2)
	if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return namespace{}, nil
	}
	ns := namespace{net: true}

	var theirs, ours unix.Stat_t
	if err := unix.Fstat(fd, &theirs); err != nil {
		return ns, system("fstat of the namespace", err)
	}
	if err := unix.Stat(self, &ours); err != nil {
		return ns, system("stat of the own namespace", err)
	}
	ns.own = theirs.Dev == ours.Dev && theirs.Ino == ours.Ino

	users, err := unix.IoctlRetInt(fd, unix.NS_GET_USERNS)
	if err != nil {
		return ns, &refusal{exitNamespace, "the namespace's user namespace is out of reach"}
	}
	defer unix.Close(users)
	ns.owner, err = unix.IoctlGetUint32(users, unix.NS_GET_OWNER_UID)
	if err != nil {
		return ns, system("NS_GET_OWNER_UID", err)
	}
	return ns, nil
}

// check refuses all but a network namespace that uid made for himself. /run/netns/* can be opened by
// anyone: without this every user could push devices into the namespaces of others.
func (ns namespace) check(uid int) *refusal {
	switch {
	case !ns.net:
		return &refusal{exitNamespace, "file descriptor 3 is not a network namespace"}
	case ns.own:
		return &refusal{exitNamespace, "file descriptor 3 is the network namespace that the interface is in already"}
	case int64(ns.owner) != int64(uid):
		return &refusal{exitNamespace, "the network namespace belongs to user " + itoa(int(ns.owner)) + ", not to user " + itoa(uid)}
	}
	return nil
}

// readSmall reads a file of procfs or sysfs: at most 4096 bytes.
func readSmall(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}
