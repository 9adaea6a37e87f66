package amlogic

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"snag/usb"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The blocks of parameters are those of pyamlboot's files.
func TestParameters(t *testing.T) {
	for _, tc := range []struct {
		b    []byte
		want string
	}{
		{initDRAM, "abcd1234 00020000 dfc00000 01000000 00004000 ccc08200 00000010 00000000"},
		{runFIP, "abcd1234 00020000 e1c00000 01000000 00000000 00c00000 01000000 00c00002 00400a00 5762cc85 c67e5e10 d4f884df"},
	} {
		if !bytes.Equal(tc.b, unhex(t, tc.want)) {
			t.Errorf("% x, want %s", tc.b, tc.want)
		}
	}
}

// Requests are as in pyamlboot's PROTOCOL.md.
func TestRequests(t *testing.T) {
	for _, tc := range []struct {
		got, want usb.Setup
	}{
		{at(reqWrite, 0xd9000010, 64), usb.Setup{Type: 0x40, Request: 1, Value: 0xd900, Index: 0x10, Length: 64}},
		{at(reqRun, 0xd9000000, 4), usb.Setup{Type: 0x40, Request: 5, Value: 0xd900, Length: 4}},
		{out(reqLarge, 32, 1, 16), usb.Setup{Type: 0x40, Request: 17, Value: 0x20, Index: 1, Length: 16}},
		{out(reqAMLC, unit, 0, 0), usb.Setup{Type: 0x40, Request: 80, Value: 0x200}},
		{out(reqData, 0x10000/unit, 511, 0), usb.Setup{Type: 0x40, Request: 96, Value: 0x80, Index: 0x1ff}},
	} {
		if tc.got != tc.want {
			t.Errorf("%+v, want %+v", tc.got, tc.want)
		}
	}
	if b := largeWrite(0xd900c000, 32); !bytes.Equal(b, unhex(t, "00c000d9 20000000 00000000 00000000")) {
		t.Errorf("% x", b)
	}
	if b := okay(); !bytes.Equal(b, unhex(t, "4f4b4159 00000000 00000000 00000000")) {
		t.Errorf("% x", b)
	}
}

func TestAsk(t *testing.T) {
	b := append(unhex(t, "414d4c43 07000000 70c90f00 00400100"), make([]byte, 496)...) // PROTOCOL.md
	a, err := parseAsk(b)
	if err != nil || a != (ask{1034608, 81920}) {
		t.Errorf("%+v, %v", a, err)
	}
	for size, says := range map[int]string{1116528: "", 1116527: "BL2 asks for 1034608 bytes at 0x14000, and the file has 1116527"} {
		if err := a.within(size); says == "" && err != nil || says != "" && (err == nil || err.Error() != says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	if err := (ask{0xffffffff, 0xffffffff}).within(1 << 20); err == nil {
		t.Error("a sum that overflows is accepted")
	}
}

// What ends a piece has its sum, and its begin.
func TestAMLS(t *testing.T) {
	piece := make([]byte, 1027)
	for i := range piece {
		piece[i] = byte(i + 1)
	}
	b := amls(0x203, piece)
	if len(b) != 512 || !bytes.Equal(b[:8], unhex(t, "414d4c53 03000000")) || !bytes.Equal(b[12:16], make([]byte, 4)) || !bytes.Equal(b[16:], piece[16:512]) {
		t.Errorf("% x", b[:32])
	}
	for _, tc := range []struct {
		b    []byte
		want uint32
	}{
		{nil, 0},
		{[]byte{1}, 1},
		{[]byte{1, 2, 3}, 0x030201},
		{[]byte{1, 2, 3, 4, 0xff}, 0x04030300},
		{[]byte{0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0}, 1},
	} {
		if got := sum32(tc.b); got != tc.want {
			t.Errorf("sum of % x: %#x, want %#x", tc.b, got, tc.want)
		}
	}
	if b := amls(1, piece[:20]); len(b) != 512 || !bytes.Equal(b[16:20], piece[16:20]) || !bytes.Equal(b[20:], make([]byte, 492)) {
		t.Errorf("% x", b[:32])
	}
}

func TestIdentity(t *testing.T) {
	for _, tc := range []struct {
		b    []byte
		want identity
		bad  bool
	}{
		{[]byte{2, 4, 0, 8, 0, 0, 0, 0}, identity{2, 4, 8, false}, false},
		{[]byte{0, 1, 0, 16}, identity{0, 1, 16, false}, false},
		{[]byte{2, 4, 0, 0, 1, 0, 0, 0}, identity{2, 4, 0, true}, false},
		{[]byte{2, 4, 0, 0, 1, 1, 0, 0}, identity{2, 4, 0, false}, false},
		{[]byte{2, 4, 0, 0, 1}, identity{2, 4, 0, true}, false},
		{[]byte{2, 4, 0}, identity{}, true},
		{nil, identity{}, true},
	} {
		if id, err := parseIdentity(tc.b); id != tc.want || (err != nil) != tc.bad {
			t.Errorf("% x: %+v, %v", tc.b, id, err)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte{2, 4, 0, 8, 0, 0, 0, 0}, 1<<20)
	f.Add(slices.Concat([]byte("AMLC"), words(0, 0x4000, 0x10000)), 1<<20)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		parseIdentity(b)
		a, err := parseAsk(b)
		size &= 1<<25 - 1
		if err != nil || a.within(size) != nil {
			return
		}
		file := make([]byte, size)
		if end := amls(0, file[a.offset:a.offset+a.length]); len(end) != unit {
			t.Errorf("%d bytes", len(end))
		}
	})
}
