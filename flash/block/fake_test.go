//go:build linux

package block

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"snag/flash/image"
)

// tree is a machine's block devices, as sysfs and /proc show them.
type tree struct {
	t       *testing.T
	root    string
	numbers map[string]string // by node
	media   map[string]*fake
	opening error // of every device
}

func newTree(t *testing.T) *tree {
	tr := &tree{t: t, root: t.TempDir(), numbers: map[string]string{}, media: map[string]*fake{}}
	for _, d := range []string{"sys/block", "sys/dev/block", "dev"} {
		if err := os.MkdirAll(filepath.Join(tr.root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tr.file("proc/self/mountinfo", "22 27 0:21 / /proc rw - proc proc rw\n")
	tr.file("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
	return tr
}

func (tr *tree) file(name, content string) {
	tr.t.Helper()
	name = filepath.Join(tr.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) link(to, name string) {
	tr.t.Helper()
	name = filepath.Join(tr.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(tr.root, to), name); err != nil {
		tr.t.Fatal(err)
	}
}

// Where disks are.
const (
	onUSB   = "devices/pci0000:00/usb1/1-2/1-2:1.0/host3/target3:0:0/3:0:0:%d/block"
	onHub   = "devices/pci0000:00/usb1/1-%d/1-%[1]d:1.0/host%[1]d/target%[1]d:0:0/%[1]d:0:0:0/block"
	onSATA  = "devices/pci0000:00/ata1/host0/target0:0:0/0:0:0:0/block"
	nowhere = "devices/virtual/block"
)

// disk adds one of so many MiB, with so many partitions, and returns its directory.
func (tr *tree) disk(where, name string, major, mib, partitions int) string {
	dir := filepath.Join("sys", where, name)
	add := func(dir, name, number string, size int) {
		tr.file(dir+"/dev", number+"\n")
		tr.file(dir+"/size", fmt.Sprintf("%d\n", size<<11))
		tr.file(dir+"/ro", "0\n")
		tr.link(dir, "sys/dev/block/"+number)
		tr.file("dev/"+name, "")
		tr.numbers[filepath.Join(tr.root, "dev", name)] = number
		for _, d := range []string{"holders", "slaves"} {
			if err := os.MkdirAll(filepath.Join(tr.root, dir, d), 0o755); err != nil {
				tr.t.Fatal(err)
			}
		}
		tr.media[name] = &fake{size: int64(size) << 20, block: 512}
	}
	add(dir, name, fmt.Sprintf("%d:0", major), mib)
	tr.file(dir+"/removable", "0\n")
	tr.file(dir+"/diskseq", fmt.Sprintf("%d\n", 10*major))
	tr.file(dir+"/device/vendor", "Linux   \n")
	tr.file(dir+"/device/model", "UMS disk 0\n")
	tr.link(dir, "sys/block/"+name)
	for i := range partitions {
		part := fmt.Sprintf("%s%d", name, i+1)
		add(dir+"/"+part, part, fmt.Sprintf("%d:%d", major, i+1), mib/(partitions+1))
		tr.file(dir+"/"+part+"/partition", fmt.Sprintf("%d\n", i+1))
	}
	return dir
}

// volume makes a volume of a disk or partition.
func (tr *tree) volume(of, name, label string, major int) {
	dir := tr.disk(nowhere, name, major, 8, 0)
	tr.file(dir+"/dm/name", label+"\n")
	tr.link(of, dir+"/slaves/"+filepath.Base(of))
	tr.link(dir, of+"/holders/"+name)
}

func (tr *tree) mounted(number, source, point string) {
	name := filepath.Join(tr.root, "proc/self/mountinfo")
	b, err := os.ReadFile(name)
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.file("proc/self/mountinfo", string(b)+fmt.Sprintf("30 22 %s / %s rw,relatime shared:1 - ext4 %s rw\n", number, point, source))
}

func (tr *tree) system() System {
	return System{
		Sys: filepath.Join(tr.root, "sys"), Dev: filepath.Join(tr.root, "dev"), Proc: filepath.Join(tr.root, "proc"),
		number: func(name string) (string, error) {
			if !strings.HasPrefix(name, tr.root) {
				name = filepath.Join(tr.root, name)
			}
			real, err := filepath.EvalSymlinks(name)
			if err != nil {
				return "", err
			}
			if n := tr.numbers[real]; n != "" {
				return n, nil
			}
			return "", fmt.Errorf("%s: %w", name, errNoBlockDevice)
		},
		open: func(node, _ string) (medium, error) {
			if tr.opening != nil {
				return nil, &fs.PathError{Op: "open", Path: node, Err: tr.opening}
			}
			return tr.media[filepath.Base(node)], nil
		},
	}
}

// fake is a medium with faults.
type fake struct {
	size, block int64
	direct      bool // it refuses what O_DIRECT does not allow

	mu       sync.Mutex
	data     map[int64][]byte // blocks of 4096 bytes, by number
	written  int64
	events   []string
	delay    time.Duration
	real     int64 // bytes that there really are; 0: size
	wrap     bool  // what is beyond real is what is at its begin
	unplugAt int64 // written bytes; 0: never
	onUnplug func()
	leaving  error // of all requests then; nil: ENODEV
	badAt    int64 // an offset that cannot be written; 0: none
	once     bool  // badAt can be written at the second time
	dropAt   int64 // a write that contains this offset is lost; 0: none
	flip     int64 // this offset reads otherwise
	flicker  bool  // each time
	syncErr  error
	noZero   bool
}

const page = 4096

func (f *fake) Size() int64  { return f.size }
func (f *fake) Block() int64 { return f.block }
func (f *fake) Close() error { return nil }
func (f *fake) Forget() error {
	f.event("forget")
	return nil
}
func (f *fake) Reread()      { f.event("reread") }
func (f *fake) Eject() error { f.event("eject"); return nil }
func (f *fake) Sync() error  { f.event("sync"); return f.syncErr }

func (f *fake) event(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, s)
}

func (f *fake) check(p []byte, off int64) error {
	if f.direct && (off%f.block != 0 || int64(len(p))%f.block != 0 || !isAligned(p, f.block)) || off+int64(len(p)) > f.size {
		return unix.EINVAL
	}
	if f.unplugAt > 0 && f.written >= f.unplugAt {
		return cmp.Or(f.leaving, error(unix.ENODEV))
	}
	return nil
}

// each calls do with the parts of p in the pages where they are.
func (f *fake) each(p []byte, off int64, do func(page []byte, p []byte)) {
	if f.data == nil {
		f.data = map[int64][]byte{}
	}
	for len(p) > 0 {
		at := off
		n := min(int64(len(p)), page-off%page)
		if f.real > 0 && at >= f.real {
			at %= f.real
			if !f.wrap {
				at = -page
			}
		}
		b := f.data[at/page]
		if b == nil {
			b = make([]byte, page)
			if at >= 0 {
				f.data[at/page] = b
			}
		}
		do(b[off%page:][:n], p[:n])
		p, off = p[n:], off+n
	}
}

func (f *fake) WriteAt(p []byte, off int64) (int, error) {
	time.Sleep(f.delay)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(p, off); err != nil {
		return 0, err
	}
	within := func(at int64) bool { return at > 0 && off <= at && at < off+int64(len(p)) }
	if f.unplugAt > 0 && f.written+int64(len(p)) > f.unplugAt {
		n := (f.unplugAt - f.written) / f.block * f.block
		f.each(p[:n], off, func(page, p []byte) { copy(page, p) })
		f.written = f.unplugAt
		if f.onUnplug != nil {
			f.onUnplug()
		}
		return int(n), cmp.Or(f.leaving, error(unix.ENODEV))
	}
	if within(f.badAt) {
		if f.once {
			f.badAt = 0
		}
		return 0, unix.EIO
	}
	f.written += int64(len(p))
	if within(f.dropAt) {
		return len(p), nil
	}
	f.each(p, off, func(page, p []byte) { copy(page, p) })
	return len(p), nil
}

func (f *fake) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(p, off); err != nil {
		return 0, err
	}
	f.each(p, off, func(page, p []byte) { copy(p, page) })
	if f.flip > 0 && off <= f.flip && f.flip < off+int64(len(p)) {
		p[f.flip-off] ^= 1
		if f.flicker {
			f.flip = 0
		}
	}
	return len(p), nil
}

func (f *fake) Zero(off, n int64) error {
	if f.noZero {
		return errors.ErrUnsupported
	}
	if off%f.block != 0 || n%f.block != 0 {
		return unix.EINVAL
	}
	for ; n > 0; off, n = off+page, n-page {
		if _, err := f.WriteAt(aligned(int(min(n, page)), f.block), off); err != nil {
			return err
		}
	}
	return nil
}

// content is what the medium holds.
func (f *fake) content(n int) []byte {
	b := make([]byte, n)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.each(b, 0, func(page, p []byte) { copy(p, page) })
	return b
}

// sample writes a sparse file of size bytes, or of a random size, and returns what is in it.
func sample(t testing.TB, rng *rand.Rand, size int64) (name string, content []byte) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "board.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	content = make([]byte, size)
	for at := int64(0); at < size; {
		n := min(size-at, 1+rng.Int64N(1<<18))
		if rng.IntN(3) > 0 || at == 0 {
			for i := at; i < at+n; i++ {
				content[i] = byte(i>>8) ^ byte(i*7)
			}
			content[at] = byte(rng.Uint32())
			if _, err := f.WriteAt(content[at:at+n], at); err != nil {
				t.Fatal(err)
			}
		}
		at += n
		if rng.IntN(2) > 0 {
			at += 4096 * rng.Int64N(64) // a hole
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return name, content
}

func openImage(t testing.TB, name string, o image.Options) *image.Image {
	t.Helper()
	im, err := image.Open(t.Context(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	return im
}
