//go:build linux

package lab

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// kernel is a kernel of the distribution with all its modules.
type kernel struct {
	release string // as uname -r says
	dir     string // holds boot/vmlinuz-RELEASE and lib/modules/RELEASE with its modules.dep
	image   string // what QEMU is to boot: vmlinux in dir, else boot/vmlinuz-RELEASE
	unpack  *tool  // what unpacks its modules; nil if they are plain or gzip's
}

// kernelNames are packages that depend on the distribution's newest kernel: Debian's,
// then Ubuntu's, whose modules are packages of their own.
var kernelNames = []string{"linux-image-amd64", "linux-generic"}

// kernelPart matches the packages that make up one version of a kernel.
var kernelPart = regexp.MustCompile(`^linux-(image|modules|modules-extra)(-unsigned)?-[0-9]`)

// kernel fetches the newest kernel.
func (c *cache) kernel(ctx context.Context) (*kernel, error) {
	var errs []error
	for _, name := range kernelNames {
		parts, err := c.resolved(ctx, "kernel "+name, 0, func(a *apt) ([]deb, error) {
			return kernelDebs(ctx, a, name)
		}, name)
		if err == nil {
			return c.assemble(ctx, parts)
		}
		if errors.Is(err, errNetwork) {
			return nil, err
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// kernelDebs follows the dependencies of name to the packages of the real kernel.
func kernelDebs(ctx context.Context, a *apt, name string) ([]deb, error) {
	var debs []deb
	seen := map[string]bool{}
	for queue := []string{name}; len(queue) > 0; queue = queue[1:] {
		names, err := a.depends(ctx, queue[0])
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			meta := strings.HasPrefix(n, "linux-image-generic")
			if seen[n] || !meta && !kernelPart.MatchString(n) {
				continue
			}
			seen[n] = true
			queue = append(queue, n)
			if meta {
				continue
			}
			found, err := a.resolve(ctx, n)
			if err != nil {
				return nil, err
			}
			debs = append(debs, found...)
		}
	}
	if len(debs) == 0 {
		return nil, fmt.Errorf("package %s depends on no kernel", name)
	}
	return debs, nil
}

// assemble puts the packages of a kernel into one tree and indexes its modules.
func (c *cache) assemble(ctx context.Context, parts []string) (*kernel, error) {
	dir := c.path("kernel-" + filepath.Base(parts[0]))
	if _, err := os.Stat(dir); err != nil {
		if err := c.assembleInto(ctx, dir, parts); err != nil {
			return nil, err
		}
	}
	images, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if len(images) != 1 {
		return nil, fmt.Errorf("%d kernels in %s, want 1", len(images), dir)
	}
	k := &kernel{release: strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-"), dir: dir, image: images[0]}
	if vmlinux := filepath.Join(dir, "vmlinux"); exists(vmlinux) {
		k.image = vmlinux
	}
	files, err := k.modules(bootModules...)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if program := modulePackers[path.Ext(file)]; program != "" && k.unpack == nil {
			if k.unpack, err = c.tool(ctx, program, packers[program]); err != nil {
				return nil, err
			}
		}
	}
	return k, nil
}

func (c *cache) assembleInto(ctx context.Context, dir string, parts []string) error {
	depmod, err := c.tool(ctx, "depmod", "kmod")
	if err != nil {
		return err
	}
	vmlinux := c.vmlinux(ctx, parts) // may fetch a program, so before the lock is taken
	unlock, err := lock(ctx, c.path("lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return nil // another process was faster
	}
	tmp, err := os.MkdirTemp(c.dir, "tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	c.log("indexing the modules of %s", filepath.Base(dir))
	for _, part := range parts {
		for _, sub := range []string{"boot", "usr"} {
			if _, err := os.Stat(filepath.Join(part, sub)); err != nil {
				continue
			}
			out, err := exec.CommandContext(ctx, "cp", "-al", filepath.Join(part, sub), tmp).CombinedOutput()
			if err != nil {
				return fmt.Errorf("cp -al %s: %w: %s", part, err, tail(string(out), 3))
			}
		}
	}
	if err := os.Symlink("usr/lib", filepath.Join(tmp, "lib")); err != nil {
		return err
	}
	releases, _ := filepath.Glob(filepath.Join(tmp, "lib", "modules", "*"))
	if len(releases) != 1 {
		return fmt.Errorf("%d module trees in %v, want 1", len(releases), parts)
	}
	cmd := depmod.command(ctx, "-b", tmp, filepath.Base(releases[0]))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("depmod: %w: %s", err, tail(string(out), 3))
	}
	if vmlinux != nil {
		if err := os.WriteFile(filepath.Join(tmp, "vmlinux"), vmlinux, 0o644); err != nil {
			return err
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// modules returns the files of the named modules and of all they depend on, each
// after those it needs, relative to the kernel's module tree. Names that it lacks,
// built-in ones for instance, are passed over.
func (k *kernel) modules(names ...string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(k.moduleDir(), "modules.dep"))
	if err != nil {
		return nil, err
	}
	needs := map[string][]string{} // file to files, the first needed last
	files := map[string]string{}   // module name to file
	for line := range strings.Lines(string(b)) {
		file, deps, _ := strings.Cut(line, ":")
		needs[file] = strings.Fields(deps)
		name, _, _ := strings.Cut(path.Base(file), ".")
		files[strings.ReplaceAll(name, "-", "_")] = file
	}
	var order []string
	seen := map[string]bool{}
	add := func(file string) {
		if !seen[file] {
			seen[file] = true
			order = append(order, file)
		}
	}
	for _, name := range names {
		file, ok := files[name]
		if !ok {
			continue
		}
		deps := needs[file]
		for i := range deps {
			add(deps[len(deps)-1-i])
		}
		add(file)
	}
	return order, nil
}

func (k *kernel) moduleDir() string { return filepath.Join(k.dir, "lib", "modules", k.release) }

// modulePackers are the programs that unpack modules of a suffix.
var modulePackers = map[string]string{".xz": "xz", ".zst": "zstd"}

// readModule reads a module's file, unpacked: busybox's insmod wants it so.
func (k *kernel) readModule(ctx context.Context, file string) ([]byte, error) {
	name := filepath.Join(k.moduleDir(), file)
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	switch path.Ext(file) {
	case ".gz":
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return io.ReadAll(r)
	case ".xz", ".zst":
		out, err := k.unpack.command(ctx, "-dcq", name).Output()
		if err != nil {
			return nil, fmt.Errorf("%s -dc %s: %w", k.unpack.name, name, err)
		}
		return out, nil
	}
	return b, nil
}
