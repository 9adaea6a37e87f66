package rndis

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// The messages byte for byte, from the tables of [MS-RNDIS].
func TestMessages(t *testing.T) {
	for _, tc := range []struct {
		name string
		got  []byte
		want string
	}{
		{"INITIALIZE", Initialize(1, 2048), "02000000 18000000 01000000 01000000 00000000 00080000"},
		{"QUERY", Query(2, OIDPermanentAddress), "04000000 1c000000 02000000 01010101 00000000 14000000 00000000"},
		{"SET", SetFilter(3, 0x2d), "05000000 20000000 03000000 0e010100 04000000 14000000 00000000 2d000000"},
		{"HALT", Halt(4), "03000000 0c000000 04000000"},
		{"KEEPALIVE", Keepalive(5), "08000000 0c000000 05000000"},
		{"KEEPALIVE answer", KeepaliveAnswer(6), "08000080 10000000 06000000 00000000"},
		{"PACKET", AppendPacket(nil, []byte("frame")), "01000000 31000000 24000000 05000000" + strings.Repeat("00", 28) + "6672616d65"},
	} {
		if want := unhex(tc.want); !bytes.Equal(tc.got, want) {
			t.Errorf("%s:\ngot  %x\nwant %x", tc.name, tc.got, want)
		}
	}
}

func TestParse(t *testing.T) {
	m, err := Parse(unhex("02000080 34000000 01000000 00000000 01000000 00000000 01000000 00000000 01000000 40060000 00000000 00000000 00000000"))
	if err != nil || m.Type != TypeInitialize|Completion || m.ID != 1 || m.Status != StatusSuccess {
		t.Fatalf("%+v, %v", m, err)
	}
	if l, err := m.Limits(); err != nil || l != (Limits{MaxPackets: 1, MaxTransfer: 1600}) {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := m.Value(); err == nil {
		t.Error("a value in the answer to INITIALIZE")
	}
	m, err = Parse(unhex("04000080 1e000000 02000000 00000000 06000000 10000000 020304050607 ffff"))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := m.Value(); err != nil || !bytes.Equal(v, unhex("020304050607")) {
		t.Errorf("%x, %v", v, err)
	}
	for _, none := range []string{"", "00"} {
		if _, err := Parse(unhex(none)); !errors.Is(err, ErrNone) {
			t.Errorf("%q: %v", none, err)
		}
	}
	for name, bad := range map[string]string{
		"short":               "08000080 10000000",
		"length too small":    "08000000 0b000000 01000000",
		"length beyond":       "08000000 0d000000 01000000",
		"length wraps":        "08000000 ffffffff 01000000",
		"no room for status":  "08000080 0c000000 01000000",
		"type alone is right": "02000080 00000000 00000000 00000000",
	} {
		if m, err := Parse(unhex(bad)); err == nil || errors.Is(err, ErrNone) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	for name, bad := range map[string]string{
		"no place":     "04000080 10000000 02000000 00000000",
		"beyond":       "04000080 1e000000 02000000 00000000 07000000 10000000 020304050607",
		"wraps":        "04000080 1e000000 02000000 00000000 06000000 fffffff7 020304050607",
		"in the head":  "04000080 1e000000 02000000 00000000 06000000 04000000 020304050607",
		"offset alone": "04000080 1e000000 02000000 00000000 00000000 ff000000 020304050607",
	} {
		m, err := Parse(unhex(bad))
		if err != nil {
			t.Fatal(err)
		}
		if v, err := m.Value(); err == nil {
			t.Errorf("%s: %x", name, v)
		}
	}
}

func TestPackets(t *testing.T) {
	b := AppendPacket(nil, []byte("one"))
	b = AppendPacket(b, []byte("twotwo"))
	b = append(b, 0) // padding
	var got []string
	for rest := b; len(rest) > 0; {
		frame, next, err := NextPacket(rest)
		if err != nil {
			t.Fatal(err)
		}
		if frame != nil {
			got = append(got, string(frame))
		}
		rest = next
	}
	if strings.Join(got, " ") != "one twotwo" {
		t.Errorf("got %q", got)
	}
	put := func(off int, v uint32) []byte {
		b := AppendPacket(nil, []byte("frame"))
		le.PutUint32(b[off:], v)
		return b
	}
	for name, bad := range map[string][]byte{
		"type":             put(0, 2),
		"length short":     put(4, 43),
		"length long":      put(4, 50),
		"length wraps":     put(4, 0xffffffff),
		"offset in header": put(8, 8),
		"offset beyond":    put(8, 42),
		"offset wraps":     put(8, 0xfffffff8),
		"data beyond":      put(12, 6),
		"data wraps":       put(12, 0xfffffff8),
	} {
		if frame, rest, err := NextPacket(bad); err == nil {
			t.Errorf("%s: %x, %x", name, frame, rest)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(unhex("02000080 34000000 01000000 00000000 01000000 00000000 01000000 00000000 01000000 40060000 00000000 00000000 00000000"))
	f.Add(unhex("04000080 1e000000 02000000 00000000 06000000 10000000 020304050607"))
	f.Add(KeepaliveAnswer(6))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		m.Limits()
		if v, err := m.Value(); err == nil && len(v) > len(b)-24 {
			t.Errorf("%d bytes of value in a message of %d", len(v), len(b))
		}
	})
}

// The frames of a transfer never overlap, and there are no more than fit into it.
func FuzzPackets(f *testing.F) {
	f.Add(AppendPacket(AppendPacket(nil, []byte("one")), []byte("two")))
	f.Add(append(AppendPacket(nil, make([]byte, 1514)), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for rest := b; rest != nil; {
			frame, next, err := NextPacket(rest)
			if err != nil || next == nil {
				return
			}
			if total += HeaderSize + len(frame); total > len(b) || len(next) > len(rest)-HeaderSize-len(frame) {
				t.Fatalf("%d bytes in messages from a transfer of %d", total, len(b))
			}
			rest = next
		}
	})
}
