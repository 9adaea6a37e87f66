package firmware

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// makeApplet makes an applet as softpack 2.17 lays them out.
func makeApplet(load uint32, text string) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xea000021) // b .+0x8c
	b = append(b, make([]byte, 128)...)
	b = le.AppendUint32(b, load+0x8c)
	b = le.AppendUint32(b, 1)
	return append(b, "\x04\x00\xa0\xe1\x0d\x40\xa0\xe1"+text+"\x00"...)
}

const ramText = "\r\nApplet 'External RAM' from softpack 2.17 (v2.17).\r\n\x00External RAM already configured.\r\n\x00" +
	"Preset 12 (W972GG6KB_16)\r\n\x00Preset 1 (MT47H64M16)\r\n\x00Preset 2 (2 x MT47H128M16)\r\n\x00Preset 2 (twice)\r\n\x00Preset 99999 (x)\x00"

func TestParseSAMBAApplet(t *testing.T) {
	for _, tc := range []struct {
		data []byte
		want SAMBAApplet
	}{
		{makeApplet(0x220000, ramText), SAMBAApplet{Load: 0x220000, Entry: 0x22008c, Name: "External RAM", Version: "2.17",
			Presets: []AppletPreset{{1, "MT47H64M16"}, {2, "2 x MT47H128M16"}, {12, "W972GG6KB_16"}}}},
		{makeApplet(0x300000, "\r\nApplet 'Low-Level' from softpack 2.17-rc1.\r\n"), SAMBAApplet{Load: 0x300000, Entry: 0x30008c, Name: "Low-Level", Version: "2.17-rc1"}},
		{makeApplet(0x20000000, "silent"), SAMBAApplet{Load: 0x20000000, Entry: 0x2000008c}},
	} {
		a, err := ParseSAMBAApplet(tc.data)
		if err != nil || fmt.Sprint(*a) != fmt.Sprint(tc.want) {
			t.Errorf("%+v, %v, want %+v", a, err, tc.want)
		}
		if info := Identify(tc.data); info.Kind != KindSAMBAApplet || !strings.HasSuffix(info.Text, fmt.Sprintf("linked for %#x", tc.want.Load)) {
			t.Errorf("identified as %v", info)
		}
	}
}

func TestNoSAMBAApplet(t *testing.T) {
	good := makeApplet(0x220000, ramText)
	edit := func(off int, b ...byte) []byte {
		f := bytes.Clone(good)
		copy(f[off:], b)
		return f
	}
	for name, b := range map[string][]byte{
		"empty":                    nil,
		"header alone":             good[:0x8c],
		"no branch":                edit(3, 0xe5),
		"branch back":              edit(0, 0xfe, 0xff, 0xff),
		"branch into the mailbox":  edit(0, 0x10),
		"branch behind the file":   edit(0, 0, 0, 0x10),
		"mailbox in use":           edit(20, 1),
		"called already":           edit(0x88, 0),
		"entry before the load":    edit(0x84, 0x10, 0, 0, 0),
		"entry not where it jumps": edit(0x84, 0x8d),
		"U-Boot":                   makeSPL(0x26f00000, "U-Boot 2026.10 (x)", 999),
	} {
		if a, err := ParseSAMBAApplet(b); err == nil {
			t.Errorf("%s: %+v", name, a)
		}
		if Identify(b).Kind == KindSAMBAApplet {
			t.Errorf("%s is identified as an applet", name)
		}
	}
}

func FuzzSAMBAApplet(f *testing.F) {
	f.Add(makeApplet(0x220000, ramText))
	f.Add(makeApplet(0x20000000, strings.Repeat("Preset 1 (x)Preset 2 (y)", 50)))
	f.Add(makeApplet(0, "")[:0x90])
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseSAMBAApplet(b)
		if (err == nil) != (a != nil) {
			t.Error(a, err)
		}
		if a == nil {
			return
		}
		if start := int64(a.Entry) - int64(a.Load); start < appletHeader || start >= int64(len(b)) || len(a.Presets) > maxPresets {
			t.Errorf("%+v", a)
		}
	})
}
