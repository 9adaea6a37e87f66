//go:build linux

package block

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"snag/flash"
	"snag/flash/image"
)

// Mounted is a file in the file system of a partition as a target: a kernel on the boot partition of a card. It
// implements [flash.Target]. The file system is mounted for the time of a Write and for this process alone, by a file
// descriptor (fsmount(2), Linux 5.2), so that the kernel unmounts it however the process ends. It takes root.
type Mounted struct {
	Options Options // of the device
	Name    string  // of the file from the root of the file system on, or of a directory: then the file is named as the image is
}

var _ flash.Target = (*Mounted)(nil)

// String names the device as it was asked for, and the file.
func (m *Mounted) String() string {
	where := m.Options.Path
	if where == "" {
		where = fmt.Sprintf("the disk on USB port %s", m.Options.Port)
	}
	if m.Options.Partition > 0 {
		where += fmt.Sprintf(", partition %d", m.Options.Partition)
	}
	return where + ", " + m.Name
}

// fileSystems are what media of boards have, likeliest first.
var fileSystems = []string{"ext4", "vfat", "exfat", "f2fs", "btrfs", "xfs", "ext2"}

// Write implements [flash.Target].
func (m *Mounted) Write(ctx context.Context, im *image.Image, o flash.Options) error {
	defer im.Close()
	opt := m.Options
	opt.System.defaults()
	var root int
	var node string
	err := opt.await(ctx, func(p *part) error {
		if err := opt.refuse(p); err != nil {
			return err
		}
		p, err := opt.inserted(p)
		if err != nil {
			return err
		}
		node = opt.System.node(p)
		root, err = mountFD(node)
		return err
	})
	if err != nil {
		return err
	}
	err = writeBelow(ctx, root, m.Name, im, o)
	if err := errors.Join(err, unix.Close(root)); err != nil {
		return fmt.Errorf("%s: %w", node, err)
	}
	return nil
}

// mountFD mounts what is on a device, at no place, and returns its root.
func mountFD(node string) (int, error) {
	var tried []string
	for _, kind := range fileSystems {
		fd, err := mountAs(node, kind)
		switch {
		case err == nil:
			return fd, nil
		case errors.Is(err, unix.ENODEV): // the kernel lacks it
		case errors.Is(err, unix.EPERM), errors.Is(err, fs.ErrPermission):
			return -1, &AccessError{Node: node, Err: fmt.Errorf("mounting it: %w", err)}
		case errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EROFS), errors.Is(err, unix.ENXIO):
			return -1, fmt.Errorf("mount %s: %w", node, err)
		default:
			tried = append(tried, fmt.Sprintf("%s (%v)", kind, err))
		}
	}
	return -1, fmt.Errorf("mount %s: no file system that the kernel knows is on it: tried %s", node, strings.Join(tried, ", "))
}

func mountAs(node, kind string) (int, error) {
	ctx, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigSetString(ctx, "source", node); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, err
	}
	return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

// writeBelow writes a file in a directory that is the root of all links in it. One that was not there, and could not be
// written, is so again.
func writeBelow(ctx context.Context, root int, name string, im *image.Image, o flash.Options) error {
	open := func(name string, flags uint64) (*os.File, error) {
		how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
		if flags&unix.O_CREAT != 0 {
			how.Mode = 0o644
		}
		fd, err := unix.Openat2(root, name, &how)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
	if dir, err := open(name, unix.O_DIRECTORY); err == nil {
		dir.Close()
		name = filepath.Join(name, filepath.Base(im.Name))
	}
	dir, err := open(filepath.Dir(name), unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	created := err == nil
	if errors.Is(err, fs.ErrExist) {
		f, err = open(name, unix.O_RDWR|unix.O_CREAT|unix.O_NONBLOCK) // a link may lead to what is not there
	}
	if err != nil {
		return err
	}
	if err := writeFile(ctx, f, im, o); err != nil {
		if created {
			_ = unix.Unlinkat(int(dir.Fd()), filepath.Base(name), 0)
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	return errors.Join(dir.Sync(), unix.Syncfs(int(dir.Fd())))
}
