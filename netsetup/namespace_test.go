//go:build linux

package netsetup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// testUser is an ordinary user for tests that root runs.
const testUser = 1001

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces and veth pairs to stand for the host and the board")
	}
	if f, err := newNetNS(); err != nil {
		t.Skipf("needs a network namespace: %v", err)
	} else {
		f.Close()
	}
}

// newNetNS makes a network namespace that lives as long as the file.
func newNetNS() (*os.File, error) {
	var f *os.File
	err := inNetNS("/proc/self/ns/net", func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		f, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return f, err
}

func inFile(t *testing.T, ns *os.File, f func() error) {
	t.Helper()
	if err := inNetNS(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), f); err != nil {
		t.Fatal(err)
	}
}

// lab is a stand-in for the host's network namespace, and one for a board's, joined by a veth pair.
type lab struct {
	host, board *os.File
	index       int // of the host's end
}

func newLab(t *testing.T) *lab {
	t.Helper()
	requireRoot(t)
	l := &lab{}
	var err error
	if l.host, err = newNetNS(); err != nil {
		t.Fatal(err)
	}
	if l.board, err = newNetNS(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.host.Close(); l.board.Close() })
	l.plug(t)
	return l
}

// plug makes a veth pair and sets the board's end up, without an address as a board begins.
func (l *lab) plug(t *testing.T) {
	t.Helper()
	inFile(t, l.host, func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "usb0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(l.board.Fd()),
		})
	})
	inFile(t, l.host, func() error {
		link, err := netlink.LinkByName("usb0")
		if err == nil {
			l.index = link.Attrs().Index
		}
		return err
	})
	inFile(t, l.board, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetUp(link), netlink.RouteAdd(&netlink.Route{
			LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4bcast, Mask: net.CIDRMask(32, 32)}, Scope: netlink.SCOPE_LINK,
		}))
	})
}

// lease gives the board an address.
func (l *lab) lease(t *testing.T, ip net.IP) {
	t.Helper()
	inFile(t, l.board, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.AddrReplace(link, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(24, 32)}})
	})
}

// unplug destroys the pair from the board's end.
func (l *lab) unplug(t *testing.T) {
	t.Helper()
	inFile(t, l.board, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
}

// exchange sends a datagram from the board and returns where the answer came from.
func (l *lab) exchange(t *testing.T, local, remote string) (answer, from string) {
	t.Helper()
	ap := netip.MustParseAddrPort(local)
	if !ap.Addr().IsUnspecified() {
		l.lease(t, ap.Addr().AsSlice())
	}
	l.wait(t, "the board's carrier", func() bool {
		link, err := netlink.LinkByName("eth0")
		return err == nil && link.Attrs().OperState == netlink.OperUp // from here on it drops nothing
	})
	var c net.PacketConn
	inFile(t, l.board, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "board")
		defer f.Close()
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
			unix.BindToDevice(fd, "eth0"),
			unix.Bind(fd, &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}),
		)
		if err != nil {
			return err
		}
		c, err = net.FilePacketConn(f)
		return err
	})
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.WriteTo([]byte(t.Name()), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(remote))); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, addr, err := c.ReadFrom(buf)
	if err != nil {
		t.Fatalf("no answer to %s from %s: %v", remote, local, err)
	}
	return string(buf[:n]), addr.String()
}

// snag is a process that runs serve.
type snag struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Scanner
	pid   int
	netns string // path of the namespace
}

// start starts a snag in the lab's host namespace. role is for serve; uid 0 is root.
func (l *lab) start(t *testing.T, role string, uid int) *snag {
	t.Helper()
	s, first := l.try(t, role, uid)
	f := strings.Fields(first)
	if len(f) != 3 || f[0] != "open" {
		t.Fatalf("snag says %q", first)
	}
	s.netns = fmt.Sprintf("/proc/%s/fd/%s", f[1], f[2])
	return s
}

func (l *lab) try(t *testing.T, role string, uid int) (*snag, string) {
	t.Helper()
	s := &snag{cmd: exec.Command(testBinary(t))}
	s.cmd.Env = append(os.Environ(), roleEnv+"="+role)
	s.cmd.Stderr = os.Stderr
	if uid != 0 {
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewScanner(out)
	inFile(t, l.host, func() error {
		err := s.cmd.Start()
		if uid != 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM)) {
			t.Skipf("needs user %d, who cannot be had in this user namespace: %v", uid, err)
		}
		return err
	})
	s.pid = s.cmd.Process.Pid
	t.Cleanup(func() {
		s.in.Close()
		stop := time.AfterFunc(10*time.Second, func() { s.cmd.Process.Kill() })
		s.cmd.Wait()
		stop.Stop()
	})
	return s, s.line(t)
}

func (s *snag) line(t *testing.T) string {
	t.Helper()
	stop := time.AfterFunc(20*time.Second, func() { s.cmd.Process.Kill() })
	defer stop.Stop()
	if !s.out.Scan() {
		t.Fatalf("snag has ended: %v", s.out.Err())
	}
	return s.out.Text()
}

func (s *snag) ask(t *testing.T, format string, args ...any) string {
	t.Helper()
	fmt.Fprintf(s.in, format+"\n", args...)
	return s.line(t)
}

// worker is the process ID of the snag's only child.
func (s *snag) worker(t *testing.T) int {
	t.Helper()
	var pids []string
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.pid))
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		pids = append(pids, strings.Fields(string(b))...)
	}
	if len(pids) != 1 {
		t.Fatalf("children of snag: %v, expected one", pids)
	}
	pid, err := strconv.Atoi(pids[0])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// testBinary is a copy of the test binary that other users may execute.
func testBinary(t *testing.T) string {
	t.Helper()
	return public(t, "/proc/self/exe")
}

// public copies a program to where all users may execute it.
func public(t *testing.T, path string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "netsetup")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, err := os.ReadFile(path)
	to := filepath.Join(dir, "program")
	if err := errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(to, b, 0o755)); err != nil {
		t.Fatal(err)
	}
	return to
}

// adopt has the snag take the lab's interface. A veth is not what the helper moves, so for an ordinary
// user the test moves it.
func (l *lab) adopt(t *testing.T, s *snag, uid int) {
	t.Helper()
	var got string
	if uid == 0 {
		got = s.ask(t, "adopt %d", l.index)
	} else {
		ns, err := os.Open(s.netns)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		inFile(t, l.host, func() error {
			return netlink.LinkSetNsFd(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index}}, int(ns.Fd()))
		})
		got = s.ask(t, "configure")
	}
	if f := strings.Fields(got); len(f) != 4 || f[0] != "adopted" || f[2] != "usb0" || f[3] != "true" {
		t.Fatalf("adopt: %s", got)
	}
}

func TestExchange(t *testing.T) {
	for _, tc := range []struct {
		name, role string
		uid        int
	}{
		{"root", "nat", 0},
		{"user", "nat", testUser},
		{"root without NAT", "nonat", 0},
		{"user without NAT", "nonat", testUser},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t)
			s := l.start(t, tc.role, tc.uid)
			l.adopt(t, s, tc.uid)
			// TFTP is answered from the port that is not tracked, and goes on there.
			tftp := "192.168.0.100:69"
			if tc.role == "nat" {
				tftp = "192.168.0.100:9069"
			}
			for _, x := range []struct{ what, local, remote, from string }{
				{"BOOTP broadcast", "0.0.0.0:68", "255.255.255.255:67", "192.168.0.100:67"},
				{"BOOTP unicast", "192.168.0.101:68", "192.168.0.100:67", "192.168.0.100:67"},
				{"TFTP", "192.168.0.101:1234", "192.168.0.100:69", tftp},
				{"TFTP goes on", "192.168.0.101:1234", tftp, tftp},
				{"TFTP of the same port again", "192.168.0.101:1234", "192.168.0.100:69", tftp},
			} {
				answer, from := l.exchange(t, x.local, x.remote)
				if answer != "re: "+t.Name() || from != x.from {
					t.Errorf("%s: %q from %s, expected it from %s", x.what, answer, from, x.from)
				}
			}
		})
	}
}

// TestNextStage has the interface vanish and another one come, as between the stages of a boot; then a
// third while the second is still there.
func TestNextStage(t *testing.T) {
	l := newLab(t)
	s := l.start(t, "nat", 0)
	l.adopt(t, s, 0)
	l.exchange(t, "0.0.0.0:68", "255.255.255.255:67")
	l.unplug(t)
	if got := s.ask(t, "gone"); got != "gone" {
		t.Fatal(got)
	}
	l.plug(t)
	l.adopt(t, s, 0)
	l.exchange(t, "0.0.0.0:68", "255.255.255.255:67")

	second := l.board
	defer second.Close()
	var err error
	if l.board, err = newNetNS(); err != nil {
		t.Fatal(err)
	}
	l.plug(t)
	inFile(t, l.host, func() error { // two of one name do not fit into a namespace
		return netlink.LinkSetName(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index}}, "usb1")
	})
	if got := s.ask(t, "adopt %d", l.index); !strings.HasPrefix(got, "adopted") {
		t.Fatal(got)
	}
	l.exchange(t, "0.0.0.0:68", "255.255.255.255:67")
	l.exchange(t, "192.168.0.101:1234", "192.168.0.100:69")
	l.exchange(t, "192.168.0.50:1234", "192.168.0.100:69") // a board that is set up for itself
}

func TestTwoAtOnce(t *testing.T) {
	a, b := newLab(t), newLab(t)
	sa, sb := a.start(t, "nat", testUser), b.start(t, "nat", testUser)
	a.adopt(t, sa, testUser)
	b.adopt(t, sb, testUser)
	for _, l := range []*lab{a, b, a, b} {
		l.exchange(t, "0.0.0.0:68", "255.255.255.255:67")
		l.exchange(t, "192.168.0.101:1234", "192.168.0.100:69")
	}
}

// wait waits for something in the board's namespace.
func (l *lab) wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for done := false; ; time.Sleep(5 * time.Millisecond) {
		inFile(t, l.board, func() error { done = ok(); return nil })
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// peerless waits until the board's interface is gone, which is what becomes of a veth when the
// namespace of its peer is taken apart.
func (l *lab) peerless(t *testing.T) {
	t.Helper()
	l.wait(t, "the end of the namespace", func() bool {
		_, err := netlink.LinkByName("eth0")
		return err != nil
	})
}

func ended(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); unix.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

func TestEnd(t *testing.T) {
	for _, uid := range []int{0, testUser} {
		for name, end := range map[string]func(t *testing.T, s *snag){
			"close": func(t *testing.T, s *snag) {
				if got := s.ask(t, "close"); got != "closed" {
					t.Fatal(got)
				}
				if got := s.ask(t, "done"); got != "done "+net.ErrClosed.Error() {
					t.Error(got)
				}
			},
			"killed": func(t *testing.T, s *snag) {
				s.cmd.Process.Kill()
				s.cmd.Wait()
			},
			// A worker that does not see the end of its socket is killed by the kernel.
			"killed with the worker stopped": func(t *testing.T, s *snag) {
				unix.Kill(s.worker(t), unix.SIGSTOP)
				s.cmd.Process.Kill()
				s.cmd.Wait()
			},
			"worker killed": func(t *testing.T, s *snag) {
				unix.Kill(s.worker(t), unix.SIGKILL)
				if got := s.ask(t, "done"); got != "done "+ErrWorker.Error()+": signal: killed" {
					t.Error(got)
				}
				if got := s.ask(t, "gone"); got != "gone" {
					t.Error(got)
				}
				if got := s.ask(t, "adopt 1"); !strings.HasPrefix(got, "error "+ErrWorker.Error()) {
					t.Error(got)
				}
			},
		} {
			t.Run(fmt.Sprintf("%s as %d", name, uid), func(t *testing.T) {
				l := newLab(t)
				s := l.start(t, "nat", uid)
				l.adopt(t, s, uid)
				worker := s.worker(t)
				end(t, s)
				ended(t, worker)
				l.peerless(t)
			})
		}
	}
}

// TestUnplugWhileAdopting: an interface that has vanished is ErrGone, not any other error.
func TestUnplugWhileAdopting(t *testing.T) {
	l := newLab(t)
	s := l.start(t, "nat", 0)
	l.unplug(t)
	if got := s.ask(t, "adopt %d", l.index); got != "error "+ErrGone.Error() {
		t.Error(got)
	}
	if got := s.ask(t, "configure"); got != "error "+ErrGone.Error() {
		t.Error(got)
	}
	l.plug(t)
	l.adopt(t, s, 0)
}

// TestAdoptFromNamed: root may have the interface taken from a namespace of ip-netns(8).
func TestAdoptFromNamed(t *testing.T) {
	l := newLab(t)
	name := fmt.Sprintf("netsetup-test-%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Skipf("needs ip(8) and mounts in /run/netns: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "delete", name).Run() })
	ns, err := os.Open("/run/netns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	inFile(t, l.host, func() error {
		return netlink.LinkSetNsFd(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index}}, int(ns.Fd()))
	})
	inFile(t, ns, func() error {
		link, err := netlink.LinkByName("usb0")
		if err == nil {
			l.index = link.Attrs().Index
		}
		return err
	})
	if found, err := (Host{NetNS: name}).Interfaces(); err != nil || len(found) != 0 {
		t.Errorf("interfaces of USB devices: %v, %v", found, err)
	}
	t.Setenv("NETSETUP_TEST_NETNS", name)
	s := l.start(t, "nat", 0)
	l.adopt(t, s, 0)
	l.exchange(t, "0.0.0.0:68", "255.255.255.255:67")

	u := l.start(t, "nat", testUser)
	if got := u.ask(t, "adopt %d", l.index); !strings.HasPrefix(got, "error [not-permitted]") {
		t.Errorf("as a user: %s", got)
	}
}
