package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"snag/firmware/firmwaretest"
)

// wants fails if an error's text has not each of some words.
func wants(t *testing.T, name string, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %v, want %q", name, err, w)
		}
	}
}

func TestSTM32(t *testing.T) {
	data := pattern(5000)
	for _, tt := range []struct {
		img        firmwaretest.STM32
		header     int
		typ        string
		extensions int
	}{
		{firmwaretest.STM32{Version: [2]byte{1, 0}, Load: 0x2ffc2400, Entry: 0x2ffc2500, Payload: data}, 256, "U-Boot", 0},
		{firmwaretest.STM32{Version: [2]byte{2, 0}, Type: 0x10, Load: 0x2ffe0000, Entry: 0x2ffe0100, Payload: data}, 512, "TF-A", 1},
		{firmwaretest.STM32{Version: [2]byte{2, 2}, Type: 0x30, Payload: data}, 512, "coprocessor firmware", 1},
	} {
		b := tt.img.Bytes()
		s, err := ParseSTM32(b)
		if err != nil {
			t.Fatal(err)
		}
		if s.HeaderSize != tt.header || s.TypeName() != tt.typ || s.Load != tt.img.Load || s.Entry != tt.img.Entry || s.Signed || !bytes.Equal(s.Payload, data) ||
			len(s.Extensions) != tt.extensions || s.Major != int(tt.img.Version[0]) || s.Minor != int(tt.img.Version[1]) {
			t.Errorf("%+v", s)
		}
		s, err = ParseSTM32(append(b, 1, 2, 3))
		if err != nil || s.Trailing != 3 {
			t.Errorf("%d bytes behind, %v", s.Trailing, err)
		}
		s, err = ParseSTM32(damage(b, len(b)-1))
		wants(t, "damaged", err, "checksum is")
		if s == nil || s.Sum == s.Checksum {
			t.Errorf("damaged: %+v", s)
		}
		s, err = ParseSTM32(b[:len(b)-1])
		wants(t, "cut", err, "announces 5000 bytes of payload, the file has 4999")
		if s == nil || !errors.Is(err, ErrTruncated) {
			t.Errorf("cut: %+v, %v", s, err)
		}
	}
	v2 := firmwaretest.STM32{Version: [2]byte{2, 0}, Payload: data}.Bytes()
	set := func(off int, v uint32) []byte {
		b := bytes.Clone(v2)
		binary.LittleEndian.PutUint32(b[off:], v)
		return b
	}
	for name, tt := range map[string]struct {
		b    []byte
		want string
	}{
		"text":             {[]byte("hello"), `begins with 68 65 6c 6c instead of "STM2"`},
		"short":            {v2[:100], "the file has 100 bytes"},
		"version":          {damage(v2, 74), "version 18.0 is not known"},
		"extensions":       {set(104, 0x1001), "extension headers in a file of"},
		"extension's size": {set(132, 0), "a bad extension header at 0x80"},
		"too long":         {set(132, 385), "a bad extension header at 0x80"},
	} {
		_, err := ParseSTM32(tt.b)
		wants(t, name, err, tt.want)
	}
	b := set(100, 3)
	if s, err := ParseSTM32(b); err != nil || !s.Signed || !s.Encrypted {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestFIP(t *testing.T) {
	const unknown = "00112233-4455-6677-8899-aabbccddeeff"
	b := firmwaretest.FIP(firmwaretest.FIPImage{UUID: firmwaretest.UUIDBL33, Data: pattern(1000)}, firmwaretest.FIPImage{UUID: unknown, Data: pattern(10)},
		firmwaretest.FIPImage{UUID: firmwaretest.UUIDDDR, Data: pattern(99)})
	f, err := ParseFIP(b)
	if err != nil || len(f.Entries) != 3 || f.Table != 16+4*40 || f.Size != len(b) || f.Serial != 0x12345678 {
		t.Fatalf("%+v, %v", f, err)
	}
	if e, ok := f.Entry("nt-fw"); !ok || !bytes.Equal(e.Data, pattern(1000)) || e.Text != "Non-Trusted Firmware BL33" {
		t.Errorf("%+v", e)
	}
	if e := f.Entries[1]; e.Name != "" || e.Text != unknown {
		t.Errorf("%+v", e)
	}
	if _, ok := f.Entry(""); ok {
		t.Error("an entry without a name was found by it")
	}
	if _, ok := f.Entry("ddr-fw"); !ok {
		t.Error("no ddr-fw")
	}
	set := func(off int, v uint64) []byte {
		b := bytes.Clone(b)
		binary.LittleEndian.PutUint64(b[off:], v)
		return b
	}
	for name, tt := range map[string]struct {
		b    []byte
		some bool // what can be read is returned
		want string
	}{
		"cut":            {b[:len(b)-1], true, "DDR_FW has 99 bytes at"},
		"no table":       {b[:100], false, "after 2 entries"},
		"short":          {b[:15], false, "15 bytes"},
		"no FIP":         {pattern(99), false, "no FIP"},
		"serial number":  {append([]byte{1, 0, 0x64, 0xaa, 0, 0, 0, 0}, b[8:]...), false, "serial number is 0"},
		"offset":         {set(16+16, 1<<63), true, "BL33 has 1000 bytes at"},
		"size":           {set(16+24, ^uint64(0)), true, "BL33 has 18446744073709551615 bytes"},
		"into the table": {set(16+16, 8), true, "in the table of contents"},
	} {
		f, err := ParseFIP(tt.b)
		wants(t, name, err, tt.want)
		if (f != nil) != tt.some {
			t.Errorf("%s: %+v", name, f)
		}
	}
	many := slices.Repeat([]firmwaretest.FIPImage{{UUID: unknown}}, 257)
	_, err = ParseFIP(firmwaretest.FIP(many...))
	wants(t, "many", err, "more than 256")
	if _, err = ParseFIP(firmwaretest.FIP(many[:256]...)); err != nil {
		t.Error(err)
	}
}

func TestSPKG(t *testing.T) {
	for _, img := range []firmwaretest.SPKG{
		{Load: 0x20040000, Offset: 1, Program: pattern(1000)},
		{Load: 0x20040000, Offset: 264, BLp: true, Padding: 4096, Program: pattern(1000)},
	} {
		b := img.Bytes()
		s, err := ParseSPKG(b)
		if err != nil || s.Load != img.Load || s.Offset != img.Offset&^1 || s.Thumb != (img.Offset&1 != 0) || s.DummyBLp != img.BLp || s.Headers != 8 || s.Trailing != 0 ||
			!bytes.HasPrefix(s.Program(), pattern(1000)) || !s.ECC || s.Block != 512 || s.Scheme != 5 {
			t.Fatalf("%+v, %v", s, err)
		}
		s, err = ParseSPKG(damage(b, 24*3+9))
		wants(t, "header", err, "1 of the 8 headers differ")
		if s == nil || s.Headers != 7 {
			t.Errorf("header: %+v", s)
		}
		_, err = ParseSPKG(damage(b, 500))
		wants(t, "payload", err, "the payload's CRC is")
		_, err = ParseSPKG(b[:len(b)-1])
		wants(t, "cut", err, "truncated")
		_, err = ParseSPKG(b[:191])
		wants(t, "headers", err, "the headers 192")
		all := bytes.Clone(b)
		for i := range 8 {
			all[24*i+9]++
		}
		_, err = ParseSPKG(all)
		wants(t, "all", err, "none of the 8 headers")
	}
	_, err := ParseSPKG(firmwaretest.SPKG{Load: 0x20040000, Offset: 5000, Program: pattern(100)}.Bytes())
	wants(t, "offset", err, "started at 0x1388")
	_, err = ParseSPKG(pattern(300))
	wants(t, "other", err, "no SPKG")
}

func TestELF(t *testing.T) {
	for _, tt := range []struct {
		b       []byte
		bits    int
		machine string
		entry   uint64
		flags   uint32
	}{
		{firmwaretest.ELF64(0xfffc0000, pattern(100)), 64, "64-bit ARM", 0xfffc0000, 5},
		{firmwaretest.ELF32(0x80001000, pattern(100)), 32, "MIPS", 0x80001000, 7},
	} {
		e, err := ParseELF(tt.b)
		if err != nil || e.Bits != tt.bits || e.MachineName() != tt.machine || e.TypeName() != "executable" || e.Entry != tt.entry || len(e.Segments) != 1 {
			t.Fatalf("%+v, %v", e, err)
		}
		if s := e.Segments[0]; s.Physical != tt.entry || s.Virtual != tt.entry || s.Memory != 164 || !bytes.Equal(s.Data, pattern(100)) || s.Flags != tt.flags {
			t.Errorf("%+v", s)
		}
		e, err = ParseELF(tt.b[:len(tt.b)-1])
		wants(t, "cut", err, "segment 0 has 100 bytes")
		if e == nil || len(e.Segments[0].Data) != 99 {
			t.Errorf("cut: %+v", e)
		}
		_, err = ParseELF(tt.b[:70])
		wants(t, "headers", err, "1 program headers")
		_, err = ParseELF(tt.b[:40])
		wants(t, "header", err, "the file has 40 bytes")
	}
	b := firmwaretest.ELF64(0, nil)
	b[56+1] = 0xff // number of headers
	_, err := ParseELF(b)
	wants(t, "number", err, "65281 program headers of 56 bytes")
	b[4] = 3
	_, err = ParseELF(b)
	wants(t, "class", err, "class 3")
}

func TestTIImage(t *testing.T) {
	program := pattern(3000)
	b := firmwaretest.TIBoot(0x43c00000, program)
	i, err := ParseTIImage(append(b, 1, 2, 3))
	if err != nil || i.Combined || i.Revision != 1 || len(i.Components) != 1 || i.Size != len(b) || len(i.Extensions) != 4 || i.Debug == nil || i.Debug.Type != 4 || len(i.Debug.UID) != 32 {
		t.Fatalf("%+v, %v", i, err)
	}
	if c := i.Components[0]; c.TypeName() != "boot loader" || c.Core != 16 || c.Load != 0x43c00000 || c.Size != 3000 || !c.Verified || c.Algo != "sha512" || c.Offset != i.CertSize {
		t.Errorf("%+v", c)
	}
	i, err = ParseTIImage(damage(b, len(b)-1))
	wants(t, "damaged", err, "boot loader at", "is damaged: its SHA512")
	if i == nil || i.Components[0].Verified || !i.Components[0].Known {
		t.Errorf("damaged: %+v", i)
	}
	i, err = ParseTIImage(b[:len(b)-1])
	wants(t, "cut", err, "boot loader has 3000 bytes", "truncated")
	if i == nil || i.Components[0].Size != 2999 {
		t.Errorf("cut: %+v", i)
	}

	combined := firmwaretest.SomeTiboot3()
	i, err = ParseTIImage(combined)
	if err != nil || !i.Combined || len(i.Components) != 4 || i.Revision != 2 || i.Size != len(combined) {
		t.Fatalf("%+v, %v", i, err)
	}
	var got []string
	for _, c := range i.Components {
		got = append(got, fmt.Sprintf("%s %d %#x %d %v", c.TypeName(), c.Core, c.Load, c.Size, c.Verified))
	}
	if s := strings.Join(got, "|"); s != "boot loader 16 0x43c00000 3000 true|system firmware 0 0x40000 2000 true|data of the system firmware 0 0x67000 300 true|"+
		"data of the boot loader 16 0x43c7a800 200 true" {
		t.Error(s)
	}
	_, err = ParseTIImage(damage(combined, i.Components[1].Offset+5))
	wants(t, "system firmware", err, "system firmware at")

	signed := firmwaretest.TISigned(pattern(100))
	i, err = ParseTIImage(signed)
	if err != nil || i.Combined || len(i.Components) != 1 || i.Components[0].TypeName() != "image" || !i.Components[0].Verified || !i.Components[0].HasLoad {
		t.Errorf("%+v, %v", i, err)
	}

	encrypted := append(firmwaretest.TICertificate(firmwaretest.TIExtension(4, []byte{4, 1, 0}), firmwaretest.TIExtension(34, []byte("\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x04\x01\x00\x02\x01\x04"))), 1, 2, 3, 4)
	if i, err = ParseTIImage(encrypted); err != nil || !i.Encrypted || i.Components[0].Known || i.Components[0].Verified {
		t.Errorf("%+v, %v", i, err)
	}
	for name, tt := range map[string]struct {
		b    []byte
		want string
	}{
		"not DER":        {pattern(100), "X.509 certificate"},
		"cut":            {b[:500], "truncated"},
		"no extension":   {firmwaretest.TICertificate(), "none of TI's extensions"},
		"no certificate": {[]byte("\x30\x03\x02\x01\x00"), "no certificate"},
		"boot sequence":  {firmwaretest.TICertificate(firmwaretest.TIExtension(1, []byte{2, 1, 1})), `"boot sequence": it ends too early`},
		"components":     {firmwaretest.TICertificate(firmwaretest.TIExtension(9, []byte{2, 1, 9, 2, 1, 9})), "announces 9 components and has 0"},
		"size":           {firmwaretest.TICertificate(firmwaretest.TIExtension(34, []byte{6, 1, 1, 4, 0, 2, 4, 0x7f, 0, 0, 0})), "announces 2130706432 bytes"},
		"many":           {firmwaretest.TICertificate(slices.Repeat([][]byte{firmwaretest.TIExtension(3, []byte{2, 1, 1})}, 40)...), "more than 32"},
		"address":        {firmwaretest.TICertificate(firmwaretest.TIExtension(35, append([]byte{4, 9}, make([]byte, 9)...))), "an address of 9 bytes"},
	} {
		_, err := ParseTIImage(tt.b)
		wants(t, name, err, tt.want)
	}
}
