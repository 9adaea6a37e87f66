package dfu_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"snag/flash"
	"snag/flash/dfu"
	"snag/flash/image"
	"snag/flash/sparse"
	simdfu "snag/sim/dfu"
	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/usb"
	client "snag/usb/dfu"
)

var _ flash.Target = (*dfu.Target)(nil)

// gadget is a powered one.
type gadget struct {
	*simdfu.Board
	host *inproc.Host
}

func (g *gadget) target(alt string) *dfu.Target {
	return &dfu.Target{Host: g.host, Port: "1-1", Alt: alt}
}

func power(t *testing.T, c simdfu.Config, faults ...string) *gadget {
	t.Helper()
	var err error
	if c.Model, err = simdfu.FindModel("dfu"); err != nil {
		t.Fatal(err)
	}
	for _, s := range faults {
		f, err := simdfu.ParseFault(s)
		if err != nil {
			t.Fatal(err)
		}
		c.Faults = append(c.Faults, f)
	}
	b, err := simdfu.New(c)
	if err != nil {
		t.Fatal(err)
	}
	g := &gadget{b, inproc.New()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Run(ctx, g.host.Port("1-1")) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return g
}

// noise is n bytes that are not twice alike.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func raw(t *testing.T, b []byte) *image.Image {
	t.Helper()
	im, err := image.New(t.Context(), "test.img", bytes.NewReader(b), image.Options{AsIs: true})
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// clean checks that the host did nothing wrong.
func (g *gadget) clean(t *testing.T) {
	t.Helper()
	for _, v := range g.Report().Violations {
		t.Errorf("the board saw %d times: %s", v.N, v.Text)
	}
}

// TestWrite has the sizes at which an end may be lost: of blocks, of U-Boot's buffer, of sectors.
func TestWrite(t *testing.T) {
	const buffer = 64 << 10
	for _, n := range []int{1, 511, 512, 4095, 4096, 4097, buffer - 1, buffer, buffer + 1, 3*buffer + 4096, 1<<20 + 17} {
		for _, file := range []bool{false, true} {
			if file && n > buffer {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				old := bytes.Repeat([]byte{0xee}, n)
				alts := []simdfu.Alt{{Name: "first", Size: 512}, {Name: "place", Size: (n + 511) / 512 * 512, Data: old, File: file}}
				if file {
					alts[1].Size = buffer
				}
				g := power(t, simdfu.Config{Alts: alts, Buffer: buffer, Drain: 300 * time.Millisecond})
				var wrote, read atomic.Int64
				err := g.target("place").Write(t.Context(), raw(t, noise(n)), flash.Options{Verify: true, Progress: func(s flash.Step, n int64) {
					map[flash.Step]*atomic.Int64{flash.Writing: &wrote, flash.Verifying: &read}[s].Add(n)
				}})
				if err != nil {
					t.Fatal(n, file, err)
				}
				got := g.Medium("place")
				if file && len(got) != n || len(got) < n || !bytes.Equal(got[:n], noise(n)) {
					t.Errorf("%d bytes, a file %t: something else is stored", n, file)
				}
				if wrote.Load() != int64(n) || read.Load() != int64(n) {
					t.Errorf("%d bytes: progress %d and %d", n, wrote.Load(), read.Load())
				}
				if len(bytes.Trim(g.Medium("first"), "\x00")) > 0 {
					t.Error("the other setting was written")
				}
				g.clean(t)
			})
		}
	}
}

// sparseFile is an Android sparse image of data, a fill, and blocks that are left out, in the middle and at the end.
func sparseFile(t *testing.T) (file, expanded []byte) {
	t.Helper()
	expanded = slices.Concat(noise(8192), make([]byte, 40960), bytes.Repeat([]byte{1, 2, 3, 4}, 2048), make([]byte, 12288))
	le := binary.LittleEndian
	file = le.AppendUint32(nil, 0xed26ff3a)
	for _, v := range []uint16{1, 0, 28, 12} {
		file = le.AppendUint16(file, v)
	}
	for _, v := range []uint32{4096, uint32(len(expanded) / 4096), 4, 0} {
		file = le.AppendUint32(file, v)
	}
	chunk := func(kind uint16, blocks uint32, data []byte) {
		file = le.AppendUint16(file, kind)
		file = le.AppendUint16(file, 0)
		file = le.AppendUint32(file, blocks)
		file = le.AppendUint32(file, uint32(12+len(data)))
		file = append(file, data...)
	}
	chunk(0xcac1, 2, expanded[:8192])
	chunk(0xcac3, 10, nil)
	chunk(0xcac2, 2, []byte{1, 2, 3, 4})
	chunk(0xcac3, 3, nil)
	if !strings.HasPrefix(string(file), sparse.Magic) {
		t.Fatal("not a sparse image")
	}
	return file, expanded
}

// TestSparse checks that what an image leaves out is sent as zeros.
func TestSparse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, want := sparseFile(t)
		g := power(t, simdfu.Config{Alts: []simdfu.Alt{{Name: "a", Size: 1 << 20, Data: bytes.Repeat([]byte{0xee}, 1<<20)}}})
		im, err := image.New(t.Context(), "sparse", bytes.NewReader(file), image.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.target("").Write(t.Context(), im, flash.Options{Verify: true}); err != nil {
			t.Fatal(err)
		}
		if got := g.Medium("a"); !bytes.Equal(got[:len(want)], want) || got[len(want)] != 0xee {
			t.Error("something else is stored")
		}
		g.clean(t)
	})
}

// withSuffix appends a DFU suffix.
func withSuffix(b []byte, id usb.ID, version uint16, extra int) []byte {
	le := binary.LittleEndian
	b = append(slices.Clone(b), make([]byte, extra)...)
	for _, v := range []uint16{0xffff, id.Product, id.Vendor, version} {
		b = le.AppendUint16(b, v)
	}
	b = append(b, 'U', 'F', 'D', byte(16+extra))
	return le.AppendUint32(b, ^crc32.ChecksumIEEE(b))
}

// TestSuffix has files with DFU suffixes, right and wrong ones.
func TestSuffix(t *testing.T) {
	ours, data := usb.ID{Vendor: 0x0525, Product: 0xa4a5}, noise(10_000)
	bad := withSuffix(data, ours, 0x0100, 0)
	bad[5000] ^= 1
	for _, tc := range []struct {
		name string
		file []byte
		want string // of the error
	}{
		{name: "ours", file: withSuffix(data, ours, 0x0100, 0)},
		{name: "anybody's", file: withSuffix(data, usb.ID{Vendor: 0xffff, Product: 0xffff}, 0x0100, 0)},
		{name: "any product", file: withSuffix(data, usb.ID{Vendor: 0x0525, Product: 0xffff}, 0x0110, 0)},
		{name: "longer", file: withSuffix(data, ours, 0x0100, 239)},
		{name: "another's", file: withSuffix(data, usb.ID{Vendor: 0x0525, Product: 0xa4a6}, 0x0100, 0), want: "the file is for devices 0525:a4a6, this is 0525:a4a5"},
		{name: "changed", file: bad, want: "it was changed after it was made"},
		{name: "DfuSe", file: withSuffix(data, ours, 0x011a, 0), want: "give the raw image"},
		{name: "nothing else", file: withSuffix(nil, ours, 0x0100, 0), want: "empty"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := power(t, simdfu.Config{Alts: []simdfu.Alt{{Name: "a", Size: 1 << 20}}})
				err := g.target("0").Write(t.Context(), raw(t, tc.file), flash.Options{Verify: true})
				if (err != nil) != (tc.want != "") || err != nil && !strings.Contains(err.Error(), tc.want) {
					t.Fatal(err)
				}
				if got := g.Medium("a"); err == nil && (!bytes.Equal(got[:len(data)], data) || len(bytes.Trim(got[len(data):], "\x00")) > 0) {
					t.Error("something else is stored")
				} else if err != nil && len(bytes.Trim(got, "\x00")) > 0 {
					t.Error("something is stored")
				}
				if err != nil {
					// The next one finds the gadget as good as new.
					if err := g.target("a").Write(t.Context(), raw(t, data), flash.Options{}); err != nil {
						t.Error(err)
					}
				}
				g.clean(t)
			})
		})
	}
}

// TestAnotherDevices refuses a file by its suffix before anything is sent, if it can be read anywhere.
func TestAnotherDevices(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file.dfu")
	if err := os.WriteFile(name, withSuffix(noise(10_000), usb.ID{Vendor: 1, Product: 2}, 0x0100, 0), 0o644); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		g := power(t, simdfu.Config{})
		im, err := image.Open(t.Context(), name, image.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.target("boot").Write(t.Context(), im, flash.Options{}); !errors.Is(err, dfu.ErrSuffix) {
			t.Error(err)
		}
		if r := g.Report(); r.Last(virtual.StageGadget).Bytes > 0 {
			t.Error("something was sent")
		}
	})
}

// TestRefused has what is refused before anything is written.
func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		name   string
		config simdfu.Config
		alt    string
		verify bool
		want   string
	}{
		{name: "no such setting", alt: "kernel", want: `there is no alternate setting "kernel", it has 0 "boot", 1 "rootfs", 2 "uImage"`},
		{name: "no such number", alt: "3", want: "there is no alternate setting 3"},
		{name: "two settings", alt: "root", config: simdfu.Config{Alts: []simdfu.Alt{{Name: "root", Size: 1 << 20}, {Name: "boot", Size: 1 << 20}, {Name: "root", Size: 1 << 20}}},
			want: `there are several settings of this name, 0 "root", 2 "root": say which by its number`},
		{name: "which setting", want: `no alternate setting ""`},
		{name: "no upload", alt: "boot", verify: true, config: simdfu.Config{NoUpload: true}, want: "it can be written, but not verified"},
		{name: "not tolerant", alt: "boot", verify: true, config: simdfu.Config{Intolerant: true}, want: "bitManifestationTolerant"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := power(t, tc.config)
				err := g.target(tc.alt).Write(t.Context(), raw(t, noise(1000)), flash.Options{Verify: tc.verify})
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Error(err)
				}
				if r := g.Report(); r.Last(virtual.StageGadget).Bytes > 0 {
					t.Error("something was sent")
				}
				g.clean(t)
			})
		})
	}
}

// TestRunTime has devices that are in run-time mode first.
func TestRunTime(t *testing.T) {
	for _, m := range []simdfu.RunTime{simdfu.Detaches, simdfu.DetachesQ, simdfu.WantsBus} {
		t.Run(string(m), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := power(t, simdfu.Config{RunTime: m, StageDelay: 4 * time.Second})
				alts, err := g.target("").Alts(t.Context())
				if err != nil || len(alts) != 3 || alts[1] != (client.Alt{Number: 1, Name: "rootfs", Protocol: 2}) {
					t.Fatal(alts, err)
				}
				if err := g.target("rootfs").Write(t.Context(), raw(t, noise(5000)), flash.Options{Verify: true}); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(g.Medium("rootfs")[:5000], noise(5000)) {
					t.Error("something else is stored")
				}
				if err := g.target("").Detach(t.Context(), m == simdfu.WantsBus); err != nil {
					t.Error(err)
				}
				<-g.Settled()
				time.Sleep(time.Second)
				if r := g.Report(); r.Outcome != virtual.Booted {
					t.Error(r.Outcome, r.Error)
				}
				g.clean(t)
			})
		})
	}
}

// TestIntolerant is a device that waits for a reset when it has the file.
func TestIntolerant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := power(t, simdfu.Config{Intolerant: true, Manifest: 20 * time.Second})
		if err := g.target("boot").Write(t.Context(), raw(t, noise(5000)), flash.Options{}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(g.Medium("boot")[:5000], noise(5000)) {
			t.Error("something else is stored")
		}
		g.clean(t)
	})
}

// TestAborted writes to a setting whose last transfer was aborted: U-Boot refuses the first block then, once.
func TestAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := power(t, simdfu.Config{})
		broken := errors.New("the server has gone home")
		im, err := image.New(t.Context(), "x", io.MultiReader(bytes.NewReader(noise(3<<20)), errReader{broken}), image.Options{AsIs: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.target("rootfs").Write(t.Context(), im, flash.Options{}); !errors.Is(err, broken) {
			t.Fatal(err)
		}
		if err := g.target("rootfs").Write(t.Context(), raw(t, noise(100_000)), flash.Options{Verify: true}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(g.Medium("rootfs")[:100_000], noise(100_000)) {
			t.Error("something else is stored")
		}
		// It was verified up to its end, which left the upload aborted.
		if err := g.target("rootfs").Write(t.Context(), raw(t, noise(200_000)), flash.Options{Verify: true}); err != nil {
			t.Fatal(err)
		}
		g.clean(t)
	})
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// TestFaults has what goes wrong on the way. All of it ends in an error that says so, but for what may last.
func TestFaults(t *testing.T) {
	boot := []simdfu.Alt{{Name: "boot", Size: 4 << 20}}
	for _, tc := range []struct {
		name   string
		config simdfu.Config
		faults []string
		size   int
		verify bool
		want   string // of the error; empty: none
		took   time.Duration
	}{
		{name: "too large", size: 4<<20 + 1, want: "test.img may be larger than the setting"},
		{name: "too large for the buffer", size: 5 << 20, config: simdfu.Config{Buffer: 1 << 20, Alts: boot}, want: "may be larger than the setting"},
		{name: "address", faults: []string{"error:gadget:20000:8"}, want: "test.img is larger than the setting has room for"},
		{name: "write", faults: []string{"error:gadget:20000:3"}, want: "errWRITE (memory cannot be written)"},
		{name: "verify", faults: []string{"error:gadget:manifest:7"}, want: "errVERIFY"},
		{name: "flush", faults: []string{"error:gadget:manifest"}, want: "writing the last part has failed"},
		{name: "wrong bit", verify: true, size: 3 << 20, faults: []string{"flip:gadget:1500000"}, want: "test.img: bytes 1048576-2097151: the device gives back something else than it was sent"},
		{name: "unplug", faults: []string{"unplug:gadget:20000"}, want: "device gone"},
		{name: "unplug at the end", faults: []string{"unplug:gadget:manifest"}, want: "writing the last part has failed"},
		{name: "hang", faults: []string{"hang:gadget:20000"}, want: "deadline exceeded", took: dfu.DefaultBlockTimeout},
		{name: "hang at the end", faults: []string{"hang:gadget:manifest"}, want: "writing the last part has failed", took: dfu.DefaultBlockTimeout},
		{name: "stall", faults: []string{"stall:gadget:20000"}, want: "refused with a stall"},
		{name: "lie", faults: []string{"lie:gadget:20000"}, want: "wants to be left alone for 4h39m37"},
		{name: "lie at the end", faults: []string{"lie:gadget:manifest"}, want: "wants to be left alone for 4h39m37"},
		{name: "slow", faults: []string{"busy:gadget:20000:90s", "nak:gadget:30000:90s"}, took: 3 * time.Minute},
		{name: "slow at the end", faults: []string{"busy:gadget:manifest:500s"}, took: 500 * time.Second},
		{name: "says no time", config: simdfu.Config{Drain: 10 * time.Second, ShortPoll: true, Buffer: 32 << 10, Alts: boot}, took: 30 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := power(t, tc.config, tc.faults...)
				if tc.size == 0 {
					tc.size = 70_000
				}
				begin := time.Now()
				err := g.target("boot").Write(t.Context(), raw(t, noise(tc.size)), flash.Options{Verify: tc.verify})
				if took := time.Since(begin); took < tc.took || took > tc.took+10*time.Second {
					t.Errorf("took %v, expected %v", took, tc.took)
				}
				if (err != nil) != (tc.want != "") || err != nil && !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%v, expected %q", err, tc.want)
				}
				if err == nil && !bytes.Equal(g.Medium("boot")[:tc.size], noise(tc.size)) {
					t.Error("something else is stored")
				}
				g.clean(t)
			})
		})
	}
}

// TestCancel ends in the middle, at a device that can be written again.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := power(t, simdfu.Config{Block: time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), 5500*time.Millisecond)
		defer cancel()
		if err := g.target("boot").Write(ctx, raw(t, noise(1<<20)), flash.Options{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := g.target("boot").Write(t.Context(), raw(t, noise(10_000)), flash.Options{Verify: true}); err != nil {
			t.Error(err)
		}
	})
}

// TestNobody waits for a device that does not come.
func TestNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		target := &dfu.Target{Host: inproc.New(), Port: "1-1", Alt: "x", Wait: 7 * time.Second}
		err := target.Write(t.Context(), raw(t, noise(10)), flash.Options{})
		if err == nil || !strings.Contains(err.Error(), "no device in DFU mode on port 1-1 within 7s: no USB device") || time.Since(begin) != 7*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// shy is a host whose first device cannot be opened at first.
type shy struct {
	usb.Host
	errs []error
}

func (h *shy) Open(ctx context.Context, d usb.Device) (usb.Handle, error) {
	if len(h.errs) > 0 {
		err := h.errs[0]
		h.errs = h.errs[1:]
		return nil, err
	}
	return h.Host.Open(ctx, d)
}

// TestShy opens a device again that could not be, without another word from the host, unless that is for good.
func TestShy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := power(t, simdfu.Config{})
		target := g.target("boot")
		target.Host = &shy{g.host, []error{usb.ErrProtocol, usb.ErrGone}}
		if err := target.Write(t.Context(), raw(t, noise(10)), flash.Options{}); err != nil {
			t.Error(err)
		}
		target.Host = &shy{g.host, []error{usb.ErrBusy}}
		if err := target.Write(t.Context(), raw(t, noise(10)), flash.Options{}); !errors.Is(err, usb.ErrBusy) {
			t.Error(err)
		}
	})
}

// TestDfuSe writes to memory that has pages.
func TestDfuSe(t *testing.T) {
	const name, base = "@Internal Flash  /0x08000000/64*002Kg", 0x08000000
	for _, tc := range []struct {
		name   string
		addr   uint32
		size   int
		faults []string
		alt    string
		want   string
	}{
		{name: "all", size: 128 << 10},
		{name: "a part", addr: base + 0x4000, size: 10_001},
		{name: "one byte", size: 1},
		{name: "too large", size: 128<<10 + 1, want: "larger than the 131072 bytes from address 0x08000000 on"},
		{name: "within a page", addr: base + 0x400, size: 100, want: "within a page"},
		{name: "elsewhere", addr: 0x20000000, size: 100, want: "no memory at address 0x20000000"},
		{name: "wrong bit", size: 10_000, faults: []string{"flip:gadget:5000"}, want: "bytes 0-9999: the device gives back something else"},
		{name: "refused", size: 10_000, faults: []string{"error:gadget:5000:3"}, want: "errWRITE"},
		{name: "not told", size: 100, alt: "@Flash", want: "does not tell its memory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				alt := simdfu.Alt{Name: name, Size: 128 << 10, Address: base, Page: 2048, Data: bytes.Repeat([]byte{0xee}, 128<<10)}
				if tc.alt != "" {
					alt.Name = tc.alt
				}
				g := power(t, simdfu.Config{DfuSe: true, Alts: []simdfu.Alt{alt}, Drain: 20 * time.Millisecond}, tc.faults...)
				target := g.target("")
				target.Address = tc.addr
				err := target.Write(t.Context(), raw(t, noise(tc.size)), flash.Options{Verify: true})
				if (err != nil) != (tc.want != "") || err != nil && !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("%v, expected %q", err, tc.want)
				}
				g.clean(t)
				if err != nil {
					return
				}
				at := 0
				if tc.addr != 0 {
					at = int(tc.addr - base)
				}
				got, end := g.Medium(alt.Name), at+(tc.size+2047)/2048*2048
				if !bytes.Equal(got[at:at+tc.size], noise(tc.size)) || bytes.Count(got, []byte{0xee}) < len(got)-end+at-tc.size/100 {
					t.Error("something else is stored")
				}
				if err := target.Detach(t.Context(), false); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Second)
				if r := g.Report(); r.Outcome != virtual.Booted {
					t.Error(r.Outcome, r.Error)
				}
				g.clean(t)
			})
		})
	}
}

// TestVerify compares what is there with an image, without sending it.
func TestVerify(t *testing.T) {
	for _, tc := range []struct {
		name   string
		cfg    simdfu.Config
		change func(b []byte) // the image, or nil
		size   int
		want   string
	}{
		{name: "the same", size: 100_001},
		{name: "all of the setting", size: 128 << 10},
		{name: "a byte", size: 100_001, change: func(b []byte) { b[99_999] ^= 1 }, want: "bytes 0-100000: the device gives back something else"},
		{name: "longer than the setting", size: 128<<10 + 1, want: "bytes 131072-131072: the device gives back something else than it was sent: it ends here"},
		{name: "a device that gives nothing", cfg: simdfu.Config{NoUpload: true}, size: 100, want: "gives nothing back (bitCanUpload): what it holds cannot be compared"},
		{name: "a device that is gone once it is written", cfg: simdfu.Config{Intolerant: true}, size: 100},
		{name: "DfuSe", cfg: simdfu.Config{DfuSe: true}, size: 100_001},
		{name: "DfuSe, a byte", cfg: simdfu.Config{DfuSe: true}, size: 100_001, change: func(b []byte) { b[5] ^= 1 }, want: "bytes 0-100000: the device gives back something else"},
		{name: "DfuSe, too long", cfg: simdfu.Config{DfuSe: true}, size: 128<<10 + 1, want: "larger than the 131072 bytes from address 0x08000000 on"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				held := noise(128 << 10)
				cfg := tc.cfg
				cfg.Alts = []simdfu.Alt{{Name: "place", Size: len(held), Data: held}}
				if cfg.DfuSe {
					cfg.Alts[0] = simdfu.Alt{Name: "@Internal Flash  /0x08000000/64*002Kg", Size: len(held), Data: held, Address: 0x08000000, Page: 2048}
				}
				g := power(t, cfg)
				img := append(bytes.Clone(held), 0)[:tc.size]
				if tc.change != nil {
					tc.change(img)
				}
				var read int64
				err := g.target("").Verify(t.Context(), raw(t, img), flash.Options{Progress: func(s flash.Step, n int64) { read += n }})
				if (err != nil) != (tc.want != "") || err != nil && !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%v, expected %q", err, tc.want)
				}
				if err == nil && read != int64(tc.size) {
					t.Errorf("progress %d of %d", read, tc.size)
				}
				for _, s := range g.Report().Stages {
					if s.Bytes > 10 { // DfuSe's addresses
						t.Errorf("%d bytes were sent", s.Bytes)
					}
				}
				g.clean(t)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		g := power(t, simdfu.Config{Alts: []simdfu.Alt{{Name: "place", Size: 1 << 20}}})
		err := g.target("").Write(t.Context(), raw(t, noise(10_000)), flash.Options{Verify: true})
		if err == nil {
			err = g.target("").Verify(t.Context(), raw(t, noise(10_000)), flash.Options{})
		}
		if err == nil || !strings.Contains(err.Error(), "have it run its dfu command anew") {
			t.Errorf("a second upload: %v", err)
		}
	})
}
