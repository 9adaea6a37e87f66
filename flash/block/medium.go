//go:build linux

package block

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// medium is an opened device or file, as far as it is needed to write an image.
type medium interface {
	io.ReaderAt // in whole blocks, into aligned memory
	io.WriterAt // the same
	io.Closer

	Size() int64
	Block() int64            // what offsets, lengths and addresses are multiples of
	Zero(off, n int64) error // writes zeros, in whole blocks; errors.ErrUnsupported
	Sync() error             // has all that was written stored
	Forget() error           // has the next reads come from the medium, and not from memory
	Reread()                 // has the kernel look at the partition table
	Eject() error            // tells the device that it is done with
}

// direct is a block device.
type direct struct {
	*os.File
	lock  *os.File // the whole disk
	size  int64
	block int64
}

// openDirect opens a block device so that nobody else can mount it, make a volume of it or write to it with the same
// care. disk is the whole one's node. If somebody has it, the error is unix.EBUSY, if somebody has locked it,
// unix.EWOULDBLOCK.
func openDirect(node, disk string) (medium, error) {
	flags := os.O_RDWR | unix.O_EXCL
	f, err := os.OpenFile(node, flags|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) { // it cannot; then Forget drops what is in memory
		f, err = os.OpenFile(node, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	d := &direct{File: f}
	if err := d.prepare(disk); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *direct) prepare(disk string) error {
	var err error
	if d.size, err = d.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	block, err := unix.IoctlGetInt(int(d.Fd()), unix.BLKSSZGET)
	if err != nil {
		return fmt.Errorf("%s: block size: %w", d.Name(), err)
	}
	d.block = int64(block)
	// udevd looks into a disk when a writer has closed it, and has the kernel read its partition table; not while it is
	// locked.
	if d.lock, err = os.Open(disk); err != nil {
		return err
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return &os.PathError{Op: "lock", Path: disk, Err: err}
	}
	return nil
}

func (d *direct) Close() error {
	err := d.File.Close()
	if d.lock != nil {
		d.lock.Close()
	}
	return err
}

func (d *direct) Size() int64  { return d.size }
func (d *direct) Block() int64 { return d.block }
func (d *direct) Sync() error  { return d.File.Sync() }

func (d *direct) Zero(off, n int64) error {
	extent := [2]uint64{uint64(off), uint64(n)}
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&extent)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		case unix.EINVAL, unix.EOPNOTSUPP, unix.ENOTTY:
			return errors.ErrUnsupported
		default:
			return &os.PathError{Op: "zero", Path: d.Name(), Err: errno}
		}
	}
}

func (d *direct) Forget() error {
	if err := unix.IoctlSetInt(int(d.Fd()), unix.BLKFLSBUF, 0); err != nil && !errors.Is(err, unix.EACCES) { // which takes root
		return fmt.Errorf("%s: dropping what the kernel has of it in memory: %w", d.Name(), err)
	}
	return nil
}

func (d *direct) Reread() {
	_ = unix.IoctlSetInt(int(d.Fd()), unix.BLKRRPART, 0) // a partition has none, and udevd does it as well
}

// What all SCSI disks know (Linux, drivers/scsi/scsi_ioctl.c): PREVENT ALLOW MEDIUM REMOVAL, which the kernel has made
// that of an opened disk, and START STOP UNIT with LOEJ.
const (
	scsiDoorUnlock = 0x5381 // SCSI_IOCTL_DOORUNLOCK (include/scsi/scsi_ioctl.h)
	cdromEject     = 0x5309 // CDROMEJECT (include/uapi/linux/cdrom.h)
)

func (d *direct) Eject() error {
	for _, request := range []uintptr{scsiDoorUnlock, cdromEject} {
		result, _, errno := unix.Syscall(unix.SYS_IOCTL, d.lock.Fd(), request, 0)
		if errno != 0 {
			return errno
		}
		if result != 0 {
			return fmt.Errorf("the device refuses it (SCSI result %#x)", result)
		}
	}
	return nil
}

// aligned returns n bytes whose address is a multiple of the block size.
func aligned(n int, block int64) []byte {
	b := make([]byte, n+int(block))
	skip := 0
	if odd := int64(uintptr(unsafe.Pointer(&b[0]))) % block; odd > 0 {
		skip = int(block - odd)
	}
	return b[skip : skip+n : skip+n]
}

func isAligned(b []byte, block int64) bool {
	return int64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))%block == 0
}
