//go:build linux

package lab

import (
	"context"
	"errors"
	"io/fs"
	"os"
)

// Prepare fetches what every VM needs, udev, and the packages pkgs as [Fetch] does,
// and says by log what it does. Once all is there it does nothing.
func Prepare(ctx context.Context, log func(format string, args ...any), pkgs ...string) error {
	c, err := openCache(log)
	if err != nil {
		return err
	}
	if err := os.Remove(c.path("failed")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m, err := c.machine(ctx, "udev")
	if err != nil {
		return err
	}
	if _, err := c.fetch(ctx, pkgs...); err != nil {
		return err
	}
	log("ready: kernel %s, %s, packages in %s", m.kernel.release, m.qemu.file, c.dir)
	return nil
}
