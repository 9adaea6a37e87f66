package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"snag/netsetup"
	"snag/usb"
)

// system is what a recovery must leave as it was.
type system struct {
	namespaces, processes, sockets []string
}

// leftovers takes stock of the system.
func leftovers(t testing.TB) system {
	t.Helper()
	var s system
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		for _, kind := range []string{"net", "user", "mnt"} {
			if ns, err := os.Readlink(p + "/ns/" + kind); err == nil && !slices.Contains(s.namespaces, ns) {
				s.namespaces = append(s.namespaces, ns)
			}
		}
		if cmd, err := os.ReadFile(p + "/cmdline"); err == nil && strings.Contains(string(cmd), "snag") && !strings.Contains(string(cmd), "test.run") {
			s.processes = append(s.processes, string(cmd))
		}
	}
	for _, file := range []string{"/proc/net/udp", "/proc/net/unix"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); strings.Contains(line, "snag") || file == "/proc/net/udp" {
				s.sockets = append(s.sockets, fmt.Sprint(file, f[1]))
			}
		}
	}
	if named, err := os.ReadDir("/run/netns"); err == nil {
		for _, n := range named {
			s.namespaces = append(s.namespaces, n.Name())
		}
	}
	slices.Sort(s.namespaces)
	return s
}

// compare checks that the system is as it was, but for boards that come and go by themselves.
func (s system) compare(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second) // the kernel takes namespaces apart one after the other
	for {
		now := leftovers(t)
		same := slices.Equal(s.namespaces, now.namespaces) && slices.Equal(s.processes, now.processes) && slices.Equal(s.sockets, now.sockets)
		if same {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("left behind: before %+v\nafter %+v", s, now)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	noNamespaceLeft(t, user)
	noNamespaceLeft(t, nil)
}

// noNamespaceLeft shows that no network namespace of a user's is left, not even one that is held by
// nothing but a socket: the kernel counts them, and with a limit of one lets him make another.
func noNamespaceLeft(t testing.TB, who *syscall.Credential) {
	t.Helper()
	const limit = "/proc/sys/user/max_net_namespaces"
	old, err := os.ReadFile(limit)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(limit, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(limit, old, 0)
	args := []string{"-U", "-n", "true"}
	if who == nil {
		args = args[1:]
	}
	soon(t, 30*time.Second, func() error {
		cmd := exec.Command("unshare", args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("a network namespace is left: unshare: %w: %s", err, out)
		}
		return nil
	})
}

// soon waits until f returns nil.
func soon(t testing.TB, within time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("not within %v: %v", within, err)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// onHost finds the network interface of the device on a port in the host's namespace.
func onHost(port usb.Port) (netsetup.Interface, error) {
	found, err := netsetup.Host{}.Interfaces()
	if err != nil {
		return netsetup.Interface{}, err
	}
	for _, i := range found {
		if i.Port == port {
			return i, nil
		}
	}
	return netsetup.Interface{}, fmt.Errorf("no interface of port %s among %+v", port, found)
}

// hostPort is the n-th port of the virtual host controller, from 1 to 8.
func hostPort(t testing.TB, n int) usb.Port {
	t.Helper()
	hubs, _ := filepath.Glob("/sys/devices/platform/vhci_hcd.0/usb*/speed")
	for _, file := range hubs {
		if speed, _ := os.ReadFile(file); strings.TrimSpace(string(speed)) == "480" {
			bus := strings.TrimPrefix(filepath.Base(filepath.Dir(file)), "usb")
			return usb.Port(bus + "-" + strconv.Itoa(n))
		}
	}
	t.Fatal("no virtual host controller")
	return ""
}
