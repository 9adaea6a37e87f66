package firmware

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"snag/firmware/firmwaretest"
)

func FuzzSTM32(f *testing.F) {
	f.Add(firmwaretest.STM32{Version: [2]byte{1, 0}, Payload: pattern(20)}.Bytes())
	f.Add(firmwaretest.STM32{Version: [2]byte{2, 2}, Type: 0x10, Payload: pattern(20)}.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSTM32(b)
		if err == nil && s.HeaderSize+len(s.Payload)+s.Trailing != len(b) {
			t.Errorf("%d, %d, %d bytes of %d", s.HeaderSize, len(s.Payload), s.Trailing, len(b))
		}
		if s != nil {
			for _, e := range s.Extensions {
				if e.Offset+e.Size > s.HeaderSize || e.Name() == "" {
					t.Errorf("%+v", e)
				}
			}
			if s.TypeName() == "" || len(s.Extensions) > stm32MaxExt/8 {
				t.Errorf("%+v", s)
			}
		}
	})
}

func FuzzFIP(f *testing.F) {
	f.Add(firmwaretest.FIP(firmwaretest.FIPImage{UUID: firmwaretest.UUIDBL33, Data: pattern(20)}, firmwaretest.FIPImage{UUID: firmwaretest.UUIDDDR}))
	f.Add(firmwaretest.FIP())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseFIP(b)
		if p == nil {
			return
		}
		if p.Size > len(b) || p.Table > p.Size || len(p.Entries) > fipMaxEntries {
			t.Errorf("%+v of %d bytes", p, len(b))
		}
		for _, e := range p.Entries {
			if !bytes.Equal(e.Data, b[e.Offset:][:len(e.Data)]) || err == nil && uint64(len(e.Data)) != e.Size {
				t.Errorf("%+v", e)
			}
		}
	})
}

func FuzzSPKG(f *testing.F) {
	f.Add(firmwaretest.SPKG{Load: 0x20040000, Program: pattern(20)}.Bytes())
	f.Add(firmwaretest.SPKG{BLp: true, Program: pattern(20)}.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		look := func(b []byte) {
			if s, err := ParseSPKG(b); s != nil && (err == nil && s.HeaderSize+len(s.Payload)+4+s.Trailing != len(b) || len(s.Program()) > len(b)) {
				t.Errorf("%+v of %d bytes", s, len(b))
			}
		}
		look(b)
		if len(b) > 24 { // behind the checksum of the header
			b = bytes.Clone(b)
			binary.LittleEndian.PutUint32(b[20:], crc32.ChecksumIEEE(b[:20]))
			look(b)
		}
	})
}

func FuzzTIImage(f *testing.F) {
	f.Add(firmwaretest.TIBoot(0x43c00000, pattern(20)))
	f.Add(firmwaretest.TICombined(firmwaretest.TIComponent{Type: 1, Core: 16, Data: pattern(20)}, firmwaretest.TIComponent{Type: 2, Data: pattern(9)}))
	f.Add(firmwaretest.TISigned(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := ParseTIImage(b)
		if i == nil {
			return
		}
		if i.Size > len(b) || i.CertSize > min(i.Size, tiMaxCert) || len(i.Components) > tiMaxComponents || len(i.Extensions) > tiMaxExtensions {
			t.Errorf("%+v of %d bytes", i, len(b))
		}
		at := i.CertSize
		for _, c := range i.Components {
			if c.Offset != at || c.Size < 0 || c.TypeName() == "" || err == nil && c.Known && !c.Verified {
				t.Errorf("%+v, %v", c, err)
			}
			at += c.Size
		}
	})
}

func FuzzZynqMP(f *testing.F) {
	f.Add(firmwaretest.SomeBoot())
	f.Add(firmwaretest.SomeBootMerged())
	f.Add(firmwaretest.SomeBoot()[:0x2900])
	f.Fuzz(func(t *testing.T, b []byte) {
		z, err := ParseZynqMP(b)
		if z == nil {
			return
		}
		if err != nil { // behind the checksums
			z.FirstStage(b)
			b = bytes.Clone(b)
			binary.LittleEndian.PutUint32(b[0x48:], z.Sum)
			if z.Table != nil {
				binary.LittleEndian.PutUint32(b[z.Table.Offset+0x3c:], z.Table.Sum)
			}
			for _, p := range z.Partitions {
				binary.LittleEndian.PutUint32(b[p.Offset+0x3c:], p.Sum)
			}
			if z, err = ParseZynqMP(b); z == nil {
				t.Fatal(err)
			}
		}
		if z.HeadersEnd > len(b) || len(z.Images) > zynqMaxParts || len(z.Partitions) > zynqMaxParts {
			t.Errorf("%+v of %d bytes", z, len(b))
		}
		first, ferr := z.FirstStage(b)
		if err != nil || ferr != nil {
			return
		}
		if len(first) > len(b) {
			t.Errorf("a first stage of %d bytes out of %d", len(first), len(b))
		}
		if again, err := ParseZynqMP(first); err != nil || again.FSBL != z.FSBL || again.Complete() {
			t.Errorf("the first stage: %+v, %v", again, err)
		}
	})
}

func FuzzELF(f *testing.F) {
	f.Add(firmwaretest.ELF64(0xfffc0000, pattern(20)))
	f.Add(firmwaretest.ELF32(0x80001000, pattern(20)))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, _ := ParseELF(b)
		if e == nil {
			return
		}
		for _, s := range e.Segments {
			if !bytes.Equal(s.Data, b[s.Offset:][:len(s.Data)]) {
				t.Errorf("%+v", s)
			}
		}
		if len(e.Segments) > elfMaxHeaders || e.MachineName() == "" || e.TypeName() == "" {
			t.Errorf("%+v", e)
		}
	})
}
