package fastboot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/flash"
	"snag/flash/bmap"
	"snag/flash/fastboot"
	"snag/flash/image"
	"snag/flash/sparse"
	sim "snag/sim/fastboot"
	"snag/sim/uboot"
	client "snag/usb/fastboot"
)

const (
	block   = 128 << 10 // of the NAND
	address = 0x42000000
)

// machine is a U-Boot with an eMMC of 8 GiB, a NAND of 128 blocks and a NOR of 4 MiB, all full of something else.
func machine(t testing.TB) *uboot.Machine {
	m := &uboot.Machine{
		RAM: 0x40000000, RAMSize: 512 << 20,
		MMC: []*uboot.MMC{1: uboot.NewMMC(8<<30, 4<<20)},
		MTD: []*uboot.MTD{
			uboot.NewMTD("spi-nand0", true, 128*block, block, 2048, uboot.MTDPart{Name: "boot", Off: 0, Size: 4 * block}, uboot.MTDPart{Name: "rootfs", Off: 4 * block, Size: 124 * block}),
			uboot.NewMTD("nor0", false, 4<<20, 4096, 1),
		},
	}
	m.MMC[1].Areas[4] = uboot.NewStore(8<<20, 0)
	table, err := uboot.LayGPT("name=boot,size=8MiB;name=rootfs,size=6GiB;name=odd,size=5KiB", 8<<30)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.WriteTo(m.MMC[1]); err != nil {
		t.Fatal(err)
	}
	return m
}

// partition is a part of the eMMC.
func partition(t testing.TB, m *uboot.Machine, name string) *io.SectionReader {
	t.Helper()
	table, err := uboot.ReadGPT(m.MMC[1].Areas[0])
	if err != nil {
		t.Fatal(err)
	}
	p, _, ok := table.Find(name)
	if !ok {
		t.Fatal(name)
	}
	return io.NewSectionReader(m.MMC[1].Areas[0], p.First*512, (p.End-p.First)*512)
}

// content is an image's bytes: data, zeros, ones, a pattern, and an odd end.
func content(size int, seed uint64) []byte {
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 1))
	random := rand.NewChaCha8([32]byte{byte(seed)})
	for off := 0; off < size; {
		n := min(size-off, 1+r.IntN(3<<20))
		part := b[off : off+n]
		switch r.IntN(4) {
		case 0:
		case 1:
			for i := range part {
				part[i] = byte("snag"[(off+i)%4])
			}
		default:
			random.Read(part)
		}
		off += n
	}
	if size > 0 {
		b[size-1] = 0x55
	}
	return b
}

// raw is an image of bytes in memory.
func raw(t testing.TB, b []byte, o image.Options) *image.Image {
	t.Helper()
	im, err := image.New(t.Context(), "image", bytes.NewReader(b), o)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// file is one of a file.
func file(t testing.TB, b []byte) *image.Image {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	im, err := image.Open(t.Context(), name, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// sized is one whose size is known, as a file's is.
func sized(t testing.TB, b []byte) *image.Image {
	im := raw(t, simg(t, b, 512), image.Options{})
	return im
}

// simg makes a sparse image.
func simg(t testing.TB, b []byte, block int64) []byte {
	t.Helper()
	var out memory
	err := image.WriteSparse(t.Context(), raw(t, b, image.Options{}), image.SparseOptions{Config: sparse.Config{BlockSize: block, Open: func(int) (io.WriterAt, error) { return &out, nil }}})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type memory []byte

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(*m) {
		*m = append(*m, make([]byte, end-len(*m))...)
	}
	return copy((*m)[off:], p), nil
}

// begins fails the test unless a medium begins with some bytes.
func begins(t testing.TB, what string, r io.ReaderAt, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := r.ReadAt(got, 0); err != nil {
		t.Fatal(what, err)
	}
	if !bytes.Equal(got, want) {
		at := 0
		for got[at] == want[at] {
			at++
		}
		t.Errorf("%s: another byte at %#x: %#x, want %#x", what, at, got[at], want[at])
	}
}

func clean(t testing.TB, b *sim.Board) sim.Report {
	t.Helper()
	r := b.Report()
	for _, v := range r.Violations {
		t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
	}
	return r
}

// steps sums up what a target says of its progress.
type steps struct {
	mu sync.Mutex
	n  map[flash.Step]int64
}

func (s *steps) add(step flash.Step, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[flash.Step]int64{}
	}
	s.n[step] += n
}

// What is written is what is on the medium, whatever the target, the size and the device's buffer.
func TestTargets(t *testing.T) {
	type target struct {
		name string
		make func(c *client.Client) flash.Target
		read func(t *testing.T, m *uboot.Machine, size int) io.ReaderAt
		most int // bytes
	}
	targets := []target{
		{"partition", func(c *client.Client) flash.Target { return fastboot.Partition{Client: c, Name: "rootfs"} },
			func(t *testing.T, m *uboot.Machine, _ int) io.ReaderAt { return partition(t, m, "rootfs") }, 1 << 30},
		{"small partition", func(c *client.Client) flash.Target {
			return fastboot.Partition{Client: c, Name: "odd", Sparse: true}
		}, func(t *testing.T, m *uboot.Machine, _ int) io.ReaderAt { return partition(t, m, "odd") }, 5 << 10},
		{"user area", func(c *client.Client) flash.Target {
			return fastboot.MMC{Client: c, Device: 1, Offset: 1 << 30, Buffer: address}
		}, func(t *testing.T, m *uboot.Machine, _ int) io.ReaderAt {
			return io.NewSectionReader(m.MMC[1].Areas[0], 1<<30, 1<<30)
		}, 1 << 30},
		{"mmc partition", func(c *client.Client) flash.Target {
			return fastboot.MMC{Client: c, Device: 1, Partition: "boot"}
		}, func(t *testing.T, m *uboot.Machine, _ int) io.ReaderAt { return partition(t, m, "boot") }, 8 << 20},
		{"boot partition", func(c *client.Client) flash.Target {
			return fastboot.MMC{Client: c, Device: 1, HWPart: 2, Buffer: address}
		}, func(t *testing.T, m *uboot.Machine, _ int) io.ReaderAt { return m.MMC[1].Areas[2] }, 4 << 20},
		{"general purpose partition", func(c *client.Client) flash.Target {
			return fastboot.MMC{Client: c, Device: 1, HWPart: 4, Buffer: address}
		}, func(t *testing.T, m *uboot.Machine, _ int) io.ReaderAt { return m.MMC[1].Areas[4] }, 8 << 20},
		{"NAND", func(c *client.Client) flash.Target {
			return fastboot.MTD{Client: c, Name: "rootfs", Block: block, Buffer: address}
		}, func(t *testing.T, m *uboot.Machine, size int) io.ReaderAt {
			b, err := m.MTD[0].ReadGood(4*block, int64(size))
			if err != nil {
				t.Fatal(err)
			}
			return bytes.NewReader(b)
		}, 110 * block},
		{"NOR", func(c *client.Client) flash.Target {
			return fastboot.MTD{Client: c, Name: "nor0", NOR: true, Buffer: address}
		}, func(t *testing.T, m *uboot.Machine, _ int) io.ReaderAt { return m.MTD[1] }, 4 << 20},
		{"SPI flash", func(c *client.Client) flash.Target { return fastboot.MTD{Client: c, SF: true, Buffer: address} },
			func(t *testing.T, m *uboot.Machine, _ int) io.ReaderAt { return m.MTD[1] }, 4 << 20},
	}
	for _, tg := range targets {
		for _, size := range []int{1, 5 << 10, 300_001, 5<<20 + 4} {
			for _, form := range []string{"stream", "sparse", "file"} {
				for _, verify := range []bool{false, true} {
					if size > tg.most || verify != (form == "file") {
						continue
					}
					name := fmt.Sprintf("%s/%d %s", tg.name, size, form)
					if verify {
						name += " verify"
					}
					t.Run(name, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							m := machine(t)
							m.Env = map[string]string{"fastboot_buffer": fmt.Sprintf("%#x", address)}
							m.MTD[0].Bad[9], m.MTD[0].Bad[10], m.MTD[0].Bad[30] = true, true, true
							// Flash has something in it.
							m.MTD[0].Fill(0x5a, 40*block)
							m.MTD[1].Fill(0x5a, 4<<20)
							buffer := 1 << 20
							c, b := connect(t, sim.Config{UBoot: m, FlashMMC: 1, Buffer: buffer, Address: address, HasConsole: true})
							want := content(size, uint64(size))
							im := raw(t, want, image.Options{})
							switch form {
							case "sparse":
								im = sized(t, want)
								for len(want)%512 != 0 {
									want = append(want, 0)
								}
							case "file":
								im = file(t, want)
							}
							var s steps
							to := tg.make(c)
							if m, ok := to.(fastboot.MTD); ok && m.NOR && !m.SF {
								m.Block = 4096
								to = m
							}
							err := to.Write(t.Context(), im, flash.Options{Verify: verify, Progress: s.add})
							if _, plain := to.(fastboot.Partition); plain && verify {
								if !errors.Is(err, fastboot.ErrNoVerify) || len(b.Report().Stages[0].Downloads) > 0 {
									t.Errorf("%v", err)
								}
								verify, im = false, file(t, want)
								err = to.Write(t.Context(), im, flash.Options{Progress: s.add})
							}
							if err != nil {
								t.Fatal(err)
							}
							begins(t, tg.name, tg.read(t, m, len(want)), want)
							r := clean(t, b)
							for _, d := range r.Stages[0].Downloads {
								if d.Bytes > buffer {
									t.Errorf("a download of %d bytes", d.Bytes)
								}
							}
							if n := s.n[flash.Writing]; n < int64(len(want)) || n > int64(len(want))+sfLeast || verify && s.n[flash.Verifying] != n {
								t.Errorf("progress %v of %d", s.n, len(want))
							}
							if _, area := m.Card(); area != 0 {
								t.Errorf("mmc is left at hardware partition %d", area)
							}
						})
					})
				}
			}
		}
	}
}

// sfLeast is the most that is written beyond the end.
const sfLeast = block

// A block map's gaps are not touched, and a sparse image's neither.
func TestGaps(t *testing.T) {
	for _, verify := range []bool{false, true} {
		for _, to := range []string{"partition", "mmc"} {
			if verify && to == "partition" {
				continue
			}
			t.Run(fmt.Sprint(to, verify), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := machine(t)
					c, b := connect(t, sim.Config{UBoot: m, FlashMMC: 1, Buffer: 1 << 20})
					old := bytes.Repeat([]byte{0xee}, 6<<20)
					rootfs := partition(t, m, "rootfs")
					_, off, _ := rootfs.Outer()
					if _, err := m.MMC[1].Areas[0].WriteAt(old, off); err != nil {
						t.Fatal(err)
					}
					data := content(len(old), 7)
					mp := &bmap.Map{Version: "2.0", BlockSize: 4096, ImageSize: int64(len(data)), Ranges: []bmap.Range{{First: 3, Last: 9}, {First: 600, Last: 1000}}}
					im := raw(t, data, image.Options{})
					im.Map = mp
					var target flash.Target = fastboot.Partition{Client: c, Name: "rootfs"}
					if to == "mmc" {
						target = fastboot.MMC{Client: c, Device: 1, Partition: "rootfs", Buffer: 0x40000000}
					}
					if err := target.Write(t.Context(), im, flash.Options{Verify: verify}); err != nil {
						t.Fatal(err)
					}
					for _, r := range mp.Ranges {
						copy(old[r.First*4096:(r.Last+1)*4096], data[r.First*4096:])
					}
					begins(t, to, rootfs, old)
					clean(t, b)
				})
			})
		}
	}
}

// What cannot go well is refused before anything is written, and what goes wrong is told with where.
func TestTargetFailures(t *testing.T) {
	big := content(9<<20, 1)
	for _, tc := range []struct {
		name   string
		cfg    sim.Config
		m      func(m *uboot.Machine)
		make   func(c *client.Client) flash.Target
		image  []byte
		pipe   bool
		verify bool
		says   []string
		wrote  bool // something was
	}{
		{name: "no such partition", make: func(c *client.Client) flash.Target { return fastboot.Partition{Client: c, Name: "x"} }, says: []string{"flash:x", "invalid partition"}},
		{name: "larger than the partition", make: func(c *client.Client) flash.Target { return fastboot.Partition{Client: c, Name: "boot"} }, says: []string{"9437184 bytes, the partition 8388608"}},
		{name: "a boot partition larger than the buffer", make: func(c *client.Client) flash.Target { return fastboot.Partition{Client: c, Name: "mmc1boot0"} }, says: []string{"only in one", "use mmc"}},
		{name: "plain and verify", make: func(c *client.Client) flash.Target { return fastboot.Partition{Client: c, Name: "rootfs"} }, verify: true, says: []string{"cannot be read back"}},
		{name: "no address", make: func(c *client.Client) flash.Target { return fastboot.MMC{Client: c, Device: 1} }, says: []string{"CONFIG_FASTBOOT_BUF_ADDR"}},
		{name: "another address", make: func(c *client.Client) flash.Target { return fastboot.MMC{Client: c, Device: 1, Buffer: 0x41000000} }, says: []string{"not the address"}},
		{name: "no shell", cfg: sim.Config{NoUUU: true}, make: func(c *client.Client) flash.Target { return fastboot.MMC{Client: c, Device: 1, Buffer: address} }, says: []string{"CONFIG_FASTBOOT_UUU_SUPPORT"}},
		{name: "no memory commands", m: func(m *uboot.Machine) { m.Missing = []string{"mw", "cmp"} }, make: func(c *client.Client) flash.Target { return fastboot.MMC{Client: c, Device: 1, Buffer: address} }, says: []string{"CONFIG_CMD_MEMORY"}},
		{name: "no such device", make: func(c *client.Client) flash.Target { return fastboot.MMC{Client: c, Device: 0, Buffer: address} }, says: []string{"no such device"}},
		{name: "device too small", make: func(c *client.Client) flash.Target {
			return fastboot.MMC{Client: c, Device: 1, HWPart: 1, Buffer: address}
		}, says: []string{"too small"}},
		{name: "GPT partition too small", make: func(c *client.Client) flash.Target {
			return fastboot.MMC{Client: c, Device: 1, Partition: "boot", Buffer: address}
		}, says: []string{"room for 8388608"}},
		{name: "GPT partition too small for a pipe", pipe: true, wrote: true, make: func(c *client.Client) flash.Target {
			return fastboot.MMC{Client: c, Device: 1, Partition: "boot", Buffer: address}
		}, says: []string{"room for 8388608"}},
		{name: "no GPT partition", make: func(c *client.Client) flash.Target {
			return fastboot.MMC{Client: c, Device: 1, Partition: "none", Buffer: address}
		}, says: []string{"no such partition"}},
		{name: "a name for the shell", make: func(c *client.Client) flash.Target {
			return fastboot.MMC{Client: c, Device: 1, Partition: "a;reset", Buffer: address}
		}, says: []string{"shell"}},
		{name: "a broken block", wrote: true, m: func(m *uboot.Machine) { m.MMC[1].Broken = map[int64]bool{5000: true} }, make: func(c *client.Client) flash.Target {
			return fastboot.MMC{Client: c, Device: 1, Buffer: address}
		}, says: []string{"bytes 2097152-", "mmc write"}},
		{name: "a FAIL text", wrote: true, cfg: sim.Config{Refuse: map[string]string{"flash:rootfs": "flash write failure"}}, make: func(c *client.Client) flash.Target { return fastboot.Partition{Client: c, Name: "rootfs"} }, says: []string{"bytes 0-", "flash write failure"}},
		{name: "unplugged", wrote: true, cfg: sim.Config{Faults: []sim.Fault{{Kind: sim.Unplug, Stage: sim.StageGadget, At: 700_000}}}, make: func(c *client.Client) flash.Target { return fastboot.Partition{Client: c, Name: "rootfs"} }, says: []string{"bytes 0-"}},
		{name: "no erase block's size", make: func(c *client.Client) flash.Target { return fastboot.MTD{Client: c, Name: "rootfs", Buffer: address} }, says: []string{"size of erase blocks", "oem console"}},
		{name: "no such flash", make: func(c *client.Client) flash.Target {
			return fastboot.MTD{Client: c, Name: "none", Block: block, Buffer: address}
		}, says: []string{"no such flash"}},
		{name: "flash too small", image: content(17<<20, 1), make: func(c *client.Client) flash.Target {
			return fastboot.MTD{Client: c, Name: "rootfs", Block: block, Buffer: address}
		}, says: []string{"too small"}},
		{name: "a worn block", wrote: true, verify: true, m: func(m *uboot.Machine) { m.MTD[0].Fill(0x5a, 20*block); m.MTD[0].Worn[12] = true }, make: func(c *client.Client) flash.Target {
			return fastboot.MTD{Client: c, Name: "rootfs", Block: block, Buffer: address}
		}, says: []string{"not what is read back"}},
		{name: "NAND whose end cannot be told", wrote: true, image: slices.Concat(content(6*block, 1), bytes.Repeat([]byte{0xff}, block), content(block, 1)), make: func(c *client.Client) flash.Target {
			return fastboot.MTD{Client: c, Name: "rootfs", Block: block, Buffer: address}
		}, says: []string{"cannot be told how many bad blocks"}},
		{name: "no SPI flash", make: func(c *client.Client) flash.Target {
			return fastboot.MTD{Client: c, Name: "0:3", SF: true, Buffer: address}
		}, says: []string{"no such flash"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := machine(t)
				var wrong []string
				m.Violation = func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
				if tc.m != nil {
					tc.m(m)
				}
				cfg := tc.cfg
				cfg.UBoot, cfg.FlashMMC, cfg.Address, cfg.Buffer = m, 1, address, 1<<20
				c, b := connect(t, cfg)
				data := tc.image
				if data == nil {
					data = big
				}
				im := sized(t, data)
				if tc.pipe {
					im = raw(t, data, image.Options{})
				}
				if strings.Contains(tc.name, "NAND") {
					im = raw(t, data, image.Options{})
				}
				used := func() int64 { return m.MMC[1].Areas[0].Used() + m.MMC[1].Areas[1].Used() + m.MTD[0].Used() }
				before := used()
				err := tc.make(c).Write(t.Context(), im, flash.Options{Verify: tc.verify})
				for _, s := range tc.says {
					if !strings.Contains(fmt.Sprint(err), s) {
						t.Errorf("%v\nwant %q", err, s)
					}
				}
				if (used() != before) && !tc.wrote {
					t.Errorf("something was written: %v", slices.Collect(maps.Keys(b.Report().Partitions)))
				}
				if _, err := im.Next(); err == nil || err == io.EOF {
					t.Error("the image is still open")
				}
			})
		})
	}
}

// A buffer of few blocks will do.
func TestTinyBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := machine(t)
		c, _ := connect(t, sim.Config{UBoot: m, FlashMMC: 1, Buffer: 4096})
		want := make([]byte, 100_000)
		rand.NewChaCha8([32]byte{9}).Read(want)
		if err := (fastboot.Partition{Client: c, Name: "rootfs"}).Write(t.Context(), raw(t, want, image.Options{}), flash.Options{}); err != nil {
			t.Fatal(err)
		}
		begins(t, "rootfs", partition(t, m, "rootfs"), want)
	})
}

// A device that takes less than it says gets smaller sparse images.
func TestSmallerThanSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := machine(t)
		c, b := connect(t, sim.Config{UBoot: m, FlashMMC: 1, Buffer: 4 << 20, Full: 1 << 20})
		want := content(9<<20, 3)
		if err := (fastboot.Partition{Client: c, Name: "rootfs"}).Write(t.Context(), raw(t, want, image.Options{}), flash.Options{}); err != nil {
			t.Fatal(err)
		}
		begins(t, "rootfs", partition(t, m, "rootfs"), want)
		clean(t, b)
	})
}

// Erasing takes longer than a command usually may: that is borne for ten minutes, and as long as the device says that
// it lives.
func TestSlowErase(t *testing.T) {
	for _, tc := range []struct {
		takes, alive time.Duration
		good         bool
	}{
		{9 * time.Minute, 0, true}, {11 * time.Minute, 0, false}, {30 * time.Minute, 30 * time.Second, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := machine(t)
			m.Takes = map[string]time.Duration{"mtd erase": tc.takes}
			c, _ := connect(t, sim.Config{UBoot: m, Alive: tc.alive, Buffer: 1 << 20})
			err := fastboot.MTD{Client: c, Name: "boot", Block: block, Buffer: 0x40000000}.Write(t.Context(), raw(t, content(block, 1), image.Options{}), flash.Options{})
			if (err == nil) != tc.good {
				t.Errorf("%v: %v", tc, err)
			}
		})
	}
}

// The partition table, and the eMMC's boot partition by flash.
func TestTables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := machine(t)
		c, b := connect(t, sim.Config{UBoot: m, FlashMMC: 1})
		if err := c.WriteGPT(t.Context(), 1, "uuid_disk=12345678-1234-1234-1234-123456789abc;name=a,size=1MiB;name=b,size=-"); err != nil {
			t.Fatal(err)
		}
		if n := partition(t, m, "a").Size(); n != 1<<20 {
			t.Error(n)
		}
		if err := c.WriteGPT(t.Context(), 1, "name=a'"); err == nil {
			t.Error("a quote")
		}
		if err := c.WriteGPT(t.Context(), 0, "name=a,size=-"); err == nil {
			t.Error("no such device")
		}
		other, err := uboot.LayGPT("name=c,size=2MiB", 8<<30)
		if err != nil {
			t.Fatal(err)
		}
		primary, _ := other.Encode(8 << 30)
		for name, im := range map[string]*image.Image{"gpt": file(t, primary), "mmc1boot0": sized(t, content(1<<20, 1))} {
			if err := (fastboot.Partition{Client: c, Name: name}).Write(t.Context(), im, flash.Options{}); err != nil {
				t.Error(err)
			}
		}
		if n := partition(t, m, "c").Size(); n != 2<<20 {
			t.Error(n)
		}
		begins(t, "boot0", m.MMC[1].Areas[1], content(1<<20, 1))
		clean(t, b)
	})
}

// A session that is cancelled ends.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := machine(t)
		m.Takes = map[string]time.Duration{"mmc write": time.Minute}
		c, _ := connect(t, sim.Config{UBoot: m, Buffer: 1 << 20})
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		err := fastboot.MMC{Client: c, Device: 1, Buffer: 0x40000000}.Write(ctx, raw(t, content(9<<20, 1), image.Options{}), flash.Options{})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// Wherever the board is unplugged, or the image breaks off, it is an error that names a range, and what was said to be
// written is there.
func TestTargetsCutOff(t *testing.T) {
	data := content(1<<20+4096, 11)
	r := rand.New(rand.NewPCG(5, 5))
	for n := range 150 {
		at := 1 + r.IntN(len(data)-1)
		kind := []sim.FaultKind{sim.Unplug, sim.Reset, sim.Hang, sim.Fail}[n%4]
		short := n%5 == 0
		to := []string{"partition", "mmc", "nand"}[n%3]
		t.Run(fmt.Sprintf("%s %s %d %t", to, kind, at, short), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := machine(t)
				cfg := sim.Config{UBoot: m, FlashMMC: 1, Address: address, Buffer: 512 << 10}
				if !short {
					cfg.Faults = []sim.Fault{{Kind: kind, Stage: sim.StageGadget, At: at}}
				}
				c, _ := connect(t, cfg)
				im := file(t, data)
				if short {
					name := im.Name
					if err := os.Truncate(name, int64(at)); err != nil {
						t.Fatal(err)
					}
				}
				var target flash.Target
				var medium io.ReaderAt
				switch to {
				case "partition":
					target, medium = fastboot.Partition{Client: c, Name: "rootfs"}, partition(t, m, "rootfs")
				case "mmc":
					target, medium = fastboot.MMC{Client: c, Device: 1, Partition: "rootfs", Buffer: address}, partition(t, m, "rootfs")
				case "nand":
					target, medium = fastboot.MTD{Client: c, Name: "rootfs", Block: block, Buffer: address}, io.NewSectionReader(m.MTD[0], 4*block, 100*block)
				}
				var s steps
				err := target.Write(t.Context(), im, flash.Options{Progress: s.add})
				wrote := s.n[flash.Writing]
				if err == nil {
					// What repeats a pattern is not sent, so that the fault may not have come.
					if short || wrote < int64(len(data)) {
						t.Fatalf("no error, %d bytes were written", wrote)
					}
				} else if !strings.Contains(err.Error(), "bytes ") && !strings.Contains(err.Error(), "byte ") {
					t.Errorf("no range: %v", err)
				}
				begins(t, to, medium, data[:min(wrote, int64(len(data)))])
			})
		})
	}
}
