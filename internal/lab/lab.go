//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// inVM is a word on the VM's kernel command line.
const inVM = "snag.lab"

// Job is what to do in a VM and what it needs there.
type Job struct {
	// Script is run by "sh -e" in /tmp; its exit status is the job's.
	Script string
	// User runs the script as that account, "labuser" say; empty means root.
	User string
	// Files are put into the VM: the absolute name there to the file on the host.
	// What lies in /lab/bin is on the PATH.
	Files map[string]string
	// Dirs are directories of the host to show where they are there. They need not
	// be named unless they are below one of those that are empty in the VM: /tmp,
	// /var/tmp and /run.
	Dirs []string
	// Packages are laid over the VM's root, with what they depend on, as far as the
	// host lacks them. Their maintainers' scripts are not run.
	Packages []string
	// Udev runs udevd. What is there before the script starts is triggered for the
	// subsystems net, usb, tty and misc only: loading drivers for the whole machine
	// takes longer than all the rest of a boot.
	Udev bool
	// CPUs and Memory (in MiB) of the VM; 0 means 1 and 1024. Under
	// emulation more processors make a VM slower on a busy host.
	CPUs, Memory int
	// Timeout is how long the VM may run, boot included; 0 means three minutes.
	Timeout time.Duration
	// QEMU are more arguments for QEMU.
	QEMU []string
}

// Result is what a VM left behind.
type Result struct {
	Stdout, Stderr string        // of the script
	Status         int           // its exit status; above 128 the signal that ended it
	Console        string        // of the kernel
	Out            string        // directory with what was written to /lab/out
	Boot, Total    time.Duration // from QEMU's start to the script's, and to QEMU's end
	Busy           time.Duration // what QEMU used of the processors
}

// Run runs a job in a VM and fails the test if the script does. It skips if there
// can be no VM here.
func Run(t testing.TB, job Job) *Result {
	t.Helper()
	r := start(t, job)
	if r.Status != 0 {
		t.Errorf("lab: the script's exit status is %d\n%s", r.Status, r)
	}
	return r
}

// start is Run for any exit status.
func start(t testing.TB, job Job) *Result {
	t.Helper()
	wanted(t)
	r, err := Exec(t.Context(), t.TempDir(), job)
	check(t, err)
	return r
}

// wanted skips a test if VMs are switched off.
func wanted(t testing.TB) {
	t.Helper()
	switch {
	case os.Getenv("SNAG_LAB") == "off":
		t.Skip("lab: SNAG_LAB=off")
	case testing.Short():
		t.Skip("lab: no VM in -short mode")
	}
}

// check skips a test whose needs cannot be met here and fails it on other errors.
func check(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrUnavailable) && os.Getenv("SNAG_LAB") != "require":
		t.Skip("lab:", err)
	default:
		t.Fatal("lab:", err)
	}
}

// Exec runs a job in a VM. It keeps its files, and Result.Out, in dir, an empty
// directory. An exit status other than 0 is no error; an error says that the VM did
// not come to the end of the script: it cannot be had ([ErrUnavailable]), the script
// took longer than Job.Timeout ([context.DeadlineExceeded]), or the VM broke down.
func Exec(ctx context.Context, dir string, job Job) (*Result, error) {
	if job.CPUs == 0 {
		job.CPUs = 1
	}
	if job.Memory == 0 {
		job.Memory = 1024
	}
	if job.Timeout == 0 {
		job.Timeout = 3 * time.Minute
	}
	c, err := openCache(quiet)
	if err != nil {
		return nil, err
	}
	pkgs := job.Packages
	if job.Udev {
		pkgs = append([]string{"udev"}, pkgs...)
	}
	m, err := c.machine(ctx, pkgs...)
	if err != nil {
		return nil, err
	}
	if err := furnish(ctx, dir, m, job); err != nil {
		return nil, err
	}
	release, err := c.slot(ctx, job.Timeout)
	if err != nil {
		return nil, err
	}
	defer release()
	return boot(ctx, dir, m, job, c.dir)
}

// furnish writes the files that a VM starts with:
//
//	initramfs
//	files/          laid over the root: Job.Files and
//	files/lab/      busybox, setup, settings, job
//	files/etc/      the accounts
//	share/ctl, out  what setup and the script write
func furnish(ctx context.Context, dir string, m *machine, job Job) error {
	if strings.ContainsAny(dir, ":,") {
		return fmt.Errorf("directory %s: a path with ':' or ',' cannot be passed to QEMU", dir)
	}
	for _, d := range []string{"files/lab/bin", "files/etc", "share/ctl", "share/out"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(dir, "share/out"), 0o777); err != nil {
		return err
	}
	initramfs, err := m.initramfs(ctx, job.Dirs)
	if err != nil {
		return err
	}
	user, udev := "root", "no"
	if job.User != "" {
		user = job.User
	}
	if job.Udev {
		udev = "yes"
	}
	var accounts [2]string
	for i, name := range []string{"/etc/passwd", "/etc/group"} {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		accounts[i] = string(b)
	}
	passwd, group := addAccount(accounts[0], accounts[1])
	for name, content := range map[string][]byte{
		"initramfs":          initramfs,
		"files/lab/setup":    guestSetup,
		"files/lab/settings": []byte("user=" + user + "\nudev=" + udev + "\n"),
		"files/lab/job":      []byte(job.Script + "\n"),
		"files/etc/passwd":   []byte(passwd),
		"files/etc/group":    []byte(group),
		"files/etc/shadow":   []byte(shadow),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	files := map[string]string{"/lab/busybox": m.busybox}
	for name, file := range job.Files {
		if !filepath.IsAbs(name) {
			return fmt.Errorf("Job.Files: %q is no absolute name", name)
		}
		files[name] = file
	}
	for name, file := range files {
		if err := copyFile(filepath.Join(dir, "files", name), file); err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies a file with its permissions, making directories as needed.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fi.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// boot runs the VM in dir and gathers what it leaves behind.
func boot(ctx context.Context, dir string, m *machine, job Job, cache string) (*Result, error) {
	limited, cancel := context.WithTimeoutCause(ctx, job.Timeout,
		fmt.Errorf("%w: the VM was not done after %v", context.DeadlineExceeded, job.Timeout))
	defer cancel()
	cmd := m.command(limited, job, dir, cache)
	var complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &complaints, &complaints
	begin := time.Now()
	qemuErr := RunBound(cmd)
	r := &Result{Total: time.Since(begin), Out: filepath.Join(dir, "share/out")}
	if cmd.ProcessState != nil {
		r.Busy = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}

	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return ""
		}
		return string(b)
	}
	r.Stdout, r.Stderr = read("share/ctl/stdout"), read("share/ctl/stderr")
	r.Console = strings.ReplaceAll(read("console"), "\r", "")
	if fi, err := os.Stat(filepath.Join(dir, "share/ctl/started")); err == nil {
		r.Boot = fi.ModTime().Sub(begin)
	}
	var err error
	if r.Status, err = strconv.Atoi(strings.TrimSpace(read("share/ctl/status"))); err == nil {
		return r, nil
	}
	switch {
	case limited.Err() != nil:
		err = context.Cause(limited)
	case qemuErr != nil:
		err = fmt.Errorf("QEMU: %w: %s", qemuErr, tail(complaints.String(), 10))
	default:
		err = errors.New("the VM switched itself off before the script was done")
	}
	if r.Boot == 0 {
		err = fmt.Errorf("the script did not start: %w", err)
	}
	return r, fmt.Errorf("%w\n%s", err, r)
}

// String is the end of all that the VM printed.
func (r *Result) String() string {
	var b strings.Builder
	for _, part := range []struct {
		name, text string
		lines      int
	}{{"console", r.Console, 60}, {"stdout", r.Stdout, 100}, {"stderr", r.Stderr, 100}} {
		if strings.TrimSpace(part.text) != "" {
			fmt.Fprintf(&b, "--- %s\n%s\n", part.name, tail(part.text, part.lines))
		}
	}
	return b.String()
}

// InVM reports whether this process runs in a VM of this package.
func InVM() bool {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return false
	}
	for _, word := range strings.Fields(string(b)) {
		if word == inVM {
			return true
		}
	}
	return false
}

// Inside skips a test unless it runs in a VM, where [GoTest] runs it.
func Inside(t testing.TB) {
	t.Helper()
	if !InVM() {
		t.Skip("lab: runs in a VM only")
	}
}
