package fastboot_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"snag/flash"
	"snag/flash/bmap"
	"snag/flash/fastboot"
	"snag/flash/image"
	sim "snag/sim/fastboot"
	"snag/sim/uboot"
	client "snag/usb/fastboot"
)

// TestVerify compares what is there, without writing: what the target has just written, and the same with one byte
// changed.
func TestVerify(t *testing.T) {
	mmc := func(m *uboot.Machine) medium { return m.MMC[1].Areas[0] }
	for _, tc := range []struct {
		name    string
		missing []string
		make    func(c *client.Client) flash.Target
		size    int
		flip    func(m *uboot.Machine, off int64) // changes a byte of what was written
		sends   bool                              // the image, once more
	}{
		{name: "mmc", make: func(c *client.Client) flash.Target {
			return fastboot.MMC{Client: c, Device: 1, Offset: 1 << 30, Buffer: address}
		}, size: 5<<20 + 5, flip: func(m *uboot.Machine, off int64) { flip(t, mmc(m), 1<<30+off) }},
		{name: "mmc without crc32", missing: []string{"crc32"}, make: func(c *client.Client) flash.Target {
			return fastboot.MMC{Client: c, Device: 1, Offset: 1 << 30, Buffer: address}
		}, size: 5<<20 + 5, flip: func(m *uboot.Machine, off int64) { flip(t, mmc(m), 1<<30+off) }, sends: true},
		{name: "mmc partition", make: func(c *client.Client) flash.Target {
			return fastboot.MMC{Client: c, Device: 1, Partition: "rootfs", Buffer: address}
		}, size: 3 << 20, flip: func(m *uboot.Machine, off int64) {
			_, at, _ := partition(t, m, "rootfs").Outer()
			flip(t, mmc(m), at+off)
		}},
		{name: "boot partition", make: func(c *client.Client) flash.Target {
			return fastboot.MMC{Client: c, Device: 1, HWPart: 1, Buffer: address}
		}, size: 300_001, flip: func(m *uboot.Machine, off int64) { flip(t, m.MMC[1].Areas[1], off) }},
		{name: "NAND", make: func(c *client.Client) flash.Target {
			return fastboot.MTD{Client: c, Name: "rootfs", Block: block, Buffer: address}
		}, size: 900_001, flip: func(m *uboot.Machine, off int64) { m.MTD[0].Flip(goodNAND(m, off)) }},
		{name: "NAND without crc32", missing: []string{"crc32"}, make: func(c *client.Client) flash.Target {
			return fastboot.MTD{Client: c, Name: "rootfs", Block: block, Buffer: address}
		}, size: 500_001, flip: func(m *uboot.Machine, off int64) { m.MTD[0].Flip(goodNAND(m, off)) }, sends: true},
		{name: "NOR", make: func(c *client.Client) flash.Target {
			return fastboot.MTD{Client: c, Name: "nor0", NOR: true, Block: 4096, Buffer: address}
		}, size: 3<<20 + 77, flip: func(m *uboot.Machine, off int64) { m.MTD[1].Flip(off) }},
		{name: "SPI flash", make: func(c *client.Client) flash.Target { return fastboot.MTD{Client: c, SF: true, Buffer: address} },
			size: 3<<20 + 77, flip: func(m *uboot.Machine, off int64) { m.MTD[1].Flip(off) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := machine(t)
				m.Missing = tc.missing
				m.MTD[0].Bad[9], m.MTD[0].Bad[10], m.MTD[0].Bad[30] = true, true, true
				c, b := connect(t, sim.Config{UBoot: m, Buffer: 1 << 20, Address: address})
				data := content(tc.size, 5)
				to := tc.make(c)
				if err := to.Write(t.Context(), file(t, data), flash.Options{}); err != nil {
					t.Fatal(err)
				}
				downloads := func() (n int) {
					for _, d := range b.Report().Stages[0].Downloads {
						n += d.Bytes
					}
					return n
				}
				sent := downloads()
				var s steps
				if err := to.(flash.Verifier).Verify(t.Context(), file(t, data), flash.Options{Progress: s.add}); err != nil {
					t.Fatal(err)
				}
				if s.n[flash.Verifying] < int64(tc.size) || s.n[flash.Writing] != 0 {
					t.Errorf("progress %v", s.n)
				}
				if again := downloads() - sent; again > 100 != tc.sends {
					t.Errorf("%d bytes were sent to compare %d", again, tc.size)
				}
				for _, off := range []int64{0, int64(tc.size) / 2, int64(tc.size) - 1} {
					tc.flip(m, off)
					err := to.(flash.Verifier).Verify(t.Context(), file(t, data), flash.Options{})
					var from, end int64
					if text := fmt.Sprint(err); !errors.Is(err, fastboot.ErrOther) {
						t.Errorf("byte %d differs: %v", off, err)
					} else if _, err := fmt.Sscanf(text[strings.Index(text, "bytes "):], "bytes %d-%d:", &from, &end); err != nil || off < from || off > end || end-from >= 1<<20 {
						t.Errorf("byte %d differs: %v", off, text)
					}
					tc.flip(m, off)
				}
				if _, area := m.Card(); area != 0 {
					t.Errorf("mmc is left at hardware partition %d", area)
				}
				clean(t, b)
			})
		})
	}
}

type medium interface {
	ReadAt([]byte, int64) (int, error)
	WriteAt([]byte, int64) (int, error)
}

func flip(t *testing.T, m medium, off int64) {
	t.Helper()
	b := make([]byte, 1)
	if _, err := m.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := m.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// goodNAND is where the byte of an image is that begins with partition rootfs.
func goodNAND(m *uboot.Machine, off int64) int64 {
	at := int64(4)
	for n := off / block; ; at++ {
		if m.MTD[0].Bad[at] {
			continue
		}
		if n--; n < 0 {
			return at*block + off%block
		}
	}
}

// TestVerifyNAND says that bad blocks hide where what does not fit into U-Boot's buffer goes on.
func TestVerifyNAND(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, b := connect(t, sim.Config{UBoot: machine(t), Buffer: 1 << 20, Address: address})
		err := fastboot.MTD{Client: c, Name: "rootfs", Block: block, Buffer: address}.Verify(t.Context(), file(t, content(2<<20, 1)), flash.Options{})
		if err == nil || !strings.Contains(err.Error(), "has 2097152 bytes, and U-Boot's buffer room for 917504") {
			t.Error(err)
		}
		clean(t, b)
	})
}

// TestVerifyGaps does not look at what a block map leaves out, and at nothing behind the image's end.
func TestVerifyGaps(t *testing.T) {
	for _, missing := range [][]string{nil, {"crc32"}} {
		synctest.Test(t, func(t *testing.T) {
			m := machine(t)
			m.Missing = missing
			c, b := connect(t, sim.Config{UBoot: m, Buffer: 1 << 20, Address: address})
			data := content(6<<20+100, 7)
			mp := &bmap.Map{Version: "2.0", BlockSize: 4096, ImageSize: int64(len(data)), Ranges: []bmap.Range{{First: 3, Last: 9}, {First: 600, Last: int64(len(data) / 4096)}}}
			there := bytes.Repeat([]byte{0xee}, 7<<20)
			for _, r := range mp.Ranges {
				copy(there[r.First*4096:], data[r.First*4096:min((r.Last+1)*4096, int64(len(data)))])
			}
			if _, err := m.MMC[1].Areas[0].WriteAt(there, 0); err != nil {
				t.Fatal(err)
			}
			im := raw(t, data, image.Options{})
			im.Map = mp
			if err := (fastboot.MMC{Client: c, Device: 1, Buffer: address}).Verify(t.Context(), im, flash.Options{}); err != nil {
				t.Errorf("%v: %v", missing, err)
			}
			clean(t, b)
		})
	}
}
