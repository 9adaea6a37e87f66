package setup

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// goodSystem are the files of a system where everything is as it should be for anna, before setup.
var goodSystem = map[string]string{
	"/proc/self/status":          "Uid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nGroups:\t46 1000\nCapEff:\t0000000000000000\nNoNewPrivs:\t0\n",
	"/proc/sys/kernel/osrelease": "6.12.1-amd64\n",
	"/lib/modules/6.12.1-amd64/modules.dep": "kernel/drivers/net/usb/usbnet.ko.xz: kernel/drivers/net/mii.ko.xz\n" +
		"kernel/drivers/net/usb/cdc_ether.ko.xz: kernel/drivers/net/usb/usbnet.ko.xz\n" +
		"kernel/drivers/net/usb/rndis_host.ko.xz: kernel/drivers/net/usb/cdc_ether.ko.xz\n" +
		"kernel/net/netfilter/nft_chain_nat.ko.xz:\nkernel/net/netfilter/nft_nat.ko.xz:\nkernel/net/netfilter/nft_masq.ko.xz:\n",
	"/lib/modules/6.12.1-amd64/modules.builtin": "kernel/net/netfilter/nf_tables.ko\n",
	"/sys/module/usbnet/":                       "",
	"/sys/bus/usb/devices/usb1/":                "",
	"/sys/bus/usb/devices/1-2/idVendor":         "0451\n",
	"/sys/bus/usb/devices/1-2/idProduct":        "6141\n",
	"/sys/bus/usb/devices/1-2/busnum":           "1\n",
	"/sys/bus/usb/devices/1-2/devnum":           "7\n",
	"/dev/bus/usb/001/007":                      "",
	"/proc/77/comm":                             "NetworkManager\n",
	apparmorRestriction:                         "1\n",
}

func allowed(context.Context) (string, error) { return "", nil }

// newPatient returns Options for the good system after setup.
func newPatient(t *testing.T) Options {
	needRoot(t)
	o, _, _ := newSystem(t, goodSystem)
	mustSetup(t, o)
	o.host.euid = 1000
	o.Namespace = allowed
	return o
}

func diagnose(t *testing.T, o Options) []Check {
	t.Helper()
	checks, err := Doctor(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return checks
}

func table(t *testing.T, checks []Check) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteTable(&b, checks); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestDoctorGood(t *testing.T) {
	checks := diagnose(t, newPatient(t))
	golden(t, "doctor-good.txt", table(t, checks))
	if Failed(checks) {
		t.Error("something failed")
	}
	var b bytes.Buffer
	if err := WriteJSON(&b, checks); err != nil {
		t.Fatal(err)
	}
	golden(t, "doctor-good.json", b.String())
}

// TestDoctorBare is a container without anything.
func TestDoctorBare(t *testing.T) {
	root := tree(t, map[string]string{
		"/proc/self/status":          "Uid:\t1001\t1001\t1001\t1001\nNoNewPrivs:\t1\n",
		"/proc/sys/kernel/osrelease": "6.12.1-amd64\n",
		"/.dockerenv":                "",
	})
	checks := diagnose(t, Options{
		Program: "/home/u/bin/snag", HelperSource: filepath.Join(root, "none"),
		Namespace: func(context.Context) (string, error) {
			return "docker run --security-opt seccomp=unconfined ...", errors.New("operation not permitted")
		},
		host: &host{root: root, access: mayReadWrite, nosuid: onNosuid},
	})
	golden(t, "doctor-bare.txt", table(t, checks))
	if !Failed(checks) {
		t.Error("nothing failed")
	}
}

func TestDoctorRoot(t *testing.T) {
	root := tree(t, goodSystem)
	write(t, root, "/proc/self/status", "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n")
	o := Options{
		Program: "/home/u/bin/snag", HelperSource: filepath.Join(root, "none"), Namespace: allowed,
		host: &host{root: root, access: func(string) error { return nil }, nosuid: onNosuid},
	}
	checks := diagnose(t, o)
	golden(t, "doctor-root.txt", table(t, checks))
	if Failed(checks) {
		t.Error("something failed")
	}
	write(t, root, "/proc/self/status", "Uid:\t0\t0\t0\t0\nCapEff:\t0000000000000400\n")
	write(t, root, "/run/systemd/container", "lxc\n")
	if got := find(t, diagnose(t, o), "user"); got.Status != Warn || !strings.Contains(got.Detail, "cap_net_admin, in a container (lxc)") {
		t.Errorf("root without capability: %+v", got)
	}
}

func find(t *testing.T, checks []Check, name string) Check {
	t.Helper()
	for _, c := range checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no check %q", name)
	return Check{}
}

// TestDoctorFaults spoils one thing of the good system at a time: that one check finds it.
func TestDoctorFaults(t *testing.T) {
	needRoot(t)
	status := func(from, to string) func(string, *Options) error {
		return func(root string, _ *Options) error {
			return os.WriteFile(root+"/proc/self/status", []byte(strings.Replace(goodSystem["/proc/self/status"], from, to, 1)), 0o644)
		}
	}
	put := func(path, data string) func(string, *Options) error {
		return func(root string, _ *Options) error {
			return errors.Join(os.MkdirAll(filepath.Dir(root+path), 0o755), os.WriteFile(root+path, []byte(data), 0o644))
		}
	}
	drop := func(path string) func(string, *Options) error {
		return func(root string, _ *Options) error { return os.RemoveAll(root + path) }
	}
	both := func(a, b func(string, *Options) error) func(string, *Options) error {
		return func(root string, o *Options) error { return errors.Join(a(root, o), b(root, o)) }
	}
	const helper = "/usr/local/libexec/snag/snag-netmove"
	for _, tt := range []struct {
		name  string
		spoil func(root string, o *Options) error
		want  Check // Detail and Mend: a part of them
		also  string
	}{
		{"module missing", put("/lib/modules/6.12.1-amd64/modules.dep", "x/cdc_ether.ko:\nx/nft_chain_nat.ko:\nx/nft-nat.ko:\nx/nft_masq.ko:\n"),
			Check{"usb network drivers", Warn, "usbnet loaded; cdc_ether available; rndis_host missing", "full kernel"}, ""},
		{"module missing on Ubuntu", both(put("/etc/os-release", "NAME=x\nID=ubuntu\n"), put("/lib/modules/6.12.1-amd64/modules.dep", "x/nft_chain_nat.ko:\nx/nft-nat.ko:\nx/nft_masq.ko:\n")),
			Check{"usb network drivers", Warn, "cdc_ether, rndis_host missing", "sudo apt install linux-modules-extra-6.12.1-amd64"}, ""},
		{"NAT missing", put("/lib/modules/6.12.1-amd64/modules.builtin", ""),
			Check{"kernel nat", Warn, "nf_tables missing", ""}, ""},
		{"no module lists", drop("/lib/modules"),
			Check{"usb network drivers", Warn, "cdc_ether, rndis_host unknown", "sudo modprobe -a cdc_ether rndis_host"}, "kernel nat"},
		{"no USB", drop("/sys/bus/usb"), Check{"usb", Fail, "no USB", "usbcore"}, "board 1-2"},
		{"no controller", drop("/sys/bus/usb/devices/usb1"), Check{"usb", Warn, "no USB controller", "virtual machine"}, ""},
		{"no nodes", drop("/dev/bus"), Check{"usb device nodes", Fail, "no /dev/bus/usb", "devtmpfs"}, ""},
		{"no nodes in a container", both(drop("/dev/bus"), put("/run/.containerenv", "")),
			Check{"usb device nodes", Fail, "container", "--device-cgroup-rule"}, ""},
		{"no namespaces", func(_ string, o *Options) error {
			o.Namespace = func(context.Context) (string, error) { return "sudo sysctl x=1", errors.New("refused") }
			return nil
		}, Check{"namespaces", Warn, "refused", "sudo sysctl x=1"}, ""},
		{"no AppArmor profile", drop(apparmorProfile), Check{"apparmor", Warn, "missing", "sudo /home/u/bin/snag setup"}, ""},
		{"AppArmor lets all", put(apparmorRestriction, "0\n"), Check{"apparmor", OK, "does not restrict", ""}, ""},
		{"no_new_privs", status("NoNewPrivs:\t0", "NoNewPrivs:\t1"), Check{"no_new_privs", Warn, "would not count", "systemd"}, ""},
		{"helper missing", drop(helper), Check{"helper", Warn, "missing", "sudo /home/u/bin/snag setup"}, ""},
		{"helper without capability", func(root string, _ *Options) error { return os.Chown(root+helper, 0, 46) },
			Check{"helper", Warn, "lacks the capability", "sudo /home/u/bin/snag setup"}, ""},
		{"helper for all", func(root string, _ *Options) error { return os.Chmod(root+helper, 0o755) },
			Check{"helper", Warn, "mode", "sudo /home/u/bin/snag setup"}, ""},
		{"helper on nosuid", func(_ string, o *Options) error { o.host.nosuid = func(string) bool { return true }; return nil },
			Check{"helper", Warn, "nosuid", "mount"}, ""},
		{"list open to others", func(root string, o *Options) error {
			return errors.Join(put(netmoveConf, "")(root, o), os.Chmod(root+netmoveConf, 0o666))
		}, Check{"further ids", Warn, "mode", "sudo /home/u/bin/snag setup"}, ""},
		{"list faulty", put(netmoveConf, "x\n"), Check{"further ids", Warn, "line 1", "editor"}, ""},
		{"not in the group", both(status("46 1000", "1000"), put("/etc/group", "plugdev:x:46:\n")),
			Check{"group", Fail, "anna is not in the group plugdev", "sudo usermod -aG plugdev anna"}, ""},
		{"in the group since", status("46 1000", "1000"),
			Check{"group", Fail, "session began before", "newgrp plugdev"}, ""},
		{"rules changed", put(adminRules, ""), Check{"udev rules", Fail, "other contents", "sudo /home/u/bin/snag setup"}, "networkmanager"},
		{"udevd stopped", drop("/run/udev"), Check{"udevd", Fail, "not running", "systemctl start"}, ""},
		{"udevd outside", both(drop("/run/udev"), put("/.dockerenv", "")), Check{"udevd", Warn, "container", "--group-add"}, ""},
		{"ModemManager too", put("/proc/78/comm", "ModemManager\n"), Check{"modemmanager", OK, "told by the udev rules", ""}, ""},
		{"node closed", func(_ string, o *Options) error {
			o.host.access = func(string) error { return fs.ErrPermission }
			return nil
		}, Check{"board 1-2", Fail, "/dev/bus/usb/001/007: permission denied", "sudo /home/u/bin/snag setup"}, ""},
		{"node missing", func(_ string, o *Options) error {
			o.host.access = func(string) error { return fs.ErrNotExist }
			return nil
		}, Check{"board 1-2", Fail, "does not exist", "udevd"}, ""},
		{"no board", drop("/sys/bus/usb/devices/1-2"), Check{"board", Skip, "none attached", ""}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newPatient(t)
			before := diagnose(t, o)
			if err := tt.spoil(o.host.root, &o); err != nil {
				t.Fatal(err)
			}
			after := diagnose(t, o)
			got := find(t, after, tt.want.Name)
			if got.Status != tt.want.Status || !strings.Contains(got.Detail, tt.want.Detail) || !strings.Contains(got.Mend, tt.want.Mend) || (tt.want.Mend == "") != (got.Mend == "") {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			// Everything else is as it was.
			rest := func(checks []Check) map[string]Status {
				m := map[string]Status{}
				for _, c := range checks {
					if c.Name != tt.want.Name && c.Name != tt.also && !strings.HasPrefix(c.Name, "board") {
						m[c.Name] = c.Status
					}
				}
				return m
			}
			if diff := cmp.Diff(rest(before), rest(after)); diff != "" {
				t.Errorf("other checks changed:\n%s", diff)
			}
		})
	}
}

// Who may not start the helper has snag's own network, as recover does it too, and is not told otherwise.
func TestDoctorNetwork(t *testing.T) {
	o := newPatient(t)
	if got := find(t, diagnose(t, o), "network"); !strings.Contains(got.Detail, "--net kernel") {
		t.Errorf("a member of the group: %+v", got)
	}
	write(t, o.host.root, "/proc/self/status", strings.Replace(goodSystem["/proc/self/status"], "46 1000", "1000", 1))
	if got := find(t, diagnose(t, o), "network"); got.Status != OK || !strings.Contains(got.Detail, "--net user") || !strings.HasSuffix(got.Detail, "barred by group") {
		t.Errorf("nobody's friend: %+v", got)
	}
}

// In a container that has the nodes a recovery goes well, whatever of the host's files is not in it.
func TestDoctorContainer(t *testing.T) {
	o := newPatient(t)
	root := o.host.root
	for _, gone := range []string{"/run/udev", adminRules, "/usr/local/libexec/snag/snag-netmove", apparmorProfile, "/lib/modules"} {
		if err := os.RemoveAll(root + gone); err != nil {
			t.Fatal(err)
		}
	}
	write(t, root, "/.dockerenv", "")
	write(t, root, "/etc/group", "plugdev:x:46:\n")
	write(t, root, "/proc/self/status", strings.NewReplacer("46 1000", "1000", "NoNewPrivs:\t0", "NoNewPrivs:\t1").Replace(goodSystem["/proc/self/status"]))
	checks := diagnose(t, o)
	if Failed(checks) {
		t.Errorf("something failed\n%s", table(t, checks))
	}
	for name, says := range map[string]string{"udev rules": "on the host: sudo", "group": "--group-add", "udevd": "--group-add"} {
		if got := find(t, checks, name); got.Status != Warn || !strings.Contains(got.Mend, says) {
			t.Errorf("%+v, want %s", got, says)
		}
	}
	o.host.access = func(string) error { return fs.ErrPermission }
	if !Failed(diagnose(t, o)) {
		t.Error("a node that may not be opened is no failure")
	}
}

// TestDoctorSeat is a system without the group.
func TestDoctorSeat(t *testing.T) {
	needRoot(t)
	o, _, _ := newSystem(t, goodSystem)
	write(t, o.host.root, "/etc/group", "root:x:0:\n")
	mustSetup(t, o)
	if got := find(t, diagnose(t, o), "group"); got.Status != Warn || !strings.Contains(got.Mend, "groupadd") {
		t.Errorf("away from the seat: %+v", got)
	}
	write(t, o.host.root, "/run/systemd/seats/seat0", "IS_SEAT0=1\nACTIVE=c1\nACTIVE_UID=1000\n")
	if got := find(t, diagnose(t, o), "group"); got.Status != OK {
		t.Errorf("at the seat: %+v", got)
	}
}

// TestDoctorHere runs on the system at hand: whatever it finds, it must find it.
func TestDoctorHere(t *testing.T) {
	t.Log("\n" + table(t, diagnose(t, Options{})))
}

func TestParseStatus(t *testing.T) {
	got := parseStatus([]byte("Name:\tx\nUid:\t1000\t1001\t1002\t1003\nGid:\t5\t6\t7\t8\nGroups:\t46 \nCapEff:\t0000000000001000\nNoNewPrivs:\t1\n"))
	want := process{uid: 1001, groups: []int{6, 46}, capEff: 1 << 12, noNewPriv: true}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(process{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := parseStatus(nil); got.uid != -1 {
		t.Errorf("nothing read makes uid %d", got.uid)
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte(goodSystem["/proc/self/status"]))
	f.Fuzz(func(t *testing.T, data []byte) { parseStatus(data) })
}

func FuzzModuleNames(f *testing.F) {
	f.Add([]byte("kernel/a/b-c.ko.xz: d.ko\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for name := range moduleNames(data) {
			if strings.ContainsAny(name, "-/:\n") {
				t.Fatalf("module %q", name)
			}
		}
	})
}
