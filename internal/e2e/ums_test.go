package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"snag/flash"
	"snag/flash/block"
	"snag/flash/image"
	"snag/internal/lab"
	"snag/sim/ums"
	"snag/sim/virtual"
	"snag/usb"
)

// TestMassStorage takes virtual mass storage gadgets through the kernel's own usb-storage and sd. One VM for all.
func TestMassStorage(t *testing.T) {
	t.Parallel()
	lab.GoTest(t, ".", "^TestWithUMS", lab.Job{
		Script: "modprobe -a vhci-hcd sd_mod ext4\nmodprobe usb-storage delay_use=0", Packages: []string{"bmap-tools", "e2fsprogs", "fdisk"}, Files: programs(t), Udev: true, Timeout: 3 * time.Minute,
	})
}

// plugUMS plugs a board in.
func plugUMS(t *testing.T, cfg ums.Config) (board *ums.Board, port usb.Port, unplug func()) {
	t.Helper()
	board, err := ums.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	port, unplug = plugAlone(t, board.Run)
	return board, port, unplug
}

// diskImage writes an image of 24 MiB and a bit, with a partition table of two partitions, holes, and a block map.
func diskImage(t *testing.T) (name string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	source := rand.NewChaCha8([32]byte{1, 5}) // which is quick, even where the processor is emulated
	rng := rand.New(source)
	for at := int64(1 << 20); at < 23<<20; at += 512 << 10 * (1 + rng.Int64N(4)) {
		b := make([]byte, 4096*(1+rng.Int64N(100)))
		source.Read(b)
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(24<<20 + 777); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sfdisk", "-q", name)
	cmd.Stdin = strings.NewReader("label: dos\n2048,16384\n18432,16384\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	im, err := image.Open(t.Context(), name, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.CreateMap(t.Context(), im, image.MapOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name+".bmap", text, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// flashUMS opens a device and writes an image to it.
func flashUMS(t *testing.T, o block.Options, name string, verify bool) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if o.Wait == 0 {
		o.Wait = 20 * time.Second
	}
	d, err := block.Open(ctx, o)
	if err != nil {
		return err
	}
	defer d.Close()
	im, err := image.Open(ctx, name, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	err = d.Write(ctx, im, flash.Options{Verify: verify})
	t.Logf("%s: %.1f s: %v", d, time.Since(begun).Seconds(), err)
	return err
}

// node awaits the disk on a port.
func node(t *testing.T, port usb.Port) string {
	t.Helper()
	d, err := block.Open(t.Context(), block.Options{Port: port, Wait: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	return d.Node
}

// bmaptool and snag leave the same behind.
func TestWithUMSPeers(t *testing.T) {
	lab.Inside(t)
	name := diskImage(t)
	var sums []string
	for _, peer := range []string{"bmaptool", "snag"} {
		t.Run(peer, func(t *testing.T) {
			unit := ums.Unit{}
			if peer == "snag" { // it has to wait for the gadget, and then for its medium
				unit.Absent = time.Second
			}
			board, port, _ := plugUMS(t, ums.Config{Units: []ums.Unit{unit}})
			if peer == "bmaptool" {
				t.Log(must(t, "bmaptool", "-q", "copy", "--bmap", name+".bmap", name, node(t, port)))
			} else {
				if err := flashUMS(t, block.Options{Port: port, LUN: block.AnyLUN}, name, true); err != nil {
					t.Error(err)
				}
				soon(t, 30*time.Second, func() error { // the kernel knows the new partitions
					d, err := block.Open(t.Context(), block.Options{Port: port, Partition: 2})
					if err != nil {
						return err
					}
					if d.Size != 8<<20 {
						t.Errorf("%s has %d bytes", d, d.Size)
					}
					return d.Close()
				})
			}
			r := board.Report()
			for _, v := range r.Violations {
				t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
			}
			u := r.Last(ums.StageGadget).Units[0]
			if u.Unsynced {
				t.Error("not all is flushed")
			}
			sums = append(sums, board.Storage(0).(*ums.Memory).Sum())
			if sums[len(sums)-1] != sums[0] {
				t.Errorf("the storage holds something else than bmaptool's; the host wrote %d bytes", u.Written)
			}
		})
	}
}

// What a gadget does wrong is found, and named.
func TestWithUMSFaults(t *testing.T) {
	lab.Inside(t)
	name := diskImage(t)
	for _, tc := range []struct {
		name string
		cfg  ums.Config
		is   error // beside the range
		says string
	}{
		{"bad block", ums.Config{Units: []ums.Unit{{Bad: []int64{2049}}}}, nil, "writing: "},
		{"lost block", ums.Config{Units: []ums.Unit{{Lost: []int64{2049}}}}, block.ErrDiffers, "bytes 10"},
		{"unplugged", ums.Config{Faults: []ums.Fault{{Kind: ums.Unplug, Stage: ums.StageGadget, At: 2_000_000}}}, nil, "the device has left the bus"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, port, _ := plugUMS(t, tc.cfg)
			err := flashUMS(t, block.Options{Port: port}, name, true)
			at, ok := errors.AsType[*image.RangeError](err)
			if !ok || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("%v, want %q", err, tc.says)
			}
			if strings.HasSuffix(tc.name, "block") && (at.Off > 2049*512 || at.End <= 2049*512) {
				t.Errorf("%v is not about block 2049", err)
			}
		})
	}
}

// What is in use, or not what was meant, stays as it is.
func TestWithUMSRefused(t *testing.T) {
	lab.Inside(t)
	name := diskImage(t)
	small := make([]byte, 1000)
	file := imageFile(t, small)
	board, port, _ := plugUMS(t, ums.Config{Units: []ums.Unit{{}, {Size: 1 << 20}, {ReadOnly: true}}})
	if err := flashUMS(t, block.Options{Port: port}, name, false); err != nil {
		t.Fatal(err)
	}
	disk := node(t, port)
	must(t, "udevadm", "settle")
	must(t, "mke2fs", "-q", "-F", disk+"1")
	must(t, "mkswap", disk+"2")
	must(t, "sync")
	refused := func(o block.Options, says string) {
		t.Helper()
		written := func() int64 { return board.Report().Last(ums.StageGadget).Units[0].Written }
		before := written()
		o.Force = true
		if o.Path == "" {
			o.Port = port
		}
		err := flashUMS(t, o, file, false)
		if _, ok := errors.AsType[*block.RefusedError](err); !ok || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
		if written() != before {
			t.Errorf("%s: it was written nevertheless", says)
		}
	}
	mount := func(where string) func() {
		t.Helper()
		if err := os.MkdirAll(where, 0o755); err != nil {
			t.Fatal(err)
		}
		must(t, "mount", disk+"1", where)
		return func() { must(t, "umount", where) }
	}
	umount := mount("/mnt")
	refused(block.Options{}, disk+"1 is mounted on /mnt")
	refused(block.Options{Partition: 1}, "it is mounted on /mnt")
	refused(block.Options{Path: disk + "1"}, "it is mounted on /mnt")
	umount()
	umount = mount("/boot")
	refused(block.Options{Partition: 2}, "the disk of the running system, whose /boot is on it")
	umount()
	must(t, "swapon", disk+"2")
	refused(block.Options{}, disk+"2 is swap space")
	refused(block.Options{Partition: 2}, "it is swap space")
	must(t, "swapoff", disk+"2")
	other, err := block.Open(t.Context(), block.Options{Port: port, Partition: 2})
	if err != nil {
		t.Fatal(err)
	}
	refused(block.Options{}, "another program has it open for itself")
	other.Close()
	refused(block.Options{LUN: block.AnyLUN}, "several disks: LUN 0 is "+disk)
	refused(block.Options{LUN: 2}, "write-protected")
	if err := flashUMS(t, block.Options{Port: port, LUN: 1}, name, false); err == nil || !strings.Contains(err.Error(), "it has 1048576 bytes") {
		t.Error(err)
	}
	if err := flashUMS(t, block.Options{Port: "1-8", Path: disk}, file, false); err == nil || !strings.Contains(err.Error(), "not on USB port 1-8, but on "+string(port)) {
		t.Error(err)
	}

	// A file in its file system, of which nothing is seen mounted.
	kernel := bytes.Repeat([]byte("kernel\n"), 30_000)
	m := &block.Mounted{Options: block.Options{Port: port, Partition: 1}, Name: "zImage"}
	im, err := image.Open(t.Context(), imageFile(t, kernel), image.Options{AsIs: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Write(t.Context(), im, flash.Options{Verify: true}); err != nil {
		t.Errorf("%s: %v", m, err)
	}
	umount = mount("/mnt")
	if got, err := os.ReadFile("/mnt/zImage"); !bytes.Equal(got, kernel) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	umount()

	// U-Boot goes on when it is ejected.
	d, err := block.Open(t.Context(), block.Options{Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Eject(); err != nil {
		t.Error(err)
	}
	soon(t, 30*time.Second, func() error {
		if r := board.Report(); r.Outcome != virtual.Booted {
			return fmt.Errorf("the board is %s", r.Outcome)
		}
		return nil
	})
}
