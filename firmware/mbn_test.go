package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"snag/firmware/firmwaretest"
)

func TestMBN(t *testing.T) {
	usual := firmwaretest.MBN{ID: 5, Version: 3, Load: 0x8f600000, Code: pattern(1000), Signature: pattern(256), Certificate: pattern(99)}
	first := usual
	first.SBL = true
	bare := firmwaretest.MBN{ID: 13, Version: 3, Load: 0x1000, Code: pattern(1)}
	for _, m := range []firmwaretest.MBN{usual, first, bare} {
		b := append(m.Bytes(), "more"...)
		got, err := ParseMBN(b)
		if err != nil || got.ID != m.ID || got.Load != m.Load || got.SBL != m.SBL || got.Trailing != 4 || !bytes.Equal(got.Code, m.Code) ||
			!bytes.Equal(got.Signature, m.Signature) || !bytes.Equal(got.Certificate, m.Certificate) {
			t.Errorf("%+v, %v", got, err)
		}
		if info := Identify(b); info.Kind != KindMBN {
			t.Errorf("%v", info)
		}
		if got, err := ParseMBN(b[:len(b)-5]); got == nil || !errors.Is(err, ErrTruncated) {
			t.Errorf("cut: %+v, %v", got, err)
		}
	}
	set := func(b []byte, off int, v uint32) []byte {
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint32(b[off:], v)
		return b
	}
	for _, tt := range []struct {
		b    []byte
		says string
	}{
		{nil, "no MBN: the file has 0 bytes"},
		{usual.Bytes()[:39], "no MBN: the file has 39 bytes"},
		{first.Bytes()[:79], "truncated"},
		{set(usual.Bytes(), 20, 1001), "do not agree"},
		{set(set(usual.Bytes(), 16, 355), 20, 0), "do not agree"},
		{set(usual.Bytes(), 4, 0), "version 0"},
		{set(usual.Bytes(), 4, 8), "version 8"},
		{set(first.Bytes(), 32, 7), "1355 bytes are announced, of which 7 are code, 256 signature and 99 certificates"},
		{set(set(usual.Bytes(), 20, 0xffffffff), 28, 0xffffffff), "do not agree"},
	} {
		if m, err := ParseMBN(tt.b); m != nil || err == nil || !strings.Contains(err.Error(), tt.says) && !strings.Contains(tt.says, "truncated") {
			t.Errorf("%v, %v, want %q", m, err, tt.says)
		}
	}
}

func TestMBNHashes(t *testing.T) {
	for version, want := range map[uint32]struct {
		algo  string
		table int
	}{3: {"sha256", 40}, 5: {"sha256", 40}, 6: {"sha384", 68}, 7: {"sha384", 60}} {
		b := firmwaretest.QualcommELF(version, 0x80000000, pattern(1000), nil, pattern(5000))
		h, err := ParseMBNHashes(b)
		if err != nil || h.Version != int(version) || h.Offset != 0x1000 || h.Table != 0x1000+want.table || h.Algo != want.algo || h.Rest != 30 {
			t.Fatalf("version %d: %+v, %v", version, h, err)
		}
		if got := fmt.Sprint(h.Digests); got != "[{0 true} {2 true} {4 true}]" {
			t.Errorf("version %d: %s", version, got)
		}
		if info := Identify(b); info.Kind != KindELF || !strings.Contains(info.Text, "Qualcomm") {
			t.Error(info)
		}
		for at, n := range map[int]int{24: 0, 0x2010: 2, 0x3010: 4} {
			h, err := ParseMBNHashes(firmwaretest.Damage(b, at))
			if err != nil {
				t.Error(err)
				continue
			}
			for _, d := range h.Digests {
				if d.OK == (d.Header == n) {
					t.Errorf("version %d, damaged at %#x: %+v", version, at, h.Digests)
				}
			}
		}
	}
	set := func(off int, v uint32) []byte {
		b := firmwaretest.QualcommELF(6, 0x80000000, pattern(1000))
		binary.LittleEndian.PutUint32(b[off:], v)
		return b
	}
	for _, tt := range []struct {
		b    []byte
		says string
	}{
		{set(0x1004, 4), "version 4"},
		{set(0x1014, 1<<30), "its table 1073741824 at 0x44"},
		{set(0x1014, 100), "100 bytes for 3 program headers"},
		{set(0x1014, 33), "33 bytes for 3 program headers"},
		{set(0x1028, 0xffffffff), "its table 144 at 0x10000003b"},
		{set(0x1000, 0)[:0x1080], "of the hash segment's 242 bytes the file has 128"},
	} {
		if h, err := ParseMBNHashes(tt.b); h == nil || err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%+v, %v, want %q", h, err, tt.says)
		}
	}
	if h, err := ParseMBNHashes(firmwaretest.ELF64(0x1000, pattern(10))); h != nil || err != nil {
		t.Errorf("%+v, %v", h, err)
	}
	if h, err := ParseMBNHashes([]byte("text")); h != nil || err == nil {
		t.Errorf("%+v, %v", h, err)
	}
}

func FuzzMBN(f *testing.F) {
	f.Add(firmwaretest.MBN{ID: 5, Version: 3, Code: pattern(20), Signature: pattern(3)}.Bytes())
	f.Add(firmwaretest.MBN{ID: 21, SBL: true, Code: pattern(20)}.Bytes())
	f.Add(firmwaretest.QualcommELF(3, 0x1000, pattern(20)))
	f.Add(firmwaretest.QualcommELF(7, 0x1000, pattern(20), pattern(2)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMBN(b)
		if m != nil && m.HeaderSize+len(m.Code)+len(m.Signature)+len(m.Certificate)+m.Trailing != len(b) || m == nil && err == nil {
			t.Errorf("%+v of %d bytes, %v", m, len(b), err)
		}
		if h, _ := ParseMBNHashes(b); h != nil && (h.Offset+h.Size > len(b) || h.Table > h.Offset+h.Size || len(h.Digests) > elfMaxHeaders) {
			t.Errorf("%+v of %d bytes", h, len(b))
		}
	})
}
