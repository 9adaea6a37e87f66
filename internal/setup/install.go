package setup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// file is a file as it should be.
type file struct {
	what string // in words
	path string // on the system that it is for, without the root
	data []byte // nil where the contents cannot be known: the helper without its source
	mode fs.FileMode
	gid  int    // the owner is always root
	cap  []byte // value of security.capability, nil for none
}

// differences returns in words what keeps the file below root from being as it should be. Owner and
// capability of a staged file do not count: the package sets them.
func (f file) differences(root string, staged bool) ([]string, error) {
	path := filepath.Join(root, f.path)
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return []string{"missing"}, nil
	}
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return []string{"not a regular file"}, nil
	}
	var diffs []string
	if got := st.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky); got != f.mode {
		diffs = append(diffs, fmt.Sprintf("mode %v, should be %v", got, f.mode))
	}
	if !staged {
		if sys := st.Sys().(*syscall.Stat_t); int(sys.Uid) != 0 || int(sys.Gid) != f.gid {
			diffs = append(diffs, fmt.Sprintf("owner %d:%d, should be 0:%d", sys.Uid, sys.Gid, f.gid))
		}
		got, err := readCapability(path)
		switch {
		case err != nil:
			return nil, err
		case bytes.Equal(got, f.cap):
		case got == nil:
			diffs = append(diffs, "lacks the capability cap_net_admin=ep")
		default:
			diffs = append(diffs, fmt.Sprintf("other capabilities (%x) than it should have", got))
		}
	}
	if f.data != nil {
		got, err := readFile(path)
		switch {
		case errors.Is(err, fs.ErrPermission):
			// The helper may be read by its group only. All that protects it was compared above.
		case err != nil:
			return nil, err
		case !bytes.Equal(got, f.data):
			diffs = append(diffs, "other contents")
		}
	}
	return diffs, nil
}

// maxFile bounds what is read from a file.
const maxFile = 64 << 20

// readFile reads a regular file without following a symbolic link in its last component.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: longer than %d bytes", path, maxFile)
	}
	return data, err
}

// install puts the file in its place below root, at once: whoever looks finds the old file or the new one,
// with its rights. A symbolic link in its place is replaced, not followed.
func (f file) install(root string, staged bool) (err error) {
	dir := filepath.Dir(f.path)
	if err := makeDirs(root, dir, staged); err != nil {
		return err
	}
	path := filepath.Join(root, f.path)
	tmp, err := os.CreateTemp(filepath.Dir(path), ".snag-*") // O_EXCL, mode 0600
	if err != nil {
		return err
	}
	defer func() {
		tmp.Close()
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	if _, err := tmp.Write(f.data); err != nil {
		return err
	}
	if !staged {
		if err := tmp.Chown(0, f.gid); err != nil {
			return err
		}
	}
	if err := tmp.Chmod(f.mode); err != nil {
		return err
	}
	// After chown, which takes capabilities away; before the file has its name.
	if f.cap != nil && !staged {
		if err := writeCapability(tmp, f.cap); err != nil {
			return err
		}
		if got, err := readCapability(tmp.Name()); err != nil || !bytes.Equal(got, f.cap) {
			return fmt.Errorf("%s: wrote the capability %x, read back %x (%v)", f.path, f.cap, got, err)
		}
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// makeDirs makes dir below root, and what is missing on the way to it. On the running system every
// directory on the way must be root's alone: then nobody else can put a link or another directory in its
// place while files are written.
func makeDirs(root, dir string, staged bool) error {
	at := filepath.Clean("/" + root)
	if staged {
		return os.MkdirAll(filepath.Join(at, dir), 0o755)
	}
	for _, name := range strings.Split(strings.Trim(dir, "/"), "/") {
		if err := rootsAlone(at); err != nil {
			return err
		}
		at = filepath.Join(at, name)
		err := os.Mkdir(at, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.Chmod(at, 0o755); err != nil { // whatever the umask
			return err
		}
	}
	return rootsAlone(at)
}

// staffGroup may write to /usr/local on older Debian systems; its policy counts the group as root's equal.
const staffGroup = 50

// rootsAlone returns an error if anyone but root could put something else in the place of what the directory
// holds. Of a symbolic link, every directory on the way to where it leads must be such.
func rootsAlone(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	sys := st.Sys().(*syscall.Stat_t)
	if sys.Uid != 0 {
		return fmt.Errorf("%s belongs to user %d, not to root: nothing is installed there", dir, sys.Uid)
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		if _, err := os.Stat(dir); err != nil { // ends loops
			return err
		}
		target, err := os.Readlink(dir)
		if err != nil {
			return err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(dir), target)
		}
		at := "/"
		for _, name := range strings.Split(strings.Trim(target, "/"), "/") {
			at = filepath.Join(at, name)
			if err := rootsAlone(at); err != nil {
				return err
			}
		}
		return nil
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	// In a sticky directory nobody but root replaces what is root's, and all that is used there is.
	others := st.Mode()&0o002 != 0 || st.Mode()&0o020 != 0 && sys.Gid != 0 && sys.Gid != staffGroup
	if others && st.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("%s may be changed by others than root (%v): nothing is installed there; chmod go-w it first", dir, st.Mode())
	}
	return nil
}
