//go:build linux

package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

//go:embed guest/init
var guestInit []byte

//go:embed guest/setup
var guestSetup []byte

// bootModules are what the initramfs needs to reach the host's files. The rest is
// loaded from there.
var bootModules = []string{"virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_rng"}

// machine is what a VM is made of, found or fetched.
type machine struct {
	qemu    *tool
	kernel  *kernel
	busybox string
	layers  []string // directories laid over the host's /, the topmost first
}

// machine gathers what a VM needs; pkgs are laid over its root as far as the host
// lacks them.
func (c *cache) machine(ctx context.Context, pkgs ...string) (*machine, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("%w: the VM shares the programs of an amd64 host, this is %s", ErrUnavailable, runtime.GOARCH)
	}
	var m machine
	var err error
	if m.qemu, err = c.tool(ctx, "qemu-system-x86_64", "qemu-system-x86"); err != nil {
		return nil, err
	}
	if m.kernel, err = c.kernel(ctx); err != nil {
		return nil, err
	}
	busybox, err := c.fetch(ctx, "busybox-static")
	if err != nil {
		return nil, err
	}
	m.busybox = filepath.Join(busybox[0], "usr", "bin", "busybox")
	for _, p := range append([]string{"kmod"}, pkgs...) {
		layers, err := c.missing(ctx, p)
		if err != nil {
			return nil, err
		}
		for _, l := range layers {
			// What two packages both need is one layer: overlayfs refuses a directory twice.
			if !slices.Contains(m.layers, l) {
				m.layers = append(m.layers, l)
			}
		}
	}
	m.layers = append(m.layers, m.kernel.dir)
	return &m, nil
}

// initramfs builds the VM's first root file system.
func (m *machine) initramfs(ctx context.Context, dirs []string) ([]byte, error) {
	busybox, err := os.ReadFile(m.busybox)
	if err != nil {
		return nil, err
	}
	var a cpio
	for _, d := range []string{"bin", "dev", "proc", "sys", "modules", "host", "cache", "files", "share", "over", "root"} {
		a.dir(d)
	}
	a.file("bin/busybox", busybox)
	a.file("init", guestInit)
	order, err := m.kernel.modules(bootModules...)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, file := range order {
		b, err := m.kernel.readModule(ctx, file)
		if err != nil {
			return nil, err
		}
		names = append(names, filepath.Base(file))
		a.file("modules/"+filepath.Base(file), b)
	}
	a.file("modules/order", lines(names))
	var layers []string
	for _, l := range m.layers {
		layers = append(layers, filepath.Base(l))
	}
	a.file("layers", lines(layers))
	a.file("dirs", lines(dirs))
	return a.end(), nil
}

func lines(s []string) []byte {
	if len(s) == 0 {
		return nil
	}
	return []byte(strings.Join(s, "\n") + "\n")
}

// options are the kernel's. "norandmaps": a QEMU before 8.0 translates code again at each virtual address at which it
// meets it. With the C library at another one in each process starting a process takes 48 ms, else 10.
const options = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr norandmaps cryptomgr.notests"

// processor is the emulated processor: with what QEMU can emulate, but for what is slower there than doing without. It
// does "rep movsb" byte by byte, which a kernel that sees "erms" copies and clears all memory with: ten times as slowly
// as by words. Each of the kernel's accesses to a process's memory ends a translated block twice for "smap", AVX
// doubles what is saved at each switch, and with SSE 4.2 some Go programs, snag among them, begin by computing tables
// for the instruction "crc32", which takes them 45 ms.
const processor = "max,la57=off,erms=off,fsrm=off,smap=off,smep=off,umip=off,avx=off,avx2=off,sse4.2=off"

// command is the QEMU command of a VM whose initramfs, files and share are in dir
// (see room) and whose cached packages are in cache.
func (m *machine) command(ctx context.Context, job Job, dir, cache string) *exec.Cmd {
	args := []string{
		"-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
		"-machine", "q35,accel=tcg", "-cpu", processor,
		"-smp", strconv.Itoa(job.CPUs), "-m", strconv.Itoa(job.Memory),
		"-kernel", m.kernel.image,
		"-initrd", filepath.Join(dir, "initramfs"),
		"-append", options + " " + inVM,
		"-serial", "file:" + filepath.Join(dir, "console"),
		"-device", "virtio-rng-pci",
	}
	for _, share := range []struct{ tag, path, options string }{
		{"host", "/", "security_model=none,readonly=on,multidevs=remap"},
		{"cache", cache, "security_model=none,readonly=on"},
		{"files", filepath.Join(dir, "files"), "security_model=none,readonly=on"},
		// Owners and modes that the VM sets are kept beside the files: the QEMU of an
		// ordinary user could not set them.
		{"share", filepath.Join(dir, "share"), "security_model=mapped-file"},
	} {
		args = append(args,
			"-fsdev", fmt.Sprintf("local,id=%s,path=%s,%s", share.tag, share.path, share.options),
			"-device", fmt.Sprintf("virtio-9p-pci,fsdev=%s,mount_tag=%[1]s", share.tag))
	}
	for _, tree := range m.qemu.trees {
		for _, data := range []string{"usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"} {
			if d := filepath.Join(tree, data); exists(d) {
				args = append(args, "-L", d)
			}
		}
	}
	return m.qemu.command(ctx, append(args, job.QEMU...)...)
}

// RunBound runs cmd, which ends at the latest when this process does, however that
// comes about.
func RunBound(cmd *exec.Cmd) error {
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// The parent whose death kills it is the thread that started it, so that one must
	// live as long.
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- cmd.Run()
	}()
	return <-done
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// queue is what this process's jobs that wait for a slot may take.
var queue struct {
	sync.Mutex
	timeouts []time.Duration
}

// slot waits until fewer VMs run on this host than it has processors, counting those
// of other test processes, and takes a place among them: a board does not wait for a host that
// waits for a processor. Of the jobs that wait in this
// process the longest, by its timeout, is the next: a short one is not to leave a processor
// without work at the end.
func (c *cache) slot(ctx context.Context, timeout time.Duration) (release func(), err error) {
	queue.Lock()
	queue.timeouts = append(queue.timeouts, timeout)
	queue.Unlock()
	defer func() {
		queue.Lock()
		defer queue.Unlock()
		i := slices.Index(queue.timeouts, timeout)
		queue.timeouts = slices.Delete(queue.timeouts, i, i+1)
	}()
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		queue.Lock()
		next := slices.Max(queue.timeouts) == timeout
		queue.Unlock()
		for i := 0; next && i < runtime.NumCPU(); i++ {
			unlock, err := tryLock(c.path(fmt.Sprintf("vm%d.lock", i)))
			if !errors.Is(err, errLocked) {
				return unlock, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another VM to end: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}
