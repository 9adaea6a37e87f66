//go:build linux

package image

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"snag/flash/bmap"
	"snag/flash/sparse"
	"snag/internal/lab"
)

// foreign runs a program of another project, and returns what it wrote.
func foreign(t *testing.T, program, pkg string, args ...string) []byte {
	t.Helper()
	return output(t, lab.Command(t, program, pkg, args...))
}

// output runs a program that must succeed, and returns what it wrote.
func output(t *testing.T, cmd *exec.Cmd) []byte {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%q: %v\n%s%s", cmd.Args, err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes()
}

const (
	sparseUtils = "android-sdk-libsparse-utils"
	bmapTools   = "bmap-tools"
)

// TestForeignSparse takes random images through img2simg and simg2img and through snag, in both orders. SNAG_IMAGES=200
// for more.
func TestForeignSparse(t *testing.T) {
	for i := range images(t, 6) {
		name, content := sample(t, uint64(1000+i), 0)
		dir := filepath.Dir(name)
		theirs, back := filepath.Join(dir, "theirs.simg"), filepath.Join(dir, "back.img")
		want := padded(content, 4096)

		foreign(t, "img2simg", sparseUtils, name, theirs)
		got, err := copied(t, open(t, theirs, Options{NoBmap: true}), false)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "img2simg, snag", got, want)

		ours := sparseFiles(t, open(t, name, Options{}), SparseOptions{SkipHoles: i%2 == 0, Config: sparse.Config{SkipZeros: i%3 == 0}})
		foreign(t, "simg2img", sparseUtils, ours[0], back)
		got, _ = os.ReadFile(back)
		same(t, "snag, simg2img", got, want)

		// Cut into several, of theirs and of the raw image.
		limit := int64(100000 + i*50000)
		for _, from := range []string{theirs, name} {
			os.Remove(back)
			parts := sparseFiles(t, open(t, from, Options{NoBmap: true}), SparseOptions{Config: sparse.Config{Max: limit}})
			foreign(t, "simg2img", sparseUtils, append(parts, back)...)
			got, _ = os.ReadFile(back)
			same(t, fmt.Sprintf("%s, snag in %d parts, simg2img", filepath.Base(from), len(parts)), got, want)
		}
	}
}

// TestForeignBmap takes random images through bmaptool and through snag, in both orders.
func TestForeignBmap(t *testing.T) {
	for i := range images(t, 4) {
		name, content := sample(t, uint64(2000+i), 0)
		dir := filepath.Dir(name)
		theirs, ours, back := filepath.Join(dir, "theirs.bmap"), filepath.Join(dir, "ours.bmap"), filepath.Join(dir, "back.img")

		foreign(t, "bmaptool", bmapTools, "create", "-o", theirs, name)
		got, err := copied(t, open(t, name, Options{Bmap: theirs}), true)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "bmaptool create, snag", got, content)

		writeMap(t, ours, name, MapOptions{Zeros: i%2 == 1})
		foreign(t, "bmaptool", bmapTools, "copy", "--bmap", ours, name, back)
		got, _ = os.ReadFile(back)
		same(t, "snag, bmaptool copy", got, content)
		if i%2 == 0 {
			continue
		}
		// Both find the same damage.
		m := open(t, name, Options{Bmap: theirs}).Map
		if len(m.Ranges) == 0 {
			continue
		}
		off, _ := m.Extent(m.Ranges[len(m.Ranges)/2])
		content[off] ^= 1
		write(t, name, content)
		if err := Verify(t.Context(), open(t, name, Options{Bmap: theirs}), nil); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("bytes %d-", off)) {
			t.Errorf("a flipped bit at %d: %v", off, err)
		}
		cmd := lab.Command(t, "bmaptool", bmapTools, "copy", "--bmap", theirs, name, back)
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("bmaptool has not found a flipped bit at %d: %s", off, out)
		}
	}
}

// TestForeignMapLikeOurs compares what the two say of the same file.
func TestForeignMapLikeOurs(t *testing.T) {
	name, _ := sample(t, 77, 5<<20+1)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Sync() // delayed allocation has no extents yet
	f.Close()
	theirs := filepath.Join(t.TempDir(), "theirs.bmap")
	foreign(t, "bmaptool", bmapTools, "create", "-o", theirs, name)
	b, _ := os.ReadFile(theirs)
	want, err := bmap.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := CreateMap(t.Context(), open(t, name, Options{NoBmap: true}), MapOptions{BlockSize: want.BlockSize})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("snag says %v,\nbmaptool %v", got, want)
	}
}

// TestForeignLarge is beyond 32 bits, with little in it. What reads or writes all of it runs only with SNAG_IMAGES.
func TestForeignLarge(t *testing.T) {
	name := filepath.Join(t.TempDir(), "large.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 4<<30 + 1<<20 + 4096
	rng := rand.New(rand.NewPCG(8, 8))
	part := make([]byte, 1<<18)
	for i := range part {
		part[i] = byte(rng.Uint32())
	}
	for _, at := range []int64{0, 1<<32 - 1<<17, size - 1<<18} {
		if _, err := f.WriteAt(part, at); err != nil {
			t.Fatal(err)
		}
	}
	digest := func(t *testing.T, name string) string {
		t.Helper()
		m, err := CreateMap(t.Context(), open(t, name, Options{NoBmap: true}), MapOptions{Zeros: true})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(m)
	}
	want := digest(t, name)
	check := func(t *testing.T, name string) {
		t.Helper()
		if got := digest(t, name); got != want {
			t.Errorf("%s, expected %s", got, want)
		}
	}
	// expanded is what snag makes of a sparse image whose holes are zeros.
	expanded := func(t *testing.T, simg string) string {
		t.Helper()
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		if err := Copy(t.Context(), out, open(t, simg, Options{}), CopyOptions{Zeroed: true}); err != nil {
			t.Fatal(err)
		}
		return out.Name()
	}
	t.Run("snag, snag", func(t *testing.T) {
		check(t, expanded(t, sparseFiles(t, open(t, name, Options{}), SparseOptions{})[0]))
	})
	t.Run("snag, simg2img", func(t *testing.T) {
		back := filepath.Join(t.TempDir(), "back")
		foreign(t, "simg2img", sparseUtils, sparseFiles(t, open(t, name, Options{}), SparseOptions{SkipHoles: true})[0], back)
		check(t, back)
	})
	t.Run("snag, bmaptool", func(t *testing.T) {
		m, back := filepath.Join(t.TempDir(), "map"), filepath.Join(t.TempDir(), "back")
		writeMap(t, m, name, MapOptions{})
		foreign(t, "bmaptool", bmapTools, "copy", "--bmap", m, name, back)
		check(t, back)
	})
	t.Run("img2simg, snag", func(t *testing.T) {
		if os.Getenv("SNAG_IMAGES") == "" {
			t.Skip("img2simg reads all holes: SNAG_IMAGES is not set")
		}
		theirs := filepath.Join(t.TempDir(), "theirs.simg")
		foreign(t, "img2simg", sparseUtils, name, theirs)
		check(t, expanded(t, theirs))
	})
}

// TestForeignZstdRuns has holes that are larger than the window, and data behind them that refer back to before them
// where they may.
func TestForeignZstdRuns(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	content := make([]byte, 40<<20+77)
	for _, at := range []int{0, 100, 9 << 20, 9<<20 + 300000, len(content) - 5000} {
		part := content[at:min(at+50000, len(content))]
		for i := range part {
			part[i] = byte(rng.Uint32() >> 28)
		}
	}
	copy(content[12<<20:], bytes.Repeat([]byte{0xff}, 12<<20))
	copy(content[25<<20:], content[9<<20:9<<20+50000])
	for _, at := range []int{30 << 20, 31<<20 + 500000} { // the second refers to the first, over a run that is nearly a window
		for i := range content[at : at+50000] {
			content[at+i] = byte(i * i >> 3 * 7)
		}
	}
	name := write(t, filepath.Join(t.TempDir(), "runs"), content)
	for _, args := range []string{"-1", "-3", "-3 --no-check", "-9 -T2", "-5 --zstd=wlog=14", "-1 --long=24", "--ultra -22"} {
		z := foreign(t, "zstd", "zstd", append(strings.Fields(args), "-qc", name)...)
		im, err := New(t.Context(), "image", bytes.NewReader(z), Options{})
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		fills := int64(0)
		for {
			p, err := im.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("zstd %s: %v", args, err)
			}
			if p.Kind == Fill {
				fills += p.N
				got = append(got, bytes.Repeat(p.Pattern[:1], int(p.N))...)
			}
			got = append(got, p.Data...)
			p.Release()
		}
		im.Close()
		same(t, "zstd "+args, got, content)
		t.Logf("zstd %s: %d bytes were not decompressed", args, fills)
		// The window of some is longer than any hole, and zstd writes blocks as small as wlog=14 makes them in another
		// way.
		if fills == 0 && (strings.HasPrefix(args, "-1 -") || strings.HasPrefix(args, "-3")) && !strings.Contains(args, "long") {
			t.Errorf("zstd %s: every zero was decompressed", args)
		}
	}
}

// TestForeignCompression reads what the usual programs write.
func TestForeignCompression(t *testing.T) {
	name, content := sample(t, 21, 4<<20+9)
	for _, v := range []struct {
		program, pkg string
		args         []string
	}{
		{"gzip", "gzip", []string{"-9c"}}, {"bzip2", "bzip2", []string{"-c"}}, {"xz", "xz-utils", []string{"-c"}},
		{"xz", "xz-utils", []string{"-c", "--x86", "--lzma2=preset=1", "-T2", "--block-size=1MiB"}}, {"zstd", "zstd", []string{"-qc"}},
		{"zstd", "zstd", []string{"-qc", "-19", "--long=27", "-T2"}}, {"lz4", "lz4", []string{"-qc"}}, {"lz4", "lz4", []string{"-qlc"}},
	} {
		t.Run(strings.Join(append([]string{v.program}, v.args...), " "), func(t *testing.T) {
			z := foreign(t, v.program, v.pkg, append(v.args, name)...)
			z = append(z, foreign(t, v.program, v.pkg, append(v.args, name)...)...) // two files on end are one
			want := append(content[:len(content):len(content)], content...)
			im, err := New(t.Context(), "image", io.MultiReader(bytes.NewReader(z)), Options{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := copied(t, im, false)
			if err != nil {
				t.Fatal(err)
			}
			same(t, im.Compression, got, want)
			if im.Compression != v.program {
				t.Errorf("it is called %s", im.Compression)
			}
			im, err = New(t.Context(), "image", bytes.NewReader(z[:len(z)*2/3]), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err = copied(t, im, false); err == nil || !strings.Contains(err.Error(), "image: from byte ") {
				t.Errorf("two thirds of it: %v", err)
			}
		})
	}
}

// TestForeignSignature has gpg sign a block map, in both ways.
func TestForeignSignature(t *testing.T) {
	home, err := os.MkdirTemp("", "snag-gpg") // short: gpg-agent's socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) }) // the agent ends with it
	// gpg needs its agent to make keys, and looks for it where it is installed. The package that depends on both has
	// the libraries of both.
	agent := lab.Command(t, "gpg-agent", "gnupg")
	gpg := func(args ...string) []byte {
		t.Helper()
		cmd := lab.Command(t, "gpg", "gnupg", append([]string{"--homedir", home, "--agent-program", agent.Path, "--batch", "--yes",
			"--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
		if cmd.Env == nil {
			cmd.Env = agent.Env
		}
		return output(t, cmd)
	}
	name, _ := sample(t, 31, 1<<20)
	mapName := strings.TrimSuffix(name, ".img") + ".bmap"
	writeMap(t, mapName, name, MapOptions{})
	gpg("--quick-generate-key", "board@example.org", "default", "default", "never")
	keyring := write(t, filepath.Join(home, "keys"), gpg("--export"))
	check := func(what, want string, o Options) {
		t.Helper()
		o.Keyring = keyring
		im, err := Open(t.Context(), name, o)
		if err == nil {
			if want == "" && len(im.Signer) != 40 {
				t.Errorf("%s: signed by %q", what, im.Signer)
			}
			err = Verify(t.Context(), im, nil)
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, expected %q", what, err, want)
		}
	}
	check("without a signature", "it is not signed", Options{})
	check("no map at all", "without a block map", Options{NoBmap: true})
	gpg("--armor", "--detach-sign", mapName)
	check("beside it, armored", "", Options{})
	os.Remove(mapName + ".asc")
	gpg("--detach-sign", mapName)
	check("beside it", "", Options{})
	os.Rename(mapName+".sig", mapName+".other")
	check("elsewhere", "", Options{Signature: mapName + ".other"})
	plain, _ := os.ReadFile(mapName)
	write(t, mapName, append(plain, '\n'))
	check("changed", "OpenPGP signature", Options{Signature: mapName + ".other"})
	write(t, mapName, plain)
	gpg("--clearsign", mapName)
	check("clear-signed", "", Options{Bmap: mapName + ".asc"})
	if im, err := Open(t.Context(), name, Options{Bmap: mapName + ".asc"}); err != nil || im.Map == nil {
		t.Errorf("clear-signed, nobody asks: %v", err)
	}
}
