package firmware

import (
	"bytes"
	"crypto/sha1"
	"testing"

	"snag/firmware/firmwaretest"
)

func FuzzUImage(f *testing.F) {
	img := makeUImage("U-Boot", 0x80800000, pattern(64))
	f.Add(img)
	f.Add(img[:70])
	f.Add(img[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := ParseUImage(b)
		if err == nil && 64+len(u.Data)+u.Trailing != len(b) {
			t.Errorf("%d bytes of data and %d after, of %d", len(u.Data), u.Trailing, len(b))
		}
	})
}

func FuzzFIT(f *testing.F) {
	f.Add(makeFIT("arm", false))
	f.Add(makeFIT("arm64", true))
	f.Add(new(tree).begin("").end().bytes())
	f.Add(deepTree(40))
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := ParseFDT(b)
		if err != nil {
			return
		}
		if tree.Root == nil || tree.Size > len(b) {
			t.Errorf("size %d of %d, root %v", tree.Size, len(b), tree.Root)
		}
		if fit, err := ParseFIT(b); err == nil {
			fit.Unverified()
			if len(fit.Images) == 0 {
				t.Error("a FIT without images was taken")
			}
		}
	})
}

func FuzzMLO(f *testing.F) {
	mlo := makeMLO(0x402f0400, makeSPL(0x402f0400, "U-Boot SPL 2025.01", 512))
	f.Add(mlo)
	f.Add(mlo[512:])
	f.Add(mlo[:516])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMLO(b)
		if err == nil && !bytes.Contains(b, m.Data) {
			t.Error("the program is no part of the file")
		}
		ParseARM(b)
	})
}

func FuzzIdentify(f *testing.F) {
	f.Add([]byte("text"))
	f.Add(makeUImage("x", 0, nil))
	f.Add(makeMLO(0x402f0400, nil))
	f.Add(append(make([]byte, 510), 0x55, 0xaa))
	f.Fuzz(func(t *testing.T, b []byte) {
		if Identify(b).Text == "" {
			t.Error("no words for it")
		}
	})
}

// FuzzIVT drives all that a table leads to.
func FuzzIVT(f *testing.F) {
	small := firmwaretest.IVT{Version: 0x40, Self: 0x177ff400, Before: 0x400, Entry: 0x100, DCD: firmwaretest.SomeDCD, Program: pattern(40), CSF: firmwaretest.CSF(0x177ff400, 0x2000)}.Bytes()
	f.Add(small, 0)
	f.Add(append(make([]byte, 64), small...), 3)
	f.Add(firmwaretest.IVT{Version: 0x41, Self: 0x7e0400, Before: 0x400, Entry: 0x40, Plugin: 2, Program: pattern(30)}.Bytes(), 0)
	f.Add(firmwaretest.IVT{Version: 0x40, Self: 0x907400, Before: 0x400, Entry: 0x2c, Plugin: 1, Program: small}.Bytes(), 0)
	f.Fuzz(func(t *testing.T, b []byte, from int) {
		v, err := FindIVT(b, from)
		if err != nil {
			return
		}
		if v.Offset < from || len(v.Skipped) > maxSkipped {
			t.Errorf("at %#x, %d skipped", v.Offset, len(v.Skipped))
		}
		if img, addr, err := v.Image(b); err == nil && (addr != v.Self || len(img) < IVTSize || !bytes.Equal(img, b[v.Offset:v.Offset+len(img)])) {
			t.Errorf("%d bytes for %#x", len(img), addr)
		}
		if dcd, err := v.DCDBytes(b); err == nil {
			ParseDCD(dcd)
		}
		if csf, err := v.CSFBytes(b); err == nil {
			ParseCSF(csf)
		}
		v.Image(b[:len(b)/2])
	})
}

func FuzzDCD(f *testing.F) {
	f.Add(firmwaretest.SomeDCD)
	f.Add(firmwaretest.DCD())
	f.Add(firmwaretest.FlashHeader(0, nil, [3]uint32{4, 1, 2})[28:60])
	f.Fuzz(func(t *testing.T, b []byte) {
		if cmds, err := ParseDCD(b); len(cmds) > MaxDCDSize/4 {
			t.Errorf("%d commands, %v", len(cmds), err)
		}
		if cmds, err := ParseDCDv1(b); len(cmds) > MaxDCDv1 {
			t.Errorf("%d commands, %v", len(cmds), err)
		}
	})
}

func FuzzCSF(f *testing.F) {
	f.Add(firmwaretest.CSF(0x177ff400, 0x2000))
	f.Add(firmwaretest.CSF())
	f.Fuzz(func(t *testing.T, b []byte) {
		if cmds, err := ParseCSF(b); len(cmds) > maxCSFCommands {
			t.Errorf("%d commands, %v", len(cmds), err)
		}
	})
}

func FuzzFlashHeader(f *testing.F) {
	f.Add(firmwaretest.FlashHeader(0x977ff000, pattern(100), [3]uint32{4, 0x73fa88a0, 0x200}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := FindFlashHeader(b, 0); err == nil {
			h.Image(b)
		}
	})
}

func FuzzContainers(f *testing.F) {
	f.Add(firmwaretest.SomeSet())
	f.Add(firmwaretest.ContainerSet(firmwaretest.Container{Version: 2, Tag: 0x87, Images: []firmwaretest.Image{{At: 0x400, Data: pattern(9), Flags: 3}}}))
	f.Add(append(make([]byte, 0x1000), firmwaretest.ContainerSet(firmwaretest.Container{Tag: 0x87})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, _ := FindContainers(b)
		if s != nil && (s.Offset+s.Size > len(b) || s.Offset+s.Next > len(b) || s.Size < 0 || s.Next < s.Size || len(s.Containers) == 0) {
			t.Errorf("%+v of %d bytes", s, len(b))
		}
		FindBurnTag(b)
		FlexSPIHeader(b, len(b)/2)
	})
}

func FuzzBootStream(f *testing.F) {
	small := []firmwaretest.StreamCommand{{Tag: 2, Address: 0x1000, Count: 20, Data: pattern(20)}, {Tag: 5, Flags: 1, Address: 0x8000}}
	f.Add(firmwaretest.BootStream(nil, small...))
	f.Add(firmwaretest.BootStream(pattern(16), small...))
	f.Add(firmwaretest.BootStream(nil)[:96])
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseBootStream(b)
		if err == nil && s.Size > len(b) {
			t.Errorf("%d bytes of %d", s.Size, len(b))
		}
		if len(b) >= sbHeaderSize { // behind the checksum of the header
			sum := sha1.Sum(b[20:sbHeaderSize])
			ParseBootStream(append(sum[:], b[20:]...))
		}
	})
}
