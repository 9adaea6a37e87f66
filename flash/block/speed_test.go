//go:build linux

package block

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"snag/flash"
	"snag/flash/image"
	"snag/flash/sparse"
	"snag/internal/lab"
)

// TestSpeed measures snag beside bmaptool, zstd and img2simg on an image of 13 GiB with 2 GiB of data, half of them
// incompressible: medians of 5 runs, or of SNAG_BENCH_RUNS, in turns; of each the whole process. It runs if SNAG_BENCH
// names a directory with 12 GiB of room, on a machine that does nothing else; SNAG_BENCH_ONLY is a regular expression
// of rows, SNAG_BENCH_IMAGE an image to keep. SNAG_BENCH_DEVICE names a block device of 13 GiB to write to; by default
// it is a loop device on a file in the directory, if that may be made.
func TestSpeed(t *testing.T) {
	if job := os.Getenv("SNAG_BENCH_JOB"); job != "" {
		if err := speedJob(t.Context(), strings.Fields(job)); err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := os.Getenv("SNAG_BENCH")
	if dir == "" {
		t.Skip("SNAG_BENCH names no directory to measure in")
	}
	runs := 5
	if s := os.Getenv("SNAG_BENCH_RUNS"); s != "" {
		fmt.Sscan(s, &runs)
	}
	dir, err := os.MkdirTemp(dir, "snag-bench")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	name := filepath.Join(dir, "disk.img")
	if ready := os.Getenv("SNAG_BENCH_IMAGE"); ready != "" {
		name = ready
	}
	z, out := name+".zst", filepath.Join(dir, "out")
	if _, err := os.Stat(name); err != nil {
		largeImage(t, name, 512)
		zstd := lab.Command(t, "zstd", "zstd", "-q", name, "-o", z)
		if b, err := zstd.CombinedOutput(); err != nil {
			t.Fatalf("zstd: %v: %s", err, b)
		}
	}
	type contest struct {
		name string
		cmd  func() *exec.Cmd
	}
	foreign := func(program, pkg string, args ...string) func() *exec.Cmd {
		return func() *exec.Cmd { return lab.Command(t, program, pkg, args...) }
	}
	snag := func(job ...string) func() *exec.Cmd {
		return func() *exec.Cmd {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSpeed$")
			cmd.Env = append(os.Environ(), "SNAG_BENCH_JOB="+strings.Join(job, " "))
			return cmd
		}
	}
	bmaptool := func(from, to string) func() *exec.Cmd {
		return foreign("bmaptool", "bmap-tools", "-q", "copy", "--bmap", name+".bmap", from, to)
	}
	cases := []contest{
		{"file: bmaptool", bmaptool(name, out)},
		{"file: snag", snag("file", name, name+".bmap", out)},
		{"file, zstd: bmaptool", bmaptool(z, out)},
		{"file, zstd: snag", snag("file", z, name+".bmap", out)},
		{"zstd -dc alone", foreign("zstd", "zstd", "-dcq", z)},
		{"to sparse: img2simg", foreign("img2simg", "android-sdk-libsparse-utils", name, out)},
		{"to sparse: snag", snag("sparse", name, out)},
	}
	device := os.Getenv("SNAG_BENCH_DEVICE")
	if device == "" {
		device = loop(t, filepath.Join(dir, "loop"), imageSize)
	}
	if device != "" {
		kind := strings.TrimRight(filepath.Base(device), "b0123456789")
		cases = append([]contest{
			{kind + ": bmaptool", bmaptool(name, device)},
			{kind + ": snag", snag("device", name, name+".bmap", device)},
			{kind + ", verified: snag", snag("verify", name, name+".bmap", device)},
			{kind + ", zstd: bmaptool", bmaptool(z, device)},
			{kind + ", zstd: snag", snag("device", z, name+".bmap", device)},
		}, cases...)
	}
	if only := os.Getenv("SNAG_BENCH_ONLY"); only != "" {
		cases = slices.DeleteFunc(cases, func(c contest) bool { return !regexp.MustCompile(only).MatchString(c.name) })
	}
	times, busy, memory := make([][]time.Duration, len(cases)), make([][]time.Duration, len(cases)), make([]int64, len(cases))
	for range runs {
		for i, c := range cases {
			os.Remove(out)
			exec.Command("sync").Run()
			cmd := c.cmd()
			var errs bytes.Buffer
			cmd.Stderr = &errs
			null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // os/exec's own pipe would be the slower end
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stdout = null
			begun := time.Now()
			err = cmd.Run()
			times[i] = append(times[i], time.Since(begun))
			null.Close()
			if err != nil {
				t.Fatalf("%s: %v: %s", c.name, err, errs.Bytes())
			}
			busy[i] = append(busy[i], cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
			memory[i] = max(memory[i], int64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)>>10)
		}
	}
	for i, c := range cases {
		slices.Sort(times[i])
		slices.Sort(busy[i])
		n := len(times[i])
		fmt.Printf("%-24s %6.2f s   %5.2f to %5.2f   processors %5.2f s   %3d MiB\n", c.name, times[i][n/2].Seconds(), times[i][0].Seconds(), times[i][n-1].Seconds(),
			busy[i][n/2].Seconds(), memory[i])
	}
}

// TestSpeedNull is [TestSpeed] to a null block device, which takes the kernel of a VM. The image has 512 MiB of data
// there, as the emulated processor is slow. It is one with AVX2, as those of the last ten years, which lab's is not:
// without, Go's SHA-256 is portable code, but that of bmaptool's OpenSSL is not. SNAG_BENCH_CPU is another, as QEMU names
// it.
func TestSpeedNull(t *testing.T) {
	dir := os.Getenv("SNAG_BENCH")
	if dir == "" {
		t.Skip("SNAG_BENCH names no directory to measure in")
	}
	dir, err := os.MkdirTemp(dir, "snag-bench")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	name := filepath.Join(dir, "disk.img")
	largeImage(t, name, 128)
	lab.GoTest(t, ".", "^TestSpeed$", lab.Job{
		Script: "modprobe null_blk gb=13\nexport SNAG_BENCH=/tmp SNAG_BENCH_DEVICE=/dev/nullb0 SNAG_BENCH_ONLY=^null: SNAG_BENCH_IMAGE=" + name +
			" SNAG_BENCH_RUNS=" + cmp.Or(os.Getenv("SNAG_BENCH_RUNS"), "5"),
		Packages: []string{"bmap-tools"}, Dirs: []string{dir}, CPUs: 2, Memory: 3072, Timeout: 15 * time.Minute,
		QEMU: []string{"-cpu", cmp.Or(os.Getenv("SNAG_BENCH_CPU"), "max,erms=off,fsrm=off,smap=off,smep=off,umip=off")},
	})
}

// speedJob is what a process of its own does for TestSpeed.
func speedJob(ctx context.Context, job []string) error {
	what, name, out := job[0], job[1], job[len(job)-1]
	if what == "sparse" {
		im, err := image.Open(ctx, name, image.Options{NoBmap: true})
		if err != nil {
			return err
		}
		f, err := os.Create(out)
		if err != nil {
			return err
		}
		o := image.SparseOptions{Config: sparse.Config{Open: func(int) (io.WriterAt, error) { return f, nil }}}
		return errors.Join(image.WriteSparse(ctx, im, o), f.Close())
	}
	im, err := image.Open(ctx, name, image.Options{Bmap: job[2]})
	if err != nil {
		return err
	}
	if what == "file" {
		return (&File{Name: out}).Write(ctx, im, flash.Options{})
	}
	d, err := Open(ctx, Options{Path: out, Force: true})
	if err != nil {
		return err
	}
	return errors.Join(d.Write(ctx, im, flash.Options{Verify: what == "verify"}), d.Close())
}

const imageSize = 13 << 30

// largeImage writes n stretches of 4 MiB into 13 GiB, and a block map beside it.
func largeImage(t *testing.T, name string, n int) {
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const stretch = 4 << 20
	rng := rand.New(rand.NewPCG(13, 2))
	b := make([]byte, stretch)
	for i, at := range rng.Perm(imageSize / stretch)[:n] {
		for j := range b {
			b[j] = byte(rng.Uint32())
			if i%2 == 0 {
				b[j] = "the quick brown fox "[b[j]%20]
			}
		}
		if _, err := f.WriteAt(b, int64(at)*stretch); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(imageSize); err != nil {
		t.Fatal(err)
	}
	writeMap(t, name)
}

// writeMap writes the block map of an image.
func writeMap(t testing.TB, name string) {
	t.Helper()
	m, err := image.CreateMap(t.Context(), openImage(t, name, image.Options{NoBmap: true}), image.MapOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name+".bmap", text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// loop makes a loop device on a new file; "" where that may not be.
func loop(t *testing.T, file string, size int64) string {
	t.Helper()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	name, err := attachLoop(file)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		t.Logf("no loop device: %v", err)
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { detachLoop(name) })
	return name
}
