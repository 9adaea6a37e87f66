package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/am335x"
	"snag/usb"
)

const helperPath = "/usr/local/libexec/snag/snag-netmove"

// phone is the ID of a network device that is no board: a telephone that shares its connection.
var phone = usb.ID{Vendor: 0x18d1, Product: 0x4ee3}

// TestWithUdevHelperRefuses calls the installed helper with real interfaces and namespaces. Its checks
// one by one, and what it does on systems that are not in order, are cmd/snag-netmove's tests.
func TestWithUdevHelperRefuses(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	must(t, "ip", "link", "add", "dummy7", "type", "dummy")
	defer must(t, "ip", "link", "del", "dummy7")
	dummy := indexOf(t, "dummy7")

	adapter, _ := silentDevice(t, phone, hostPort(t, 1))
	boardPort := hostPort(t, 2)
	board, unplug := silentDevice(t, am335x.ROMID, boardPort)
	d, err := usb.Sysfs{}.Device(boardPort)
	if err != nil {
		t.Fatal(err)
	}
	opens := func() error {
		var st syscall.Stat_t
		if err := syscall.Stat(d.Node, &st); err != nil || st.Gid != user.Groups[0] || st.Mode&0o060 != 0o060 {
			return fmt.Errorf("%s: mode %o, group %d, %v", d.Node, st.Mode, st.Gid, err)
		}
		return nil
	}
	soon(t, time.Minute, opens)

	own, strangers, roots := namespaceOf(t, user), namespaceOf(t, stranger), namespaceOf(t, nil)
	host, err := os.Open("/proc/1/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	file, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	index := func(n int) []string { return []string{strconv.Itoa(n)} }
	for _, tc := range []struct {
		name string
		call netmove
		code int
		text string
	}{
		{"an interface that is not USB", netmove{args: index(dummy), ns: own}, 4, "not a USB network device"},
		{"the loopback interface", netmove{args: index(1), ns: own}, 2, ""},
		{"an ID that is not on the list", netmove{args: index(adapter), ns: own}, 7, phone.String()},
		{"an index that vanished", netmove{args: index(9999), ns: own}, 5, "no interface 9999"},
		{"the host's namespace", netmove{args: index(board), ns: host}, 3, ""},
		{"root's namespace", netmove{args: index(board), ns: roots}, 3, "belongs to user 0"},
		{"a stranger's namespace", netmove{args: index(board), ns: strangers}, 3, "belongs to user 1002"},
		{"no namespace", netmove{args: index(board), ns: file}, 3, ""},
		{"no descriptor", netmove{args: index(board)}, 3, ""},
		{"no argument", netmove{ns: own}, 2, "usage"},
		{"an extra argument", netmove{args: []string{strconv.Itoa(board), "host"}, ns: own}, 2, "usage"},
		{"a name", netmove{args: []string{"eth0"}, ns: own}, 2, ""},
		{"no_new_privs", netmove{args: index(board), ns: own, through: []string{"setpriv", "--no-new-privs"}}, 6, "no_new_privs"},
		{"inside a user namespace", netmove{args: index(board), ns: own, through: []string{"unshare", "-U", "-r"}}, 3, "initial user namespace"},
		{"an ordinary user with an environment", netmove{args: index(dummy), ns: own, env: hostileEnv}, 4, "not a USB network device"},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.call.expect(t, tc.code, tc.text) })
	}
	t.Run("a stranger", func(t *testing.T) {
		cmd := exec.Command(helperPath, strconv.Itoa(board))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: stranger}
		if err := cmd.Run(); !os.IsPermission(err) {
			t.Errorf("one who is not in the group could start it: %v", err)
		}
	})
	t.Run("a node that the caller may not open", func(t *testing.T) {
		if err := os.Chmod(d.Node, 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(d.Node, 0o660)
		netmove{args: index(board), ns: own}.expect(t, 8, "may not open the node")
	})
	t.Run("the board", func(t *testing.T) { // the same call, with nothing wrong; no variable has a say in it
		netmove{args: index(board), ns: own, env: hostileEnv}.expect(t, 0, "")
		if i, err := onHost(boardPort); err == nil {
			t.Errorf("it was not moved: %+v", i)
		}
		netmove{args: index(board), ns: own}.expect(t, 5, "")
	})
	t.Run("unplugged", func(t *testing.T) {
		unplug()
		netmove{args: index(board), ns: own}.expect(t, 5, "")
	})
}

// hostileEnv are variables that change what other programs do.
var hostileEnv = []string{
	"LD_PRELOAD=/nonexistent.so", "LD_LIBRARY_PATH=/tmp", "GODEBUG=inittrace=1", "GOTRACEBACK=crash", "GOGC=1",
	"GOMAXPROCS=1", "PATH=/tmp", "HOME=/tmp", "IFS=/", "SNAG_SYSFS=/tmp", "SYSFS_PATH=/tmp",
}

// netmove is a call of the helper by the ordinary user.
type netmove struct {
	args, env, through []string
	ns                 *os.File // on descriptor 3
}

func (c netmove) expect(t *testing.T, code int, text string) {
	t.Helper()
	args := append(append(append([]string(nil), c.through...), helperPath), c.args...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append([]string{}, c.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	if c.ns != nil {
		cmd.ExtraFiles = []*os.File{c.ns}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(stderr.String(), text) {
		t.Errorf("exit code %d, %q; expected %d, %q", got, &stderr, code, text)
	}
	// The runtime of Go may have been told to write of itself.
	if lines := strings.Count(stderr.String(), "\n"); c.env == nil && (lines != 1 && code != 0 || lines != 0 && code == 0) {
		t.Errorf("%q: expected one line of a refusal, and none otherwise", &stderr)
	}
}

// namespaceOf makes a network namespace of a user's, in a user namespace of his own but for root.
func namespaceOf(t *testing.T, who *syscall.Credential) *os.File {
	t.Helper()
	args := []string{"-U", "-n", "sleep", "600"}
	if who == nil {
		args = args[1:]
	}
	cmd := exec.Command("unshare", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	name := fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)
	ours, _ := os.Readlink("/proc/self/ns/net")
	soon(t, 30*time.Second, func() error {
		if theirs, err := os.Readlink(name); err != nil || theirs == ours {
			return fmt.Errorf("no namespace yet: %v", err)
		}
		return nil
	})
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// silentDevice plugs in a network adapter that never says anything and waits for its interface.
func silentDevice(t *testing.T, id usb.ID, port usb.Port) (index int, unplug func()) {
	t.Helper()
	_, _, unplug = plugged(t, am335x.Config{ROM: id, LossOut: 1}, port)
	soon(t, time.Minute, func() error {
		i, err := onHost(port)
		index = i.Index
		return err
	})
	return index, unplug
}

func indexOf(t *testing.T, name string) int {
	t.Helper()
	b, err := os.ReadFile("/sys/class/net/" + name + "/ifindex")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
