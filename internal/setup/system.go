package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"snag/usb"
)

// readWord returns the contents of a small file of the kernel's without the space around them, "" if there is
// no such file.
func readWord(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// group is a line of /etc/group.
type group struct {
	gid     int
	members []string
}

// readGroups reads /etc/group below root: group(5), name:password:GID:members.
func readGroups(root string) (map[string]group, error) {
	data, err := os.ReadFile(filepath.Join(root, "/etc/group"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	groups := map[string]group{}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 4 {
			continue
		}
		gid, err := strconv.Atoi(f[2])
		if err != nil || gid < 0 {
			continue
		}
		groups[f[0]] = group{gid, strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' })}
	}
	return groups, nil
}

// has tells whether the user will be in the group when he logs in.
func (g group) has(root, user string) bool {
	if slices.Contains(g.members, user) {
		return true
	}
	_, account, ok := findAccount(root, func(name string, _ int) bool { return name == user })
	return ok && account == g.gid
}

// findAccount returns name and primary group of the first line of /etc/passwd that fits: passwd(5),
// name:password:UID:GID:...
func findAccount(root string, fits func(name string, uid int) bool) (name string, gid int, ok bool) {
	data, _ := os.ReadFile(filepath.Join(root, "/etc/passwd"))
	for line := range strings.Lines(string(data)) {
		f := strings.Split(line, ":")
		if len(f) < 4 {
			continue
		}
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err1 == nil && err2 == nil && fits(f[0], uid) {
			return f[0], gid, true
		}
	}
	return "", 0, false
}

// device is a USB device of a known ID that is attached now.
type device struct {
	port  usb.Port
	id    usb.ID
	sysfs string // path of its directory in sysfs
	node  string // path of its device node
}

// attached returns the USB devices below root's sysfs that bear one of the IDs, in the order of their ports.
func attached(root string, ids []usb.ID) []device {
	const devices = "/sys/bus/usb/devices"
	entries, _ := os.ReadDir(filepath.Join(root, devices))
	var found []device
	for _, e := range entries {
		port, err := usb.ParsePort(e.Name())
		if err != nil { // an interface or a root hub
			continue
		}
		path := filepath.Join(devices, e.Name())
		attr := func(name string) string { return readWord(filepath.Join(root, path, name)) }
		id, err := usb.ParseID(attr("idVendor") + ":" + attr("idProduct"))
		if err != nil || !slices.Contains(ids, id) {
			continue
		}
		bus, err1 := strconv.ParseUint(attr("busnum"), 10, 16)
		dev, err2 := strconv.ParseUint(attr("devnum"), 10, 16)
		if err1 != nil || err2 != nil { // just unplugged
			continue
		}
		found = append(found, device{port, id, path, fmt.Sprintf("/dev/bus/usb/%03d/%03d", bus, dev)})
	}
	return found
}

// mayReadWrite asks the kernel for the rights of this process, ACLs included.
func mayReadWrite(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK, unix.AT_EACCESS)
}

// onNosuid tells whether the file system that holds path is mounted so that capabilities of files do
// not count.
func onNosuid(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_NOSUID != 0
}
