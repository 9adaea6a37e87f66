package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests of this file run the helper as it is installed: built without cgo, with its capability,
// called by an ordinary user. What needs a USB device is tested in check_test.go with a sysfs of its
// own, and in virtual machines.

// testUser is an ordinary user for tests that root runs.
const testUser = 1001

// callEnv makes the test binary that user: it holds a call, and the answer is a JSON object on stdout.
const callEnv = "NETMOVE_TEST_CALL"

type call struct {
	Helper string
	Args   []string
	Env    []string
	FD3    string // what to pass: "mine" makes a namespace, "none" passes nothing, else a path
	NNP    bool   // with no_new_privs
	Inside bool   // call it from within a user namespace of the user's
	Closed bool   // without descriptors 0 to 2
}

type answer struct {
	Exit   int
	Stderr string
}

func TestMain(m *testing.M) {
	switch s := os.Getenv(callEnv); s {
	case "":
		os.Exit(m.Run())
	case "hold": // a namespace, until the end of the input
		os.Stdout.Write([]byte("\n"))
		io.Copy(io.Discard, os.Stdin)
	default:
		var c call
		err := json.Unmarshal([]byte(s), &c)
		if err == nil {
			var a answer
			if a, err = c.do(); err == nil {
				err = json.NewEncoder(os.Stdout).Encode(a)
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// do calls the helper as the user that the process runs as.
func (c call) do() (answer, error) {
	cmd := exec.Command(c.Helper, c.Args...)
	cmd.Env = c.Env
	if c.Closed {
		cmd = exec.Command("/bin/sh", append([]string{"-c", `exec "$@" 0<&- 1>&- 2>&-`, "sh", c.Helper}, c.Args...)...)
	}
	switch c.FD3 {
	case "none":
	case "mine":
		hold := exec.Command("/proc/self/exe")
		hold.Env = []string{callEnv + "=hold"}
		hold.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		in, err1 := hold.StdinPipe()
		out, err2 := hold.StdoutPipe()
		if err := errors.Join(err1, err2, hold.Start()); err != nil {
			return answer{}, fmt.Errorf("no user namespace: %w", err)
		}
		defer hold.Wait()
		defer in.Close()
		if _, err := out.Read(make([]byte, 1)); err != nil {
			return answer{}, err
		}
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", hold.Process.Pid))
		if err != nil {
			return answer{}, err
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
	default:
		f, err := os.Open(c.FD3)
		if err != nil {
			return answer{}, err
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
	}
	if c.NNP {
		runtime.LockOSThread() // which the child is forked from
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return answer{}, err
		}
	}
	if c.Inside {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return answer{}, err
	}
	return answer{cmd.ProcessState.ExitCode(), stderr.String()}, nil
}

// install builds the helper and gives it the file capability, if caps.
func install(t *testing.T, name string, caps bool) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "netmove")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, name)
	build := exec.Command("go", "build", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("needs the go command: %v: %s", err, out)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	if !caps {
		return path
	}
	// linux/capability.h, struct vfs_cap_data: revision 2, effective; CAP_NET_ADMIN (12) permitted.
	attr := []byte{1, 0, 0, 2, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if err := unix.Setxattr(path, "security.capability", attr, 0); err != nil {
		t.Skipf("needs a file system with file capabilities: %v", err)
	}
	return path
}

// inHost makes a network namespace to stand for the host's, with interfaces of the given kinds, and
// returns their indexes. f runs in it.
func inHost(t *testing.T, kinds []string, f func(index map[string]int)) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		defer close(done)      // should f end the goroutine
		runtime.LockOSThread() // the thread ends with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			index := make(map[string]int)
			for n, kind := range kinds {
				name := "if" + strconv.Itoa(n)
				add := exec.Command("ip", "link", "add", name, "type", kind)
				if kind == "tap" {
					add = exec.Command("ip", "tuntap", "add", name, "mode", "tap")
				}
				if out, err := add.CombinedOutput(); err != nil {
					return fmt.Errorf("%s: %w: %s", add, err, out)
				}
				// The package net looks into the namespace of the thread, this one.
				i, err := net.InterfaceByName(name)
				if err != nil {
					return err
				}
				index[kind] = i.Index
			}
			f(index)
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Skipf("needs network namespaces and ip(8): %v", err)
	}
}

// newNamespace makes a network namespace of root's, nil if that does not work.
func newNamespace() *os.File {
	made := make(chan *os.File)
	go func() {
		runtime.LockOSThread()
		var f *os.File
		if unix.Unshare(unix.CLONE_NEWNET) == nil {
			f, _ = os.Open("/proc/thread-self/ns/net")
		}
		made <- f
	}()
	return <-made
}

// as calls the helper as user uid.
func (c call) as(t *testing.T, uid int) answer {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testProgram)
	cmd.Env = []string{callEnv + "=" + string(b), "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	cmd.WaitDelay = time.Second
	stop := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer stop.Stop()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if strings.Contains(stderr.String(), "no user namespace") {
			t.Skip(stderr.String())
		}
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var a answer
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// testProgram is a copy of the test binary that testUser may execute.
var testProgram string

func TestBinary(t *testing.T) {
	requireRoot(t)
	helper := install(t, "capable", true)
	plain := install(t, "plain", false)
	setuid := install(t, "setuid", true)
	if err := os.Chmod(setuid, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	testProgram = filepath.Join(filepath.Dir(plain), "test")
	b, err := os.ReadFile("/proc/self/exe")
	if err := errors.Join(err, os.WriteFile(testProgram, b, 0o755), os.Chmod(testProgram, 0o755)); err != nil {
		t.Fatal(err)
	}

	inHost(t, []string{"tap", "veth"}, func(index map[string]int) {
		virtual := strconv.Itoa(index["veth"])
		other := newNamespace()
		if other == nil {
			t.Error("no second network namespace")
			return
		}
		defer other.Close()
		rootNS := fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		named := filepath.Join(filepath.Dir(plain), "named") // as ip netns makes them: anyone may open it
		if err := errors.Join(os.WriteFile(named, nil, 0o444), unix.Mount(fmt.Sprintf("/proc/self/fd/%d", other.Fd()), named, "", unix.MS_BIND, "")); err != nil {
			t.Error(err)
			return
		}
		defer unix.Unmount(named, unix.MNT_DETACH)

		for _, tc := range []struct {
			name string
			call call
			want int
			text string
		}{
			{"no argument", call{FD3: "mine"}, exitUsage, "usage"},
			{"two arguments", call{Args: []string{virtual, virtual}, FD3: "mine"}, exitUsage, "usage"},
			{"an option", call{Args: []string{"--help"}, FD3: "mine"}, exitUsage, ""},
			{"a name", call{Args: []string{"if0"}, FD3: "mine"}, exitUsage, ""},
			{"the loopback interface", call{Args: []string{"1"}, FD3: "mine"}, exitUsage, ""},

			{"no descriptor 3", call{Args: []string{virtual}, FD3: "none"}, exitNamespace, "descriptor 3"},
			{"a file", call{Args: []string{virtual}, FD3: "/etc/passwd"}, exitNamespace, "descriptor 3"},
			{"another kind of namespace", call{Args: []string{virtual}, FD3: "/proc/self/ns/uts"}, exitNamespace, "descriptor 3"},
			{"the host's namespace", call{Args: []string{virtual}, FD3: "/proc/self/ns/net"}, exitNamespace, "already"},
			{"root's namespace", call{Args: []string{virtual}, FD3: named}, exitNamespace, "belongs to user 0, not to user 1001"},

			{"no capability", call{Helper: plain, Args: []string{virtual}, FD3: "mine"}, exitNotCapable, "setcap"},
			{"no_new_privs", call{Args: []string{virtual}, FD3: "mine", NNP: true}, exitNotCapable, "no_new_privs"},
			{"setuid", call{Helper: setuid, Args: []string{virtual}, FD3: "mine"}, exitNamespace, "setuid"},
			{"inside a user namespace", call{Args: []string{virtual}, FD3: "mine", Inside: true}, exitNamespace, "initial user namespace"},

			{"tap", call{Args: []string{strconv.Itoa(index["tap"])}, FD3: "mine"}, exitNotUSB, "not a USB network device"},
			{"veth", call{Args: []string{strconv.Itoa(index["veth"])}, FD3: "mine"}, exitNotUSB, "not a USB network device"},
			{"vanished index", call{Args: []string{"12345"}, FD3: "mine"}, exitGone, "no interface 12345"},

			{"environment", call{Args: []string{virtual}, FD3: "mine", Env: []string{
				"LD_PRELOAD=/nonexistent.so", "GODEBUG=containermaxprocs=1", "GOTRACEBACK=crash", "GOGC=1",
				"SNAG_SYSFS=/tmp", "SYSFS=/tmp", "PATH=/tmp", "IFS=1", "LC_ALL=xx",
			}}, exitNotUSB, "not a USB network device"},
			{"no stdio", call{Args: []string{virtual}, FD3: "mine", Closed: true}, exitNotUSB, ""},
		} {
			t.Run(tc.name, func(t *testing.T) {
				if tc.call.Helper == "" {
					tc.call.Helper = helper
				}
				// The subtest runs on a thread of its own; the helper must run in this namespace.
				done := make(chan struct{})
				go func() {
					defer close(done)
					runtime.LockOSThread()
					f, err := os.Open(rootNS)
					if err != nil {
						t.Error(err)
						return
					}
					defer f.Close()
					if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
						t.Error(err)
						return
					}
					a := tc.call.as(t, testUser)
					if a.Exit != tc.want || !strings.Contains(a.Stderr, tc.text) {
						t.Errorf("exit %d, %q; expected %d, %q", a.Exit, a.Stderr, tc.want, tc.text)
					}
					if a.Stderr != "" && (strings.Count(a.Stderr, "\n") != 1 || !strings.HasPrefix(a.Stderr, "snag-netmove: ")) {
						t.Errorf("%q, expected one line", a.Stderr)
					}
				}()
				<-done
			})
		}

		// Root needs no helper, but gets the same answers.
		if a := (call{Helper: plain, Args: []string{virtual}, FD3: "/proc/self/ns/net"}).as(t, 0); a.Exit != exitNamespace {
			t.Errorf("root: %+v", a)
		}
		if a := (call{Helper: plain, Args: []string{virtual}, FD3: named}).as(t, 0); a.Exit != exitNotUSB {
			t.Errorf("root: %+v", a)
		}

		// The write itself, which all of the above ends before.
		c, err := dialRtnetlink()
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(c.fd)
		for _, kind := range []string{"tap", "veth"} {
			if l, err := c.link(index[kind]); err != nil || !l.virtual || l.index != index[kind] {
				t.Errorf("%s: %+v, %v", kind, l, err)
			}
		}
		if err := c.move(index["veth"], int(other.Fd())); err != nil {
			t.Errorf("move: %v", err)
		}
		if _, err := c.link(index["veth"]); err != unix.ENODEV {
			t.Errorf("after the move: %v", err)
		}
	})
}
