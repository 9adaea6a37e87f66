package uuu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"snag/event"
	"snag/flash/image"
	"snag/flash/sparse"
	"snag/socs"
	"snag/usb/fastboot"
)

// medium is a U-Boot that writes sparse images to a medium that is full of 0xee.
type medium struct {
	t       *testing.T
	limit   int64
	answers []string
	data    []byte
	bytes   []byte
	pieces  int
	largest int
}

func (m *medium) Send(_ context.Context, b []byte) error {
	word, arg, _ := strings.Cut(string(b), ":")
	switch {
	case arg == "max-download-size":
		m.answers = append(m.answers, fmt.Sprintf("OKAY0x%x", m.limit))
	case word == "download":
		m.answers = append(m.answers, "DATA"+arg, "OKAY")
	case word == "flash":
		m.flash()
		m.answers = append(m.answers, "OKAY")
	default:
		m.answers = append(m.answers, "FAILno")
	}
	return nil
}

func (m *medium) Receive(_ context.Context, buf []byte) (int, error) {
	n := copy(buf, m.answers[0])
	m.answers = m.answers[1:]
	return n, nil
}

func (m *medium) Stream(_ context.Context, _ time.Duration, pieces iter.Seq[[]byte]) (int64, error) {
	m.data = nil
	for p := range pieces {
		m.data = append(m.data, p...)
	}
	return int64(len(m.data)), nil
}

// flash writes a sparse image.
func (m *medium) flash() {
	m.pieces++
	m.largest = max(m.largest, len(m.data))
	r, err := sparse.NewReader(bytes.NewReader(m.data))
	if err != nil {
		m.t.Fatal(err)
	}
	for {
		c, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			m.t.Fatal(err)
		}
		at := m.bytes[c.Off:][:c.N]
		switch c.Kind {
		case sparse.Raw:
			if _, err := io.ReadFull(r, at); err != nil {
				m.t.Fatal(err)
			}
		case sparse.Fill:
			for i := range at {
				at[i] = c.Pattern[i%4]
			}
		}
	}
}

// quiet is a board that nobody looks at.
type quiet struct{}

func (quiet) Next(context.Context) (*socs.Stage, error) { return nil, errors.New("no board") }
func (quiet) Emit(string, event.Body)                   {}

// An image gets to the medium in pieces as it is, and what a block map does not map is left alone.
func TestPieces(t *testing.T) {
	const size = 3<<20 + 4096
	raw := make([]byte, size)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range raw[:2<<20] {
		raw[i] = byte(random.Uint32())
	}
	copy(raw[size-100:], "the end")
	dir := t.TempDir()
	put := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("raw", raw)
	put("mapped", raw)
	put("x.gz", gzipped(t, raw))
	put("x.zip", zippedFile(t, map[string][]byte{"inner": raw}))
	im, err := image.Open(t.Context(), filepath.Join(dir, "raw"), image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.CreateMap(t.Context(), im, image.MapOptions{Zeros: true})
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	put("mapped.bmap", b)
	for _, tc := range []struct {
		line   string
		limit  int64
		mapped bool
		pieces int
	}{
		{line: "flash -raw2sparse all raw", limit: 8 << 20, pieces: 1},
		{line: "flash -raw2sparse all raw", limit: 500_000, pieces: 5},
		{line: "flash -raw2sparse -S 0x40000 all raw", limit: 8 << 20, pieces: 9},
		{line: "flash -raw2sparse all x.gz/*", limit: 1 << 20, pieces: 3},
		{line: "flash -raw2sparse all x.zip/inner", limit: 1 << 20, pieces: 3},
		{line: "flash -raw2sparse all mapped", limit: 8 << 20, mapped: true, pieces: 1},
		{line: "flash -raw2sparse -no-bmap all mapped", limit: 8 << 20, pieces: 1},
		{line: "flash -raw2sparse -bmap mapped.bmap all x.gz", limit: 1 << 20, mapped: true, pieces: 3},
		{line: "flash -raw2sparse -bmap mapped.bmap all x.zip/inner", limit: 1 << 20, mapped: true, pieces: 3},
	} {
		s, err := parse("test", "FB: "+tc.line, nil, files{dir})
		if err != nil {
			t.Fatal(err)
		}
		d := &medium{t: t, limit: tc.limit, bytes: bytes.Repeat([]byte{0xee}, size)}
		x := &session{run: &run{board: quiet{}}, script: s, client: fastboot.New(d), device: device{proto: FB}}
		if err := s.Lines[0].cmd.run(t.Context(), x); err != nil {
			t.Errorf("%s: %v", tc.line, err)
			continue
		}
		want := bytes.Clone(raw)
		if tc.mapped {
			copy(want[2<<20:], bytes.Repeat([]byte{0xee}, size-4096-2<<20))
		}
		if !bytes.Equal(d.bytes, want) {
			t.Errorf("%s: the medium has something else", tc.line)
		}
		if d.pieces != tc.pieces || int64(d.largest) > tc.limit {
			t.Errorf("%s: %d pieces of %d bytes at most, want %d of %d", tc.line, d.pieces, d.largest, tc.pieces, tc.limit)
		}
	}
	// A sparse image that is too large for the buffer is cut anew.
	one, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	im, err = image.Open(t.Context(), filepath.Join(dir, "raw"), image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = image.WriteSparse(t.Context(), im, image.SparseOptions{Config: sparse.Config{Open: func(int) (io.WriterAt, error) { return one, nil }}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := parse("test", "FB: flash all sparse", nil, files{dir})
	if err != nil {
		t.Fatal(err)
	}
	d := &medium{t: t, limit: 1 << 20, bytes: bytes.Repeat([]byte{0xee}, size)}
	x := &session{run: &run{board: quiet{}}, script: s, client: fastboot.New(d), device: device{proto: FB}}
	if err := s.Lines[0].cmd.run(t.Context(), x); err != nil || !bytes.Equal(d.bytes, raw) || d.pieces != 3 {
		t.Errorf("%v, %d pieces", err, d.pieces)
	}
	// One that fits is, too: U-Boot errs behind a CRC-32 chunk.
	data, err := os.ReadFile(one.Name())
	if err != nil {
		t.Fatal(err)
	}
	data = append(data[:28:28], append([]byte{0xc4, 0xca, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 2, 3, 4}, data[28:]...)...)
	data[20]++ // chunks
	put("sparse", data)
	d.limit, d.pieces, d.bytes = 8<<20, 0, bytes.Repeat([]byte{0xee}, size)
	x = &session{run: &run{board: quiet{}}, script: s, client: fastboot.New(d), device: device{proto: FB}}
	if err := s.Lines[0].cmd.run(t.Context(), x); err != nil || !bytes.Equal(d.bytes, raw) || d.pieces != 1 || d.data[28] == 0xc4 {
		t.Errorf("%v, %d pieces, which begin with a chunk of type %x", err, d.pieces, d.data[28:30])
	}
	// A wrong checksum is told, with where it is.
	raw[5000]++
	put("mapped", raw)
	if s, err = parse("test", "FB: flash -raw2sparse all mapped", nil, files{dir}); err != nil {
		t.Fatal(err)
	}
	x = &session{run: &run{board: quiet{}}, script: s, client: fastboot.New(d), device: device{proto: FB}, line: s.Lines[0]}
	err = s.Lines[0].cmd.run(t.Context(), x)
	if !errors.Is(err, image.ErrChecksum) || !strings.Contains(fmt.Sprint(err), "blocks 0-511") {
		t.Error(err)
	}
}
