//go:build linux

package netsetup

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"snag/usb"
)

// TestHelperContract compares what this package and the helper know both with the helper's source,
// since the helper imports nothing of ours.
func TestHelperContract(t *testing.T) {
	const dir = "../cmd/snag-netmove"
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no helper in %s: %v", dir, err)
	}
	constants := make(map[string]string)
	var ids []usb.ID
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || len(v.Values) != 1 {
				return true
			}
			switch x := v.Values[0].(type) {
			case *ast.BasicLit:
				constants[v.Names[0].Name] = x.Value
			case *ast.CompositeLit:
				if v.Names[0].Name != "builtin" {
					break
				}
				for _, e := range x.Elts {
					p := e.(*ast.CompositeLit).Elts
					vid, _ := strconv.ParseUint(p[0].(*ast.BasicLit).Value, 0, 16)
					pid, _ := strconv.ParseUint(p[1].(*ast.BasicLit).Value, 0, 16)
					ids = append(ids, usb.ID{Vendor: uint16(vid), Product: uint16(pid)})
				}
			}
			return true
		})
	}
	for name, want := range map[string]int{
		"exitOK": exitOK, "exitUsage": exitUsage, "exitNamespace": exitNamespace, "exitNotUSB": exitNotUSB, "exitGone": exitGone,
		"exitNotCapable": exitNotCapable, "exitNotListed": exitNotListed, "exitNode": exitNode, "exitConf": exitConf,
		"exitBusy": exitBusy, "exitSystem": exitSystem,
	} {
		if constants[name] != strconv.Itoa(want) {
			t.Errorf("%s is %d here and %q in the helper", name, want, constants[name])
		}
	}
	if got := constants["confPath"]; got != strconv.Quote(HelperConf) {
		t.Errorf("list of IDs: %s here, %s in the helper", HelperConf, got)
	}
	if len(ids) != len(HelperIDs()) {
		t.Fatalf("IDs: %v here, %v in the helper", HelperIDs(), ids)
	}
	for i, id := range HelperIDs() {
		if ids[i] != id {
			t.Errorf("IDs: %v here, %v in the helper", HelperIDs(), ids)
		}
	}
}

const plainMounts = "22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n23 22 0:22 / /proc rw - proc proc rw\n"

func TestExplainNamespace(t *testing.T) {
	for _, tc := range []struct {
		name  string
		err   error
		files map[string]string
		want  Reason
	}{
		{"no reason to be seen", unix.EPERM, nil, ReasonDenied},
		{"sysctl of Debian's kernels", unix.EPERM, map[string]string{"sys/kernel/unprivileged_userns_clone": "0\n"}, ReasonSysctl},
		{"allowed by it", unix.EPERM, map[string]string{"sys/kernel/unprivileged_userns_clone": "1\n"}, ReasonDenied},
		{"AppArmor", unix.EACCES, map[string]string{"sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, ReasonAppArmor},
		{"AppArmor later", &workerError{"set lo up: operation not permitted", unix.EPERM}, map[string]string{"sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, ReasonAppArmor},
		{"container", unix.EPERM, map[string]string{"self/status": "Name:\tsnag\nSeccomp:\t2\nSeccomp_filters:\t1\n"}, ReasonSeccomp},
		{"none allowed", unix.ENOSPC, map[string]string{"sys/user/max_user_namespaces": "0\n"}, ReasonMaxUserNS},
		{"no network namespaces allowed", unix.ENOSPC, map[string]string{"sys/user/max_user_namespaces": "9\n", "sys/user/max_net_namespaces": "0\n"}, ReasonMaxNetNS},
		{"all in use", unix.ENOSPC, map[string]string{"sys/user/max_user_namespaces": "9\n"}, ReasonMaxUserNS},
		{"kernel without", unix.EINVAL, nil, ReasonKernel},
		{"chroot into a directory", unix.EPERM, map[string]string{"self/mountinfo": "23 22 0:22 / /proc rw - proc proc rw\n"}, ReasonChroot},
		{"chroot into a mount point", unix.EPERM, map[string]string{
			"self/mountinfo": "30 22 254:0 / / rw - ext4 /dev/vda rw\n",
			"1/mountinfo":    plainMounts + "30 22 254:0 / /srv/root rw - ext4 /dev/vda rw\n",
		}, ReasonChroot},
		{"chroot before all else", unix.EPERM, map[string]string{
			"self/mountinfo": "\n", "sys/kernel/unprivileged_userns_clone": "0\n", "self/status": "\nSeccomp:\t2\n",
		}, ReasonChroot},
		{"another mount namespace", unix.EPERM, map[string]string{"1/mountinfo": "122 101 254:0 / / rw - ext4 /dev/vda rw\n"}, ReasonDenied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			proc := fakeSysfs(t.TempDir())
			proc.write(t, "self/mountinfo", plainMounts)
			proc.write(t, "1/mountinfo", plainMounts)
			for name, text := range tc.files {
				proc.write(t, name, text)
			}
			err := explainNamespace(string(proc), tc.err)
			var e *SetupError
			if !errors.As(err, &e) || e.Reason != tc.want || e.Hint == "" || !errors.Is(err, tc.err) {
				t.Errorf("%+v, expected reason %s", err, tc.want)
			}
		})
	}
	var e *SetupError
	if err := explainNamespace("/proc", unix.ENOMEM); errors.As(err, &e) || !errors.Is(err, unix.ENOMEM) {
		t.Errorf("no memory: %v", err)
	}
}

func TestProbeUserNamespaces(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := ProbeUserNamespaces(ctx)
	var e *SetupError
	if errors.As(err, &e) && e.Reason != ReasonDenied {
		t.Skip(err) // which is the answer for this machine
	}
	if err != nil {
		t.Error(err)
	}
}

// TestChroot: the kernel refuses user namespaces to a chrooted user, and root gets on without.
func TestChroot(t *testing.T) {
	l := newLab(t)
	program := testBinary(t)
	root := filepath.Join(filepath.Dir(program), "root")
	for uid, want := range map[int]string{testUser: "chrooted process", 0: "open "} {
		// A mount namespace of its own, so that nothing is left.
		script := `set -e
mkdir -p "$R/proc" "$R/usr" "$R/dev"
mount -t proc proc "$R/proc"; mount --bind /usr "$R/usr"; mount --bind /dev "$R/dev"
for d in lib lib64 bin; do [ -e "$R/$d" ] || ln -s usr/$d "$R/$d"; done
cp "$P" "$R/program"
exec chroot --userspec=$U:$U "$R" /program`
		var out []byte
		var err error
		inFile(t, l.host, func() error {
			cmd := exec.Command("unshare", "-m", "sh", "-c", script)
			cmd.Env = append(os.Environ(), roleEnv+"=nat", "R="+root, "P="+program, "U="+strconv.Itoa(uid))
			out, err = cmd.CombinedOutput()
			return nil
		})
		if !strings.Contains(string(out), want) {
			if !strings.HasPrefix(string(out), "error") {
				t.Skipf("needs unshare(1), chroot(8) and mounts: %v: %s", err, out)
			}
			t.Errorf("uid %d: %s, expected %q", uid, out, want)
		}
	}
}

// TestHelperAnswers has an ordinary user adopt an interface with helpers that give each answer.
func TestHelperAnswers(t *testing.T) {
	l := newLab(t)
	for _, tc := range []struct {
		name, script, want string
	}{
		{"namespace", "echo not yours >&2; exit 3", "error [namespace] move interface 2: move the network interface: not yours"},
		{"not USB", "exit 4", "error [not-usb] "},
		{"gone", "exit 5", "error move interface 2: " + ErrGone.Error()},
		{"not capable", "exit 6", "error [helper-not-capable] "},
		{"not listed", "exit 7", "error [not-listed] "},
		{"node of nothing", "exit 8", "error " + ErrGone.Error()},
		{"list", "exit 9", "error [helper-conf] "},
		{"busy for good", "echo busy >&2; exit 10", "error move interface 2: " + errBusy.Error() + ": busy"},
		{"busy for a moment", `[ -e "${0}1" ] && exit 5; : >"${0}1"; exit 10`, "error move interface 2: " + ErrGone.Error()},
		{"system", "echo RTM_SETLINK: no >&2; exit 11", "error move interface 2: RTM_SETLINK: no"},
		{"killed", "kill -9 $$", "error move interface 2: signal: killed"},
		{"liar", "exit 0", "error configure interface 2: " + ErrGone.Error()},
		{"environment and arguments", `[ "$#" = 1 ] && [ "$1" = 2 ] && [ -e /proc/self/fd/3 ] && [ -z "$HOME" ] && exit 4`, "error [not-usb] "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			helper := script(t, tc.script, 0o755)
			if err := os.Chmod(filepath.Dir(helper), 0o777); err != nil {
				t.Fatal(err)
			}
			t.Setenv("NETSETUP_TEST_HELPER", helper)
			s := l.start(t, "nat", testUser)
			if got := s.ask(t, "adopt %d", l.index); !strings.HasPrefix(got, tc.want) {
				t.Errorf("%s, expected %s", got, tc.want)
			}
		})
	}
	for name, path := range map[string]string{
		"no-helper":   "/nonexistent",
		"helper-file": script(t, "exit 0", 0o750),
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NETSETUP_TEST_HELPER", path)
			s := l.start(t, "nat", testUser)
			if got := s.ask(t, "adopt %d", l.index); !strings.HasPrefix(got, "error ["+name+"]") {
				t.Errorf("%s, expected [%s]", got, name)
			}
		})
	}
}

func script(t *testing.T, text string, mode fs.FileMode) string {
	t.Helper()
	path := public(t, "/dev/null")
	if err := errors.Join(os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRealHelper: the real one, with its capability, refuses an interface that is not a board's.
func TestRealHelper(t *testing.T) {
	l := newLab(t)
	helper := filepath.Join(t.TempDir(), "snag-netmove")
	build := exec.Command("go", "build", "-o", helper, "../cmd/snag-netmove")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("needs the go command: %v: %s", err, out)
	}
	helper = public(t, helper)
	t.Setenv("NETSETUP_TEST_HELPER", helper)
	s := l.start(t, "nat", testUser)
	if got := s.ask(t, "adopt %d", l.index); !strings.HasPrefix(got, "error [helper-not-capable]") {
		t.Error(got)
	}
	wantStatus(t, helper, ReasonNotCapable)

	attr := []byte{1, 0, 0, 2, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if err := unix.Setxattr(helper, "security.capability", attr, 0); err != nil {
		t.Skipf("needs a file system with file capabilities: %v", err)
	}
	if got := s.ask(t, "adopt %d", l.index); !strings.HasPrefix(got, "error [not-usb]") {
		t.Error(got)
	}
	wantStatus(t, helper, "")
	for mode, want := range map[fs.FileMode]Reason{
		0o755:                 "",
		0o750:                 "", // for root
		0o775:                 ReasonHelperFile,
		0o757:                 ReasonHelperFile,
		0o755 | os.ModeSetuid: ReasonHelperFile,
		0o644:                 ReasonHelperFile,
	} {
		if err := os.Chmod(helper, mode); err != nil {
			t.Fatal(err)
		}
		wantStatus(t, helper, want)
	}
	wantStatus(t, filepath.Dir(helper), ReasonHelperFile)
	wantStatus(t, helper+"none", ReasonNoHelper)
}

func wantStatus(t *testing.T, path string, want Reason) {
	t.Helper()
	err := HelperStatus(path)
	var e *SetupError
	if want == "" && err != nil || want != "" && (!errors.As(err, &e) || e.Reason != want || e.Hint == "") {
		t.Errorf("HelperStatus: %v, expected reason %q", err, want)
	}
}

func FuzzHasNetAdmin(f *testing.F) {
	f.Add([]byte{1, 0, 0, 2, 0, 0x10, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 0, 0, 2})
	f.Fuzz(func(t *testing.T, b []byte) { hasNetAdmin(b) })
}
