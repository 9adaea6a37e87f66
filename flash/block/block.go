//go:build linux

// Package block writes disk images to block devices and files.
//
// A block device is found by its node or by the USB port that it is on, as sysfs tells (Linux,
// Documentation/ABI/stable/sysfs-block), and awaited while a gadget enumerates:
//
//	.../usb1/1-2/1-2:1.0/host3/target3:0:0/3:0:0:LUN/block/sdb/sdb1
//
// [Open] refuses what is in use: mounted, swap, part of a volume, the disk of the running system, also by a partition
// of it. The kernel refuses most of that too, as it is opened exclusively (O_EXCL of open(2)); udevd is kept away by a
// lock, as systemd's "Locking Block Device Access" has it.
//
// [Device.Write] writes past the page cache (O_DIRECT), several writes in flight, so that an error is that of a write
// whose place is known and no memory is filled with what a slow device still has to take. The first MiB of the image,
// with what makes a medium boot, is zeros until all the rest was written and found right. With [flash.Options].Verify
// all is read back from the medium, after the last write: a device that has less memory than it says may lose what it
// had taken before.
//
// [File] is a file as a target, [Mount] one in a file system on a device.
package block

import (
	"context"
	"errors"
	"fmt"
	"os"

	"snag/flash"
	"snag/flash/image"
)

// Device is an opened disk or partition. It implements [flash.Target].
type Device struct {
	Node string // "/dev/sdb1"
	Size int64  // bytes

	part    part
	system  System
	options Options
	medium  medium
}

var (
	_ flash.Target = (*Device)(nil)
	_ flash.Target = (*File)(nil)
)

// String names the device with what it is: "/dev/sdb (Linux UMS disk 0, 8.0 GB, on 1-2)".
func (d *Device) String() string { return d.system.describe(&d.part) }

// Close gives the device back.
func (d *Device) Close() error { return d.medium.Close() }

// Eject tells the device that it is not needed any more, upon which U-Boot's "ums" ends. It is to be closed
// nevertheless.
func (d *Device) Eject() error {
	if err := d.medium.Eject(); err != nil {
		return fmt.Errorf("%s: eject: %w", d.Node, err)
	}
	return nil
}

// writers is how many writes are in flight: enough that the bus is never idle.
const writers = 4

// Write implements [flash.Target]. The error of what could not be written, or is not on the medium, is an
// *image.RangeError.
func (d *Device) Write(ctx context.Context, im *image.Image, o flash.Options) error {
	err := room(d.String(), d.Size, im)
	if st, statErr := os.Stat(d.Node); statErr == nil && im.From(st) {
		err = &RefusedError{Device: d.String(), Why: "it is the image itself", Hint: "name another disk"}
	}
	if err != nil {
		im.Close()
		return err
	}
	w := newWriter(d.medium, im.Name, o.Verify)
	w.hold = holdSize
	defer w.close()
	err = w.write(ctx, im, o, image.CopyOptions{Writers: writers})
	if err = d.lost(err); err != nil {
		return fmt.Errorf("%s: %w", d.Node, err)
	}
	d.medium.Reread()
	return nil
}

// room checks that an image fits, as far as its size is known.
func room(device string, size int64, im *image.Image) error {
	if im.Size > size {
		return &RefusedError{
			Device: device, Why: fmt.Sprintf("it has %d bytes, %s has %d", size, im.Name, im.Size),
			Hint: "take a larger medium; an image that ends in nothing but holes may be cut: truncate",
		}
	}
	return nil
}

// write copies the image, has it flushed to the medium, and reads it back.
func (w *writer) write(ctx context.Context, im *image.Image, o flash.Options, c image.CopyOptions) error {
	if o.Progress != nil {
		c.Progress = func(n int64) { o.Progress(flash.Writing, n) }
	}
	if err := image.Copy(ctx, w, im, c); err != nil {
		return err
	}
	if err := w.finish(); err != nil {
		return err
	}
	if w.written == nil {
		return nil
	}
	var progress func(int64)
	if o.Progress != nil {
		progress = func(n int64) { o.Progress(flash.Verifying, n) }
	}
	return w.verify(ctx, progress)
}

// ErrDiffers is what is wrong with a range that the medium does not hold, though it was written.
var ErrDiffers = errors.New("what is read back is not what was written")
