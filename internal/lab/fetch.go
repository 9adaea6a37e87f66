//go:build linux

package lab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ErrUnavailable says that the host cannot give what a VM needs: a package that is
// not in the cache while there is no network, or no apt at all. Tests skip.
var ErrUnavailable = errors.New("not available on this host")

// errNetwork says that the archive could not be reached.
var errNetwork = fmt.Errorf("%w: no network", ErrUnavailable)

const (
	freshness  = 24 * time.Hour   // how long package lists and what was resolved by them count
	giveUpTime = 10 * time.Minute // how long a network that failed is not tried again
)

// cache is the directory that fetched packages are kept in:
//
//	NAME_VERSION_ARCH/   an unpacked package
//	kernel-RELEASE-…/    a kernel with its modules, see kernel.go
//	resolved/…           what a name stands for today: directories, one a line
//	resolved/….none      why the archive has no answer today
//	apt/                 the private apt state
//	lock, failed         held while any of these change; why the last fetch failed
//	backports/           a cache of its own, see [Backport]
type cache struct {
	dir    string
	log    func(format string, args ...any)
	choose func([]source) []source // the archives, of the host's; nil: all
}

// openCache finds the cache directory, and makes it if need be.
func openCache(log func(string, ...any)) (*cache, error) {
	dir := os.Getenv("SNAG_LAB_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("%w: nowhere to keep packages, set SNAG_LAB_CACHE: %w", ErrUnavailable, err)
		}
		dir = filepath.Join(base, "snag-lab")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(dir, ":,") {
		return nil, fmt.Errorf("cache directory %s: a path with ':' or ',' cannot be passed to QEMU", dir)
	}
	return &cache{dir: dir, log: log}, os.MkdirAll(filepath.Join(dir, "resolved"), 0o755)
}

func (c *cache) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// Fetch unpacks packages of the distribution's archive into the cache, unless they
// are there already, and returns the directory of each. A name may end in an
// architecture ("u-boot-imx:armhf"). What the packages depend on is not fetched.
// The error wraps [ErrUnavailable] if a package cannot be had.
func Fetch(ctx context.Context, names ...string) ([]string, error) {
	c, err := openCache(quiet)
	if err != nil {
		return nil, err
	}
	return c.fetch(ctx, names...)
}

// Packages is [Fetch] for tests: it skips the test if a package cannot be had.
func Packages(t testing.TB, names ...string) []string {
	t.Helper()
	dirs, err := Fetch(t.Context(), names...)
	check(t, err)
	return dirs
}

func (c *cache) fetch(ctx context.Context, names ...string) ([]string, error) {
	var dirs []string
	for _, name := range names {
		got, err := c.resolved(ctx, "one "+name, 0, func(a *apt) ([]deb, error) {
			debs, err := a.resolve(ctx, name)
			if err == nil && len(debs) == 0 {
				err = fmt.Errorf("%w: no package %q in the archive", ErrUnavailable, name)
			}
			return debs, err
		}, name)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, got...)
	}
	return dirs, nil
}

// missing fetches packages with all they depend on and the host lacks; none if
// everything is installed.
func (c *cache) missing(ctx context.Context, names ...string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	return c.resolved(ctx, "missing "+strings.Join(names, " "), age(hostStatus), func(a *apt) ([]deb, error) {
		return a.resolveMissing(ctx, names)
	}, names...)
}

// resolved returns the directories that key stands for. An answer younger than a day
// and than maxAge (if that is not 0) is taken from the cache; else resolve is asked
// and what it names is fetched. Without a network an older answer is better than none.
func (c *cache) resolved(ctx context.Context, key string, maxAge time.Duration, resolve func(*apt) ([]deb, error), names ...string) ([]string, error) {
	if maxAge == 0 || maxAge > freshness {
		maxAge = freshness
	}
	file := c.answer(key)
	read := func() ([]string, bool) {
		b, err := os.ReadFile(file)
		dirs := strings.Fields(string(b))
		for i, d := range dirs {
			dirs[i] = c.path(d)
			if _, err := os.Stat(dirs[i]); err != nil {
				return nil, false
			}
		}
		return dirs, err == nil
	}
	if dirs, ok := read(); ok && age(file) < maxAge {
		return dirs, nil
	}
	unlock, err := lock(ctx, c.path("lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	old, ok := read()
	if ok && age(file) < maxAge {
		return old, nil // another process was faster
	}
	none := file + ".none"
	if why, err := os.ReadFile(none); err == nil && !ok && age(none) < freshness {
		return nil, fmt.Errorf("%w (asked less than %v ago): %s", ErrUnavailable, freshness, why)
	}
	dirs, err := c.refresh(ctx, resolve, names)
	switch {
	case err == nil:
		return c.paths(dirs), replace(file, strings.Join(dirs, "\n"))
	case ok && errors.Is(err, ErrUnavailable):
		c.log("taking what was fetched before: %v", err)
		return old, nil
	}
	err = fmt.Errorf("fetching %s: %w", strings.Join(names, ", "), err)
	if errors.Is(err, ErrUnavailable) && !errors.Is(err, errNetwork) && ctx.Err() == nil {
		err = errors.Join(err, replace(none, strings.ReplaceAll(err.Error(), ErrUnavailable.Error()+": ", "")))
	}
	return nil, err
}

// answer is the file of what key stands for.
func (c *cache) answer(key string) string {
	return c.path("resolved", fmt.Sprintf("%.12x", sha256.Sum256([]byte(key))))
}

func (c *cache) paths(dirs []string) []string {
	out := make([]string, len(dirs))
	for i, d := range dirs {
		out[i] = c.path(d)
	}
	return out
}

// refresh asks apt. When a package's version is no longer in the archive, the lists
// are out of date: they are fetched anew, once.
func (c *cache) refresh(ctx context.Context, resolve func(*apt) ([]deb, error), names []string) ([]string, error) {
	if why, err := os.ReadFile(c.path("failed")); err == nil && age(c.path("failed")) < giveUpTime {
		return nil, fmt.Errorf("%w (tried less than %v ago): %s", errNetwork, giveUpTime, why)
	}
	var archs []string
	for _, n := range names {
		if _, arch, ok := strings.Cut(n, ":"); ok {
			archs = append(archs, arch)
		}
	}
	a, err := openApt(ctx, c.path("apt"), archs, c.choose, c.log)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, maxAge := range []time.Duration{freshness, time.Minute} {
		if err = a.update(ctx, maxAge); err != nil {
			break
		}
		var debs []deb
		if debs, err = resolve(a); err != nil {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
			continue
		}
		if dirs, err = c.unpack(ctx, a, debs); err == nil {
			return dirs, nil
		}
	}
	if errors.Is(err, errNetwork) && ctx.Err() == nil {
		replace(c.path("failed"), strings.TrimPrefix(err.Error(), errNetwork.Error()+": "))
	}
	return nil, err
}

func (c *cache) unpack(ctx context.Context, a *apt, debs []deb) ([]string, error) {
	var dirs []string
	for _, d := range debs {
		if _, err := os.Stat(c.path(d.dir())); err != nil {
			if err := a.unpack(ctx, d, c.dir); err != nil {
				return nil, err
			}
		}
		dirs = append(dirs, d.dir())
	}
	return dirs, nil
}

// replace writes a file in one step, so that readers see the old or the new one.
func replace(file, content string) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".new-")
	if err != nil {
		return err
	}
	_, err = tmp.WriteString(content)
	if err := errors.Join(err, tmp.Close()); err != nil {
		os.Remove(tmp.Name())
		return err
	}
	return os.Rename(tmp.Name(), file)
}

// lock takes an exclusive lock that other processes see; it ends with the process at
// the latest.
func lock(ctx context.Context, file string) (unlock func(), err error) {
	// flock can be waited for without a deadline or not at all, hence the poll.
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		unlock, err := tryLock(file)
		if !errors.Is(err, errLocked) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the lock %s: %w", file, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// lockPoll is how often a lock is tried that somebody has.
const lockPoll = 50 * time.Millisecond

// errLocked says that somebody has a lock.
var errLocked = errors.New("locked")

// tryLock takes a lock that nobody has.
func tryLock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for err = syscall.EINTR; err == syscall.EINTR; {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	switch err {
	case nil:
		return func() { f.Close() }, nil
	case syscall.EWOULDBLOCK:
		err = errLocked
	}
	f.Close()
	return nil, fmt.Errorf("locking %s: %w", file, err)
}

func quiet(string, ...any) {}
