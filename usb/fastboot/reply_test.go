package fastboot

import (
	"errors"
	"strings"
	"testing"
	"unicode"
)

func TestParseReply(t *testing.T) {
	for raw, want := range map[string]reply{
		"OKAY":                      {status: "OKAY"},
		"OKAY0.4\x00":               {status: "OKAY", text: "0.4"},
		"FAIL":                      {status: "FAIL"},
		"FAILno such partition\r\n": {status: "FAIL", text: "no such partition"},
		"INFO\x1b[2Jred\tor\x07":    {status: "INFO", text: "[2Jred or"},
		"TEXT\xff\xfe":              {status: "TEXT"},
		"DATA0000000a":              {status: "DATA", size: 10},
		"DATAFFFFFFFF\x00":          {status: "DATA", size: 0xffffffff},
	} {
		if got, err := parseReply([]byte(raw)); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", raw, got, err, want)
		}
	}
	for _, raw := range []string{"", "OK", "okay", "DATA", "DATA1", "DATA0000000g", "DATA000000001", "DATA+0000001", "WHAT", "OKAY" + strings.Repeat("x", maxReply)} {
		if got, err := parseReply([]byte(raw)); err == nil {
			t.Errorf("%q: %+v, want an error", raw, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"0x02000000": 32 << 20, " 268435456\n": 256 << 20, "0X10": 16, "1c000000": 0x1c000000, "0": 0} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0x", "-1", "ten", "0xffffffffffffffff", "1_000"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q: %d, want an error", s, got)
		}
	}
}

func TestFailError(t *testing.T) {
	for text, unsupported := range map[string]bool{"unrecognized command": true, "Unsupported command": true, "unknown command": true, "": false, "made up": false} {
		err := &FailError{"UCmd:true", text}
		if errors.Is(err, ErrUnsupported) != unsupported || !strings.HasPrefix(err.Error(), "UCmd:true: the device answers FAIL") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{"OKAY", "FAILunknown", "DATA00001000", "INFOwriting", "TEXTx", "DATA", "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseReply(b)
		if err != nil {
			if e := replyError("x", "y", b).Error(); len(e) > 500 || strings.ContainsFunc(e, unicode.IsControl) {
				t.Errorf("%q", e)
			}
			return
		}
		if r.size < 0 || r.size > 0xffffffff || len(r.text) > len(b) || strings.ContainsFunc(r.text, unicode.IsControl) {
			t.Errorf("%+v", r)
		}
		if r.status != data && r.size != 0 || !isStatus(b) {
			t.Errorf("%+v", r)
		}
	})
}
