package setup

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"snag/netsetup"
	"snag/socs"
	"snag/usb"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

var (
	am335x = socs.Family{
		Name: "am335x", Title: "TI AM335x (Sitara)",
		Carriers: []socs.Carrier{socs.Network, socs.Serial},
		ROM:      []socs.Identity{{ID: usb.ID{Vendor: 0x0451, Product: 0x6141}}},
		Later:    []socs.Identity{{ID: usb.ID{Vendor: 0x0451, Product: 0xd022}}},
	}
	sunxi = socs.Family{
		Name: "sunxi", Title: "Allwinner",
		Carriers: []socs.Carrier{socs.USB},
		ROM:      []socs.Identity{{ID: usb.ID{Vendor: 0x1f3a, Product: 0xefe8}}},
		Later:    []socs.Identity{{ID: usb.ID{Vendor: 0x0451, Product: 0x6141}}}, // shared with another family
	}
	gadget = usb.ID{Vendor: 0x0525, Product: 0xa4a2}
)

// tree writes files below a new directory: path to contents. A path that ends in / is a directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, data := range files {
		write(t, root, path, data)
	}
	return root
}

func write(t *testing.T, root, path, data string) {
	t.Helper()
	full := filepath.Join(root, path)
	if strings.HasSuffix(path, "/") {
		if err := os.MkdirAll(full, 0o755); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: files are given to root and get a capability")
	}
}

// newSystem returns Options for a system below a new directory, with snag and its helper in /home/u/bin.
// What it runs is appended to ran.
func newSystem(t *testing.T, files map[string]string) (o Options, out *bytes.Buffer, ran *[]string) {
	t.Helper()
	base := map[string]string{
		"/etc/group":                "root:x:0:\nplugdev:x:46:anna\n",
		"/etc/passwd":               "root:x:0:0::/root:/bin/sh\nanna:x:1000:1000::/:/bin/sh\nben:x:1001:1001::/:/bin/sh\ncleo:x:1002:46::/:/bin/sh\n",
		"/run/udev/control":         "",
		"/proc/self/status":         "Uid:\t0\t0\t0\t0\n",
		"/usr/local/bin/":           "",
		"/usr/lib/udev/":            "",
		"/etc/udev/rules.d/":        "",
		"/home/u/bin/snag":          "",
		"/home/u/bin/" + helperName: "\x7fELF helper",
	}
	for path, data := range files {
		base[path] = data
	}
	root := tree(t, base)
	out, ran = new(bytes.Buffer), new([]string)
	return Options{
		Families:     []socs.Family{am335x, sunxi},
		Out:          out,
		Program:      "/home/u/bin/snag",
		HelperSource: filepath.Join(root, "/home/u/bin", helperName),
		host: &host{
			root: root,
			run: func(_ context.Context, name string, args ...string) error {
				*ran = append(*ran, strings.Join(append([]string{name}, args...), " "))
				return nil
			},
			access: func(string) error { return nil },
			nosuid: func(string) bool { return false },
		},
	}, out, ran
}

func mustSetup(t *testing.T, o Options) {
	t.Helper()
	if err := Setup(t.Context(), o); err != nil {
		t.Fatalf("Setup: %v", err)
	}
}

func TestRulesGolden(t *testing.T) {
	all := []socs.Family{sunxi, am335x}
	golden(t, "plugdev.rules", Rules(all, []usb.ID{gadget, gadget}, "plugdev"))
	golden(t, "nogroup.rules", Rules(all[1:], nil, ""))
}

// TestRulesSort pins that the file comes before the rule that acts on the tag uaccess.
func TestRulesSort(t *testing.T) {
	if !(RulesName < "73-seat-late.rules") || !strings.HasSuffix(RulesName, ".rules") {
		t.Errorf("%s would not be read before 73-seat-late.rules", RulesName)
	}
}

// TestRulesVerify has udev itself read the rules.
func TestRulesVerify(t *testing.T) {
	udevadm, err := exec.LookPath("udevadm")
	if err != nil {
		t.Skip("udevadm is not installed")
	}
	if out, err := exec.Command(udevadm, "verify", "--help").CombinedOutput(); err != nil {
		t.Skipf("this udevadm cannot verify (needs version 254): %s", out)
	}
	for _, name := range []string{"plugdev.rules", "nogroup.rules"} {
		out, err := exec.Command(udevadm, "verify", "--resolve-names=never", "testdata/"+name).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestInstall(t *testing.T) {
	needRoot(t)
	o, out, ran := newSystem(t, map[string]string{
		apparmorRestriction: "1\n",
		// A board and its network interface, and a device that is none of ours.
		"/sys/bus/usb/devices/1-2/idVendor":                 "0451\n",
		"/sys/bus/usb/devices/1-2/idProduct":                "6141\n",
		"/sys/bus/usb/devices/1-2/busnum":                   "1\n",
		"/sys/bus/usb/devices/1-2/devnum":                   "7\n",
		"/sys/bus/usb/devices/1-2/1-2:1.0/net/usb0/ifindex": "5\n",
		"/sys/bus/usb/devices/1-3/idVendor":                 "0bda\n",
		"/sys/bus/usb/devices/1-3/idProduct":                "8153\n",
		"/sys/bus/usb/devices/1-3/busnum":                   "1\n",
		"/sys/bus/usb/devices/1-3/devnum":                   "8\n",
	})
	if err := os.Chown(filepath.Join(o.host.root, "/home/u/bin"), 1001, 1001); err != nil {
		t.Fatal(err)
	}
	o.host.user = "ben"
	o.USB = []usb.ID{gadget}

	check := o
	check.Check = true
	if err := Setup(t.Context(), check); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("check before the setup: %v, want ErrIncomplete", err)
	}
	golden(t, "check-before.txt", out.String())
	if _, err := os.Stat(filepath.Join(o.host.root, "/etc/snag")); err == nil {
		t.Error("the check changed something")
	}

	out.Reset()
	mustSetup(t, o)
	golden(t, "install.txt", out.String())
	if diff := cmp.Diff([]string{
		"udevadm control --reload",
		"udevadm trigger --action=change --settle /sys/bus/usb/devices/1-2 /sys/bus/usb/devices/1-2/1-2:1.0/net/usb0",
		"apparmor_parser -r /etc/apparmor.d/snag",
	}, *ran); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	helper := filepath.Join(o.host.root, "/usr/local/libexec/snag/snag-netmove")
	if st, err := os.Stat(helper); err != nil || st.Mode() != 0o750 {
		t.Errorf("helper: %v, %v; want mode 0750", st, err)
	}
	if got, err := readCapability(helper); err != nil || !bytes.Equal(got, netAdminEP()) {
		t.Errorf("helper's capability: %x, %v", got, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(helper), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	out.Reset()
	*ran = nil
	o.USB = nil // they are in the list now
	mustSetup(t, o)
	golden(t, "again.txt", out.String())
	if diff := cmp.Diff([]string{"apparmor_parser -r /etc/apparmor.d/snag"}, *ran); diff != "" {
		t.Errorf("commands of the second run (-want +got):\n%s", diff)
	}
	check = o
	check.Check = true
	if err := Setup(t.Context(), check); err != nil {
		t.Errorf("check after the setup: %v", err)
	}

	out.Reset()
	o.Remove = true
	mustSetup(t, o)
	golden(t, "remove.txt", out.String())
	for _, path := range []string{"/etc/snag", "/usr/local/libexec/snag", adminRules, apparmorProfile} {
		if _, err := os.Lstat(filepath.Join(o.host.root, path)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there (%v)", path, err)
		}
	}
	out.Reset()
	mustSetup(t, o)
	if n := strings.Count(out.String(), "already gone"); n != 4 {
		t.Errorf("removing twice:\n%s", out)
	}
}

// TestDrift changes one thing after the other and wants it found and mended.
func TestDrift(t *testing.T) {
	needRoot(t)
	o, out, _ := newSystem(t, nil)
	mustSetup(t, o)
	at := func(path string) string { return filepath.Join(o.host.root, path) }
	helper, rules := at(netsetup.HelperPath("/usr/local")), at(adminRules)
	for _, tt := range []struct {
		name, want string
		spoil      func() error
	}{
		{"mode", "mode -rwxr-xr-x, should be -rwxr-x---", func() error { return os.Chmod(helper, 0o755) }},
		{"setuid", "mode urwxr-x---", func() error { return os.Chmod(helper, 0o750|fs.ModeSetuid) }},
		{"owner", "owner 1000:46, should be 0:46", func() error { return os.Chown(helper, 1000, 46) }},
		{"group", "owner 0:0, should be 0:46", func() error { return os.Chown(helper, 0, 0) }},
		{"no capability", "lacks the capability", func() error { return os.Chown(helper, 0, 46) }}, // the kernel drops it
		{"other capability", "other capabilities", func() error {
			v := netAdminEP()
			v[4] = 1
			f, err := os.OpenFile(helper, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			return writeCapability(f, v)
		}},
		{"helper's contents", "other contents", func() error { return os.WriteFile(helper, []byte("x"), 0) }},
		{"rules", "other contents", func() error { return os.WriteFile(rules, nil, 0) }},
		{"rules gone", "missing", func() error { return os.Remove(rules) }},
		{"symlink", "not a regular file", func() error {
			os.Remove(rules)
			return os.Symlink("/etc/passwd", rules)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.spoil(); err != nil {
				t.Fatal(err)
			}
			out.Reset()
			o.Check = true
			if err := Setup(t.Context(), o); !errors.Is(err, ErrIncomplete) || !strings.Contains(out.String(), tt.want) {
				t.Errorf("check: %v, want %q in\n%s", err, tt.want, out)
			}
			o.Check = false
			mustSetup(t, o)
			o.Check = true
			if err := Setup(t.Context(), o); err != nil {
				t.Errorf("after mending: %v", err)
			}
			o.Check = false
		})
	}
}

func TestStage(t *testing.T) {
	o, out, ran := newSystem(t, nil)
	o.host.euid = 1000
	o.DestDir = filepath.Join(t.TempDir(), "pkg")
	o.AppArmor = true
	mustSetup(t, o)
	golden(t, "stage.txt", out.String())
	if len(*ran) > 0 {
		t.Errorf("staging ran %q", *ran)
	}
	var got []string
	filepath.WalkDir(o.DestDir, func(path string, e fs.DirEntry, err error) error {
		if !e.IsDir() {
			got = append(got, strings.TrimPrefix(path, o.DestDir))
		}
		return err
	})
	if diff := cmp.Diff([]string{apparmorProfile, vendorRules, "/usr/libexec/snag/snag-netmove"}, got); diff != "" {
		t.Errorf("staged files (-want +got):\n%s", diff)
	}
	o.Check = true
	if err := Setup(t.Context(), o); err != nil {
		t.Errorf("check of what was staged: %v", err)
	}
	// As a makefile may have it: relative, and not there yet.
	t.Chdir(filepath.Dir(o.DestDir))
	o.Check, o.DestDir = false, "debian/snag"
	mustSetup(t, o)
	if _, err := os.Stat("debian/snag" + vendorRules); err != nil {
		t.Error(err)
	}
}

// A directory that is named relative to the current one is meant there.
func TestStageHere(t *testing.T) {
	o, _, _ := newSystem(t, nil)
	o.host.euid = 1000
	t.Chdir(t.TempDir())
	o.DestDir = "pkg"
	mustSetup(t, o)
	if _, err := os.Stat("pkg" + vendorRules); err != nil {
		t.Error(err)
	}
}

// TestPackaged has a package's files in their places: nothing is left to do until an ID is added.
func TestPackaged(t *testing.T) {
	needRoot(t)
	o, out, _ := newSystem(t, nil)
	stage := o
	stage.DestDir = o.host.root
	mustSetup(t, stage)
	helper := filepath.Join(o.host.root, netsetup.HelperPath("/usr"))
	if err := errors.Join(os.Chown(helper, 0, 46), os.Chmod(helper, 0o750)); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(helper, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := writeCapability(f, netAdminEP()); err != nil {
		t.Fatal(err)
	}
	o.Program, o.HelperSource = "/usr/bin/snag", ""
	o.HelperSource = filepath.Join(o.host.root, "/usr/bin", helperName) // not there
	out.Reset()
	o.Check = true
	if err := Setup(t.Context(), o); err != nil {
		t.Errorf("check: %v\n%s", err, out)
	}
	o.Check = false
	o.USB = []usb.ID{gadget}
	out.Reset()
	mustSetup(t, o)
	if !strings.Contains(out.String(), "installed: udev rules, "+adminRules) {
		t.Errorf("the added ID did not get rules in /etc:\n%s", out)
	}
	out.Reset()
	o.Remove = true
	mustSetup(t, o)
	if _, err := os.Stat(helper); err != nil {
		t.Errorf("the package's helper is gone: %v\n%s", err, out)
	}
}

// TestNoGroup is a system without plugdev.
func TestNoGroup(t *testing.T) {
	needRoot(t)
	o, out, _ := newSystem(t, map[string]string{"/etc/group": "root:x:0:\n"})
	mustSetup(t, o)
	rules, _ := os.ReadFile(filepath.Join(o.host.root, adminRules))
	if bytes.Contains(rules, []byte("GROUP")) {
		t.Error("the rules name a group that does not exist")
	}
	st, err := os.Stat(filepath.Join(o.host.root, netsetup.HelperPath("/usr/local")))
	if err != nil || st.Mode() != 0o755 {
		t.Errorf("helper: %v, %v; want mode 0755", st, err)
	}
	if !strings.Contains(out.String(), "groupadd --system plugdev") {
		t.Errorf("no word about the group:\n%s", out)
	}
}

func TestNotRoot(t *testing.T) {
	o, _, _ := newSystem(t, nil)
	o.host.euid = 1000
	if err := Setup(t.Context(), o); !errors.Is(err, ErrNotRoot) {
		t.Errorf("got %v, want ErrNotRoot", err)
	}
}

func TestMembership(t *testing.T) {
	needRoot(t)
	for user, told := range map[string]bool{"": false, "root": false, "anna": false, "cleo": false, "ben": true} {
		o, out, _ := newSystem(t, nil)
		o.host.user = user
		mustSetup(t, o)
		if got := strings.Contains(out.String(), "sudo usermod -aG plugdev "+user); got != told {
			t.Errorf("user %q: told to join the group: %v, want %v", user, got, told)
		}
	}
}

// TestUnsafePlaces wants nothing to be written where others than root have a hand.
func TestUnsafePlaces(t *testing.T) {
	needRoot(t)
	for _, tt := range []struct {
		name  string
		spoil func(root string) error
		want  string // empty: accepted
	}{
		{"directory of a user", func(r string) error { return os.Chown(r+"/usr/local", 1000, 0) }, "belongs to user 1000"},
		{"writable for all", func(r string) error { return os.Chmod(r+"/usr/local", 0o777) }, "may be changed by others"},
		{"writable for a group", func(r string) error {
			return errors.Join(os.Chown(r+"/usr/local", 0, 46), os.Chmod(r+"/usr/local", 0o775))
		}, "may be changed by others"},
		{"Debian's staff", func(r string) error {
			return errors.Join(os.Chown(r+"/usr/local", 0, staffGroup), os.Chmod(r+"/usr/local", 0o2775|fs.ModeSetgid))
		}, ""},
		{"link of a user", func(r string) error {
			return errors.Join(os.Mkdir(r+"/x", 0o755), os.Symlink(r+"/x", r+"/usr/local/libexec"), os.Lchown(r+"/usr/local/libexec", 1000, 0))
		}, "belongs to user 1000"},
		{"root's link to a user", func(r string) error {
			return errors.Join(os.Mkdir(r+"/x", 0o755), os.Chown(r+"/x", 1000, 0), os.Symlink(r+"/x", r+"/usr/local/libexec"))
		}, "belongs to user 1000"},
		{"root's link through a user", func(r string) error {
			return errors.Join(os.MkdirAll(r+"/home/u/x", 0o755), os.Chown(r+"/home/u", 1000, 0), os.Symlink(r+"/home/u/x", r+"/usr/local/libexec"))
		}, "belongs to user 1000"},
		{"root's link", func(r string) error {
			return errors.Join(os.Mkdir(r+"/x", 0o755), os.Symlink("../../x", r+"/usr/local/libexec"))
		}, ""},
		{"file in the way", func(r string) error { return os.WriteFile(r+"/usr/local/libexec", nil, 0o644) }, "not a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, _, _ := newSystem(t, nil)
			if err := tt.spoil(o.host.root); err != nil {
				t.Fatal(err)
			}
			err := Setup(t.Context(), o)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestReplaceLink has a link where a file is to go: what it leads to stays as it is.
func TestReplaceLink(t *testing.T) {
	needRoot(t)
	o, _, _ := newSystem(t, nil)
	target := filepath.Join(o.host.root, "/etc/passwd")
	before, _ := os.ReadFile(target)
	if err := os.Symlink(target, filepath.Join(o.host.root, adminRules)); err != nil {
		t.Fatal(err)
	}
	mustSetup(t, o)
	if after, _ := os.ReadFile(target); !bytes.Equal(before, after) {
		t.Error("the file behind the link was written to")
	}
}

func TestHelperSource(t *testing.T) {
	o, _, _ := newSystem(t, nil)
	if err := os.Remove(o.HelperSource); err != nil {
		t.Fatal(err)
	}
	if err := Setup(t.Context(), o); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("without a helper: %v", err)
	}
	if err := os.WriteFile(o.HelperSource, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Setup(t.Context(), o); err == nil || !strings.Contains(err.Error(), "is not a program") {
		t.Errorf("with a script for a helper: %v", err)
	}
}

// TestGetcap has libcap read what we wrote.
func TestGetcap(t *testing.T) {
	needRoot(t)
	getcap, err := exec.LookPath("getcap")
	if err != nil {
		t.Skip("getcap is not installed (Debian: libcap2-bin)")
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := writeCapability(f, netAdminEP()); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(getcap, f.Name()).CombinedOutput()
	if got, want := string(out), f.Name()+" cap_net_admin=ep\n"; err != nil || got != want {
		t.Errorf("getcap says %q, %v; want %q", got, err, want)
	}
}

func TestProfile(t *testing.T) {
	text, err := profile([]string{"/usr/local/bin/snag", "/home/u/my {snag}/snag", "/usr/local/bin/snag"})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "apparmor", text)
	for _, bad := range []string{"snag", "/a\nb", "/a\"b", "/a?b", "/a\x00b"} {
		if _, err := profile([]string{bad}); err == nil {
			t.Errorf("path %q was accepted", bad)
		}
	}
}

func TestNetmoveConf(t *testing.T) {
	for _, tt := range []struct {
		name, old string
		add       []usb.ID
		want      string
		bad       int
		untouched bool
	}{
		{"user's lines stay", "# mine\n\n1234:ABCD # board\r\n", []usb.ID{gadget, {Vendor: 0x1234, Product: 0xabcd}}, "# mine\n\n1234:ABCD # board\r\n0525:a4a2\n", 0, false},
		{"no newline at the end", "1234:abcd", []usb.ID{gadget}, "1234:abcd\n0525:a4a2\n", 0, false},
		{"nothing to add", "1234:abcd", nil, "1234:abcd\n", 0, false},
		{"faulty lines stay", "1:2\nfoo\n", nil, "1:2\nfoo\n", 2, false},
		{"as setup writes it", netmoveConfHead + "1234:abcd\n", []usb.ID{gadget}, netmoveConfHead + "1234:abcd\n0525:a4a2\n", 0, true},
	} {
		got := string(mergeNetmoveConf([]byte(tt.old), tt.add))
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if _, bad := parseNetmoveConf([]byte(tt.old)); len(bad) != tt.bad {
			t.Errorf("%s: faults %q, want %d", tt.name, bad, tt.bad)
		}
		if got := untouchedNetmoveConf([]byte(tt.old)); got != tt.untouched {
			t.Errorf("%s: untouched %v, want %v", tt.name, got, tt.untouched)
		}
	}
	if got := string(mergeNetmoveConf(nil, []usb.ID{gadget})); got != netmoveConfHead+"0525:a4a2\n" {
		t.Errorf("new file: %q", got)
	}
}

// TestFaultyNetmoveConf wants the rest to be installed and the fault to be told.
func TestFaultyNetmoveConf(t *testing.T) {
	needRoot(t)
	o, _, _ := newSystem(t, map[string]string{netmoveConf: "1234:abcd\nfoo\n"})
	err := Setup(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("got %v", err)
	}
	o.Check = true
	if err := Setup(t.Context(), o); !errors.Is(err, ErrIncomplete) {
		t.Errorf("check: %v", err)
	}
	o.Check, o.Remove = false, true
	mustSetup(t, o)
	if _, err := os.Stat(filepath.Join(o.host.root, netmoveConf)); err != nil {
		t.Errorf("the user's list is gone: %v", err)
	}
}

func FuzzNetmoveConf(f *testing.F) {
	f.Add([]byte("# c\n0451:6141\n"))
	f.Add([]byte("0451:6141 # x\r\n\n:\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ids, bad := parseNetmoveConf(data)
		merged := mergeNetmoveConf(data, []usb.ID{gadget})
		if !bytes.HasPrefix(merged, data) {
			t.Fatal("lines were lost")
		}
		ids2, bad2 := parseNetmoveConf(merged)
		if len(bad2) != len(bad) || len(ids2) < len(ids) || len(ids2) > len(ids)+1 {
			t.Fatalf("merging made %v, %v of %v, %v", ids2, bad2, ids, bad)
		}
	})
}
