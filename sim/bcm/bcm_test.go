package bcm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/usb"
)

// host is one that does what the test wants.
type host struct {
	t *testing.T
	h usb.Handle
}

// plug runs a board, and f with each of its enumerations, until f says that it has had enough.
func plug(t *testing.T, cfg Config, f func(h host, n int) (more bool)) Report {
	t.Helper()
	var report Report
	synctest.Test(t, func(t *testing.T) {
		b, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		bus := inproc.New()
		ctx, unplug := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- b.Run(ctx, bus.Port("242-1")) }()
		last := -1
		for n := 0; ; {
			time.Sleep(10 * time.Millisecond)
			devices, err := bus.Devices()
			if err != nil {
				t.Fatal(err)
			}
			if len(devices) == 0 || devices[0].Address == last {
				select {
				case <-b.Settled():
				default:
					continue
				}
				break
			}
			last = devices[0].Address
			h, err := bus.Open(ctx, devices[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Claim(ctx, 0); err != nil {
				t.Fatal(err)
			}
			more := f(host{t, h}, n)
			h.Close()
			if n++; !more {
				break
			}
		}
		unplug()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		report = b.Report()
	})
	return report
}

func (h host) length(n int) error {
	_, err := h.h.Control(h.t.Context(), usb.Setup{Type: 0x40, Value: uint16(n), Index: uint16(n >> 16)}, nil)
	return err
}

func (h host) write(b []byte) {
	h.t.Helper()
	if err := h.length(len(b)); err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.h.Out(h.t.Context(), 1, b); err != nil {
		h.t.Fatal(err)
	}
}

func (h host) read(n int) ([]byte, error) {
	b := make([]byte, n)
	m, err := h.h.Control(h.t.Context(), usb.Setup{Type: 0xc0, Value: uint16(n), Length: uint16(n)}, b)
	return b[:m], err
}

// second sends the ROM a second stage.
func (h host) second(b []byte) {
	h.write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), make([]byte, 20)...))
	h.write(b)
}

// serve has the second stage find nothing but some files.
func (h host) serve(files map[string][]byte) {
	for {
		m, err := h.read(260)
		if err != nil {
			return
		}
		switch b := files[string(bytes.TrimRight(m[4:], "\x00"))]; {
		case m[0] == 2:
			return
		case m[0] == 1 && len(b) > 0:
			h.write(b)
		default:
			if h.length(len(b)) != nil {
				return
			}
		}
	}
}

func find(t *testing.T, name string) Model {
	t.Helper()
	m, err := FindModel(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The stages show what real ones do.
func TestDescriptors(t *testing.T) {
	for _, m := range Models() {
		b, err := New(Config{Model: m})
		if err != nil {
			t.Fatal(err)
		}
		want := byte(0)
		if m.Serial {
			want = 3
		}
		if d := b.device(StageROM).Descriptors().Device(); d[16] != want || d[14] != 1 || d[15] != 2 {
			t.Errorf("%s: the ROM's strings are % x", m.Name, d[14:17])
		}
		if d := b.device(StageBootcode).Descriptors().Device(); d[16] != 1 {
			t.Errorf("%s: the second stage's serial number is string %d", m.Name, d[16])
		}
		if c := b.device(StageROM).Descriptors().Config(0); len(c) != 32 {
			t.Errorf("%s: a configuration of %d bytes", m.Name, len(c))
		}
	}
}

// What a host does wrong is seen.
func TestViolations(t *testing.T) {
	code := []byte("\x7f\x80\xff\xfe some code")
	for _, tc := range []struct {
		name string
		do   func(h host)
		says string // a violation, or why the board is stuck
	}{
		{"status before all", func(h host) { h.read(4) }, "rom: request c0 while the length of the boot message was due"},
		{"another request", func(h host) {
			h.h.Control(h.t.Context(), usb.Setup{Type: 0x40, Request: 1}, nil)
		}, "rom: request 40 01, which there is not"},
		{"message too short", func(h host) { h.write([]byte("x")) }, "rom: a boot message of 1 bytes, expected 24"},
		{"lengths differ", func(h host) {
			h.write(append([]byte{9, 0, 0, 0}, make([]byte, 20)...))
			h.length(8)
		}, "rom: the boot message announces 9 bytes of second stage, then 8 are to come"},
		{"signature", func(h host) { h.write(append([]byte{9, 0, 0, 0}, bytes.Repeat([]byte{1}, 20)...)) }, "rom: the boot message has a signature 01 01"},
		{"text", func(h host) {
			h.second([]byte("no code"))
			if b, err := h.read(4); err != nil || b[0] != 1 {
				h.t.Errorf("% x, %v", b, err)
			}
		}, "rom: the second stage was refused with status 1"},
		{"status of another size", func(h host) {
			h.second(code)
			h.read(8)
		}, "rom: the status: the host reads 8 bytes in a request of 8, it is of 4"},
		{"huge", func(h host) {
			h.write(append([]byte{0, 0, 0, 0x40}, make([]byte, 20)...))
			h.length(0x40000000)
		}, "rom: 1073741824 bytes have no room in memory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := plug(t, Config{Model: find(t, "bcm2711")}, func(h host, _ int) bool {
				tc.do(h)
				time.Sleep(time.Second)
				return false
			})
			if s := fmt.Sprint(r.Error, r.Violations); !strings.Contains(s, tc.says) {
				t.Errorf("%s, want %q", s, tc.says)
			}
		})
	}
}

// The second stage starts what config.txt says, from boot.img or file by file, and waits for what is missing.
func TestStart(t *testing.T) {
	image := func(kernel string, files ...string) []byte {
		all := map[string][]byte{"config.txt": []byte("kernel=" + kernel + "\n")}
		for i, f := range files {
			all[f] = []byte(strings.Repeat(f, 1000*i+1))
		}
		return Disk(300_000, all)
	}
	first := map[string][]byte{"mcb.bin": {1}, "bootmain": {2}}
	for i := range 9 {
		first[fmt.Sprintf("memsys%02d.bin", i)] = []byte{3}
	}
	differ := image("a.bin", "a.bin", "start4.elf")
	differ[65*512+100]++
	for _, tc := range []struct {
		name, model string
		files       map[string][]byte
		kernel      string
		says        string
	}{
		{"boot.img", "bcm2711", map[string][]byte{"config.txt": []byte("boot_ramdisk=1"), "boot.img": image("u-boot.bin", "u-boot.bin", "start4.elf")}, "u-boot.bin", ""},
		{"no kernel", "bcm2711", map[string][]byte{"config.txt": []byte("boot_ramdisk=1"), "boot.img": image("u-boot.bin", "start4.elf")}, "", "boot.img: there is no u-boot.bin"},
		{"no start4.elf", "bcm2711", map[string][]byte{"config.txt": []byte("boot_ramdisk=1"), "boot.img": image("a", "a")}, "", "boot.img: there is no start4.elf"},
		{"no disk", "bcm2712", map[string][]byte{"config.txt": []byte("boot_ramdisk=1"), "boot.img": []byte("no disk")}, "", "boot.img: no disk with FAT"},
		{"copies differ", "bcm2711", map[string][]byte{"config.txt": []byte("boot_ramdisk=1"), "boot.img": differ}, "a.bin", "the copies of the allocation table differ"},
		{"no boot.img", "bcm2711", map[string][]byte{"config.txt": []byte("boot_ramdisk=1")}, "", "there is no boot.img: it waits for ever"},
		{"files", "bcm2711", map[string][]byte{"start4.elf": {1}, "fixup4.dat": {1}, "kernel8.img": {7}}, "kernel8.img", ""},
		{"old", "bcm2835", map[string][]byte{"start.elf": {1}, "u.bin": {7}, "config.txt": []byte("kernel=u.bin")}, "u.bin", ""},
		{"old, no start.elf", "bcm2835", nil, "", "there is no start.elf: it waits for ever"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := map[string][]byte{}
			for _, set := range []map[string][]byte{first, tc.files} {
				for name, b := range set {
					files[name] = b
				}
			}
			m := find(t, tc.model)
			r := plug(t, Config{Model: m}, func(h host, n int) bool {
				if n == 0 {
					h.second([]byte("\x7f\x80\xff\xfe some code"))
					time.Sleep(200 * time.Millisecond)
					if b, err := h.read(4); err != nil || !bytes.Equal(b, make([]byte, 4)) {
						t.Errorf("% x, %v", b, err)
					}
					return true
				}
				h.serve(files)
				return true
			})
			s := fmt.Sprint(r.Error, r.Violations)
			if kernel := r.Last(StageBootcode).Kernel; tc.kernel == "" != (kernel == nil) || kernel != nil && kernel.Name != tc.kernel || !strings.Contains(s, tc.says) || tc.says == "" && r.Err() != nil && r.Outcome == virtual.Stuck {
				t.Errorf("started %+v, %s, want %q\n%s", kernel, s, tc.says, r.Effects())
			}
		})
	}
}

// Every file of a disk made here is read, whatever the size of its clusters.
func TestDisk(t *testing.T) {
	for _, size := range []int{1000, 2_000_000, 2_200_000, 40_000_000} {
		data := bytes.Repeat([]byte("0123456789"), size/20)
		d, err := openDisk(Disk(size, map[string][]byte{"one.bin": data, "a long name.text": []byte("x"), "empty": nil}))
		if err != nil {
			t.Fatal(err)
		}
		one, err := d.file("ONE.BIN")
		long, err2 := d.file("a long name.text")
		empty, err3 := d.file("empty")
		_, err4 := d.file("other")
		if !bytes.Equal(one, data) || string(long) != "x" || len(empty) != 0 || errors.Join(err, err2, err3) != nil || err4 == nil || !d.alike {
			t.Errorf("%d: %d bytes, %q; %v %v %v %v", size, len(one), long, err, err2, err3, err4)
		}
	}
}

func FuzzDisk(f *testing.F) {
	f.Add(Disk(3000, map[string][]byte{"config.txt": []byte("kernel=a"), "a long name.text": make([]byte, 1000)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := openDisk(b); err == nil {
			if data, err := d.file("config.txt"); err == nil && len(data) > len(b) {
				t.Errorf("%d bytes of %d", len(data), len(b))
			}
		}
	})
}
