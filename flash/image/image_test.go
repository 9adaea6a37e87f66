package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"snag/flash/bmap"
	"snag/flash/sparse"
)

// sample writes a random sparse file: data, blocks of one byte, written zeros, holes, and a size that is no multiple of
// anything.
func sample(t testing.TB, seed uint64, size int64) (name string, content []byte) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rng := rand.New(rand.NewPCG(seed, 2))
	if size == 0 {
		size = 1 + rng.Int64N(6<<20)
	}
	content = make([]byte, size)
	for at := int64(0); at < size; {
		n := min(1+rng.Int64N(1+size/4), size-at)
		if rng.IntN(4) > 0 {
			n = min(max(n>>12<<12, 4096), size-at)
		}
		part := content[at : at+n]
		switch rng.IntN(5) {
		case 0, 1: // a hole
			at += n
			continue
		case 2:
			for i := range part {
				part[i] = byte(seed)
			}
		case 3: // zeros that are written
		default:
			for i := range part {
				part[i] = byte(rng.Uint32() >> (i >> 13 & 7)) // more and less compressible
			}
		}
		if _, err := f.WriteAt(part, at); err != nil {
			t.Fatal(err)
		}
		at += n
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return name, content
}

func open(t testing.TB, name string, o Options) *Image {
	t.Helper()
	im, err := Open(t.Context(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// copied returns the bytes of a copy of an image, over a file that has other bytes where the image leaves some out.
func copied(t testing.TB, im *Image, zeroed bool) ([]byte, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Copy(t.Context(), f, im, CopyOptions{Zeroed: zeroed}); err != nil {
		return nil, err
	}
	if err := f.Truncate(im.Size); im.Size >= 0 && err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b, nil
}

func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d is %#x, expected %#x", what, i, got[i], want[i])
		}
	}
	t.Fatalf("%s: %d bytes, expected %d", what, len(got), len(want))
}

// padded is what a sparse image makes of an image: its last block is whole.
func padded(b []byte, blockSize int) []byte {
	return append(b[:len(b):len(b)], make([]byte, (blockSize-len(b)%blockSize)%blockSize)...)
}

func writeMap(t testing.TB, name, image string, o MapOptions) {
	t.Helper()
	m, err := CreateMap(t.Context(), open(t, image, Options{NoBmap: true}), o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, name, b)
}

func write(t testing.TB, name string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// sparseFiles writes an image as sparse images of at most limit bytes.
func sparseFiles(t testing.TB, im *Image, o SparseOptions) []string {
	t.Helper()
	dir := t.TempDir()
	var names []string
	var f *os.File
	o.Open = func(n int) (io.WriterAt, error) {
		name := filepath.Join(dir, fmt.Sprintf("%d.simg", n))
		names = append(names, name)
		var err error
		f, err = os.Create(name)
		return f, err
	}
	o.Done = func(sparse.File) error { return f.Close() }
	if err := WriteSparse(t.Context(), im, o); err != nil {
		t.Fatal(err)
	}
	return names
}

// compressors are what can be made here without another program.
var compressors = map[string]func(io.Writer) io.WriteCloser{
	"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"zstd": func(w io.Writer) io.WriteCloser {
		z, _ := zstd.NewWriter(w, zstd.WithWindowSize(1<<18))
		return z
	},
	"lz4": func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) },
}

func compressed(t testing.TB, kind string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := compressors[kind](&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestRoundTrips takes random images through every format and back.
func TestRoundTrips(t *testing.T) {
	for seed := range uint64(8) {
		name, content := sample(t, seed, 0)
		dir := filepath.Dir(name)
		got, err := copied(t, open(t, name, Options{}), true)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "raw", got, content)

		for _, o := range []SparseOptions{{}, {SkipHoles: true}, {Config: sparse.Config{Max: 1 << 20}}, {Config: sparse.Config{Max: 300000, MaxWritten: 1 << 19, BlockSize: 1024}}} {
			f, err := os.Create(filepath.Join(dir, "out"))
			if err != nil {
				t.Fatal(err)
			}
			files := sparseFiles(t, open(t, name, Options{}), o)
			if o.Max > 0 { // and again out of one
				files = sparseFiles(t, open(t, sparseFiles(t, open(t, name, Options{}), SparseOptions{Config: sparse.Config{BlockSize: max(o.BlockSize, 1024)}})[0], Options{}), o)
			}
			for _, part := range files {
				if err := Copy(t.Context(), f, open(t, part, Options{}), CopyOptions{Zeroed: len(files) == 1}); err != nil {
					t.Fatal(err)
				}
			}
			f.Truncate(int64(len(content)))
			f.Close()
			got, _ := os.ReadFile(f.Name())
			same(t, fmt.Sprintf("%d sparse images", len(files)), got, content)
		}

		for _, o := range []MapOptions{{}, {Zeros: true, BlockSize: 512}, {NoChecksums: true}} {
			writeMap(t, name+".bmap", name, o)
			for kind := range compressors {
				z := write(t, filepath.Join(dir, "z"), compressed(t, kind, content))
				got, err := copied(t, open(t, z, Options{Bmap: name + ".bmap"}), true)
				if err != nil {
					t.Fatalf("seed %d: %s: %v", seed, kind, err)
				}
				same(t, "raw by its map, as "+kind, got, content)
				if got, err = copied(t, open(t, z, Options{NoBmap: true}), o.Zeros); err != nil {
					t.Fatalf("seed %d: %s: %v", seed, kind, err)
				}
				same(t, kind, got, content)
			}
			im := open(t, name, Options{})
			if im.Map == nil || im.MapName != name+".bmap" {
				t.Fatalf("the map beside the image was not taken: %v", im.MapName)
			}
			if got, err = copied(t, im, true); err != nil {
				t.Fatal(err)
			}
			same(t, "raw by its map", got, content)
			// sparse and map together
			simg := sparseFiles(t, open(t, name, Options{}), SparseOptions{SkipHoles: o.Zeros})[0]
			if !o.Zeros {
				if got, err = copied(t, open(t, simg, Options{Bmap: name + ".bmap"}), true); err != nil {
					t.Fatal(err)
				}
				same(t, "sparse by its map", got, content)
			}
		}
	}
}

// zstdFrame makes a frame of raw blocks and blocks of one byte; its window is 2^(10+log) bytes.
func zstdFrame(content []byte, log int, size, sum bool) []byte {
	descriptor := byte(0)
	if size {
		descriptor |= 3 << 6
	}
	if sum {
		descriptor |= 4
	}
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, descriptor, byte(log << 3)}
	if size {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(content)))
	}
	longest := min(1<<17, 1<<(10+log))
	for rest := content; ; {
		n := min(longest, len(rest))
		head := uint32(n) << 3
		data := rest[:n]
		if n > 0 && bytes.Count(data, data[:1]) == n {
			head |= 1 << 1
			data = data[:1]
		}
		rest = rest[n:]
		if len(rest) == 0 {
			head |= 1
		}
		b = append(append(b, byte(head), byte(head>>8), byte(head>>16)), data...)
		if len(rest) == 0 {
			break
		}
	}
	if sum {
		b = binary.LittleEndian.AppendUint32(b, uint32(xxhash.Sum64(content)))
	}
	return b
}

// TestZstdRuns has runs of a byte that are larger than the window, in frames of all kinds.
func TestZstdRuns(t *testing.T) {
	content := make([]byte, 9<<20+77)
	copy(content[3<<20:], bytes.Repeat([]byte("data"), 100000))
	copy(content[5<<20:], bytes.Repeat([]byte{0xff}, 2<<20))
	copy(content[len(content)-9:], "the end")
	for _, log := range []int{0, 7, 10} {
		for _, sum := range []bool{false, true} {
			for _, size := range []bool{false, true} {
				what := fmt.Sprintf("window %d, checksum %v, size %v", 1<<(10+log), sum, size)
				stored := []byte("\x5a\x2a\x4d\x18\x03\x00\x00\x00abc")
				stored = append(stored, zstdFrame(content, log, size, sum)...)
				stored = append(stored, zstdFrame(content[:4<<20], log, size, sum)...)
				stored = append(stored, zstdFrame(nil, log, size, sum)...)
				want := append(content[:len(content):len(content)], content[:4<<20]...)
				im, err := New(t.Context(), "image", bytes.NewReader(stored), Options{})
				if err != nil {
					t.Fatal(err)
				}
				var got []byte
				filled := int64(0)
				for {
					p, err := im.Next()
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					if p.Kind == Fill {
						filled += p.N
						got = append(got, bytes.Repeat(p.Pattern[:1], int(p.N))...)
					}
					got = append(got, p.Data...)
					p.Release()
				}
				im.Close()
				same(t, what, got, want)
				if filled < 4<<20 {
					t.Errorf("%s: only %d bytes were not decompressed", what, filled)
				}
				damaged := func(kind string, at int, want string) {
					t.Helper()
					bad := bytes.Clone(stored)
					bad[at] ^= 2
					im, err := New(t.Context(), "image", bytes.NewReader(bad), Options{})
					if err == nil {
						err = Verify(t.Context(), im, nil)
					}
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("%s, %s changed: %v, expected %q", what, kind, err, want)
					}
				}
				if sum {
					damaged("the checksum", 11+len(zstdFrame(content, log, size, sum))-1, "wrong checksum")
				}
				if size {
					damaged("the size", 11+6, "its header says")
				}
			}
		}
	}
}

// TestSources reads one image from everything that it can come from.
func TestSources(t *testing.T) {
	name, content := sample(t, 3, 3<<20+5)
	writeMap(t, filepath.Join(filepath.Dir(name), "disk.bmap"), name, MapOptions{})
	z := write(t, filepath.Join(filepath.Dir(name), "disk.img.zst"), compressed(t, "zstd", content))
	simg := sparseFiles(t, open(t, name, Options{NoBmap: true}), SparseOptions{})[0]
	os.Rename(simg, filepath.Join(filepath.Dir(name), "disk.simg"))
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if user, _, _ := r.BasicAuth(); r.URL.Path == "/secret" && user == "me" {
			http.ServeFile(w, r, z)
			return
		}
		http.FileServer(http.Dir(filepath.Dir(name))).ServeHTTP(w, r)
	}))
	defer server.Close()
	pages := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/disk.img" {
			http.ServeFile(w, r, name)
			return
		}
		io.WriteString(w, "<!DOCTYPE html><title>Welcome</title>")
	}))
	defer pages.Close()
	for _, v := range []struct {
		name   string
		mapped bool
	}{{server.URL + "/disk.img", true}, {server.URL + "/disk.img.zst?token=1", true}, {server.URL + "/disk.simg", true}, {name, true}, {z, true},
		{strings.Replace(server.URL, "//", "//me:pw@", 1) + "/secret", false}} {
		im := open(t, v.name, Options{})
		if (im.Map != nil) != v.mapped || strings.Contains(im.Name, "pw") {
			t.Errorf("%s: map %q, shown as %s", v.name, im.MapName, im.Name)
		}
		got, err := copied(t, im, true)
		if err != nil {
			t.Fatal(err)
		}
		same(t, v.name, got, content)
	}
	// A query is no name, and a web page in place of a block map is none.
	im := open(t, pages.URL+"/disk.img?signature=x.gz", Options{})
	if im.Map != nil {
		t.Errorf("map %s", im.MapName)
	}
	got, err := copied(t, im, true)
	if err != nil {
		t.Fatal(err)
	}
	same(t, im.Name, got, content)
	if _, err := Open(t.Context(), pages.URL+"/disk.img", Options{Bmap: pages.URL + "/x.bmap"}); err == nil {
		t.Error("a web page is a block map")
	}
	if _, err := Open(t.Context(), server.URL+"/none.img", Options{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "404") {
		t.Errorf("what the server has not: %v", err)
	}

	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err != nil {
			return
		}
		f.Write(compressed(t, "gzip", content))
		f.Close()
	}()
	got, err = copied(t, open(t, fifo, Options{}), true)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "FIFO", got, content)

	// A reader that is never given anything ends with the context.
	ctx, cancel := context.WithCancelCause(t.Context())
	r, w := io.Pipe()
	go func() { w.Write(content[:headSize+100]); cancel(errors.New("enough")) }()
	im, err = New(ctx, "pipe", r, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(t.Context(), im, nil); err == nil || err.Error() != "enough" {
		t.Errorf("after the context's end: %v", err)
	}
	r.Close()
	go syscall.Open(fifo, syscall.O_WRONLY, 0) // lets the goroutine go that waits in open(2)
	if _, err := Open(ctx, fifo, Options{}); err == nil {
		t.Error("opened after the context's end")
	}
}

// TestOtherSize has compressed images that are longer or shorter than their block maps say, behind what these map.
func TestOtherSize(t *testing.T) {
	content := make([]byte, 300_000)
	copy(content, "only the first block holds data")
	text := func(sum bool) []byte {
		m := &bmap.Map{Version: "2.0", ImageSize: int64(len(content)), BlockSize: 4096, Ranges: []bmap.Range{{}}}
		if sum {
			h := sha256.Sum256(content[:4096])
			m.Checksum, m.Ranges[0].Sum = "sha256", h[:]
		}
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, n := range []int{len(content), len(content) - 1, len(content) - 5000, len(content) + 1, len(content) + 200_000} {
		for _, sum := range []bool{false, true} {
			for _, how := range []string{"zstd", "gzip"} {
				name := write(t, filepath.Join(t.TempDir(), "a.img"), compressed(t, how, append(content[:min(n, len(content)):len(content)], make([]byte, max(0, n-len(content)))...)))
				write(t, filepath.Join(filepath.Dir(name), "a.bmap"), text(sum))
				err := Verify(t.Context(), open(t, name, Options{}), nil)
				if wrong := err != nil && strings.Contains(err.Error(), fmt.Sprintf("the image has %d bytes, but ", n)); wrong == (n == len(content)) || !wrong && err != nil {
					t.Errorf("%d bytes, %s, checksum %t: %v", n, how, sum, err)
				}
			}
		}
	}
}

// TestRefuses has files that are not to be written as they are.
func TestRefuses(t *testing.T) {
	tar := make([]byte, 1024)
	copy(tar[257:], "ustar")
	for _, v := range []struct {
		name string
		data []byte
		want string
	}{
		{"a.lzo", []byte("\x89LZO\x00\r\n\x1a\n0000"), "lzop file, which is not written"},
		{"a.img", []byte("PK\x03\x04 and more"), "zip file"},
		{"a", tar, "tar file"},
		{"a", append([]byte("\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff"), 1, 2), "lzma file"},
		{"a.img.br", []byte("brotli has no magic number"), "named like a compressed file (.br)"},
		{"a.zst", make([]byte, 5000), "named like"},
		{"a.img", compressed(t, "gzip", compressed(t, "lz4", make([]byte, 5000))), "lz4 file within gzip"},
		{"a.img", compressed(t, "gzip", tar), "tar file within gzip"},
		{"a.qcow2", []byte("QFI\xfb\x00\x00\x00\x03"), "a qcow2 image of a virtual machine's disk"},
		{"a.vdi", append(make([]byte, 64), "\x7f\x10\xda\xbe"...), "a VDI image"},
		{"a.ffu", []byte("\x20\x00\x00\x00SignedImage "), "FFU"},
		{"a.img", compressed(t, "gzip", []byte("QFI\xfb\x00\x00\x00\x03")), "qcow2"},
		{"a.img", nil, "empty"},
		{"a.img", compressed(t, "gzip", nil), "empty"},
		{"a.img", []byte(sparse.Magic + "\x02\x00\x00\x00" + strings.Repeat("\x00", 20)), "version 2.0"},
	} {
		name := write(t, filepath.Join(t.TempDir(), v.name), v.data)
		if _, err := Open(t.Context(), name, Options{}); err == nil || !strings.Contains(err.Error(), v.want) {
			t.Errorf("%s: %v, expected %q", v.name, err, v.want)
		}
		if len(v.data) == 0 {
			continue
		}
		im, err := Open(t.Context(), name, Options{AsIs: true})
		if err != nil {
			t.Errorf("%s, as it is: %v", v.name, err)
			continue
		}
		got, err := copied(t, im, false)
		if err != nil {
			t.Error(err)
		}
		same(t, v.name, got, v.data)
	}
	if _, err := Open(t.Context(), t.TempDir(), Options{}); err == nil {
		t.Error("a directory was opened")
	}
}

func TestMapNames(t *testing.T) {
	for name, want := range map[string][]string{
		"/x.d/core-image.wic.zst":          {"/x.d/core-image.wic.zst.bmap", "/x.d/core-image.wic.bmap", "/x.d/core-image.bmap"},
		"disk":                             {"disk.bmap"},
		"a.b/disk":                         {"a.b/disk.bmap"},
		"-":                                nil,
		"http://h.example/a.img?x=1.2#f.g": {"http://h.example/a.img.bmap?x=1.2#f.g", "http://h.example/a.bmap?x=1.2#f.g"},
	} {
		if got := MapNames(name); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %q", name, got)
		}
	}
}
