//go:build linux

package block

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"snag/usb"
)

// System is where the kernel shows its block devices. The zero value is the running system; tests point it elsewhere.
type System struct {
	Sys  string // "/sys" if empty
	Dev  string // "/dev" if empty
	Proc string // "/proc" if empty

	number func(name string) (string, error)       // of a node; nil: [nodeNumber]
	open   func(node, disk string) (medium, error) // nil: [openDirect]
	looks  func()                                  // is called before each look; nil: nothing is
}

func (s *System) defaults() {
	for _, d := range []struct {
		dir  *string
		name string
	}{{&s.Sys, "/sys"}, {&s.Dev, "/dev"}, {&s.Proc, "/proc"}} {
		if *d.dir == "" {
			*d.dir = d.name
		}
	}
	if s.number == nil {
		s.number = nodeNumber
	}
	if s.open == nil {
		s.open = openDirect
	}
	if s.looks == nil {
		s.looks = func() {}
	}
}

// errNoBlockDevice says that a name leads to something else.
var errNoBlockDevice = errors.New("not a block device")

// nodeNumber returns a block device's major and minor number, "8:16".
func nodeNumber(name string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return "", &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("%s: %w", name, errNoBlockDevice)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// part is a disk or one of its partitions, as sysfs tells (Linux, Documentation/ABI/stable/sysfs-block).
type part struct {
	dir    string // its directory in sysfs, without links
	name   string // "sdb", "sdb1"
	number string // "8:17"
	disk   string // the directory of the whole disk: dir, unless this is a partition
	index  int    // of the partition; 0: the whole disk

	size                int64 // bytes; 0: no medium
	readOnly, removable bool
	seq                 string   // no other disk ever has the same, not even the same one plugged again; empty before Linux 5.15
	port                usb.Port // empty if it is not on USB
	lun                 int      // -1: not SCSI
	vendor, model       string
}

// scsiName is the directory of a SCSI device: host, channel, target, LUN.
var scsiName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\d+:\d+:\d+:(\d+)$`) })

// part reads a disk or partition. The error wraps fs.ErrNotExist if it is gone.
func (s *System) part(dir string) (*part, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	p := &part{dir: dir, name: filepath.Base(dir), disk: dir, lun: -1}
	if p.number = attribute(dir, "dev"); p.number == "" {
		return nil, &fs.PathError{Op: "read", Path: filepath.Join(dir, "dev"), Err: fs.ErrNotExist}
	}
	if p.index, err = strconv.Atoi(attribute(dir, "partition")); err == nil {
		p.disk = filepath.Dir(dir)
	}
	sectors, err := strconv.ParseInt(attribute(dir, "size"), 10, 54)
	if err != nil {
		return nil, fmt.Errorf("%s: size: %w", dir, err)
	}
	p.size = sectors * 512 // whatever its blocks' size
	p.readOnly = attribute(dir, "ro") == "1" || attribute(p.disk, "ro") == "1"
	p.removable = attribute(p.disk, "removable") == "1"
	p.seq = attribute(p.disk, "diskseq")
	p.vendor, p.model = attribute(p.disk, "device/vendor"), attribute(p.disk, "device/model")
	p.port = usb.Uevent{DevPath: p.disk}.Port()
	for d := p.disk; len(d) > 1; d = filepath.Dir(d) {
		if m := scsiName().FindStringSubmatch(filepath.Base(d)); m != nil {
			p.lun, _ = strconv.Atoi(m[1])
			break
		}
	}
	return p, nil
}

// attribute reads a file of sysfs; one that is not there is empty.
func attribute(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// byNumber finds a disk or partition by its major and minor number.
func (s *System) byNumber(number string) (*part, error) {
	return s.part(filepath.Join(s.Sys, "dev/block", number))
}

// byPath finds what a node, or a link to it, is.
func (s *System) byPath(name string) (*part, error) {
	number, err := s.number(name)
	if err != nil {
		return nil, err
	}
	return s.byNumber(number)
}

// disks lists the disks for which keep is true, in the order of their LUNs. Those that vanish meanwhile are left out.
func (s *System) disks(keep func(*part) bool) ([]*part, error) {
	entries, err := os.ReadDir(filepath.Join(s.Sys, "block"))
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var list []*part
	for _, e := range entries {
		if p, err := s.part(filepath.Join(s.Sys, "block", e.Name())); err == nil && keep(p) {
			list = append(list, p)
		}
	}
	slices.SortStableFunc(list, func(a, b *part) int { return a.lun - b.lun })
	return list, nil
}

// partitions lists those of a disk.
func (s *System) partitions(disk string) []*part {
	var list []*part
	entries, _ := os.ReadDir(disk)
	for _, e := range entries {
		if attribute(filepath.Join(disk, e.Name()), "partition") == "" {
			continue
		}
		if p, err := s.part(filepath.Join(disk, e.Name())); err == nil {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *part) int { return a.index - b.index })
	return list
}

// node is the device file, which the kernel or udevd makes by the kernel's name.
func (s *System) node(p *part) string {
	return filepath.Join(s.Dev, strings.ReplaceAll(p.name, "!", "/"))
}

// mount is a line of mountinfo (proc(5)).
type mount struct {
	number string // "0:25" if the file system is not on one block device
	source string // as the file system gives it: "/dev/sda2"
	point  string
}

// maxTable bounds what is read of a table of /proc.
const maxTable = 16 << 20

// mounts lists what is mounted where this process is, and where process 1 is, as far as it may be seen.
func (s *System) mounts() ([]mount, error) {
	var list []mount
	for i, process := range []string{"self", "1"} {
		b, err := readTable(filepath.Join(s.Proc, process, "mountinfo"))
		if err != nil && i == 0 {
			return nil, fmt.Errorf("what is mounted cannot be known: %w", err)
		}
		list = append(list, parseMounts(string(b))...)
	}
	return list, nil
}

func readTable(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if len(b) > maxTable {
		return nil, fmt.Errorf("%s: more than %d bytes", name, maxTable)
	}
	return b, err
}

// parseMounts reads mountinfo:
//
//	36 35 8:2 /root /mnt rw,noatime shared:1 - ext4 /dev/sda2 rw
//
// that is an ID, the parent's, the number, the directory of the file system, the mount point, options, optional fields
// up to a hyphen, the file system's type, its source and its options. White space and backslashes are octal escapes.
func parseMounts(table string) []mount {
	var list []mount
	for line := range strings.Lines(table) {
		head, tail, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(head), strings.Fields(tail)
		if !ok || len(f) < 5 || len(g) < 2 {
			continue
		}
		list = append(list, mount{number: f[2], source: unescape(g[1]), point: unescape(f[4])})
	}
	return list
}

var octal = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\\[0-3][0-7]{2}`) })

func unescape(s string) string {
	return octal().ReplaceAllStringFunc(s, func(e string) string {
		v, _ := strconv.ParseUint(e[1:], 8, 8)
		return string([]byte{byte(v)})
	})
}

// swaps lists the numbers of the devices that are swapped to. Their table has a heading, then a line each, which begins
// with the name.
func (s *System) swaps() []string {
	var numbers []string
	b, _ := readTable(filepath.Join(s.Proc, "swaps")) // absent in a kernel without swap
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 && strings.HasPrefix(f[0], "/") {
			if n, err := s.number(unescape(f[0])); err == nil {
				numbers = append(numbers, n)
			}
		}
	}
	return numbers
}

// under lists the whole disks, by their directories, that a device lies on: itself, or what a volume is made of.
func (s *System) under(number string) []string {
	var disks []string
	var walk func(p *part, depth int)
	walk = func(p *part, depth int) {
		slaves, _ := os.ReadDir(filepath.Join(p.dir, "slaves"))
		if len(slaves) == 0 || depth == 0 {
			disks = append(disks, p.disk)
		}
		for _, e := range slaves {
			if q, err := s.part(filepath.Join(p.dir, "slaves", e.Name())); err == nil && depth > 0 {
				walk(q, depth-1)
			}
		}
	}
	if p, err := s.byNumber(number); err == nil {
		walk(p, 16)
	}
	return disks
}
