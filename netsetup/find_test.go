//go:build linux

package netsetup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"snag/usb"
)

// fakeSysfs is a sysfs to which devices are added.
type fakeSysfs string

func newSysfs(t *testing.T) fakeSysfs {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{"class/net", "bus/usb/devices", "bus/usb/drivers", "bus/pci", "devices"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return fakeSysfs(root)
}

func (s fakeSysfs) write(t *testing.T, path, text string) {
	t.Helper()
	p := filepath.Join(string(s), path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (s fakeSysfs) link(t *testing.T, target, path string) {
	t.Helper()
	p := filepath.Join(string(s), path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.Symlink(filepath.Join(string(s), target), p)); err != nil {
		t.Fatal(err)
	}
}

// plug adds a USB network device: parent is "1-2:1.0".
func (s fakeSysfs) plug(t *testing.T, parent, name, index, vendor, product, driver string) {
	t.Helper()
	device, _, _ := strings.Cut(parent, ":")
	dir := "devices/pci0000:00/usb1/" + device
	s.write(t, dir+"/idVendor", vendor+"\n")
	s.write(t, dir+"/idProduct", product+"\n")
	s.write(t, dir+"/busnum", "1\n")
	s.write(t, dir+"/devnum", "7\n")
	s.link(t, "bus/usb", dir+"/"+parent+"/subsystem")
	s.link(t, "bus/usb/drivers/"+driver, dir+"/"+parent+"/driver")
	s.link(t, dir, "bus/usb/devices/"+device)
	s.link(t, dir+"/"+parent, "bus/usb/devices/"+parent)
	s.netdev(t, dir+"/"+parent, name, index)
}

func (s fakeSysfs) netdev(t *testing.T, dir, name, index string) {
	t.Helper()
	s.write(t, dir+"/net/"+name+"/ifindex", index+"\n")
	s.link(t, dir, dir+"/net/"+name+"/device")
	s.link(t, dir+"/net/"+name, "class/net/"+name)
}

func TestInterfaces(t *testing.T) {
	s := newSysfs(t)
	s.plug(t, "1-2.3:2.0", "usb0", "9", "0451", "d022", "cdc_ether")
	s.plug(t, "1-4:1.0", "eth1", "7", "0451", "6141", "rndis_host")
	s.plug(t, "1-5:1.0", "eth2", "x", "0451", "6141", "rndis_host") // no index
	s.plug(t, "1-6:1.0", "eth3", "8", "0451", "61", "rndis_host")
	s.plug(t, "usb1:1.0", "eth4", "8", "0451", "6141", "rndis_host") // no port
	s.write(t, "devices/virtual/net/lo/ifindex", "1\n")
	s.link(t, "devices/virtual/net/lo", "class/net/lo")
	s.link(t, "bus/pci", "devices/pci0000:00/0000:00:03.0/subsystem")
	s.netdev(t, "devices/pci0000:00/0000:00:03.0", "eth0", "2")
	s.link(t, "devices/nowhere", "class/net/usb9") // just vanished

	got, err := Host{Sysfs: string(s)}.Interfaces()
	want := []Interface{
		{7, "eth1", "1-4", usb.ID{Vendor: 0x0451, Product: 0x6141}, 1, 0, "rndis_host"},
		{8, "eth3", "1-6", usb.ID{Vendor: 0x0451, Product: 0x0061}, 1, 0, "rndis_host"},
		{9, "usb0", "1-2.3", usb.ID{Vendor: 0x0451, Product: 0xd022}, 2, 0, "cdc_ether"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nexpected %+v", got, err, want)
	}
	if _, err := (Host{Sysfs: "/nonexistent"}).Interfaces(); err == nil {
		t.Error("no sysfs is no error")
	}
}

func TestNamedNamespace(t *testing.T) {
	for _, name := range []string{"..", "../1/ns", "a/b", "."} {
		if _, err := (Host{NetNS: name}).Interfaces(); err == nil || !strings.Contains(err.Error(), "expected the name") {
			t.Errorf("%q: %v", name, err)
		}
	}
	var none *NoNamespaceError
	if _, err := (Host{NetNS: "netsetup-test-none"}).Interfaces(); !errors.Is(err, os.ErrNotExist) || !errors.As(err, &none) {
		t.Errorf("no such namespace: %v", err)
	}
}

func next(t *testing.T, lists <-chan []Interface) []Interface {
	t.Helper()
	select {
	case l, ok := <-lists:
		if !ok {
			t.Fatal("the watch has ended")
		}
		return l
	case <-time.After(5 * time.Second):
		t.Fatal("nothing was told")
	}
	return nil
}

func TestWatch(t *testing.T) {
	s := newSysfs(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lists, err := Host{Sysfs: string(s)}.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if l := next(t, lists); len(l) != 0 {
		t.Errorf("at first: %v", l)
	}
	s.plug(t, "1-4:1.0", "eth1", "7", "0451", "6141", "rndis_host")
	l := next(t, lists)
	for len(l) == 0 || l[0].Driver == "" {
		l = next(t, lists) // half plugged
	}
	if len(l) != 1 || l[0].Index != 7 {
		t.Errorf("plugged: %v", l)
	}
	if err := os.Remove(filepath.Join(string(s), "class/net/eth1")); err != nil {
		t.Fatal(err)
	}
	if l := next(t, lists); len(l) != 0 {
		t.Errorf("unplugged: %v", l)
	}
	cancel()
	for range lists { // until it is closed
	}
}

// TestLinkEvents: an event comes at once, long before a poll would see the change.
func TestLinkEvents(t *testing.T) {
	requireRoot(t)
	ns, err := newNetNS()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var events <-chan struct{}
	inFile(t, ns, func() (err error) { events, err = linkEvents(ctx); return err })
	select {
	case <-events:
		t.Fatal("an event of nothing")
	case <-time.After(20 * time.Millisecond):
	}
	inFile(t, ns, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "usb0"}, PeerName: "usb1"})
	})
	select {
	case <-events:
	case <-time.After(5 * time.Second):
		t.Fatal("no event")
	}
}

// TestInNetNS: whatever happens inside, the thread that others use afterwards is where it was.
func TestInNetNS(t *testing.T) {
	requireRoot(t)
	ns, err := newNetNS()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		inFile(t, ns, func() error {
			if in, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || in == own {
				t.Errorf("inside: %s, %v", in, err)
			}
			return nil
		})
	}
	tasks, _ := filepath.Glob("/proc/self/task/*/ns/net")
	for _, f := range tasks {
		if in, err := os.Readlink(f); err == nil && in != own {
			t.Errorf("%s: %s, expected %s", f, in, own)
		}
	}
	if err := inNetNS("/proc/self/ns/uts", func() error { t.Error("called"); return nil }); !errors.Is(err, unix.EINVAL) {
		t.Errorf("not a network namespace: %v", err)
	}
}

func FuzzSysfs(f *testing.F) {
	f.Add("1-2.3:1.0", "0451\n")
	f.Add("1-2:1.0:1.0", "-7")
	f.Fuzz(func(t *testing.T, parent, number string) {
		if port, config, n, ok := parseUSBInterface(parent); ok {
			if !strings.HasPrefix(parent, string(port)+":") || strings.Contains(parent, "/") || config > 255 || n > 255 {
				t.Fatalf("%q: %s %d %d", parent, port, config, n)
			}
		}
		if v, err := parseNumber(number, 16, 16); err == nil && v > 0xffff {
			t.Fatalf("%q: %d", number, v)
		}
	})
}
