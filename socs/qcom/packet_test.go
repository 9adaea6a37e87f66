package qcom

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestParsePacket(t *testing.T) {
	for name, tc := range map[string]struct {
		b    []byte
		want packet
	}{
		"HELLO":        {request(1, 3, 1, 1024, 2, 0, 0, 0, 0, 0, 0), packet{Command: 1, Version: 3, Oldest: 1, Mode: 2}},
		"READ_DATA":    {request(3, 13, 0xfffffff0, 0xffffffff), packet{Command: 3, Image: 13, Offset: 0xfffffff0, Length: 0xffffffff}},
		"READ_DATA64":  {request(0x12, 5, 1, 2, 3, 4, 0x80000000), packet{Command: 0x12, Image: 1<<32 | 5, Offset: 3<<32 | 2, Length: 0x80000000<<32 | 4}},
		"END_IMAGE_TX": {request(4, 13, 0x22), packet{Command: 4, Image: 13, Status: 0x22}},
		"DONE_RESP":    {request(6, 1), packet{Command: 6, Status: 1}},
		"CMD_READY":    {request(0xb), packet{Command: 0xb}},
	} {
		if p, err := parsePacket(tc.b); p != tc.want || err != nil || !strings.HasPrefix(p.String(), name) {
			t.Errorf("%s: %+v %s, %v", name, p, p, err)
		}
	}
	for says, b := range map[string][]byte{
		"expected 8 bytes at least, got 0":   nil,
		"expected 8 bytes at least, got 7":   make([]byte, 7),
		"command 0x0, which is not known":    make([]byte, 8),
		"command 0x2, which is not known":    request(2, 0),
		"says that it has 12 bytes, 13 came": append(request(6, 1), 0),
		"DONE_RESP of 8 bytes, expected 12":  request(6),
	} {
		if _, err := parsePacket(b); !errors.Is(err, errPacket) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

func TestHelloResponse(t *testing.T) {
	for _, tc := range []struct{ version, oldest, want uint32 }{{1, 1, 1}, {2, 1, 2}, {3, 1, 3}, {9, 1, 3}, {9, 5, 5}} {
		b := helloResponse(tc.version, tc.oldest, 3)
		if got := binary.LittleEndian.Uint32(b[8:]); got != tc.want || len(b) != 48 || !bytes.Equal(b[12:24], []byte{1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0}) {
			t.Errorf("to version %d, %d at least: % x", tc.version, tc.oldest, b)
		}
	}
}

// Every status has a text, and a hint.
func TestStatuses(t *testing.T) {
	for s := range uint32(0x30) {
		known := s >= 1 && s <= 0x28
		if text := statusText(s); !strings.HasPrefix(text, fmt.Sprintf("status %#x, ", s)) || strings.Contains(text, "not known") == known || statusHint(s) == "" {
			t.Errorf("%q", text)
		}
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(request(1, 2, 1, 1024, 0, 0, 0, 0, 0, 0, 0))
	f.Add(request(3, 13, 0, 64))
	f.Add(request(0x12, 13, 0, 0, 0, 64, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePacket(b)
		if err != nil && !errors.Is(err, errPacket) || err == nil && p.String() == "" {
			t.Errorf("%+v, %v", p, err)
		}
	})
}
