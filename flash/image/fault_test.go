package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"snag/flash/bmap"
	"snag/flash/sparse"
)

// TestFaults damages images at random. Whatever happens, an image that is not what it was is never reported as copied,
// and the error names the range.
func TestFaults(t *testing.T) {
	kinds := []string{"", "gzip", "zstd", "lz4"}
	for i := range images(t, 150) {
		rng := rand.New(rand.NewPCG(uint64(i), 3))
		name, content := sample(t, uint64(i), 1+rng.Int64N(1<<20))
		mapped := rng.IntN(3) > 0
		mapName := filepath.Join(t.TempDir(), "map")
		writeMap(t, mapName, name, MapOptions{})
		o := Options{Bmap: mapName}
		if !mapped {
			o = Options{NoBmap: true}
		}
		kind := kinds[rng.IntN(len(kinds))]
		stored := content
		if kind != "" {
			stored = compressed(t, kind, content)
		}
		stored = bytes.Clone(stored)
		what := ""
		at := rng.IntN(len(stored))
		switch rng.IntN(2) {
		case 0:
			what = fmt.Sprintf("seed %d: %s %v: byte %d of %d changed", i, kind, mapped, at, len(stored))
			stored[at] ^= byte(1 + rng.IntN(255))
		default:
			what = fmt.Sprintf("seed %d: %s %v: %d bytes of %d", i, kind, mapped, at, len(stored))
			stored = stored[:at]
		}
		if kind == "" && !mapped {
			continue // nothing can be known
		}
		// A name, a device or a pipe: only the pipe's length is not known beforehand.
		im, err := New(t.Context(), "board.img", bytes.NewReader(stored), o)
		if err != nil {
			if !strings.Contains(err.Error(), "board.img: ") {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		m := im.Map
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		err = Copy(t.Context(), out, im, CopyOptions{Zeroed: !mapped})
		out.Truncate(int64(len(content)))
		out.Close()
		if err == nil {
			got, _ := os.ReadFile(out.Name())
			if len(got) == 0 && im.Compression == "" && kind != "" {
				continue
			}
			if im.Compression == "" && kind != "" && !mapped {
				continue // the magic number was hit: it is another file
			}
			same(t, what, got, content)
			continue
		}
		var at2 *RangeError
		if !errors.As(err, &at2) || !strings.HasPrefix(err.Error(), "board.img: ") {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if mapped && errors.Is(err, ErrChecksum) && kind == "" && (int64(at) < at2.Off || int64(at) >= at2.End) && len(stored) == len(content) {
			t.Errorf("%s: %v", what, err)
		}
		if mapped && !strings.Contains(err.Error(), fmt.Sprintf("blocks %d-%d (bytes %d-%d)", at2.Off/m.BlockSize, (at2.End-1)/m.BlockSize, at2.Off, at2.End-1)) && at2.Off < at2.End {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// images is how many random cases are tried: SNAG_IMAGES, or n.
func images(t testing.TB, n int) int {
	if s := os.Getenv("SNAG_IMAGES"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal("SNAG_IMAGES:", err)
		}
	}
	return n
}

// TestWrongMaps has block maps that are not the image's.
func TestWrongMaps(t *testing.T) {
	name, content := sample(t, 5, 1<<20)
	writeMap(t, name+".bmap", name, MapOptions{})
	good, err := os.ReadFile(name + ".bmap")
	if err != nil {
		t.Fatal(err)
	}
	check := func(what, want string, o Options) {
		t.Helper()
		im, err := Open(t.Context(), name, o)
		if err == nil {
			err = Verify(t.Context(), im, nil)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", what, err, want)
		}
	}
	write(t, name, append(content, 0))
	check("a longer image", "has 1048577 bytes", Options{})
	write(t, name, content[:1<<19])
	check("a shorter image", "has 524288 bytes", Options{})
	write(t, name, content)
	write(t, name+".bmap", bytes.Replace(good, []byte("Made by"), []byte("made by"), 1))
	check("a damaged map", "it was changed or damaged", Options{})
	check("no map", "no such file", Options{Bmap: name + ".none"})

	m, err := bmap.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	m.Ranges[len(m.Ranges)-1].Sum[3] ^= 1
	off, end := m.Extent(m.Ranges[len(m.Ranges)-1])
	bad, _ := m.Encode()
	write(t, name+".bmap", bad)
	check("a wrong checksum", fmt.Sprintf("(bytes %d-%d): wrong checksum: its sha256 is ", off, end-1), Options{})

	// What a sparse image leaves out cannot have a checksum.
	clear(content[off:end])
	write(t, name, content)
	writeMap(t, name+".bmap", name, MapOptions{})
	simg := sparseFiles(t, open(t, name, Options{NoBmap: true}), SparseOptions{Config: sparse.Config{SkipZeros: true}})[0]
	im, err := Open(t.Context(), simg, Options{Bmap: name + ".bmap"})
	if err == nil {
		err = Verify(t.Context(), im, nil)
	}
	if err == nil || !strings.Contains(err.Error(), "leaves out") {
		t.Errorf("a sparse image without zeros that are mapped: %v", err)
	}
}

// full is a device that ends.
type full struct{ size int64 }

func (f full) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.size {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

func TestFullDisk(t *testing.T) {
	name, _ := sample(t, 9, 4<<20)
	err := Copy(t.Context(), full{1 << 20}, open(t, name, Options{}), CopyOptions{})
	var at *RangeError
	if !errors.As(err, &at) || !strings.Contains(err.Error(), "writing: no space left") || at.End <= 1<<20 {
		t.Errorf("on a full disk: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	for kind := range compressors {
		f.Add(compressed(f, kind, append(make([]byte, 300000), "the end"...)))
	}
	f.Add([]byte(strings.Repeat("raw", 300)))
	f.Add([]byte("\x50\x2a\x4d\x18\x00\x00\x00\x00\x28\xb5\x2f\xfd"))
	f.Add([]byte("BZh91AY&SY"))
	f.Add([]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46"))
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := New(t.Context(), "image", bytes.NewBuffer(b), Options{})
		if err != nil {
			return
		}
		defer im.Close()
		end, bytes := int64(0), int64(0)
		for bytes < 64<<20 {
			p, err := im.Next()
			if err != nil {
				return
			}
			if p.Off < end || p.N <= 0 || p.Kind == Data && int64(len(p.Data)) != p.N {
				t.Fatalf("%d bytes at %d, behind %d", p.N, p.Off, end)
			}
			end = p.Off + p.N
			bytes += int64(len(p.Data))
			p.Release()
		}
	})
}

// TestCutEnds cuts off the last bytes of compressed files, and those around the begin of a second member: each byte is
// missed, even if no byte of the image is.
func TestCutEnds(t *testing.T) {
	_, content := sample(t, 2, 200_000)
	for kind := range compressors {
		one, other := compressed(t, kind, content), compressed(t, kind, content[:5000])
		both := append(bytes.Clone(one), other...)
		for _, n := range slices.Concat(numbers(len(one)+1, min(len(one)+20, len(both))), numbers(len(both)-12, len(both))) {
			im, err := New(t.Context(), "x", bytes.NewReader(both[:n]), Options{})
			if err == nil {
				err = Verify(t.Context(), im, nil)
			}
			if err == nil {
				t.Errorf("%s: %d bytes of %d, of which the first part has %d: no error", kind, n, len(both), len(one))
			}
		}
	}
	// Likewise a frame of zstd's that is to be skipped.
	b := append(compressed(t, "zstd", content), "\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"...)
	for n := range 12 {
		im, err := New(t.Context(), "x", bytes.NewReader(b[:len(b)-n]), Options{})
		if err == nil {
			err = Verify(t.Context(), im, nil)
		}
		if (err == nil) != (n == 0) {
			t.Errorf("a frame to be skipped, without its last %d bytes: %v", n, err)
		}
	}
}

func numbers(from, to int) (list []int) {
	for n := from; n < to; n++ {
		list = append(list, n)
	}
	return list
}

// TestServers has servers that do not send the image.
func TestServers(t *testing.T) {
	body := bytes.Repeat([]byte("an image"), 10_000)
	raw := func(s string, rest []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.Write([]byte(s))
			c.Write(rest)
		}
	}
	page := func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "\n<!DOCTYPE html><html><body>Please log in</body></html>")
	}
	mux := http.NewServeMux()
	for name, h := range map[string]http.HandlerFunc{
		"good.img":    func(w http.ResponseWriter, _ *http.Request) { w.Write(body) },
		"moved.img":   http.RedirectHandler("/good.img", http.StatusFound).ServeHTTP,
		"loop.img":    http.RedirectHandler("/loop.img", http.StatusFound).ServeHTTP,
		"part.img":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPartialContent) },
		"page.img":    page,
		"page.img.xz": page,
		"empty.img":   func(http.ResponseWriter, *http.Request) {},
		"early.img":   raw("HTTP/1.1 200 OK\r\nContent-Length: 80000\r\n\r\n", body[:5000]),
		"chunk.img":   raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n", body[:0x400]),
		"nothing.img": raw("", nil),
		"garbage.img": raw("garbage\r\n", nil),
		// As object stores do, which do not tell whether there is a block map.
		"guarded.img":      func(w http.ResponseWriter, _ *http.Request) { w.Write(body) },
		"guarded.img.bmap": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
	} {
		mux.HandleFunc("/"+name, h)
	}
	server := httptest.NewServer(mux)
	defer server.Close()
	secure := httptest.NewUnstartedServer(mux)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	if _, err := Open(t.Context(), secure.URL+"/good.img", Options{}); err == nil || !strings.Contains(err.Error(), secure.URL+"/good.img: tls: failed to verify certificate") {
		t.Errorf("a certificate of nobody's: %v", err)
	}
	for name, want := range map[string]string{
		"good.img": "", "moved.img": "", "guarded.img": "",
		"loop.img":    "/loop.img: stopped after 10 redirects",
		"part.img":    "/part.img: the server answers 206 Partial Content",
		"page.img":    "/page.img: the server sends a web page, not an image",
		"page.img.xz": "/page.img.xz: the server sends a web page, not an image",
		"empty.img":   "/empty.img: the image is empty",
		"early.img":   "/early.img: bytes 5000-79999: the image ends early",
		"chunk.img":   "/chunk.img: from byte 1024 on: the image ends early",
		"nothing.img": "/nothing.img: the server has closed the connection without an answer",
		"garbage.img": "/garbage.img: net/http: HTTP/1.x transport connection broken: malformed HTTP response",
		"none.img":    "/none.img: the server answers 404 Not Found",
	} {
		im, err := Open(t.Context(), server.URL+"/"+name, Options{})
		if err == nil {
			err = Verify(t.Context(), im, nil)
		}
		if want == "" && err != nil || want != "" && !strings.Contains(fmt.Sprint(err), server.URL+want) {
			t.Errorf("%s: %v, expected %q", name, err, want)
		}
	}
	if _, err := Open(t.Context(), server.URL+"/good.img", Options{Bmap: server.URL + "/guarded.img.bmap"}); err == nil || !strings.Contains(err.Error(), "403 Forbidden") {
		t.Errorf("a block map that was named, and is not given: %v", err)
	}
}

// TestCancelFill ends the copy of a fill that is longer than anybody waits.
func TestCancelFill(t *testing.T) {
	le := binary.LittleEndian
	b := le.AppendUint32([]byte(sparse.Magic+"\x01\x00\x00\x00\x1c\x00\x0c\x00"), 64<<20)
	b = append(le.AppendUint32(b, 1<<32-1), 1, 0, 0, 0, 0, 0, 0, 0)
	b = append(le.AppendUint32(append(b, "\xc2\xca\x00\x00"...), 1<<32-1), 16, 0, 0, 0, 0, 0, 0, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	im, err := New(ctx, "x", bytes.NewReader(b), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Copy(ctx, full{1 << 20}, im, CopyOptions{Zeroed: true}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestSparseEnds has Android sparse images that are of nothing, or followed by another one, of which nothing would be
// written.
func TestSparseEnds(t *testing.T) {
	header := func(blocks, chunks uint32) []byte {
		b := binary.LittleEndian.AppendUint32([]byte(sparse.Magic+"\x01\x00\x00\x00\x1c\x00\x0c\x00"), 4096)
		b = binary.LittleEndian.AppendUint32(b, blocks)
		return append(binary.LittleEndian.AppendUint32(b, chunks), 0, 0, 0, 0)
	}
	fill := append(header(1, 1), "\xc2\xca\x00\x00\x01\x00\x00\x00\x10\x00\x00\x00abcd"...)
	for _, tc := range []struct {
		name string
		b    []byte
		want string
	}{
		{"no blocks", header(0, 0), "the image is empty"},
		{"one", fill, ""},
		{"padding", append(bytes.Clone(fill), make([]byte, 100_000)...), ""},
		{"two bytes", append(bytes.Clone(fill), "\x3a\xff"...), ""},
		{"another", append(bytes.Clone(fill), fill...), "from byte 4096 on: behind the last data: another sparse image follows"},
	} {
		name := filepath.Join(t.TempDir(), "x")
		write(t, name, tc.b)
		for _, pipe := range []bool{false, true} {
			im, err := Open(t.Context(), name, Options{})
			if pipe {
				im, err = New(t.Context(), name, bytes.NewReader(tc.b), Options{})
			}
			if err == nil {
				err = Verify(t.Context(), im, nil)
			}
			if (err == nil) != (tc.want == "") || !strings.Contains(fmt.Sprint(err), tc.want) && err != nil {
				t.Errorf("%s, a pipe %t: %v, expected %q", tc.name, pipe, err, tc.want)
			}
		}
	}
}
