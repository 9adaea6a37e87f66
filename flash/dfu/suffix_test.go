package dfu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"testing"
	"testing/iotest"

	"snag/usb"
)

// TestParseSuffix has the suffix that dfu-suffix of dfu-util 0.11 appends to "hello, world\n" with -v 0525 -p a4a5 -d 0100.
func TestParseSuffix(t *testing.T) {
	file := append([]byte("hello, world\n"), 0x00, 0x01, 0xa5, 0xa4, 0x25, 0x05, 0x00, 0x01, 'U', 'F', 'D', 16)
	file = binary.LittleEndian.AppendUint32(file, ^crc32.ChecksumIEEE(file))
	s, ok := parseSuffix(file)
	if want := (suffix{id: usb.ID{Vendor: 0x0525, Product: 0xa4a5}, version: 0x0100, size: 16, crc: s.crc}); !ok || s != want {
		t.Errorf("%+v, %t", s, ok)
	}
	if _, ok := parseSuffix(file[:len(file)-1]); ok {
		t.Error("cut")
	}
}

// FuzzUnsuffixed reads any file, in any pieces: what comes out is the file without its last bytes, if these are a suffix.
func FuzzUnsuffixed(f *testing.F) {
	file := append([]byte("hello, world\n"), 0x00, 0x01, 0xa5, 0xa4, 0x25, 0x05, 0x00, 0x01, 'U', 'F', 'D', 16)
	f.Add(binary.LittleEndian.AppendUint32(file, ^crc32.ChecksumIEEE(file)), uint16(7))
	f.Add(file, uint16(0))
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
