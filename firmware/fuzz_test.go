package firmware

import (
	"bytes"
	"testing"
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
