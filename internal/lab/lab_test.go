//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	t.Parallel()
	hello := filepath.Join(t.TempDir(), "hello")
	if err := os.WriteFile(hello, []byte("#!/bin/sh\necho hello \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	// The script is run by the host's sh, not by busybox.
	host, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	host = filepath.Base(host)
	for _, cpus := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d processors", cpus), func(t *testing.T) {
			t.Parallel()
			r := Run(t, Job{
				CPUs:  cpus,
				Files: map[string]string{"/lab/bin/hello": hello, "/etc/snag/hello": hello},
				Dirs:  []string{filepath.Dir(hello)},
				Script: `
				hello bin
				/etc/snag/hello etc
				` + hello + ` dirs
				echo complaint >&2
				echo again >/dev/stderr
				uname -s
				readlink /proc/$$/exe | sed s,.*/,,
				nproc
				for dir in / /etc /tmp /var/tmp /run /dev/shm $HOME; do echo x >$dir/writable; done
				ls /tmp /lab/ctl
				for dev in /dev/net/tun /dev/pts/ptmx /sys/kernel/tracing/kprobe_events; do ls $dev; done
				cat /sys/class/net/lo/operstate
				echo artefact >/lab/out/artefact
				sleep 1000 &
			`,
			})
			t.Logf("%d CPUs: boot %.1f s, total %.1f s", cpus, r.Boot.Seconds(), r.Total.Seconds())
			want := "hello bin\nhello etc\nhello dirs\nLinux\n" + host + "\n" + string('0'+byte(cpus)) +
				"\n/lab/ctl:\nstarted\nstderr\nstdout\n\n/tmp:\n" + strings.Split(hello, "/")[2] + "\nwritable\n" +
				"/dev/net/tun\n/dev/pts/ptmx\n/sys/kernel/tracing/kprobe_events\nunknown\n"
			if r.Stdout != want {
				t.Errorf("stdout %q, want %q", r.Stdout, want)
			}
			if want := "complaint\nagain\n"; r.Stderr != want {
				t.Errorf("stderr %q, want %q", r.Stderr, want)
			}
			if b, err := os.ReadFile(filepath.Join(r.Out, "artefact")); string(b) != "artefact\n" {
				t.Errorf("artefact %q, %v", b, err)
			}
			if exists("/etc/writable") {
				t.Error("the VM wrote to the host")
			}
		})
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	r := start(t, Job{User: "labuser", Script: "echo $(id -un) $HOME; (exit 42); echo after"})
	if want := "labuser /home/labuser\n"; r.Status != 42 || r.Stdout != want {
		t.Errorf("status %d, stdout %q; want 42, %q", r.Status, r.Stdout, want)
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	wanted(t)
	dir := t.TempDir()
	var r *Result
	var err error
	timeout := 10 * time.Second
	for ; ; timeout *= 2 { // until the VM, which keeps others from running, has had the time to boot and to print
		r, err = Exec(t.Context(), filepath.Join(dir, timeout.String()), Job{
			Script:  "echo started; echo on the console >/dev/console; sleep 1000",
			Timeout: timeout,
		})
		if r == nil || strings.Contains(fmt.Sprint(err), "on the console") || timeout > time.Minute {
			break
		}
	}
	if errors.Is(err, ErrUnavailable) {
		check(t, err)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v, want %v", err, context.DeadlineExceeded)
	}
	for _, want := range []string{"not done after " + timeout.String(), "--- stdout\nstarted", "on the console"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	if r.Total > timeout+time.Minute {
		t.Errorf("took %v", r.Total)
	}
	if out, _ := exec.Command("pgrep", "-f", dir).Output(); len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("left behind: process %s", out)
	}
}

func TestPanic(t *testing.T) {
	t.Parallel()
	wanted(t)
	_, err := Exec(t.Context(), t.TempDir(), Job{Script: "echo c >/proc/sysrq-trigger; sleep 1000"})
	if errors.Is(err, ErrUnavailable) {
		check(t, err)
	}
	if err == nil || !strings.Contains(err.Error(), "before the script was done") ||
		!strings.Contains(err.Error(), "Kernel panic") {
		t.Errorf("error %v, want one with the kernel's panic", err)
	}
}

// TestNetwork checks the arguments that the package comment names: a USB network
// device of QEMU, and a way to a service of the host.
func TestNetwork(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			fmt.Fprintln(c, "hello")
			c.Close()
		}
	}()
	r := Run(t, Job{
		QEMU: []string{
			"-device", "qemu-xhci,id=x", "-netdev", "stream,id=n,server=on,addr.type=unix,addr.path=" + filepath.Join(t.TempDir(), "net"),
			"-device", "usb-net,bus=x.0,netdev=n",
			"-netdev", "user,id=u", "-device", "virtio-net-pci,netdev=u,romfile=",
		},
		Script: `
			modprobe virtio_net
			name=$(ls /sys/class/net | grep -v lo)
			/lab/busybox ip link set $name up
			/lab/busybox ip addr add 10.0.2.15/24 dev $name
			/lab/busybox timeout 10 /lab/busybox nc 10.0.2.2 ` + fmt.Sprint(l.Addr().(*net.TCPAddr).Port) + `
			modprobe cdc_ether
			modprobe rndis_host
			modprobe xhci-pci
			/lab/busybox timeout 10 sh -c 'until [ -e /sys/class/net/[eu]*/device/bInterfaceNumber ]; do /lab/busybox sleep 0.1; done'
			cat /sys/bus/usb/devices/*-1/idVendor /sys/bus/usb/devices/*-1/idProduct
			for d in /sys/class/net/[eu]*/device/driver; do basename $(readlink $d); done | grep -E 'cdc_ether|rndis_host'
		`,
	})
	if want := "hello\n0525\na4a2\n"; !strings.HasPrefix(r.Stdout, want) {
		t.Errorf("stdout %q, want %q and a driver", r.Stdout, want)
	}
	t.Logf("driver %s", tail(r.Stdout, 1))
}

// TestGuest runs the TestVM tests below.
func TestGuest(t *testing.T) {
	t.Parallel()
	r := GoTest(t, ".", "^TestVM", Job{
		Udev:     true,
		Packages: []string{"nftables", "iproute2"},
	})
	if r.Status != 0 {
		t.Errorf("status %d, want 0", r.Status)
	}
	if b, err := os.ReadFile(filepath.Join(r.Out, "labuser")); string(b) != "hello\n" {
		t.Errorf("labuser's artefact: %q, %v", b, err)
	}
}

// sh runs a script and returns its output.
func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func TestVMDirectory(t *testing.T) {
	Inside(t)
	if !exists("guest/init") {
		t.Error("not in the package's directory")
	}
	if os.Getuid() != 0 {
		t.Error("not root")
	}
}

func TestVMVhci(t *testing.T) {
	Inside(t)
	sh(t, "modprobe vhci-hcd")
	if !exists("/sys/devices/platform/vhci_hcd.0/attach") {
		t.Error("vhci_hcd.0 has no attach file")
	}
	if b, _ := os.ReadFile("/sys/bus/usb/devices/usb1/serial"); string(b) != "vhci_hcd.0\n" {
		t.Errorf("bus 1 is %q, want vhci_hcd.0", b)
	}
}

func TestVMModules(t *testing.T) {
	Inside(t)
	for _, m := range []string{"rndis_host", "cdc_ether", "cdc_acm", "usbhid", "usb_storage", "dummy_hcd",
		"libcomposite", "usb_f_rndis", "usb_f_fs", "xhci_pci", "nft_nat", "nft_masq", "nft_chain_nat", "veth",
		"sch_netem", "virtio_net", "af_packet", "usbmon"} {
		t.Run(m, func(t *testing.T) { sh(t, "modprobe "+m) })
	}
}

func TestVMUserNamespace(t *testing.T) {
	Inside(t)
	sh(t, "modprobe nft_chain_nat")
	rules := sh(t, `setpriv --reuid=labuser --regid=labuser --init-groups unshare -Urn sh -ec '
		ip link set lo up
		nft add table ip snag
		nft "add chain ip snag pre { type nat hook prerouting priority -100; }"
		nft add rule ip snag pre udp dport 67 dnat to :9067
		nft list ruleset'`)
	if !strings.Contains(rules, "udp dport 67 dnat to :9067") {
		t.Errorf("rules %s", rules)
	}
}

func TestVMUser(t *testing.T) {
	Inside(t)
	got := sh(t, "su labuser -c 'id -un; id -u; id -Gn; cd; pwd; echo hello >/lab/out/labuser; echo hello >/lab/out/labuser'")
	if want := "labuser\n1001\nlabuser plugdev\n/home/labuser\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestVMUdev(t *testing.T) {
	Inside(t)
	sh(t, `ip link add name dum0 type dummy; udevadm settle --timeout=20; udevadm info /sys/class/net/dum0 | grep INTERFACE=dum0`)
	if sh(t, "udevadm info -q property /sys/class/net/dum0 | grep -c ^ID_NET_DRIVER=dummy") != "1\n" {
		t.Error("udev's builtins did not run")
	}
}

func TestVMKprobe(t *testing.T) {
	Inside(t)
	got := sh(t, `cd /sys/kernel/tracing
		echo 'p:cap cap_capable cap=%dx' >kprobe_events
		echo 1 >events/kprobes/cap/enable
		chown labuser /tmp
		echo 0 >events/kprobes/cap/enable
		grep -c cap_capable trace`)
	if got == "0\n" {
		t.Error("the probe saw nothing")
	}
}

func TestVMTun(t *testing.T) {
	Inside(t)
	if err := syscall.Access("/dev/net/tun", 6); err != nil {
		t.Errorf("/dev/net/tun: %v", err)
	}
}
