//go:build linux

package lab

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Prepare fetches what every VM needs, udev, and the packages pkgs as [Fetch] does,
// and says by log what it does. Once all is there it fetches nothing. What failed a while ago
// it tries again, and it removes from the cache what newer versions have replaced.
func Prepare(ctx context.Context, log func(format string, args ...any), pkgs ...string) error {
	c, err := openCache(log)
	if err != nil {
		return err
	}
	forget, _ := filepath.Glob(c.path("resolved", "*.none"))
	for _, file := range append(forget, c.path("failed")) {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	m, err := c.machine(ctx, "udev")
	if err != nil {
		return err
	}
	if _, err := c.fetch(ctx, pkgs...); err != nil {
		return err
	}
	if err := c.prune(ctx, keep); err != nil {
		return err
	}
	log("ready: kernel %s, %s, packages in %s", m.kernel.release, m.qemu.file, c.dir)
	return nil
}

// keep is how long a tree is left alone that no name stands for any more: a test may
// still be at work in it.
const keep = 7 * 24 * time.Hour

// prune removes trees that are replaced, or were left half done, and are older than
// keep.
func (c *cache) prune(ctx context.Context, keep time.Duration) error {
	unlock, err := lock(ctx, c.path("lock"))
	if err != nil {
		return err
	}
	defer unlock()
	used := map[string]bool{}
	resolved, err := os.ReadDir(c.path("resolved"))
	if err != nil {
		return err
	}
	for _, r := range resolved {
		b, err := os.ReadFile(c.path("resolved", r.Name()))
		if err != nil {
			return err
		}
		for _, tree := range strings.Fields(string(b)) {
			used[tree], used["kernel-"+tree] = true, true
		}
	}
	for _, pattern := range []string{"*_*_*", "tmp-*"} {
		trees, _ := filepath.Glob(c.path(pattern))
		for _, tree := range trees {
			var st syscall.Stat_t
			if used[filepath.Base(tree)] || syscall.Stat(tree, &st) != nil {
				continue
			}
			// The time of modification is the package's own; the rename set this one.
			if time.Since(time.Unix(st.Ctim.Unix())) < keep {
				continue
			}
			c.log("removing %s", filepath.Base(tree))
			if err := os.RemoveAll(tree); err != nil {
				return err
			}
		}
	}
	return nil
}
