//go:build linux

package image

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"snag/flash/sparse"
	"snag/internal/lab"
)

// TestSpeed measures snag beside bmaptool, zstd and img2simg on an image of 13 GiB with 2 GiB of data, half of them incompressible:
// medians of 5 runs, in turns. It runs if SNAG_BENCH names a directory with 8 GiB of room, on a machine that does nothing else.
func TestSpeed(t *testing.T) {
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
	largeImage(t, name)
	writeMap(t, name+".bmap", name, MapOptions{})
	z := name + ".zst"
	foreign(t, "zstd", "zstd", "-q", name, "-o", z)
	out := filepath.Join(dir, "out")

	command := func(program, pkg string, args ...string) func(t *testing.T) {
		return func(t *testing.T) {
			cmd := lab.Command(t, program, pkg, args...)
			cmd.Stdout = io.Discard // os/exec's own pipe would be the slower end
			if null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0); err == nil {
				defer null.Close()
				cmd.Stdout = null
			}
			if err := cmd.Run(); err != nil {
				t.Fatalf("%s: %v", program, err)
			}
		}
	}
	snag := func(name string) func(t *testing.T) {
		return func(t *testing.T) {
			f, err := os.Create(out)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			im := open(t, name, Options{Bmap: filepath.Join(dir, "disk.img.bmap")})
			if err := Copy(t.Context(), f, im, CopyOptions{Zeroed: true}); err != nil {
				t.Fatal(err)
			}
			if err := f.Truncate(im.Size); err != nil {
				t.Fatal(err)
			}
			if err := f.Sync(); err != nil { // as bmaptool does
				t.Fatal(err)
			}
		}
	}
	cases := []struct {
		name string
		run  func(*testing.T)
	}{
		{"raw: bmaptool", command("bmaptool", bmapTools, "-q", "copy", "--bmap", name+".bmap", name, out)},
		{"raw: snag", snag(name)},
		{"zstd: bmaptool", command("bmaptool", bmapTools, "-q", "copy", "--bmap", name+".bmap", z, out)},
		{"zstd: snag", snag(z)},
		{"zstd -dc alone", command("zstd", "zstd", "-dcq", z)},
		{"to sparse: img2simg", command("img2simg", sparseUtils, name, out)},
		{"to sparse: snag", func(t *testing.T) {
			f, err := os.Create(out)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			o := SparseOptions{Config: sparse.Config{Open: func(int) (io.WriterAt, error) { return f, nil }}}
			if err := WriteSparse(t.Context(), open(t, name, Options{NoBmap: true}), o); err != nil {
				t.Fatal(err)
			}
		}},
	}
	times := make([][]time.Duration, len(cases))
	for range 5 {
		for i, c := range cases {
			os.Remove(out)
			exec.Command("sync").Run()
			start := time.Now()
			c.run(t)
			times[i] = append(times[i], time.Since(start))
		}
	}
	for i, c := range cases {
		slices.Sort(times[i])
		fmt.Printf("%-20s %6.2f s   %.2f to %.2f\n", c.name, times[i][2].Seconds(), times[i][0].Seconds(), times[i][4].Seconds())
	}
}

// largeImage writes 512 stretches of 4 MiB into 13 GiB.
func largeImage(t *testing.T, name string) {
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size, stretch = 13 << 30, 4 << 20
	rng := rand.New(rand.NewPCG(13, 2))
	b := make([]byte, stretch)
	for i, at := range rng.Perm(size / stretch)[:512] {
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
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}
