package dfu

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"snag/flash/image"
	"snag/usb"
)

// suffixed is what dfu-suffix of dfu-util 0.11 makes of "hello, world\n" with -v 0525 -p a4a5 -d 0100 -a.
var suffixed = []byte("hello, world\n\x00\x01\xa5\xa4\x25\x05\x00\x01UFD\x10\x36\x92\x87\xe4")

func TestParseSuffix(t *testing.T) {
	s, ok := parseSuffix(suffixed)
	if want := (suffix{id: usb.ID{Vendor: 0x0525, Product: 0xa4a5}, version: 0x0100, size: 16, crc: 0xe4879236}); !ok || s != want {
		t.Errorf("%+v, %t", s, ok)
	}
	if _, ok := parseSuffix(suffixed[:len(suffixed)-1]); ok {
		t.Error("cut")
	}
	got, err := io.ReadAll(newUnsuffixed(bytes.NewReader(suffixed), []usb.ID{{Vendor: 0x0525, Product: 0xa4a5}}))
	if err != nil || string(got) != "hello, world\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestComparison has a device that gives less than it was sent, and one that gives it all.
func TestComparison(t *testing.T) {
	sent := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	for _, n := range []int{0, 1, 2 << 20, len(sent) - 1, len(sent)} {
		want := new(sums)
		want.Write(sent)
		want.close()
		c := &comparison{name: "image", want: want, progress: func(int64) {}}
		if _, err := io.Copy(c, bytes.NewReader(sent[:n])); err != nil {
			t.Error(n, err)
		}
		var part *image.RangeError
		if err := c.whole(); (err == nil) != (n == len(sent)) || err != nil && (!errors.As(err, &part) || part.Off != int64(n) || part.End != int64(len(sent))) {
			t.Error(n, err)
		}
	}
}

// FuzzUnsuffixed reads any file, in any pieces: what comes out is the file without its last bytes, if these are a
// suffix.
func FuzzUnsuffixed(f *testing.F) {
	f.Add(suffixed, uint16(7))
	f.Add(suffixed[:len(suffixed)-4], uint16(0))
	f.Add(bytes.Repeat([]byte("UFD\xff"), 200), uint16(4096))
	f.Fuzz(func(t *testing.T, file []byte, piece uint16) {
		u := newUnsuffixed(iotest.HalfReader(bytes.NewReader(file)), []usb.ID{{Vendor: 0x0525, Product: 0xa4a5}})
		var got []byte
		buf := make([]byte, int(piece)+1)
		for {
			n, err := u.Read(buf)
			got = append(got, buf[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				if !errors.Is(err, ErrSuffix) {
					t.Fatal(err)
				}
				return
			}
		}
		cut := len(file) - len(got)
		if s, ok := parseSuffix(file); cut != 0 && (!ok || cut != s.size) || cut == 0 && ok && s.size <= len(file) {
			t.Fatalf("%d bytes were cut, suffix %+v %t", cut, s, ok)
		}
		if !bytes.Equal(got, file[:len(got)]) {
			t.Fatal("changed")
		}
	})
}
