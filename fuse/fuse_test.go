package fuse

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestAddress(t *testing.T) {
	for _, tc := range []struct{ text, wrong string }{
		{"00:04:9f:01:23:45", ""}, {"00-04-9F-01-23-45", ""}, {" 00:04:9f:01:23:45\n", ""}, {"00049f012345", ""},
		{"", "expected six bytes"}, {"00:04:9f:01:23", "expected six bytes"}, {"00:04:9f:01:23:45:67:89", "expected six bytes"},
		{"0004.9f01.2345", "expected six bytes"}, {"00:04:9f:01:23:4g", "expected six bytes"},
	} {
		a, err := Address(tc.text)
		if tc.wrong == "" && (err != nil || a.String() != "00:04:9f:01:23:45") || tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong)) {
			t.Errorf("%q: %v, %v; want %q", tc.text, a, err, tc.wrong)
		}
	}
}

func TestMAC(t *testing.T) {
	for _, tc := range []struct {
		soc, addresses, wrong, warning string
	}{
		{"imx8mp", mac0 + " " + mac1, "", ""},
		{"imx8mp", mac0, "", "upper half of MAC_ADDR1 stays empty"},
		{"imx8mm", mac0, "", ""},
		{"imx8mp", "02:bb:cc:dd:ee:ff " + mac1, "", "locally administered"},
		{"imx8mp", "00:00:00:00:00:00", "all zero", ""},
		{"imx8mp", "ff:ff:ff:ff:ff:ff", "broadcast", ""},
		{"imx8mp", mac0 + " 01:00:5e:00:00:01", "mac1, 01:00:5e:00:00:01: it is a multicast", ""},
		{"imx8mp", mac0 + " " + mac0, "both MAC addresses are", ""},
		{"imx8mp", "", "0 MAC addresses", ""},
		{"imx8mm", mac0 + " " + mac1, "room for 1", ""},
		{"imx6sll", mac0, "no Ethernet", ""},
		{"imx6ulz", mac0, "fuses of imx6ulz: it has no Ethernet", ""},
		{"IMX6ULZ", mac0, "no Ethernet", ""},
		{"imx8mq", mac0, "does not sense", ""},
		{"imx8qxp", mac0, "serial console", ""},
		{"am3358", mac0, "not known", ""},
		{"imx9999", mac0, "imx9999", ""},
	} {
		var all []net.HardwareAddr
		for s := range strings.FieldsSeq(tc.addresses) {
			all = append(all, address(t, s))
		}
		p, err := MAC(tc.soc, all...)
		switch {
		case tc.wrong != "":
			if err == nil || !strings.Contains(err.Error(), tc.wrong) {
				t.Errorf("%s %s: %v, want %q", tc.soc, tc.addresses, err, tc.wrong)
			}
		case err != nil:
			t.Errorf("%s %s: %v", tc.soc, tc.addresses, err)
		case tc.warning == "" && len(p.Warnings) > 0 || !strings.Contains(strings.Join(p.Warnings, "\n"), tc.warning):
			t.Errorf("%s %s: %q, want %q", tc.soc, tc.addresses, p.Warnings, tc.warning)
		default:
			var values []uint32
			for _, w := range p.Words {
				values = append(values, w.Value)
			}
			if got := p.layout.addresses(values); fmt.Sprint(got) != fmt.Sprint(all) {
				t.Errorf("%s: %v read back from %#x, want %v", tc.soc, got, values, all)
			}
		}
	}
}

func TestDecide(t *testing.T) {
	whole, half := Word{Value: 0x556600bb, Mask: 0xffffffff}, Word{Value: 0xbb, Mask: 0xffff}
	for _, tc := range []struct {
		w      Word
		found  uint32
		locked bool
		want   State
	}{
		{whole, 0, false, ToBurn}, {whole, 0, true, Locked}, {whole, 0x556600bb, false, There}, {whole, 0x556600bb, true, There},
		{whole, 0x556600ba, false, Partial}, {whole, 0x556600bf, false, Conflict}, {whole, 0x000000bb, false, Partial}, {whole, 1 << 31, true, Conflict},
		{half, 0xbb, false, There}, {half, 0x556600bb, false, There}, {half, 0x55660000, false, Partial}, {half, 0x556600bf, false, Conflict}, {half, 0, false, ToBurn},
	} {
		if got := tc.w.decide(tc.found, tc.locked); got != tc.want {
			t.Errorf("0x%08x of 0x%08x, found 0x%08x, locked %t: %s, want %s", tc.w.Value, tc.w.Mask, tc.found, tc.locked, got, tc.want)
		}
	}
}

// printed is what U-Boot prints.
const printed = "Sensing bank 9:\n\nWord 0x00000000: ccddeeff 556600bb 00223344"

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		n          int
		wrong      string
	}{
		{"as it is", printed, 3, ""},
		{"with other texts around", "=> fuse sense\nresetting ...\n" + printed + "\n\ndone", 3, ""},
		{"with carriage returns", strings.ReplaceAll(printed, "\n", "\r\n"), 3, ""},
		{"two lines of words", "Sensing bank 9:\n\nWord 0x00000000: 00000001 00000002 00000003 00000004\nWord 0x00000004: 00000005", 5, ""},
		{"nothing", "", 3, "0 words"},
		{"no words", "Sensing bank 9:", 3, "0 words"},
		{"cut", printed[:len(printed)-1], 3, "eight hexadecimal digits"},
		{"cut by a word", printed[:len(printed)-9], 3, "expected 3 words"},
		{"a word more", printed + " 00000000", 3, "expected 3 words"},
		{"five words", printed + " 00000000 00000000", 5, "up to four"},
		{"another bank", strings.ReplaceAll(printed, "9", "8"), 3, "expected bank 9"},
		{"another word", strings.ReplaceAll(printed, "0x00000000", "0x00000001"), 3, "expected word 0x00000000"},
		{"read, not sensed", strings.ReplaceAll(printed, "Sensing", "Reading"), 3, "0 words"},
		{"twice", printed + "\n" + printed, 3, "twice"},
		{"refused", "Sensing bank 9:\n\nWord 0x00000000:mxc_ocotp fuse_sense(): fuse sense is disabled\nERROR", 3, "is disabled"},
		{"no digits", strings.ReplaceAll(printed, "ccddeeff", "0xddeeff"), 3, "eight hexadecimal digits"},
		{"signs", strings.ReplaceAll(printed, "ccddeeff", "+1234567"), 3, "eight hexadecimal digits"},
		{"without end", strings.Repeat("\n", 2000) + printed, 3, "lines"},
	} {
		got, err := parse(strings.Split(tc.text, "\n"), "sense", Place{9, 0}, tc.n)
		if tc.wrong == "" && (err != nil || len(got) != tc.n) || tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong)) {
			t.Errorf("%s: %#x, %v; want %q", tc.name, got, err, tc.wrong)
		}
	}
	if got, _ := parse(strings.Split(printed, "\n"), "sense", Place{9, 0}, 3); !slices.Equal(got, []uint32{0xccddeeff, 0x556600bb, 0x00223344}) {
		t.Errorf("%#x", got)
	}
}

// Whatever a console says: as many words as were asked for, or an error; and what U-Boot would print of them is read as
// the same.
func FuzzParse(f *testing.F) {
	f.Add(printed, 9, 0, 3)
	f.Add("Reading bank 4:\n\nWord 0x00000002: 00000000 ffffffff", 4, 2, 2)
	f.Add("Sensing bank 9:\n\nWord 0x00000000:ERROR", 9, 0, 1)
	f.Fuzz(func(t *testing.T, text string, bank, word, n int) {
		if bank < 0 || word < 0 || word > 1<<20 || n <= 0 || n > 64 {
			return
		}
		p := Place{bank, word}
		values, err := parse(strings.Split(text, "\n"), "sense", p, n)
		if err != nil {
			return
		}
		if len(values) != n {
			t.Fatalf("%d words, want %d", len(values), n)
		}
		var again strings.Builder
		fmt.Fprintf(&again, "Sensing bank %d:\n", bank)
		for i, v := range values {
			if i%4 == 0 {
				fmt.Fprintf(&again, "\nWord 0x%08x:", word+i)
			}
			fmt.Fprintf(&again, " %08x", v)
		}
		if same, err := parse(strings.Split(again.String(), "\n"), "sense", p, n); err != nil || !slices.Equal(same, values) {
			t.Fatalf("%q: %#x, then %#x, %v", text, values, same, err)
		}
	})
}
