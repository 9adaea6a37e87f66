package hid

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sdp has the reports of the i.MX boot ROMs: 1 and 2 out, of 16 and 1024 bytes, 3 and 4 in, of 4 and 64 bytes.
const sdp = "06 00ff 09 01 a1 01" +
	"85 01 19 01 29 01 15 00 26 ff00 75 08 95 10 91 02" +
	"85 02 19 01 29 01 15 00 26 ff00 75 80 95 40 91 02" +
	"85 03 19 01 29 01 15 00 26 ff00 75 08 95 04 81 02" +
	"85 04 19 01 29 01 15 00 26 ff00 75 08 95 40 81 02 c0"

func TestParseReports(t *testing.T) {
	none := map[uint8]int{}
	for _, tc := range []struct {
		name, desc string
		want       Reports
		err        string
	}{
		{name: "empty", want: Reports{Input: none, Output: none, Feature: none}},
		{name: "SDP", desc: sdp, want: Reports{
			Numbered: true, Input: map[uint8]int{3: 4, 4: 64}, Output: map[uint8]int{1: 16, 2: 1024}, Feature: none,
		}},
		{name: "boot keyboard", // HID 1.11, appendix B.1
			desc: "05 01 09 06 a1 01 05 07 19 e0 29 e7 15 00 25 01 75 01 95 08 81 02 95 01 75 08 81 01" +
				"95 05 75 01 05 08 19 01 29 05 91 02 95 01 75 03 91 01 95 06 75 08 15 00 25 65 05 07 19 00 29 65 81 00 c0",
			want: Reports{Input: map[uint8]int{0: 8}, Output: map[uint8]int{0: 1}, Feature: none}},
		{name: "push and pop", desc: "75 08 95 02 a4 75 10 95 03 b1 02 b4 81 02",
			want: Reports{Input: map[uint8]int{0: 2}, Output: none, Feature: map[uint8]int{0: 6}}},
		{name: "a broken byte", desc: "75 03 95 03 81 02", want: Reports{Input: map[uint8]int{0: 2}, Output: none, Feature: none}},
		{name: "long item", desc: "fe 03 f0 818181 75 08 95 01 91 02",
			want: Reports{Input: none, Output: map[uint8]int{0: 1}, Feature: none}},
		{name: "the largest", desc: "75 08 96 ffff 81 02", want: Reports{Input: map[uint8]int{0: 65535}, Output: none, Feature: none}},
		{name: "too large", desc: "75 08 97 00000100 81 02", err: "longer than"},
		{name: "too large together", desc: "75 08 96 ffff 81 02 95 01 81 02", err: "longer than"},
		{name: "size times count overflows", desc: "77 ffffffff 97 ffffffff 81 02", err: "longer than"},
		{name: "ID 0", desc: "85 00", err: "report ID 0"},
		{name: "ID 256", desc: "86 0001", err: "report ID 256"},
		{name: "pop", desc: "b4", err: "pop without"},
		{name: "pushes", desc: strings.Repeat("a4", 17), err: "pushes"},
		{name: "cut", desc: "75 08 96 ff", err: "cut at byte 2"},
		{name: "long item cut", desc: "fe 03", err: "cut at byte 0"},
		{name: "long item's data cut", desc: "fe 03 00 00", err: "cut at byte 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseReports(unhex(t, tc.desc))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%+v, %v; expected an error with %q", got, err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("reports (-want +got):\n%s", d)
			}
		})
	}
}

func TestReportDescriptorLength(t *testing.T) {
	for extra, want := range map[string]int{
		"":                                       1024,
		"09 21 1001 00 01 22 4c00":               76,
		"0c 21 1001 00 02 23 0500 22 1000":       16,
		"05 24 00 1001 09 21 1001 00 01 22 0002": 512,
		"09 21 1001 00 01 22 0000":               1024,
		"09 21 1001":                             1024,
		"06 21 1001 00 01":                       1024,
		"00 21":                                  1024,
	} {
		if got := reportDescriptorLength(unhex(t, extra)); got != want {
			t.Errorf("%s: %d, expected %d", extra, got, want)
		}
	}
}

func FuzzParseReports(f *testing.F) {
	f.Add(unhex(f, sdp))
	f.Add(unhex(f, "75 08 95 02 a4 75 10 95 03 b1 02 b4 81 02"))
	f.Add(unhex(f, "fe 03 f0 818181 77 ffffffff 97 ffffffff 81 02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReports(b)
		if err != nil {
			return
		}
		for _, kind := range []map[uint8]int{r.Input, r.Output, r.Feature} {
			for id, n := range kind {
				if n < 0 || n > maxReport || r.Numbered && len(kind) > 256 || !r.Numbered && id != 0 {
					t.Errorf("report %d of %d bytes", id, n)
				}
			}
		}
		if n := reportDescriptorLength(b); n < 1 || n > 0xffff {
			t.Errorf("a report descriptor of %d bytes", n)
		}
	})
}
