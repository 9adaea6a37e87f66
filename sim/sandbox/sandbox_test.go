package sandbox_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"snag/sim/am335x"
	"snag/sim/sandbox"
	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/usb"
)

func TestMain(m *testing.M) {
	sandbox.Init()
	if os.Getenv("SANDBOX_TEST_UEVENTS") != "" {
		os.Exit(listen())
	}
	os.Exit(m.Run())
}

// listen prints the uevents of a port as a program in the sandbox hears them, until the port is empty.
func listen() int {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1})
	}
	fmt.Println("listening")
	b := make([]byte, 8192)
	for err == nil {
		var n int
		var from unix.Sockaddr
		n, from, err = unix.Recvfrom(fd, b, 0)
		head, _, _ := strings.Cut(string(b[:max(n, 0)]), "\x00")
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 || !strings.Contains(head, "/usb1/1-1") {
			continue
		}
		action, path, _ := strings.Cut(head, "@")
		fmt.Println(action, filepath.Base(path))
		if action == "remove" && strings.HasSuffix(path, "/1-1") {
			return 0
		}
	}
	fmt.Println(err)
	return 1
}

// start makes a sandbox or skips the test.
func start(t *testing.T, tools ...string) *sandbox.Sandbox {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	s, err := sandbox.Start(t.Context())
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// run runs a shell script in the sandbox and returns its status and output.
func run(t *testing.T, s *sandbox.Sandbox, script string) (int, string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		io.Copy(&out, r)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	status, err := s.Run(ctx, sandbox.Command{Args: []string{"sh", "-c", script}, Stdout: w, Stderr: w})
	w.Close()
	<-copied
	r.Close()
	if err != nil {
		t.Errorf("%v; output: %s", err, out.String())
	}
	return status, strings.TrimSpace(out.String())
}

func device(id usb.ID, hostMAC string) *usbdev.Ethernet {
	m, _ := net.ParseMAC(hostMAC)
	return usbdev.NewEthernet(usbdev.EthernetConfig{
		Descriptors: usbdev.Descriptors{
			Speed: usbdev.HighSpeed, Class: 2, ID: id, Product: "a board", Release: 0x123,
			Configs: []usbdev.Config{usbdev.RNDISConfig(1, 0x82, 0x81, 2, 512)},
		},
		HostMAC: m,
	})
}

func attach(t *testing.T, p *sandbox.Port, d *usbdev.Ethernet) {
	t.Helper()
	if err := p.Attach(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Detach(); d.Close() })
}

// until defines until_ for scripts, which waits until a command succeeds: the tree follows a command of the sandbox's a
// moment later.
const until = `until_() { for i in $(seq 1000); do "$@" && return; sleep 0.01; done; echo "never: $*"; }
`

// TestView looks at the sysfs tree as a program that searches for boards does.
func TestView(t *testing.T) {
	s := start(t, "ip")
	port := s.Port("1-2.3")
	d := device(usb.ID{Vendor: 0x0451, Product: 0x6141}, "00:11:22:33:44:55")
	attach(t, port, d)
	for _, tc := range []struct{ script, want string }{
		{"id -u", "0"},
		{"cd /sys/bus/usb/devices && echo *", "1-2.3 1-2.3:1.0 1-2.3:1.1 usb1"},
		{"cd /sys/bus/usb/devices/1-2.3 && echo $(cat idVendor idProduct bcdDevice speed product busnum devnum bConfigurationValue devpath)", "0451 6141 0123 480 a board 1 2 1 2.3"},
		{"cd /sys/bus/usb/devices/1-2.3:1.0 && echo $(cat bInterfaceClass bInterfaceSubClass bInterfaceProtocol bInterfaceNumber)", "02 02 ff 00"},
		{"readlink -f /sys/bus/usb/devices/1-2.3:1.0/driver", "/sys/bus/usb/drivers/rndis_host"},
		{"ls /sys/bus/usb/devices/1-2.3:1.0/net", "eth0"},
		{"readlink -f /sys/class/net/eth0", "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2.3/1-2.3:1.0/net/eth0"},
		{"readlink /sys/class/net/eth0/device", "../../../1-2.3:1.0"},
		{"readlink -f /sys/class/net/eth0/device", "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2.3/1-2.3:1.0"},
		{"cat /sys/class/net/eth0/address", "00:11:22:33:44:55"},
		{"grep -h PRODUCT /sys/class/net/eth0/device/uevent", "PRODUCT=451/6141/123"},
		{"[ $(cat /sys/class/net/eth0/ifindex) = $(ip -o link show eth0 | cut -d: -f1) ] && echo same", "same"},
		{"readlink -f /sys/class/net/lo", "/sys/devices/virtual/net/lo"},
		{"ip link add x0 type veth peer name x1 && until_ [ -e /sys/class/net/x0 ] && readlink -f /sys/class/net/x0; ip link del x0 && until_ [ ! -e /sys/class/net/x0 ] && until_ [ ! -e /sys/class/net/x1 ]", "/sys/devices/virtual/net/x0"},
		{"ip link set eth0 name board && until_ [ -e /sys/class/net/board ] && ls /sys/class/net /sys/bus/usb/devices/1-2.3:1.0/net | tr '\\n' ' '", "/sys/bus/usb/devices/1-2.3:1.0/net:\nboard\n\n/sys/class/net:\nboard\nlo"},
	} {
		status, out := run(t, s, until+tc.script)
		if strings.Contains(tc.script, "tr ") {
			tc.want = strings.ReplaceAll(tc.want, "\n", " ")
		}
		if out != tc.want || status != 0 {
			t.Errorf("%s: status %d, %q, expected %q", tc.script, status, out, tc.want)
		}
	}
}

// TestReenumerate checks that the next device has a new number and a new interface.
func TestReenumerate(t *testing.T) {
	s := start(t, "ip")
	port := s.Port("1-1")
	show := "echo $(cat /sys/bus/usb/devices/1-1/devnum /sys/bus/usb/devices/1-1/idProduct; cat /sys/class/net/[eu]*/ifindex; cd /sys/class/net; echo [eu]*)"
	seen := make(map[string]bool)
	for i, mac := range []string{"00:11:22:33:44:55", "02:11:22:33:44:55", "02:11:22:33:44:55"} {
		d := device(usb.ID{Vendor: 0x0451, Product: uint16(i)}, mac)
		if err := port.Attach(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		_, out := run(t, s, show)
		f := strings.Fields(out)
		if len(f) != 4 || f[0] != fmt.Sprint(i+2) || f[1] != fmt.Sprintf("%04x", i) || seen[f[2]] {
			t.Errorf("enumeration %d: %q", i, out)
		} else {
			seen[f[2]] = true
			if want := []string{"eth0", "usb0", "usb0"}[i]; f[3] != want {
				t.Errorf("interface %s, expected %s", f[3], want)
			}
		}
		if err := port.Detach(); err != nil {
			t.Error(err)
		}
		d.Close()
		if _, out := run(t, s, "ls /sys/class/net; ls /sys/bus/usb/devices; ip -o link | wc -l"); strings.Join(strings.Fields(out), " ") != "lo usb1 1" {
			t.Errorf("after the detach: %q", out)
		}
	}
}

func TestUevents(t *testing.T) {
	s := start(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	done := make(chan int, 1)
	go func() {
		defer w.Close()
		status, _ := s.Run(t.Context(), sandbox.Command{
			Args: []string{os.Args[0]}, Env: append(os.Environ(), "SANDBOX_TEST_UEVENTS=1"), Stdout: w, Stderr: w,
		})
		done <- status
	}()
	out := bufio.NewScanner(r)
	out.Scan() // it listens
	d := device(usb.ID{Vendor: 0x0451, Product: 0x6141}, "02:11:22:33:44:55")
	attach(t, s.Port("1-1"), d)
	if err := s.Port("1-1").Detach(); err != nil {
		t.Error(err)
	}
	var got []string
	for out.Scan() {
		got = append(got, out.Text())
	}
	want := []string{"add 1-1", "add 1-1:1.0", "add 1-1:1.1", "add usb0", "remove usb0", "remove 1-1:1.0", "remove 1-1:1.1", "remove 1-1"}
	if status := <-done; status != 0 || !slices.Equal(got, want) {
		t.Errorf("status %d, %q; expected %q", status, got, want)
	}
}

// TestMove moves the interface to another namespace by the command, and back, and kills the namespace.
func TestMove(t *testing.T) {
	s := start(t, "ip", "nsenter", "unshare")
	d := device(usb.ID{Vendor: 0x0451, Product: 0x6141}, "02:11:22:33:44:55")
	attach(t, s.Port("1-1"), d)
	_, out := run(t, s, until+`
		unshare -n sleep 1000 & P=$!
		while [ "$(readlink /proc/$P/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
		old=$(cat /sys/class/net/usb0/ifindex)
		ip link set usb0 netns $P; until_ [ ! -e /sys/bus/usb/devices/1-1:1.0/net ]
		echo moved $(ls /sys/class/net) $(ls -d /sys/bus/usb/devices/1-1:1.0/net 2>/dev/null)
		nsenter -t $P -n ip link set usb0 up
		nsenter -t $P -n ip link set usb0 netns 1 2>/dev/null || nsenter -t $P -n ip link set usb0 netns $$; until_ [ -e /sys/class/net/usb0 ]
		[ "$old" = "$(cat /sys/class/net/usb0/ifindex)" ] && echo back $(ls /sys/class/net /sys/bus/usb/devices/1-1:1.0/net)
		ip link set usb0 netns $P; until_ [ ! -e /sys/bus/usb/devices/1-1:1.0/net ]
		kill -9 $P
		until_ ip link show usb0 >/dev/null 2>&1; until_ [ -e /sys/class/net/usb0 ]
		echo again $(ls /sys/class/net); ip link set usb0 up && echo up`)
	want := "moved lo\nback /sys/bus/usb/devices/1-1:1.0/net: usb0 /sys/class/net: lo usb0\nagain lo usb0\nup"
	if out != want {
		t.Errorf("%q, expected %q", out, want)
	}
	deadline := time.After(30 * time.Second)
	for {
		up, changed := d.Link.Up()
		if up {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("the board does not see the link that came back")
		}
	}
}

// TestCommand checks exit status, signals, and that nothing outlives the sandbox.
func TestCommand(t *testing.T) {
	s := start(t)
	if status, _ := run(t, s, "exit 7"); status != 7 {
		t.Errorf("status %d, expected 7", status)
	}
	if status, _ := run(t, s, "kill -9 $$"); status != 137 {
		t.Errorf("status %d, expected 137", status)
	}
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	status, err := s.Run(ctx, sandbox.Command{Args: []string{"sleep", "20"}, Signals: signals})
	if status != 128+int(syscall.SIGTERM) || err != nil {
		t.Errorf("status %d, %v; expected 143", status, err)
	}
	if _, err := s.Run(ctx, sandbox.Command{Args: []string{"/nonexistent"}}); err == nil {
		t.Error("a command that does not exist ran")
	}
	_, out := run(t, s, "setsid sleep 1000 >/dev/null 2>&1 & echo $!")
	s.Close()
	if err := syscall.Kill(atoi(out), 0); err != syscall.ESRCH {
		t.Errorf("process %s of the sandbox: %v, expected none", out, err)
	}
	if _, err := s.Run(ctx, sandbox.Command{Args: []string{"true"}}); err == nil {
		t.Error("a closed sandbox runs commands")
	}
}

func atoi(s string) (n int) {
	fmt.Sscan(s, &n)
	return n
}

// dnsmasq serves every USB interface that appears, until a device of ID 1234:5678 does on every port.
const dnsmasq = `
	dnsmasq -k -C /dev/null --port=0 --bind-dynamic --except-interface=lo --interface='eth*' --interface='usb*' --user=root --group=root \
		--dhcp-range=192.168.0.101,192.168.0.150,255.255.255.0,1h --bootp-dynamic --no-ping --leasefile-ro --pid-file= \
		--dhcp-vendorclass=set:rom,'AM335x ROM' --dhcp-boot=tag:rom,spl.bin --dhcp-boot=tag:!rom,u-boot.img \
		--enable-tftp --tftp-root="$DIR" --log-facility=/dev/null & D=$!
	seen=
	for i in $(seq 1600); do
		for n in /sys/class/net/*; do
			[ -e $n/device ] || continue
			x=$(cat $n/ifindex) || continue
			case " $seen " in *" $x "*) ;; *) seen="$seen $x"; ip addr add 192.168.0.100/24 dev ${n##*/}; ip link set ${n##*/} up;; esac
		done
		[ "$(grep -l 5678 /sys/bus/usb/devices/*/idProduct | wc -l)" = "$BOARDS" ] && break
		sleep 0.05
	done
	kill $D`

// TestDnsmasq lets boards boot both stages from a server that nobody here wrote.
func TestDnsmasq(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("dnsmasq in the sandbox takes root: it changes its groups")
	}
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	spl, uboot := bytes.Repeat([]byte("spl!"), 27432), bytes.Repeat([]byte("u-boot."), 100_000)
	for name, b := range map[string][]byte{"spl.bin": spl, "u-boot.img": uboot} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	gadget := usb.ID{Vendor: 0x1234, Product: 0x5678}
	retries := []time.Duration{time.Second}
	for _, tc := range []struct {
		name string
		cfg  am335x.Config
	}{
		{"DHCP", am335x.Config{Gadget: gadget, ROMRetries: retries}},
		{"BOOTP, no options", am335x.Config{Gadget: gadget, ROMRetries: retries, BOOTP: true, NoOptions: true, ECM: true}},
		{"loss, reset", am335x.Config{Gadget: gadget, ROMRetries: retries, LossIn: 0.005, LossOut: 0.005,
			SPLDelay: 100 * time.Millisecond, Faults: []am335x.Fault{{Kind: am335x.Reset, Stage: am335x.StageSPL, At: 3000}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := start(t, "dnsmasq", "ip", "seq")
			tc.cfg.GadgetDelay = -1
			board, err := am335x.New(tc.cfg)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- board.Run(ctx, s.Port("1-1")) }()
			timeout, stop := context.WithTimeout(t.Context(), 100*time.Second)
			defer stop()
			if status, err := s.Run(timeout, sandbox.Command{
				Args: []string{"sh", "-c", dnsmasq}, Env: append(os.Environ(), "DIR="+dir, "BOARDS=1"), Stderr: os.Stderr,
			}); err != nil || status != 0 {
				t.Errorf("status %d, %v", status, err)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			r := board.Report()
			for stage, want := range map[string][]byte{am335x.StageROM: spl, am335x.StageSPL: uboot} {
				if st := r.Last(stage); st == nil || !bytes.Equal(st.Data, want) || !st.Complete {
					t.Errorf("%s: not what was served, or not at all", stage)
				}
			}
			if r.Outcome != virtual.Booted || len(r.Violations) > 0 {
				t.Errorf("outcome %s, %s, violations %v", r.Outcome, r.Error, r.Violations)
			}
		})
	}
}

// TestUnprivileged runs the tests above that need no foreign server as an ordinary user.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: the other tests are run as an ordinary user already")
	}
	dir, err := os.MkdirTemp("", "sandbox")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "sandbox.test")
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run", "TestView|TestUevents|TestReenumerate|TestMove|TestCommand", "-test.v", "-test.timeout=60s")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "--- SKIP"); n > 0 {
		t.Skipf("%d tests were skipped as an ordinary user:\n%s", n, out)
	}
}
