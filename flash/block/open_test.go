//go:build linux

package block

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// gadget adds a mass storage device to a port, without its disks.
func (tr *tree) gadget(port, class, driver string) {
	dir := "sys/devices/pci0000:00/usb1/" + port
	for name, value := range map[string]string{"idVendor": "0525", "idProduct": "a4a5", "bcdDevice": "0100", "busnum": "1", "devnum": "5", "bConfigurationValue": "1"} {
		tr.file(dir+"/"+name, value+"\n")
	}
	for name, value := range map[string]string{"bInterfaceClass": class, "bInterfaceSubClass": "06", "bInterfaceProtocol": "50"} {
		tr.file(dir+"/"+port+":1.0/"+name, value+"\n")
	}
	if driver != "" {
		tr.file("sys/bus/usb/drivers/"+driver+"/uevent", "")
		tr.link("sys/bus/usb/drivers/"+driver, dir+"/"+port+":1.0/driver")
	}
	tr.link(dir, "sys/bus/usb/devices/"+port)
}

// What is in use is refused, whether that is forced or not, and what is not known to be meant, unless it is forced.
func TestRefuse(t *testing.T) {
	never := "never"
	for _, tc := range []struct {
		name   string
		make   func(tr *tree)
		o      Options
		says   string // empty: it is opened
		forced string // the same if it is forced; never: as says
	}{
		{"fine", func(*tree) {}, Options{Port: "1-2"}, "", ""},
		{"a partition", func(*tree) {}, Options{Port: "1-2", Partition: 2}, "", ""},
		{"by node", func(*tree) {}, Options{Path: "dev/sdb"}, "", ""},
		{"by node, a partition", func(*tree) {}, Options{Path: "dev/sdb2"}, "", ""},
		{"by a link", func(tr *tree) { tr.link("dev/sdb", "dev/disk/by-id/usb-1") }, Options{Path: "dev/disk/by-id/usb-1"}, "", ""},
		{"mounted", func(tr *tree) { tr.mounted("8:0", "/dev/sdb", "/mnt") }, Options{Port: "1-2"}, "it is mounted on /mnt", never},
		{"a mounted partition of it", func(tr *tree) { tr.mounted("8:2", "/dev/sdb2", `/media/a\040b`) }, Options{Port: "1-2"}, "dev/sdb2 is mounted on /media/a b", never},
		{"another partition mounted", func(tr *tree) { tr.mounted("8:2", "/dev/sdb2", "/mnt") }, Options{Port: "1-2", Partition: 1}, "", ""},
		{"its disk mounted", func(tr *tree) { tr.mounted("8:0", "/dev/sdb", "/mnt") }, Options{Port: "1-2", Partition: 1}, "dev/sdb is mounted on /mnt", never},
		{"mounted where init is", func(tr *tree) {
			tr.file("proc/1/mountinfo", "30 22 8:2 / /host rw - ext4 /dev/sdb2 rw\n")
		}, Options{Port: "1-2"}, "dev/sdb2 is mounted on /host", never},
		{"btrfs", func(tr *tree) { tr.mounted("0:40", "/dev/sdb2", "/mnt") }, Options{Port: "1-2"}, "dev/sdb2 is mounted on /mnt", never},
		{"swap", func(tr *tree) {
			tr.file("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/swapfile file 1 0 -2\n/dev/sdb2 partition 1 0 -2\n")
			tr.file("swapfile", "")
		}, Options{Port: "1-2"}, "dev/sdb2 is swap space", never},
		{"a volume", func(tr *tree) { tr.volume("sys/"+fmt.Sprintf(onUSB, 0)+"/sdb/sdb2", "dm-0", "vg-data", 253) }, Options{Port: "1-2"}, "dev/sdb2 is held by dm-0 (vg-data)", never},
		{"a loop device", func(tr *tree) {
			tr.file(tr.disk(nowhere, "loop3", 7, 8, 0)+"/loop/backing_file", filepath.Join(tr.root, "dev/sdb2")+"\n")
		}, Options{Port: "1-2"}, "dev/sdb2 is held by loop3", never},
		{"the system's", func(tr *tree) { tr.mounted("8:2", "/dev/sdb2", "/") }, Options{Port: "1-2"}, "it is the disk of the running system, whose / is on it", never},
		{"another partition of the system's", func(tr *tree) { tr.mounted("8:2", "/dev/sdb2", "/boot") }, Options{Path: "dev/sdb1"}, "it is the disk of the running system, whose /boot is on it", never},
		{"the system's, under a volume", func(tr *tree) {
			tr.volume("sys/"+fmt.Sprintf(onUSB, 0)+"/sdb/sdb2", "dm-0", "crypt", 253)
			tr.volume("sys/"+nowhere+"/dm-0", "dm-1", "root", 254)
			tr.mounted("254:0", "/dev/mapper/root", "/")
		}, Options{Path: "dev/sdb1"}, "it is the disk of the running system, whose / is on it", never},
		{"the system's, on btrfs", func(tr *tree) { tr.mounted("0:40", "/dev/sdb2", "/") }, Options{Path: "dev/sdb1"}, "it is the disk of the running system", never},
		{"write-protected", func(tr *tree) { tr.file("sys/"+fmt.Sprintf(onUSB, 0)+"/sdb/ro", "1\n") }, Options{Port: "1-2"}, "it is write-protected", never},
		{"taken", func(tr *tree) { tr.opening = unix.EBUSY }, Options{Port: "1-2"}, "another program has it open for itself", never},
		{"not ours", func(tr *tree) { tr.opening = unix.EACCES }, Options{Port: "1-2"}, "permission denied", never},
		{"on another port", func(*tree) {}, Options{Port: "1-3", Path: "dev/sdb"}, "it is not on USB port 1-3, but on 1-2", ""},
		{"not on USB", func(tr *tree) { tr.disk(onSATA, "sda", 7, 8, 1) }, Options{Path: "dev/sda"}, "it is neither on USB nor removable", ""},
		{"a partition not on USB", func(tr *tree) { tr.disk(onSATA, "sda", 7, 8, 1) }, Options{Path: "dev/sda1"}, "it is neither on USB nor removable", ""},
		{"not on that port, nor on USB", func(tr *tree) { tr.disk(onSATA, "sda", 7, 8, 1) }, Options{Port: "1-2", Path: "dev/sda"}, "it is not on USB port 1-2, nor on USB at all", ""},
		{"removable", func(tr *tree) { tr.file(tr.disk(onSATA, "sr0", 7, 8, 0)+"/removable", "1\n") }, Options{Path: "dev/sr0"}, "", ""},
		{"no device", func(*tree) {}, Options{Path: "dev/sdz"}, "no device", never},
		{"a file", func(tr *tree) { tr.file("dev/file", "") }, Options{Path: "dev/file"}, "it is no block device", never},
		{"nothing on the port", func(*tree) {}, Options{Port: "1-3"}, "no disk on USB port 1-3, LUN 0: nothing is there", never},
		{"another LUN", func(tr *tree) { tr.gadget("1-4", "08", "usb-storage") }, Options{Port: "1-4", LUN: 1}, "no disk on USB port 1-4, LUN 1: 0525:a4a5 is there, a mass storage device, but has no such disk yet", never},
		{"no driver", func(tr *tree) { tr.gadget("1-4", "08", "") }, Options{Port: "1-4"}, "no driver has taken it (modprobe usb-storage)", never},
		{"no mass storage", func(tr *tree) { tr.gadget("1-4", "ff", "") }, Options{Port: "1-4"}, "which is no mass storage device", never},
		{"no partition", func(*tree) {}, Options{Port: "1-2", Partition: 3}, "no partition 3 on ", never},
		{"a partition of a partition", func(*tree) {}, Options{Path: "dev/sdb1", Partition: 2}, "it is partition 1, not 2", never},
		{"two disks", func(tr *tree) { tr.disk(fmt.Sprintf(onUSB, 1), "sdc", 9, 8, 0) }, Options{Port: "1-2", LUN: AnyLUN}, "it has several disks: LUN 0 is ", never},
		{"the second", func(tr *tree) { tr.disk(fmt.Sprintf(onUSB, 1), "sdc", 9, 8, 0) }, Options{Port: "1-2", LUN: 1}, "", ""},
		{"the only one", func(*tree) {}, Options{Port: "1-2", LUN: AnyLUN}, "", ""},
		{"no medium", func(tr *tree) { tr.file("sys/"+fmt.Sprintf(onUSB, 0)+"/sdb/size", "0\n") }, Options{Port: "1-2"}, "no medium in ", never},
		{"no medium, a partition", func(tr *tree) { tr.file("sys/"+fmt.Sprintf(onUSB, 0)+"/sdb/size", "0\n") }, Options{Port: "1-2", Partition: 1}, "no medium in ", never},
		{"mounts unknown", func(tr *tree) { os.Remove(filepath.Join(tr.root, "proc/self/mountinfo")) }, Options{Port: "1-2"}, "what is mounted cannot be known", never},
		{"nothing meant", func(*tree) {}, Options{}, "neither a device nor a USB port is named", never},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, force := range []bool{false, true} {
				tr := newTree(t)
				tr.disk(fmt.Sprintf(onUSB, 0), "sdb", 8, 64, 2)
				tc.make(tr)
				o := tc.o
				o.System, o.Force = tr.system(), force
				if o.Path != "" {
					o.Path = filepath.Join(tr.root, o.Path)
				}
				d, err := Open(t.Context(), o)
				want := tc.says
				if force && tc.forced != never {
					want = tc.forced
				}
				if want == "" && err == nil {
					if !strings.Contains(d.String(), d.Node) || d.Size == 0 {
						t.Errorf("%+v", d)
					}
					continue
				}
				if err == nil || want == "" || !strings.Contains(err.Error(), want) {
					t.Errorf("forced %t: %v, want %q", force, err, want)
				}
			}
		})
	}
}

// A disk on a connector of USB 3 is on the port by either name.
func TestPeer(t *testing.T) {
	tr := newTree(t)
	tr.disk(fmt.Sprintf(onUSB, 0), "sdb", 8, 64, 0)
	tr.file("sys/bus/usb/devices/usb2/2-0:1.0/usb2-port2/uevent", "")
	if err := os.Symlink("../../../usb1/1-0:1.0/usb1-port2", filepath.Join(tr.root, "sys/bus/usb/devices/usb2/2-0:1.0/usb2-port2/peer")); err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), Options{Port: "2-2", System: tr.system()})
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%s (Linux UMS disk 0, 67.1 MB, on 1-2)", d.Node); d.String() != want {
		t.Errorf("%s, want %s", d, want)
	}
}

// What is still to come is awaited: the device, its medium, its partitions, and the right to open it.
func TestWait(t *testing.T) {
	steps := []func(tr *tree){
		func(tr *tree) { tr.gadget("1-2", "08", "usb-storage") },
		func(tr *tree) {
			tr.opening = unix.EBUSY // udevd
			tr.file(tr.disk(fmt.Sprintf(onUSB, 0), "sdb", 8, 64, 0)+"/size", "0\n")
		},
		func(tr *tree) { tr.file("sys/"+fmt.Sprintf(onUSB, 0)+"/sdb/size", "131072\n") },
		func(tr *tree) {
			os.RemoveAll(filepath.Join(tr.root, "sys/block/sdb"))
			os.RemoveAll(filepath.Join(tr.root, "sys/dev/block/8:0"))
			tr.opening = unix.EACCES // in the look that finds the partition: not for long is it awaited
			tr.disk(fmt.Sprintf(onUSB, 0), "sdb", 8, 64, 1)
		},
		func(tr *tree) { tr.opening = nil },
	}
	for _, lun := range []int{AnyLUN, 0} {
		tr := newTree(t)
		o := Options{Port: "1-2", Partition: 1, LUN: lun, Wait: time.Minute, System: tr.system()}
		look := 0
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		o.System.looks = func() {
			if look < len(steps) {
				steps[look](tr)
				look++
			}
		}
		d, err := Open(ctx, o)
		if err != nil || look != len(steps) || d.part.name != "sdb1" {
			t.Errorf("disk %d: after %d steps: %v", lun, look, err)
		}
	}
}

func TestWaitEnds(t *testing.T) {
	tr := newTree(t)
	begun := time.Now()
	_, err := Open(t.Context(), Options{Port: "1-2", Wait: 600 * time.Millisecond, System: tr.system()})
	absent, ok := errors.AsType[*AbsentError](err)
	if !ok || absent.Found != "nothing is there" || time.Since(begun) < 600*time.Millisecond || time.Since(begun) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(begun), err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := Open(ctx, Options{Port: "1-2", Wait: time.Hour, System: tr.system()}); !errors.Is(err, enough) {
		t.Error(err)
	}
}

func TestParseMounts(t *testing.T) {
	got := parseMounts(`22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:2 - ext3 /dev/r\134t rw,errors=continue
short line - x
37 35 8:1 / / rw
`)
	want := []mount{{"0:21", "proc", "/proc"}, {"98:0", `/dev/r\t`, "/mnt 2"}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(mount{})); d != "" {
		t.Error(d)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw\n")
	f.Fuzz(func(t *testing.T, table string) {
		for _, m := range parseMounts(table) {
			if m.number == "" || m.source == "" || m.point == "" {
				t.Errorf("%+v", m)
			}
		}
	})
}
