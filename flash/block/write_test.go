//go:build linux

package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"snag/flash"
	"snag/flash/image"
)

// device opens the fake disk of a new tree: 64 MiB on USB port 1-2.
func device(t *testing.T) (*Device, *fake, *tree) {
	t.Helper()
	tr := newTree(t)
	tr.disk(fmt.Sprintf(onUSB, 0), "sdb", 8, 64, 0)
	d, err := Open(t.Context(), Options{Port: "1-2", System: tr.system()})
	if err != nil {
		t.Fatal(err)
	}
	m := tr.media["sdb"]
	m.direct = true
	return d, m, tr
}

// Images of all sizes come on the medium as they are, and what they leave out of a block stays what it was.
func TestWrite(t *testing.T) {
	for i, size := range []int64{1, 511, 512, 4096, 100_001, 1 << 20, 1<<20 + 1, 3<<20 + 513, 9<<20 + 4097} {
		for _, block := range []int64{512, 4096} {
			d, m, _ := device(t)
			m.block, m.noZero = block, i%2 == 0
			rng := rand.New(rand.NewPCG(uint64(size), uint64(block)))
			name, content := sample(t, rng, size)
			old := bytes.Repeat([]byte("old "), 3<<20)
			m.each(old, 0, func(page, p []byte) { copy(page, p) })
			var written, verified atomic.Int64
			o := flash.Options{Verify: true, Progress: func(step flash.Step, n int64) {
				if step == flash.Verifying {
					verified.Add(n)
				} else {
					written.Add(n)
				}
			}}
			if err := d.Write(t.Context(), openImage(t, name, image.Options{}), o); err != nil {
				t.Errorf("%d bytes, blocks of %d: %v", size, block, err)
			}
			if got := m.content(len(old)); !bytes.Equal(got[:size], content) || !bytes.Equal(got[size:], old[size:]) {
				t.Errorf("%d bytes, blocks of %d: the medium holds something else", size, block)
			}
			if written.Load() != size || verified.Load() != size {
				t.Errorf("%d bytes, blocks of %d: progress %d, %d", size, block, written.Load(), verified.Load())
			}
			if got := strings.Join(m.events, " "); got != "sync sync forget reread" {
				t.Errorf("%d bytes: %s", size, got)
			}
		}
	}
}

// A block map leaves alone what it leaves out.
func TestWriteMap(t *testing.T) {
	d, m, _ := device(t)
	name, content := sample(t, rand.New(rand.NewPCG(1, 1)), 5<<20)
	im := openImage(t, name, image.Options{NoBmap: true})
	bm, err := image.CreateMap(t.Context(), im, image.MapOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := bm.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name+".bmap", text, 0o644); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("old "), 5<<18)
	m.each(want, 0, func(page, p []byte) { copy(page, p) })
	for _, r := range bm.Ranges {
		off, end := bm.Extent(r)
		copy(want[off:end], content[off:end])
	}
	if err := d.Write(t.Context(), openImage(t, name, image.Options{}), flash.Options{Verify: true}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.content(len(want)), want) {
		t.Error("the medium holds something else")
	}
}

// What goes wrong with a medium is an error that names the range, and says what to look at.
func TestMediumFaults(t *testing.T) {
	const size = 8 << 20
	for _, tc := range []struct {
		name   string
		fault  func(*fake)
		says   string
		is     error
		at     int64 // must be in the range that the error names
		verify bool  // only that finds it
	}{
		{"bad block", func(f *fake) { f.badAt = 5_000_000 }, "writing: input/output error", unix.EIO, 5_000_000, false},
		{"bad block, held back", func(f *fake) { f.badAt = 1000 }, "writing: input/output error", unix.EIO, 1000, false},
		{"unplugged", func(f *fake) { f.unplugAt = 3_000_000 }, "writing: no such device", unix.ENODEV, -1, false},
		{"flush", func(f *fake) { f.syncErr = unix.EIO }, "having the device store what it was given: input/output error", unix.EIO, -1, false},
		{"lost write", func(f *fake) { f.dropAt = 6_000_000 }, "worn out, or smaller than it says", ErrDiffers, 6_000_000, true},
		{"small", func(f *fake) { f.real = 4 << 20 }, "worn out, or smaller than it says", ErrDiffers, -1, true},
		{"small, wraps", func(f *fake) { f.real, f.wrap = 5<<20, true }, "worn out, or smaller than it says", ErrDiffers, -1, true},
		{"one bit", func(f *fake) { f.flip = 7_777_777 }, "worn out", ErrDiffers, 7_777_777, true},
		{"a bad cable", func(f *fake) { f.flip, f.flicker = 7_777_777, true }, "look at the cable", ErrDiffers, 7_777_777, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name, _ := sample(t, rand.New(rand.NewPCG(7, 7)), size)
			for _, verify := range []bool{true, false} {
				d, m, _ := device(t)
				old := bytes.Repeat([]byte("old "), size/4)
				m.each(old, 0, func(page, p []byte) { copy(page, p) })
				tc.fault(m)
				err := d.Write(t.Context(), openImage(t, name, image.Options{}), flash.Options{Verify: verify})
				if tc.verify && !verify {
					if err != nil {
						t.Errorf("unverified: %v", err)
					}
					continue
				}
				if !errors.Is(err, tc.is) || !strings.Contains(fmt.Sprint(err), tc.says) || !strings.Contains(fmt.Sprint(err), "/dev/sdb: ") {
					t.Errorf("%v, want %q", err, tc.says)
				}
				at, ok := errors.AsType[*image.RangeError](err)
				if tc.at >= 0 && (!ok || tc.at < at.Off || tc.at >= at.End) {
					t.Errorf("%v, which is not at %d", err, tc.at)
				}
			}
		})
	}
	// The kernel gives up a transfer when the device is reset; the next one is all right.
	d, m, _ := device(t)
	m.badAt, m.once = 5_000_000, true
	name, content := sample(t, rand.New(rand.NewPCG(7, 7)), size)
	if err := d.Write(t.Context(), openImage(t, name, image.Options{}), flash.Options{Verify: true}); err != nil || !bytes.Equal(m.content(size), content) {
		t.Errorf("a reset in the middle: %v", err)
	}
}

// Until all was found right the begin of the medium boots nothing.
func TestHeldBack(t *testing.T) {
	d, m, _ := device(t)
	name, _ := sample(t, rand.New(rand.NewPCG(2, 7)), 8<<20)
	old := bytes.Repeat([]byte("old "), 1<<18)
	m.each(old, 0, func(page, p []byte) { copy(page, p) })
	m.badAt = 6 << 20
	if err := d.Write(t.Context(), openImage(t, name, image.Options{}), flash.Options{}); err == nil {
		t.Fatal("no error")
	}
	if got := m.content(4096); !bytes.Equal(got, make([]byte, 4096)) {
		t.Errorf("the medium begins with % x", got[:16])
	}
}

// A device that leaves is said to have left, and where it is now.
func TestComesBack(t *testing.T) {
	for n, back := range []bool{false, true, false, false} {
		d, m, tr := device(t)
		m.unplugAt = 3_000_000
		m.leaving = []error{nil, nil, unix.EIO, unix.ENOSPC}[n] // the last is Linux 6.12's, whose size is 0 then
		m.onUnplug = func() {
			os.RemoveAll(filepath.Join(tr.root, "sys/block/sdb"))
			os.RemoveAll(filepath.Join(tr.root, "sys", fmt.Sprintf(onUSB, 0)))
			if back {
				tr.disk(fmt.Sprintf(onUSB, 0), "sdc", 9, 64, 0)
			}
		}
		name, _ := sample(t, rand.New(rand.NewPCG(2, 9)), 8<<20)
		err := d.Write(t.Context(), openImage(t, name, image.Options{}), flash.Options{})
		want := "the device has left the bus"
		if back {
			want = "the device left the bus and came back as " + filepath.Join(tr.root, "dev/sdc")
		}
		if _, ok := errors.AsType[*image.RangeError](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestTooSmall(t *testing.T) {
	d, m, _ := device(t)
	name := filepath.Join(t.TempDir(), "large.img")
	if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, 64<<20+1); err != nil {
		t.Fatal(err)
	}
	err := d.Write(t.Context(), openImage(t, name, image.Options{}), flash.Options{})
	if _, ok := errors.AsType[*RefusedError](err); !ok || !strings.Contains(err.Error(), "it has 67108864 bytes") || m.written > 0 {
		t.Errorf("%d bytes written: %v", m.written, err)
	}
	// Of a pipe that is known at the end.
	im, err := image.New(t.Context(), "pipe", &endless{}, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = d.Write(t.Context(), im, flash.Options{})
	if at, ok := errors.AsType[*image.RangeError](err); !ok || !errors.Is(err, unix.ENOSPC) || at.End <= 64<<20 {
		t.Errorf("%v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	return copy(p, bytes.Repeat([]byte("no end, "), 1<<10)), nil
}

func TestCancel(t *testing.T) {
	d, _, _ := device(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	im, err := image.New(ctx, "pipe", &endless{}, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	err = d.Write(ctx, im, flash.Options{Progress: func(flash.Step, int64) { cancel(enough) }})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}

// Beyond what is kept in memory records go to a file, in order.
func TestRecords(t *testing.T) {
	r := newRecords()
	r.limit = 10_000
	defer r.close()
	const n = 20_010
	for i := range int64(n) {
		if err := r.append(record{off: i * 4096, n: 512 + i, sum: uint64(i), zeros: i%3 == 0}); err != nil {
			t.Fatal(err)
		}
	}
	i := int64(0)
	err := r.all(func(rec record) bool {
		if rec != (record{off: i * 4096, n: 512 + i, sum: uint64(i), zeros: i%3 == 0}) {
			t.Fatalf("record %d: %+v", i, rec)
		}
		i++
		return true
	})
	if err != nil || i != n {
		t.Errorf("%d records, %v", i, err)
	}
}

func TestFile(t *testing.T) {
	name, content := sample(t, rand.New(rand.NewPCG(3, 3)), 3<<20+17)
	dir := t.TempDir()
	old := filepath.Join(dir, "old")
	if err := os.WriteFile(old, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ to, file string }{
		{filepath.Join(dir, "new"), filepath.Join(dir, "new")}, {old, old}, {dir, filepath.Join(dir, "board.img")},
	} {
		f := &File{Name: tc.to}
		if err := f.Write(t.Context(), openImage(t, name, image.Options{}), flash.Options{Verify: true}); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(tc.file); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", tc.file, len(got), err)
		}
	}
	for to, want := range map[string]string{
		"/dev/sdzz": "no device /dev/sdzz", filepath.Join(dir, "none/file"): "no directory " + filepath.Join(dir, "none"), "/dev/null": "/dev/null is not written: it is no file",
		name: name + " is not written: it is the image itself",
	} {
		f := &File{Name: to}
		if err := f.Write(t.Context(), openImage(t, name, image.Options{}), flash.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", to, err, want)
		}
	}
	// A file that could not be written is not there.
	im, err := image.New(t.Context(), "pipe", &broken{}, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := &File{Name: filepath.Join(dir, "broken")}
	if err := f.Write(t.Context(), im, flash.Options{}); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(f.Name); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// The same in the file system of a disk.
func TestFileBelow(t *testing.T) {
	name, content := sample(t, rand.New(rand.NewPCG(3, 3)), 1<<20)
	dir := t.TempDir()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := os.Symlink("/there", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"/new", "new", "/", "link"} {
		err := writeBelow(t.Context(), int(root.Fd()), to, openImage(t, name, image.Options{}), flash.Options{})
		if errors.Is(err, unix.ENOSYS) {
			t.Skip("the kernel has no openat2(2)")
		}
		if err != nil {
			t.Error(err)
		}
	}
	for _, file := range []string{"new", "board.img", "there"} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", file, len(got), err)
		}
	}
	for _, to := range []string{"broken", "new"} {
		im, err := image.New(t.Context(), "pipe", &broken{}, image.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := writeBelow(t.Context(), int(root.Fd()), to, im, flash.Options{}); err == nil {
			t.Error("no error")
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("%v, %v", entries, err)
	}
}

type broken struct {
	endless
	total int
}

func (b *broken) Read(p []byte) (int, error) {
	if b.total > 5<<20 {
		return 0, errors.New("broken")
	}
	b.total += len(p)
	return b.endless.Read(p)
}

// Pieces of any length and place, several neighbours at a time, leave what is beside them in their blocks.
func TestPieces(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	want := bytes.Repeat([]byte("old "), 1<<18)
	m := &fake{size: int64(len(want)), block: 4096, direct: true, delay: 100 * time.Microsecond}
	m.each(want, 0, func(page, p []byte) { copy(page, p) })
	w := newWriter(m, "pieces", true)
	defer w.close()
	w.hold = 100_000
	type piece struct {
		off, n int
		zeros  bool
	}
	var pieces []piece
	for at := 0; at < len(want); {
		n := min(1+rng.IntN(6_000), len(want)-at)
		pieces = append(pieces, piece{at, n, rng.IntN(4) == 0})
		at += n
		if rng.IntN(3) == 0 {
			at += rng.IntN(10_000)
		}
	}
	for _, p := range pieces {
		for i := range want[p.off : p.off+p.n] {
			if want[p.off+i] = byte(rng.Uint32()); p.zeros {
				want[p.off+i] = 0
			}
		}
	}
	work := make(chan piece)
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for p := range work {
				var err error
				if p.zeros {
					err = w.WriteZeros(int64(p.off), int64(p.n))
				} else {
					_, err = w.WriteAt(want[p.off:p.off+p.n], int64(p.off))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, p := range pieces {
		work <- p
	}
	close(work)
	group.Wait()
	if err := w.finish(); err != nil {
		t.Fatal(err)
	}
	if i := differ(m.content(len(want)), want); i >= 0 {
		t.Errorf("byte %d is something else", i)
	}
	if err := w.verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
