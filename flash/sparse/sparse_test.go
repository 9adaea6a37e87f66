package sparse

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// memory is a file in memory.
type memory struct {
	b    []byte
	room int // calls of placed.Room
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

// placed is one that can be filled in place.
type placed struct{ *memory }

func (m placed) Room(off, n int64) []byte {
	if need := int(off + n); need > len(m.b) {
		m.b = append(m.b, bytes.Repeat([]byte("old"), need)[:need-len(m.b)]...)
	}
	m.room++
	return m.b[off : off+n]
}

// skipped is the byte that an expanded image has where it is not written.
const skipped = 0xee

// expand writes one sparse image over an image.
func expand(t *testing.T, file, into []byte) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for {
		c, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		end := min(c.Off+c.N, int64(len(into)))
		switch c.Kind {
		case Raw:
			if _, err := io.ReadFull(r, into[c.Off:end]); err != nil {
				t.Fatal(err)
			}
		case Fill:
			for i := c.Off; i < end; i++ {
				into[i] = c.Pattern[(i-c.Off)%4]
			}
		}
	}
}

// TestWriter gives random images in random parts, and expands what came of them.
func TestWriter(t *testing.T) {
	inPlace := 0
	defer func() {
		if inPlace < 10 {
			t.Errorf("bytes were read in place %d times", inPlace)
		}
	}()
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		c := Config{BlockSize: []int64{512, 1024, 4096}[rng.IntN(3)], SkipZeros: rng.IntN(4) == 0}
		if rng.IntN(3) > 0 {
			c.Max = 28 + 36 + c.BlockSize + rng.Int64N(60000)
		}
		if rng.IntN(3) == 0 {
			c.MaxWritten = c.BlockSize + rng.Int64N(200000)
		}
		var files []*memory
		var said []File
		c.Open = func(int) (io.WriterAt, error) {
			m := new(memory)
			files = append(files, m)
			if seed%2 == 0 {
				return placed{m}, nil
			}
			return m, nil
		}
		c.Done = func(f File) error {
			m := files[f.Number]
			if inPlace += m.room; m.room > 0 {
				m.b = m.b[:f.Size]
			}
			said = append(said, f)
			return nil
		}
		image, ops := randomImage(rng, c.BlockSize)
		if rng.IntN(2) == 0 {
			c.Size = int64(len(image))
		}
		w, err := NewWriter(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range ops {
			if err := op(w); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		got := bytes.Repeat([]byte{skipped}, len(image))
		end := int64(0)
		for i, f := range files {
			expand(t, f.b, got)
			if c.Max > 0 && int64(len(f.b)) > c.Max || said[i].Size != int64(len(f.b)) || said[i].Number != i {
				t.Errorf("seed %d: file %d has %d bytes of %d, it was said: %+v", seed, i, len(f.b), c.Max, said[i])
			}
			if c.MaxWritten > 0 && said[i].Written > c.MaxWritten || said[i].Off != end {
				t.Errorf("seed %d: file %d is written as %d bytes of %d, from %d", seed, i, said[i].Written, c.MaxWritten, said[i].Off)
			}
			end = said[i].End
			if blocks := int64(binary.LittleEndian.Uint32(f.b[16:])); c.Size > 0 && blocks != (c.Size+c.BlockSize-1)/c.BlockSize {
				t.Errorf("seed %d: file %d says that the image has %d blocks", seed, i, blocks)
			}
		}
		for i := range image {
			want := image[i]
			if got[i] == want || got[i] == skipped && want == 0 && c.SkipZeros {
				continue
			}
			if want == skipped && got[i] == 0 { // a part of a block that is not skipped
				continue
			}
			t.Fatalf("seed %d: byte %d is %#x, expected %#x", seed, i, got[i], want)
		}
	}
}

// randomImage returns an image, and how to give it to a Writer.
func randomImage(rng *rand.Rand, blockSize int64) ([]byte, []func(*Writer) error) {
	var image []byte
	var ops []func(*Writer) error
	for range 1 + rng.IntN(20) {
		n := rng.Int64N(20 * blockSize)
		if rng.IntN(3) > 0 {
			n = n / blockSize * blockSize
		}
		n = n / 4 * 4
		switch rng.IntN(5) {
		case 0:
			image = append(image, bytes.Repeat([]byte{skipped}, int(n))...)
			ops = append(ops, func(w *Writer) error { return w.Skip(n) })
		case 1, 2:
			pattern := [4]byte{1, 2, 3, byte(rng.IntN(2))}
			if rng.IntN(2) == 0 {
				pattern = [4]byte{}
			}
			image = append(image, bytes.Repeat(pattern[:], int(n/4))...)
			ops = append(ops, func(w *Writer) error { return w.Fill(pattern, n) })
		default:
			p := make([]byte, n)
			for i := range p {
				if i/700%3 > 0 { // some blocks repeat a byte
					p[i] = byte(rng.IntN(200))
				}
			}
			image = append(image, p...)
			if rng.IntN(2) == 0 {
				ops = append(ops, func(w *Writer) error { _, err := w.Write(p); return err })
				break
			}
			ops = append(ops, func(w *Writer) error {
				rest := p
				err := w.Fetch(n, func(b []byte) error {
					rest = rest[copy(b, rest):]
					return nil
				})
				if err == nil && len(rest) > 0 {
					err = fmt.Errorf("%d bytes of %d were not fetched", len(rest), n)
				}
				return err
			})
		}
	}
	return image, ops
}

// An error of what is read is the Writer's last.
func TestFetchFails(t *testing.T) {
	for _, good := range []int64{0, 4096, 10000} {
		w, err := NewWriter(Config{Open: func(int) (io.WriterAt, error) { return placed{new(memory)}, nil }})
		if err != nil {
			t.Fatal(err)
		}
		number := byte(0)
		count := func(p []byte) error {
			for i := range p {
				number++
				p[i] = number
			}
			return nil
		}
		if err := w.Fetch(good, count); err != nil {
			t.Fatal(err)
		}
		bad := errors.New("a bad sector")
		if err := w.Fetch(1<<20, func([]byte) error { return bad }); !errors.Is(err, bad) {
			t.Errorf("after %d bytes: %v", good, err)
		}
		if err := w.Fetch(4096, count); !errors.Is(err, bad) {
			t.Errorf("after %d bytes and the error: %v", good, err)
		}
		if err := w.Close(); !errors.Is(err, bad) {
			t.Errorf("after %d bytes, closed: %v", good, err)
		}
	}
}

// sample is an image of every kind of chunk: raw, fill, don't care, CRC-32, raw.
func sample(header, chunkHeader int) []byte {
	le := binary.LittleEndian
	b := append([]byte(Magic), 1, 0, 7, 0)
	b = le.AppendUint16(b, uint16(header))
	b = le.AppendUint16(b, uint16(chunkHeader))
	for _, v := range []uint32{512, 7, 5, 0} {
		b = le.AppendUint32(b, v)
	}
	b = append(b, make([]byte, header-28)...)
	chunk := func(kind Kind, blocks int, data []byte) {
		b = le.AppendUint32(b, uint32(kind))
		b = le.AppendUint32(b, uint32(blocks))
		b = le.AppendUint32(b, uint32(chunkHeader+len(data)))
		b = append(append(b, make([]byte, chunkHeader-12)...), data...)
	}
	chunk(Raw, 1, bytes.Repeat([]byte("r"), 512))
	chunk(Fill, 2, []byte("fill"))
	chunk(DontCare, 3, nil)
	chunk(crc32, 0, []byte("crc!"))
	chunk(Raw, 1, bytes.Repeat([]byte("s"), 512))
	return b
}

func TestReader(t *testing.T) {
	want := append(bytes.Repeat([]byte("r"), 512), bytes.Repeat([]byte("fill"), 256)...)
	want = append(append(want, bytes.Repeat([]byte{skipped}, 3*512)...), bytes.Repeat([]byte("s"), 512)...)
	for _, sizes := range [][2]int{{28, 12}, {32, 16}, {100, 60}} {
		got := bytes.Repeat([]byte{skipped}, len(want))
		expand(t, sample(sizes[0], sizes[1]), got)
		if !bytes.Equal(got, want) {
			t.Errorf("headers of %d and %d bytes: it was read wrongly", sizes[0], sizes[1])
		}
	}
	if r, err := NewReader(bytes.NewReader(sample(28, 12))); err != nil || r.Size() != 7*512 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestReaderRefuses(t *testing.T) {
	for _, v := range []struct {
		off  int
		to   string
		want string
	}{
		{0, "x", "magic"}, {4, "\x02", "version"}, {8, "\x1b", "27 and 12"}, {10, "\x0b", "28 and 11"}, {12, "\x01\x02", "blocks of 513"},
		{16, "\x08", "the header says 4096"}, {16, "\x06", "past its end"}, {20, "\x06", "unexpected EOF"}, {20, "\x04", "chunks end here"},
		{28, "\xc5", "unknown type"}, {36, "\x00", "expected 512"}, {32, "\x02", "expected 1024"},
	} {
		b := sample(28, 12)
		copy(b[v.off:], v.to)
		for _, r := range []io.Reader{bytes.NewReader(b), bytes.NewBuffer(b)} {
			s, err := NewReader(r)
			for err == nil {
				_, err = s.Next()
			}
			if err == io.EOF || !strings.Contains(err.Error(), v.want) {
				t.Errorf("%#v at %d: %v, expected %q", v.to, v.off, err, v.want)
			}
		}
	}
	whole := sample(28, 12)
	for n := range len(whole) {
		for _, r := range []io.Reader{bytes.NewReader(whole[:n]), bytes.NewBuffer(whole[:n:n])} {
			s, err := NewReader(r)
			for err == nil {
				_, err = s.Next()
			}
			if err == io.EOF {
				t.Fatalf("%d bytes of %d were enough", n, len(whole))
			}
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(sample(28, 12))
	f.Add(sample(40, 16))
	f.Add(sample(28, 12)[:700])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewBuffer(b))
		if err != nil {
			return
		}
		end, raw := int64(0), int64(0)
		for {
			c, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return
			}
			if c.Off != end || c.N < 0 || c.Off+c.N > r.Size() {
				t.Fatalf("%+v behind %d, of %d", c, end, r.Size())
			}
			end = c.Off + c.N
			if c.Kind == Raw {
				n, err := io.Copy(io.Discard, r)
				raw += n
				if err == nil && n != c.N {
					t.Fatalf("%d of %d bytes", n, c.N)
				}
			}
		}
		if end != r.Size() || raw > int64(len(b)) {
			t.Fatalf("%d of %d bytes, %d of them out of %d", end, r.Size(), raw, len(b))
		}
	})
}

func FuzzWriter(f *testing.F) {
	f.Add([]byte("\x00\x05\x01\x03\x02\x80\x00\x01"), uint16(2000), uint16(0))
	f.Add([]byte("\x02\xff\x01\xff\x00\xff"), uint16(620), uint16(1000))
	f.Fuzz(func(t *testing.T, ops []byte, limit, written uint16) {
		var files []*memory
		w, err := NewWriter(Config{BlockSize: 512, Max: int64(limit), MaxWritten: int64(written), Open: func(int) (io.WriterAt, error) {
			files = append(files, new(memory))
			return files[len(files)-1], nil
		}})
		if err != nil {
			return
		}
		var want []byte
		for i := 0; i+1 < len(ops) && len(want) < 1<<20; i += 2 {
			n := 4 * int(ops[i+1]) * (1 + int(ops[i]>>2))
			switch ops[i] & 3 {
			case 0:
				w.Skip(int64(n))
				want = append(want, make([]byte, n)...)
			case 1:
				w.Fill([4]byte{9, 8, 7, 6}, int64(n))
				want = append(want, bytes.Repeat([]byte{9, 8, 7, 6}, n/4)...)
			default:
				p := make([]byte, n)
				for j := range p {
					p[j] = byte(j * j >> (ops[i] & 7))
				}
				w.Write(p)
				want = append(want, p...)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		for _, m := range files {
			expand(t, m.b, got)
			if limit > 0 && len(m.b) > int(limit) {
				t.Errorf("%d bytes, %d were allowed", len(m.b), limit)
			}
		}
		if !bytes.Equal(got, want) {
			t.Error("it is another image")
		}
	})
}
