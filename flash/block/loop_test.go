//go:build linux

package block

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"snag/flash"
	"snag/flash/image"
)

// attachLoop makes a loop device of a file. It takes root.
func attachLoop(file string) (string, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for range 20 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", &os.PathError{Op: "LOOP_CTL_GET_FREE", Path: control.Name(), Err: err}
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		d, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return "", err
		}
		err = unix.IoctlSetInt(int(d.Fd()), unix.LOOP_SET_FD, int(f.Fd()))
		d.Close()
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, unix.EBUSY) { // somebody else took it
			return "", &os.PathError{Op: "LOOP_SET_FD", Path: name, Err: err}
		}
	}
	return "", unix.EBUSY
}

func detachLoop(name string) {
	if d, err := os.Open(name); err == nil {
		unix.IoctlSetInt(int(d.Fd()), unix.LOOP_CLR_FD, 0)
		d.Close()
	}
}

// A real block device: the kernel's own rules for O_DIRECT, O_EXCL, BLKZEROOUT and the rest.
func TestLoop(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk")
	dev := loop(t, file, 16<<20)
	if dev == "" {
		t.Skip("no loop device may be made here: it takes root and the kernel's loop driver")
	}
	if _, err := Open(t.Context(), Options{Path: dev}); err == nil || !strings.Contains(err.Error(), "neither on USB nor removable") {
		t.Errorf("not forced: %v", err)
	}
	open := func() *Device {
		t.Helper()
		d, err := Open(t.Context(), Options{Path: dev, Force: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	d := open()
	if d.Size != 16<<20 || d.Node != dev {
		t.Errorf("%+v", d)
	}
	// Nobody else gets it meanwhile.
	if f, err := os.OpenFile(dev, os.O_RDWR|unix.O_EXCL, 0); !errors.Is(err, unix.EBUSY) {
		f.Close()
		t.Errorf("opened exclusively twice: %v", err)
	}
	if f, err := os.Open(dev); err != nil {
		t.Error(err)
	} else if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("locked twice: %v", err)
	}
	old := bytes.Repeat([]byte("old "), 4<<20)
	if err := os.WriteFile(dev, old, 0); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{777, 5<<20 + 513, 16 << 20} {
		name, content := sample(t, rand.New(rand.NewPCG(uint64(size), 1)), size)
		if err := d.Write(t.Context(), openImage(t, name, image.Options{}), flash.Options{Verify: true}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got[:size], content) || size < 1<<20 && !bytes.Equal(got[size:], old[size:]) {
			t.Errorf("%d bytes: the file holds something else; %v", size, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	// Read back is what the medium has, not what the kernel remembers of it.
	d = open()
	name, _ := sample(t, rand.New(rand.NewPCG(1, 1)), 3<<20)
	w := newWriter(d.medium, name, true)
	defer w.close()
	if err := w.write(t.Context(), openImage(t, name, image.Options{}), flash.Options{}, image.CopyOptions{Writers: writers}); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("changed"), 0); err != nil {
		t.Fatal(err)
	}
	if err := w.verify(t.Context(), nil); !errors.Is(err, ErrDiffers) {
		t.Errorf("another content: %v", err)
	}
}
