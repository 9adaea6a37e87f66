//go:build linux

package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
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
// host lacks, such as the interpreter of a script. It ends with the test's context.
// Command skips as [Run] does.
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
	for _, dir := range []string{"usr/bin", "usr/sbin", "bin", "sbin"} {
		if file, ok := find(trees, filepath.Join(dir, program)); ok {
			return &tool{program, file, trees}, nil
		}
	}
	return nil, fmt.Errorf("%w: no %s on the host nor in package %s", ErrUnavailable, program, pkg)
}

// find finds a file in the trees. Links, absolute or not, are meant as if all trees
// were one.
func find(trees []string, name string) (string, bool) {
	for range 8 { // links to links
		link := ""
		for _, tree := range trees {
			file := filepath.Join(tree, name)
			to, err := os.Readlink(file)
			if err == nil {
				link = to
				break
			}
			if _, err := os.Stat(file); err == nil {
				return file, true
			}
		}
		if link == "" {
			return "", false
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join("/", filepath.Dir(name), link)
		}
		name = link
	}
	return "", false
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

// command returns the command that runs t, with the unpacked libraries, modules and
// interpreter if need be.
func (t *tool) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, t.file, args...)
	cmd.Args[0] = t.name
	if len(t.trees) == 0 {
		return cmd
	}
	if interpreter := t.interpreter(); interpreter != "" {
		cmd = exec.CommandContext(ctx, interpreter, append([]string{t.file}, args...)...)
	}
	cmd.Env = os.Environ()
	// Android's libraries are where only its own programs look for them.
	libs := t.dirs("usr/lib/*-linux-gnu*", "usr/lib/*-linux-gnu*/android")
	if len(libs) > 0 {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+strings.Join(libs, ":"))
	}
	// Python's own library is spread over packages, too.
	if modules := t.dirs("usr/lib/python3/dist-packages", "usr/lib/python3.*", "usr/lib/python3.*/lib-dynload"); len(modules) > 0 {
		cmd.Env = append(cmd.Env, "PYTHONPATH="+strings.Join(modules, ":"), "PYTHONDONTWRITEBYTECODE=1")
	}
	// QEMU looks for its modules beside itself, but they are a package of their own.
	if found := t.dirs("usr/lib/*-linux-gnu*/qemu/accel-tcg-*.so"); len(found) > 0 {
		cmd.Env = append(cmd.Env, "QEMU_MODULE_DIR="+filepath.Dir(found[0]))
	}
	return cmd
}

// dirs returns what the patterns match in t's trees.
func (t *tool) dirs(patterns ...string) []string {
	var found []string
	for _, pattern := range patterns {
		for _, tree := range t.trees {
			got, _ := filepath.Glob(filepath.Join(tree, pattern))
			found = append(found, got...)
		}
	}
	return found
}

// interpreter returns the unpacked interpreter of a script whose own is not on the host, else "".
func (t *tool) interpreter() string {
	f, err := os.Open(t.file)
	if err != nil {
		return ""
	}
	defer f.Close()
	line, _ := bufio.NewReader(io.LimitReader(f, 256)).ReadString('\n')
	script, ok := strings.CutPrefix(line, "#!")
	words := strings.Fields(script)
	if !ok || len(words) == 0 {
		return ""
	}
	if _, err := os.Stat(words[0]); err == nil {
		return ""
	}
	file, _ := find(t.trees, words[0])
	return file
}
