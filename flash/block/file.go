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
	"time"

	"golang.org/x/sys/unix"

	"snag/flash"
	"snag/flash/image"
)

// File is a file as a target. It implements [flash.Target]. What an image leaves out is a hole.
type File struct {
	Name string        // the file, or a directory: then the file is named as the image is
	Wait time.Duration // how long to wait for the directory that it is in: something may yet have to be mounted there
}

// String implements [flash.Target].
func (f *File) String() string { return f.Name }

// Write implements [flash.Target]. A file that was there is gone whatever comes of it; one that was not, and could not
// be written, is so again.
func (f *File) Write(ctx context.Context, im *image.Image, o flash.Options) error {
	defer im.Close()
	name, err := f.place(ctx, im)
	if err != nil {
		return err
	}
	switch st, err := os.Stat(name); {
	case err != nil:
	case im.From(st):
		return &RefusedError{Device: name, Why: "it is the image itself", Hint: "name another file"}
	case !st.Mode().IsRegular():
		return &RefusedError{Device: name, Why: "it is no file", Hint: "a block device is another target (--disk, in a plan disk:)"}
	}
	out, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	created := err == nil
	if errors.Is(err, fs.ErrExist) {
		out, err = os.OpenFile(name, os.O_RDWR|unix.O_NONBLOCK, 0) // no FIFO that waits for a reader
	}
	if err != nil {
		return err
	}
	if err = writeFile(ctx, out, im, o); err != nil {
		if created {
			os.Remove(name)
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return nil // a directory that may not be read: its entry is the file system's business
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%s: having its directory stored: %w", name, err)
	}
	return nil
}

// writeFile writes an image into an opened file, and closes it.
func writeFile(ctx context.Context, f *os.File, im *image.Image, o flash.Options) error {
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errors.New("not a file; a device is to be opened as one")
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	m := &plain{File: f}
	w := newWriter(m, im.Name, o.Verify)
	defer w.close()
	m.image = im
	if err := w.write(ctx, im, o, image.CopyOptions{Zeroed: true}); err != nil {
		return err
	}
	return f.Close()
}

// place awaits the directory, and says where the file is to be.
func (f *File) place(ctx context.Context, im *image.Image) (string, error) {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for begun := time.Now(); ; {
		name := f.Name
		st, err := os.Stat(name)
		if err == nil && st.IsDir() {
			name = filepath.Join(name, filepath.Base(im.Name))
			_, err = os.Stat(name)
		}
		dir, dirErr := filepath.EvalSymlinks(filepath.Dir(name))
		switch {
		case err == nil:
			return name, nil
		case dirErr == nil && !strings.HasSuffix(f.Name, "/"):
			// The files that the kernel shows devices by are in memory: an image would fill it, for want of a device.
			if inside(dir, "/dev") && !inside(dir, "/dev/shm") {
				return "", &AbsentError{For: "device " + f.Name, Hint: "\"lsblk\" shows all"}
			}
			return name, nil
		case time.Since(begun) >= f.Wait:
			return "", &AbsentError{For: "directory " + filepath.Dir(name), After: f.Wait, Hint: "mount what it is on"}
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

func inside(dir, parent string) bool {
	return dir == parent || strings.HasPrefix(dir, parent+"/")
}

// plain is a file as a medium.
type plain struct {
	*os.File
	image *image.Image
}

func (p *plain) Size() int64             { return 1<<63 - 1 }
func (p *plain) Block() int64            { return 1 }
func (p *plain) Zero(off, n int64) error { return errors.ErrUnsupported }
func (p *plain) Reread()                 {}
func (p *plain) Eject() error            { return errors.ErrUnsupported }

// Sync gives the file its size, too, which is known at last.
func (p *plain) Sync() error {
	if err := p.Truncate(p.image.Size); err != nil {
		return err
	}
	return p.File.Sync()
}

func (p *plain) Forget() error {
	err := unix.Fadvise(int(p.Fd()), 0, 0, unix.FADV_DONTNEED)
	if err != nil {
		return fmt.Errorf("dropping what the kernel has of it in memory: %w", err)
	}
	return nil
}
