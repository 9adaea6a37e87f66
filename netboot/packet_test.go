package netboot

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseReadRequest(t *testing.T) {
	for _, tt := range []struct {
		name string
		rrq  string // without the opcode; | stands for NUL
		want *readRequest
		oack string // for a file of 1000 bytes, without the opcode
	}{
		{"rom", "u-boot-spl.bin|octet|", &readRequest{name: "u-boot-spl.bin", mode: "octet"}, ""},
		{"u-boot", "f|octet|timeout|5|blksize|1468|", &readRequest{name: "f", mode: "octet", timeout: "5", blksize: 1468},
			"blksize|1468|timeout|5|"},
		{"all", "f|OCTET|TSIZE|0|blksize|65464|windowsize|8|timeout|255|",
			&readRequest{name: "f", mode: "octet", tsize: true, blksize: 65464, window: 8, timeout: "255"},
			"blksize|65464|timeout|255|tsize|1000|windowsize|8|"},
		{"bounded", "f|octet|blksize|70000|windowsize|65535|",
			&readRequest{name: "f", mode: "octet", blksize: 65464, window: 64}, "blksize|65464|windowsize|64|"},
		{"out of range", "f|octet|blksize|7|windowsize|0|timeout|0|timeout|256|tsize|x|", &readRequest{name: "f", mode: "octet"}, ""},
		{"not numbers", "f|octet|blksize|-8|windowsize|8 |timeout|+5|tsize|99999999999999999999|", &readRequest{name: "f", mode: "octet"}, ""},
		{"repeated", "f|octet|blksize|512|blksize|1024|", &readRequest{name: "f", mode: "octet", blksize: 512}, "blksize|512|"},
		{"echoed as it is", "f|octet|timeout|05|", &readRequest{name: "f", mode: "octet", timeout: "05"}, "timeout|05|"},
		{"unknown", "f|octet|multicast||saveas|x|blksize|512|", &readRequest{name: "f", mode: "octet", blksize: 512}, "blksize|512|"},
		{"value cut off", "f|octet|blksize|1468", &readRequest{name: "f", mode: "octet"}, ""},
		{"mode not ended", "f|octet", &readRequest{name: "f", mode: "octet"}, ""},
		{"garbage after", "f|octet|\x01\x02\x03", &readRequest{name: "f", mode: "octet"}, ""},
		{"path", "../../etc/passwd|octet|", &readRequest{name: "../../etc/passwd", mode: "octet"}, ""},
		{"no mode", "f", nil, ""},
		{"no name", "|octet|", nil, ""},
		{"nothing", "", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseReadRequest([]byte("\x00\x01" + strings.ReplaceAll(tt.rrq, "|", "\x00")))
			if tt.want == nil {
				if err == nil {
					t.Fatalf("no error, %+v", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(*tt.want, got, cmp.AllowUnexported(readRequest{})); d != "" {
				t.Error(d)
			}
			oack := got.oack(1000)
			if tt.oack == "" && oack != nil || tt.oack != "" && string(oack) != "\x00\x06"+strings.ReplaceAll(tt.oack, "|", "\x00") {
				t.Errorf("OACK %q", oack)
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	for in, want := range map[string]string{
		"\x00\x05\x00\x08bad options\x00":                         `TFTP error 8 "bad options"`,
		"\x00\x05\x00\x01\x1b[2J\n\xff\x00rest":                   `TFTP error 1 "\x1b[2J\n\xff"`,
		"\x00\x05\x01\x00":                                        `TFTP error 256 ""`,
		"\x00\x05\x00\x00" + strings.Repeat("a", 1000) + "\x00": `TFTP error 0 "` + strings.Repeat("a", 80) + `..."`,
	} {
		if got := errorText([]byte(in)); got != want {
			t.Errorf("errorText(%q) = %s", in, got)
		}
	}
}

func FuzzParseReadRequest(f *testing.F) {
	f.Add([]byte("\x00\x01u-boot-spl.bin\x00octet\x00"))
	f.Add([]byte("\x00\x01f\x00octet\x00tsize\x000\x00blksize\x001468\x00timeout\x005\x00windowsize\x0032\x00"))
	f.Add([]byte("\x00\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseReadRequest(b)
		if err != nil {
			return
		}
		if r.blksize != 0 && (r.blksize < 8 || r.blksize > 65464) || r.window < 0 || r.window > maxWindow {
			t.Errorf("options %+v", r)
		}
		if r.name == "" || strings.ContainsRune(r.name, 0) {
			t.Errorf("name %q", r.name)
		}
		if oack := r.oack(5); oack != nil && (!bytes.HasPrefix(oack, []byte{0, 6}) || oack[len(oack)-1] != 0) {
			t.Errorf("OACK %q", oack)
		}
	})
}
