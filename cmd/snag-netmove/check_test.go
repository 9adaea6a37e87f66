package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseIndex(t *testing.T) {
	for s, want := range map[string]int{
		"2": 2, "17": 17, "2147483647": 2147483647,
		"": 0, "0": 0, "1": 0, "-3": 0, "+3": 0, "007": 0, " 7": 0, "7 ": 0, "7\n": 0, "0x7": 0, "1_0": 0,
		"2147483648": 0, "99999999999999999999": 0, "eth0": 0,
	} {
		if got, ok := parseIndex(s); got != want || ok != (want != 0) {
			t.Errorf("parseIndex(%q) = %d, %v, expected %d", s, got, ok, want)
		}
	}
}

func TestIsIdentity(t *testing.T) {
	for s, want := range map[string]bool{
		"         0          0 4294967295\n":                true,
		"         0       1001          1\n":                false,
		"         0          0      65536\n":                false,
		"         0          0 4294967295\n 1 1 1\n":        false,
		"0 0 4294967294\n":                                  false,
		"":                                                  false,
		"         0     100000      65536\n 65536 1001 1\n": false,
	} {
		if got := isIdentity([]byte(s)); got != want {
			t.Errorf("isIdentity(%q) = %v", s, got)
		}
	}
}

func code(r *refusal) int {
	if r == nil {
		return exitOK
	}
	return r.code
}

func TestIdentityCheck(t *testing.T) {
	good := identity{uid: 1001, euid: 1001, initial: true, netAdmin: true}
	for _, tc := range []struct {
		name   string
		change func(*identity)
		want   int
	}{
		{"good", func(*identity) {}, exitOK},
		{"root", func(c *identity) { c.uid, c.euid = 0, 0 }, exitOK},
		{"setuid root", func(c *identity) { c.euid = 0 }, exitNamespace},
		{"setuid to another", func(c *identity) { c.uid, c.euid = 0, 1001 }, exitNamespace},
		{"user namespace", func(c *identity) { c.initial = false }, exitNamespace},
		{"no capability", func(c *identity) { c.netAdmin = false }, exitNotCapable},
		{"no new privileges", func(c *identity) { c.netAdmin, c.noNewPrivs = false, true }, exitNotCapable},
		{"no new privileges to gain", func(c *identity) { c.noNewPrivs = true }, exitOK},
	} {
		c := good
		tc.change(&c)
		if r := c.check(); code(r) != tc.want {
			t.Errorf("%s: %v, expected exit %d", tc.name, r, tc.want)
		}
	}
	if r := (identity{initial: true, noNewPrivs: true}).check(); !strings.Contains(r.text, "no_new_privs") {
		t.Errorf("with no_new_privs: %q does not say so", r.text)
	}
}

func TestNamespaceCheck(t *testing.T) {
	for _, tc := range []struct {
		name string
		ns   namespace
		uid  int
		want int
	}{
		{"own", namespace{net: true, owner: 1001}, 1001, exitOK},
		{"root's own", namespace{net: true, owner: 0}, 0, exitOK},
		{"no namespace", namespace{owner: 1001}, 1001, exitNamespace},
		{"the one it is in", namespace{net: true, own: true, owner: 1001}, 1001, exitNamespace},
		{"root's", namespace{net: true, owner: 0}, 1001, exitNamespace},
		{"another's", namespace{net: true, owner: 1002}, 1001, exitNamespace},
		{"another's, for root", namespace{net: true, owner: 1002}, 0, exitNamespace},
	} {
		if r := tc.ns.check(tc.uid); code(r) != tc.want {
			t.Errorf("%s: %v, expected exit %d", tc.name, r, tc.want)
		}
	}
}

func TestNetns(t *testing.T) {
	const self = "/proc/self/ns/net"
	for path, want := range map[string]namespace{
		self:                {net: true, own: true},
		"/proc/self/ns/uts": {},
		"/proc/self/ns/mnt": {},
		"/etc/passwd":       {},
		"/dev/null":         {},
	} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		got, r := netns(int(f.Fd()), self)
		f.Close()
		if got.owner = 0; r != nil || got != want {
			t.Errorf("%s: %+v, %v", path, got, r)
		}
	}
	if got, r := netns(-1, self); r != nil || got.net {
		t.Errorf("closed descriptor: %+v, %v", got, r)
	}
}

// fakeHost is a sysfs and a /dev with one board on port 1-2.3, and the link that belongs to it.
func fakeHost(t *testing.T) (host, link, string) {
	t.Helper()
	root := t.TempDir()
	devices := filepath.Join(root, "sys/bus/usb/devices")
	write(t, filepath.Join(devices, "1-2.3/idVendor"), "0451\n")
	write(t, filepath.Join(devices, "1-2.3/idProduct"), "6141\n")
	write(t, filepath.Join(devices, "1-2.3/busnum"), "1\n")
	write(t, filepath.Join(devices, "1-2.3/devnum"), "7\n")
	setDriver(t, devices, "rndis_host")
	h := host{
		sysfs: filepath.Join(root, "sys"),
		dev:   "/nowhere",
		conf:  filepath.Join(root, "netmove.conf"),
		openNode: func(path string) (node, error) {
			if path != "/nowhere/bus/usb/001/007" {
				t.Errorf("opened %s", path)
			}
			return node{char: true, major: 189, minor: 6}, nil
		},
	}
	return h, link{index: 5, ethernet: true, parentBus: "usb", parent: "1-2.3:1.0"}, filepath.Join(devices, "1-2.3")
}

func setDriver(t *testing.T, devices, name string) {
	t.Helper()
	l := filepath.Join(devices, "1-2.3:1.0/driver")
	os.Remove(l)
	err := errors.Join(os.MkdirAll(filepath.Dir(l), 0o755), os.Symlink("../../../../../../bus/usb/drivers/"+name, l))
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, s string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(s), 0o644), os.Chmod(path, 0o644)); err != nil {
		t.Fatal(err)
	}
}

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: files and namespaces of root and of others")
	}
}

func TestHostCheck(t *testing.T) {
	opens := func(n node, err error) func(*testing.T, *host, *link, string) {
		return func(t *testing.T, h *host, l *link, device string) {
			h.openNode = func(string) (node, error) { return n, err }
		}
	}
	id := func(vendor, product string) func(*testing.T, *host, *link, string) {
		return func(t *testing.T, h *host, l *link, device string) {
			write(t, device+"/idVendor", vendor+"\n")
			write(t, device+"/idProduct", product+"\n")
		}
	}
	conf := func(text string) func(*testing.T, *host, *link, string) {
		return func(t *testing.T, h *host, l *link, device string) {
			requireRoot(t)
			id("1d6b", "0104")(t, h, l, device)
			write(t, h.conf, text)
		}
	}
	driver := func(name string) func(*testing.T, *host, *link, string) {
		return func(t *testing.T, h *host, l *link, device string) { setDriver(t, filepath.Dir(device), name) }
	}
	during := func(change func(t *testing.T, device string)) func(*testing.T, *host, *link, string) {
		return func(t *testing.T, h *host, l *link, device string) {
			open := h.openNode
			h.openNode = func(path string) (node, error) { change(t, device); return open(path) }
		}
	}
	type H = *host
	type L = *link
	for _, tc := range []struct {
		name  string
		fault func(t *testing.T, h *host, l *link, device string)
		want  int
	}{
		{"board", func(*testing.T, H, L, string) {}, exitOK},
		{"SPL", id("0451", "d022"), exitOK},

		{"not Ethernet", func(_ *testing.T, _ H, l L, _ string) { l.ethernet = false }, exitNotUSB},
		{"virtual", func(_ *testing.T, _ H, l L, _ string) { l.virtual = true }, exitNotUSB},
		{"PCI", func(_ *testing.T, _ H, l L, _ string) { l.parentBus = "pci" }, exitNotUSB},
		{"no parent", func(_ *testing.T, _ H, l L, _ string) { l.parentBus, l.parent = "", "" }, exitNotUSB},
		{"parent with a path", func(_ *testing.T, _ H, l L, _ string) { l.parent = "../1-2.3:1.0" }, exitNotUSB},
		{"parent is a device", func(_ *testing.T, _ H, l L, _ string) { l.parent = "1-2.3" }, exitNotUSB},
		{"another index", func(_ *testing.T, _ H, l L, _ string) { l.index = 6 }, exitSystem},

		{"cdc_ether", driver("cdc_ether"), exitOK},
		{"cdc_ncm", driver("cdc_ncm"), exitOK},
		{"cdc_eem", driver("cdc_eem"), exitOK},
		{"cdc_subset", driver("cdc_subset"), exitOK},
		{"an Ethernet adapter's driver", driver("r8152"), exitNotUSB},
		{"a modem's driver", driver("cdc_mbim"), exitNotUSB},
		{"longer driver", driver("cdc_ether2"), exitNotUSB},
		{"no driver any more", func(t *testing.T, _ H, _ L, device string) {
			os.Remove(filepath.Dir(device) + "/1-2.3:1.0/driver")
		}, exitGone},

		{"other product", id("0451", "6142"), exitNotListed},
		{"other vendor", id("0452", "6141"), exitNotListed},
		{"listed", conf("# boards of ours\n\n1d6b:0104 # gadget\r\n"), exitOK},
		{"not in the list", conf("1d6b:0105\n"), exitNotListed},
		{"list with a fault after it", conf("1d6b:0104\n1d6b:*\n"), exitConf},
		{"list writable by the group", func(t *testing.T, h H, l L, device string) {
			conf("1d6b:0104\n")(t, h, l, device)
			os.Chmod(h.conf, 0o664)
		}, exitConf},
		{"list writable by all", func(t *testing.T, h H, l L, device string) {
			conf("1d6b:0104\n")(t, h, l, device)
			os.Chmod(h.conf, 0o646)
		}, exitConf},
		{"list of another owner", func(t *testing.T, h H, l L, device string) {
			conf("1d6b:0104\n")(t, h, l, device)
			os.Chown(h.conf, 1001, 0)
		}, exitConf},
		{"list is a link", func(t *testing.T, h H, l L, device string) {
			conf("1d6b:0104\n")(t, h, l, device)
			os.Rename(h.conf, h.conf+".real")
			os.Symlink(h.conf+".real", h.conf)
		}, exitConf},
		{"list is a pipe", func(t *testing.T, h H, l L, device string) {
			conf("")(t, h, l, device)
			os.Remove(h.conf)
			unix.Mkfifo(h.conf, 0o644)
		}, exitConf},
		{"list too long", conf("1d6b:0104\n" + strings.Repeat("#", maxConf)), exitConf},

		{"node not for the caller", opens(node{}, unix.EACCES), exitNode},
		{"node forbidden", opens(node{}, unix.EPERM), exitNode},
		{"no node", opens(node{}, unix.ENOENT), exitNode},
		{"node is a link", opens(node{}, unix.ELOOP), exitSystem},
		{"node is a file", opens(node{major: 189, minor: 6}, nil), exitNode},
		{"node of another driver", opens(node{char: true, major: 1, minor: 6}, nil), exitNode},
		{"node of another device", opens(node{char: true, major: 189, minor: 7}, nil), exitNode},
		{"second bus", func(t *testing.T, h H, _ L, device string) {
			write(t, device+"/busnum", "2\n")
			write(t, device+"/devnum", "127\n")
			h.openNode = func(path string) (node, error) {
				if path != "/nowhere/bus/usb/002/127" {
					t.Errorf("opened %s", path)
				}
				return node{char: true, major: 189, minor: 128 + 126}, nil
			}
		}, exitOK},

		{"replaced meanwhile", during(func(t *testing.T, d string) { write(t, d+"/devnum", "8\n") }), exitGone},
		{"other ID meanwhile", during(func(t *testing.T, d string) { write(t, d+"/idProduct", "d022\n") }), exitGone},
		{"unplugged meanwhile", during(func(t *testing.T, d string) { os.RemoveAll(d) }), exitGone},
		{"unplugged before", func(t *testing.T, _ H, _ L, device string) { os.RemoveAll(device) }, exitGone},
		{"nonsense in sysfs", id("0451\n6141", "x"), exitSystem},
		{"device 0", func(t *testing.T, _ H, _ L, device string) { write(t, device+"/devnum", "0\n") }, exitGone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, l, device := fakeHost(t)
			tc.fault(t, &h, &l, device)
			r := h.check(5, l)
			if code(r) != tc.want {
				t.Errorf("%v, expected exit %d", r, tc.want)
			}
			if r != nil && (strings.Contains(r.text, device) || strings.Contains(r.text, "\n")) {
				t.Errorf("%q holds what the caller may choose", r.text)
			}
		})
	}
}

// TestOpenNode: a node is opened with the caller's own rights, and its type is that of the open file.
func TestOpenNode(t *testing.T) {
	if n, err := openNode("/dev/null"); err != nil || !n.char || n.major != 1 || n.minor != 3 {
		t.Errorf("/dev/null: %+v, %v", n, err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "")
	if n, err := openNode(file); err != nil || n.char {
		t.Errorf("a file: %+v, %v", n, err)
	}
	if err := os.Symlink(file, file+"link"); err != nil {
		t.Fatal(err)
	}
	if _, err := openNode(file + "link"); err != unix.ELOOP {
		t.Errorf("a link: %v", err)
	}
	if _, err := openNode(file + "none"); err != unix.ENOENT {
		t.Errorf("nothing: %v", err)
	}

	requireRoot(t)
	for _, p := range []string{dir, filepath.Dir(dir)} { // as root made them: 0700
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error)
	go func() { // this thread becomes an ordinary user for files, and ends with the goroutine
		runtime.LockOSThread()
		unix.SetfsuidRetUid(1001)
		_, err := openNode(file)
		done <- err
	}()
	if err := <-done; err != unix.EACCES {
		t.Errorf("without the right to write: %v", err)
	}
}

// TestRtnetlink asks the kernel of the namespace that the test is in, and moves an interface between
// two others.
func TestRtnetlink(t *testing.T) {
	c, err := dialRtnetlink()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.fd)
	ifaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifaces {
		l, err := c.link(i.Index)
		if err != nil || l.index != i.Index {
			t.Errorf("%s: %+v, %v", i.Name, l, err)
		}
		if l.ethernet && i.Flags&net.FlagLoopback != 0 {
			t.Errorf("%s is taken for Ethernet", i.Name)
		}
		if bus, err := filepath.EvalSymlinks("/sys/class/net/" + i.Name + "/device/subsystem"); err == nil && filepath.Base(bus) != l.parentBus {
			t.Errorf("%s: parent bus %q, expected that of %s", i.Name, l.parentBus, bus)
		}
	}
	if _, err := c.link(1 << 30); err != unix.ENODEV {
		t.Errorf("no interface: %v", err)
	}
	if err := c.move(1<<30, 0); err == nil {
		t.Error("moved nothing to nowhere")
	}
}

func TestDeviceOf(t *testing.T) {
	for s, want := range map[string]string{
		"1-2:1.0": "1-2", "1-2.3:1.0": "1-2.3", "12-2.3.4.5.6:2.10": "12-2.3.4.5.6",
		"": "", "1-2": "", "1-2:1": "", "1-2:1.": "", "1-2:.0": "", ":1.0": "", "1-:1.0": "", "-2:1.0": "", "usb1:1.0": "",
		"1-2..3:1.0": "", "1-2.:1.0": "", "1-2:1.0/x": "", "../1-2:1.0": "", "1-2:1.0:1.0": "", "1-2:1.0.0": "", "1-0:1.0 ": "",
		strings.Repeat("1", 70) + "-2:1.0": "",
	} {
		got, ok := deviceOf(s)
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("deviceOf(%q) = %q, expected %q", s, got, want)
		}
	}
}

func TestParseConf(t *testing.T) {
	for s, want := range map[string]int{
		"": 0, "\n\n": 0, "# nothing": 0, "1d6b:0104": 0, "\t 1D6B:0104 # x\r\n": 0,
		"1d6b:104": 1, "\n1d6b": 2, "1d6b:0104 0451:6141": 1, "1d6b-0104": 1, "1d6b:010g": 1, "1d6b:+104": 1, "#\n#\n::::": 3, "\x00": 1,
		"1d6b:01040": 1,
	} {
		if _, line := parseConf([]byte(s)); line != want {
			t.Errorf("parseConf(%q): line %d is faulty, expected %d", s, line, want)
		}
	}
	ids, _ := parseConf([]byte("1d6b:0104\n#\nABCD:0001\n"))
	if len(ids) != 2 || ids[0].String() != "1d6b:0104" || ids[1].String() != "abcd:0001" {
		t.Errorf("%v", ids)
	}
}

func FuzzParseConf(f *testing.F) {
	f.Add([]byte("# boards\n1d6b:0104 # gadget\r\n\n0525:a4a2"))
	f.Add([]byte("1d6b:104\n"))
	f.Add([]byte{0, '\n', 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		ids, line := parseConf(b)
		if line < 0 || line > strings.Count(string(b), "\n")+1 || line != 0 && ids != nil {
			t.Fatalf("line %d, %v", line, ids)
		}
		for _, i := range ids {
			if !strings.Contains(strings.ToLower(string(b)), i.String()) {
				t.Fatalf("%v is not in %q", i, b)
			}
		}
	})
}

func FuzzSysfs(f *testing.F) {
	f.Add("1-2.3:1.0", "0451\n", ".../bus/usb/drivers/rndis_host")
	f.Add("../..:1.0", "7\n", "/")
	f.Fuzz(func(t *testing.T, parent, number, driver string) {
		if d, ok := deviceOf(parent); ok && (!strings.HasPrefix(parent, d+":") || strings.ContainsAny(parent, "/ \x00") || strings.Trim(parent, "0123456789-.:") != "") {
			t.Fatalf("deviceOf(%q) = %q", parent, d)
		}
		if n, ok := attribute([]byte(number), 16, 16); ok && hex4(uint16(n)) != strings.ToLower(strings.TrimSuffix(number, "\n")) {
			t.Fatalf("attribute(%q) = %x", number, n)
		}
		if n, ok := attribute([]byte(number), 10, 7); ok && n > 127 {
			t.Fatalf("attribute(%q) = %d", number, n)
		}
		if allowedDriver(driver) && !strings.Contains(driver, "/bus/usb/drivers/") {
			t.Fatalf("driver %q", driver)
		}
	})
}

func FuzzParseLink(f *testing.F) {
	c, err := dialRtnetlink()
	if err != nil {
		f.Fatal(err)
	}
	for i := 1; i < 4; i++ {
		if b, err := c.request(getLink(i)); err == nil {
			f.Add(b)
		}
	}
	f.Add(getLink(5))
	f.Add([]byte(strconv.Itoa(16)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if answer, mine, err := parseAnswer(b); mine && err == nil && answer != nil {
			parseLink(answer)
		}
		parseLink(b)
	})
}
