//go:build linux

package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool is a program of a Debian package: the host's own, or one that was unpacked
// into the cache together with the libraries and data the host lacks.
type tool struct {
	name  string // as which it is called: one file may be many programs
	file  string
	trees []string // where it was unpacked; none if it is the host's
}

// Command returns the command that runs a program on the host, beside a VM: the
// host's own, or else that of package pkg, fetched with what it depends on and the
// host lacks. It ends with the test's context. Command skips as [Run] does.
func Command(t testing.TB, program, pkg string, args ...string) *exec.Cmd {
	t.Helper()
	wanted(t)
	c, err := openCache(quiet)
	check(t, err)
	tool, err := c.tool(t.Context(), program, pkg)
	check(t, err)
	return tool.command(t.Context(), args...)
}

// tool finds a program, and fetches the package it comes in if the host has none.
func (c *cache) tool(ctx context.Context, program, pkg string) (*tool, error) {
	if file, ok := installed(program); ok {
		return &tool{name: program, file: file}, nil
	}
	trees, err := c.missing(ctx, pkg)
	if err != nil {
		return nil, err
	}
	for _, tree := range trees {
		for _, dir := range []string{"usr/bin", "usr/sbin"} {
			file := filepath.Join(tree, dir, program)
			// A link like /bin/kmod is meant relative to the tree.
			if link, err := os.Readlink(file); err == nil && filepath.IsAbs(link) {
				file = filepath.Join(tree, link)
			}
			if _, err := os.Stat(file); err == nil {
				return &tool{program, file, trees}, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: no %s on the host nor in package %s", ErrUnavailable, program, pkg)
}

// installed finds a program of the host. An ordinary user's PATH lacks sbin.
func installed(program string) (string, bool) {
	if file, err := exec.LookPath(program); err == nil {
		return file, true
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if file, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return file, true
		}
	}
	return "", false
}

// command returns the command that runs t, with the unpacked libraries if need be.
func (t *tool) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, t.file, args...)
	cmd.Args[0] = t.name
	var dirs []string
	for _, tree := range t.trees {
		libs, _ := filepath.Glob(filepath.Join(tree, "usr/lib/*-linux-gnu*"))
		dirs = append(dirs, libs...)
	}
	if len(dirs) > 0 {
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(dirs, ":"))
	}
	for _, dir := range dirs {
		// QEMU looks for its modules beside itself, but they are a package of their own.
		if found, _ := filepath.Glob(filepath.Join(dir, "qemu/accel-tcg-*.so")); len(found) > 0 {
			cmd.Env = append(cmd.Env, "QEMU_MODULE_DIR="+filepath.Dir(found[0]))
		}
	}
	return cmd
}
