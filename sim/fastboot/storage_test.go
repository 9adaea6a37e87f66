package fastboot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// chunk makes a chunk of a sparse image.
func chunk(kind uint16, blocks, length uint32, data []byte) []byte {
	b := binary.LittleEndian.AppendUint16(nil, kind)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint32(b, blocks)
	b = binary.LittleEndian.AppendUint32(b, length)
	return append(b, data...)
}

// simg makes a sparse image with blocks of 1024 bytes.
func simg(total uint32, chunks ...[]byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xed26ff3a)
	b = le.AppendUint16(b, 1)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint16(b, 28)
	b = le.AppendUint16(b, 12)
	b = le.AppendUint32(b, 1024)
	b = le.AppendUint32(b, total)
	b = le.AppendUint32(b, uint32(len(chunks)))
	b = le.AppendUint32(b, 0)
	return append(b, bytes.Join(chunks, nil)...)
}

// bytesMedium is 8 KiB, of which the last 512 bytes cannot be written.
func bytesMedium(to []byte) medium {
	return medium{size: int64(len(to)), block: 512, write: func(p []byte, off int64) error {
		if off+int64(len(p)) > int64(len(to))-512 {
			return errors.New("broken")
		}
		copy(to[off:], p)
		return nil
	}}
}

// Sparse images, as lib/image-sparse.c takes and refuses them.
func TestSparse(t *testing.T) {
	raw := chunk(0xcac1, 1, 12+1024, bytes.Repeat([]byte{1}, 1024))
	fill := chunk(0xcac2, 2, 16, []byte("snag"))
	for _, tc := range []struct {
		name  string
		image []byte
		want  string
	}{
		{"all", simg(5, chunk(0xcac3, 2, 12, nil), raw, fill), ""},
		{"another total", simg(6, chunk(0xcac3, 2, 12, nil), raw, fill), "sparse image write failure"},
		{"length of raw", simg(1, chunk(0xcac1, 1, 1024, make([]byte, 1024))), "Bogus chunk size for chunk type Raw"},
		{"length of fill", simg(1, chunk(0xcac2, 1, 12, nil)), "Bogus chunk size for chunk type FILL"},
		{"unknown", simg(1, chunk(0xcac5, 1, 12, nil)), "Unknown chunk type"},
		{"behind the end", simg(9, chunk(0xcac3, 8, 12, nil), raw), "Request would exceed partition size!"},
		{"a broken block", simg(8, chunk(0xcac3, 7, 12, nil), raw), "flash write failure"},
		{"behind the end, but nothing", simg(100, chunk(0xcac3, 100, 12, nil)), ""},
		{"cut", simg(1, raw)[:100], "sparse image write failure"},
	} {
		to := make([]byte, 8192)
		if got := sparse(bytesMedium(to), tc.image); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
		if tc.name == "all" && (!bytes.Equal(to[2048:3072], bytes.Repeat([]byte{1}, 1024)) || !bytes.Equal(to[3072:5120], bytes.Repeat([]byte("snag"), 512)) || to[5120] != 0) {
			t.Error("another medium")
		}
	}
}

func FuzzSparse(f *testing.F) {
	f.Add(simg(5, chunk(0xcac3, 2, 12, nil), chunk(0xcac1, 1, 12+1024, make([]byte, 1024)), chunk(0xcac2, 2, 16, []byte("snag")), chunk(0xcac4, 0, 16, make([]byte, 4))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if isSparse(b) {
			sparse(bytesMedium(make([]byte, 8192)), b)
		}
	})
}
