//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestAddAccount(t *testing.T) {
	for _, c := range []struct{ name, passwd, group, wantPasswd, wantGroup string }{
		{"plain",
			"root:x:0:0::/root:/bin/sh\n", "root:x:0:\nplugdev:x:46:\nlast:x:10010:",
			"root:x:0:0::/root:/bin/sh\n", "root:x:0:\nplugdev:x:46:labuser\nlast:x:10010:"},
		{"number taken, group in use",
			"me:x:1001:1001::/home/me:/bin/sh\nroot:x:0:0::/root:/bin/sh\n", "plugdev:x:46:me\nme:x:1001:\n",
			"root:x:0:0::/root:/bin/sh\n", "plugdev:x:46:me,labuser\n"},
		{"no plugdev", "", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			passwd, group := addAccount(c.passwd, c.group)
			if want := c.wantPasswd + "labuser:x:1001:1001:lab:/home/labuser:/bin/sh\n"; passwd != want {
				t.Errorf("passwd %q, want %q", passwd, want)
			}
			want := c.wantGroup
			if want != "" && !strings.HasSuffix(want, "\n") {
				want += "\n"
			}
			want += "labuser:x:1001:\n"
			if !strings.Contains(want, "plugdev") {
				want += "plugdev:x:46:labuser\n"
			}
			if group != want {
				t.Errorf("group %q, want %q", group, want)
			}
		})
	}
}

func TestCpio(t *testing.T) {
	tool, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("no cpio on this host to check the archive with")
	}
	var a cpio
	a.dir("dir")
	a.file("dir/file", []byte("content"))
	cmd := exec.Command(tool, "-itv", "--quiet")
	cmd.Stdin = strings.NewReader(string(a.end()))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "dir/file") || !strings.Contains(string(out), " 7 ") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestModules(t *testing.T) {
	k := &kernel{release: "6", dir: t.TempDir()}
	if err := os.MkdirAll(k.moduleDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	const dep = "k/9p.ko.xz: k/9pnet.ko.xz k/fscache.ko k/netfs.ko\nk/9pnet.ko.xz:\nk/fscache.ko: k/netfs.ko\nk/netfs.ko:\nk/a-b.ko: k/netfs.ko\n"
	if err := os.WriteFile(filepath.Join(k.moduleDir(), "modules.dep"), []byte(dep), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := k.modules("9p", "builtin", "a_b")
	want := []string{"k/netfs.ko", "k/fscache.ko", "k/9pnet.ko.xz", "k/9p.ko.xz", "k/a-b.ko"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

func TestParseURIs(t *testing.T) {
	const out = "Reading package lists...\n'http://h/b_1%3a1.35.deb' busybox-static_1%3a1.35.0-4+deb12u1+b1_amd64.deb 928188 SHA256:3d\n'x' y\n"
	got := parseURIs(out)
	want := []deb{{"busybox-static", "1%3a1.35.0-4+deb12u1+b1", "amd64"}}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	if spec := got[0].spec(); spec != "busybox-static:amd64=1:1.35.0-4+deb12u1+b1" {
		t.Errorf("spec %s", spec)
	}
}

func TestParseEvents(t *testing.T) {
	const events = `{"Action":"start"}
{"Action":"run","Test":"TestA"}
{"Action":"output","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"run","Test":"TestA/x/y"}
{"Action":"output","Test":"TestA/x/y","Output":"    a_test.go:1: bad\n"}
{"Action":"fail","Test":"TestA/x/y"}
{"Action":"fail","Test":"TestA/x"}
{"Action":"fail","Test":"TestA"}
{"Action":"run","Test":"TestB"}
{"Action":"skip","Test":"TestB"}
{"Action":"run","Test":"TestC"}
{"Action":"output","Output":"panic\n"}
`
	root, err := parseEvents([]byte(events))
	if err != nil {
		t.Fatal(err)
	}
	var show func(o *outcome) string
	show = func(o *outcome) string {
		s := fmt.Sprintf("%s=%s%q", o.name, o.action, o.output.String())
		for _, c := range o.children {
			s += "(" + show(c) + ")"
		}
		return s
	}
	const want = `="panic\n"(TestA=fail""(x=fail""(y=fail"    a_test.go:1: bad\n")))(TestB=skip"")(TestC="")`
	if got := show(root); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if !root.unfinished() {
		t.Error("TestC did not end")
	}
}

func TestUncompress(t *testing.T) {
	image := make([]byte, 2048)
	copy(image[0x202:], "HdrS")
	image[0x1f1] = 1
	image[0x24c] = 8
	for _, c := range []struct {
		name string
		edit func(b []byte) []byte
		want string
	}{
		{"short", func(b []byte) []byte { return b[:100] }, "no bzImage"},
		{"no header", func(b []byte) []byte { b[0x202] = 0; return b }, "no bzImage"},
		{"cut off", func(b []byte) []byte { b[0x24f] = 0xff; return b }, "its payload ends at"},
		{"unknown", func(b []byte) []byte { return b }, "unknown compression 00 00 00 00"},
		{"broken", func(b []byte) []byte { copy(b[1024:], "\x1f\x8b"); return b }, "gzip"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := (&cache{dir: t.TempDir(), log: quiet}).uncompress(t.Context(), c.edit(append([]byte(nil), image...)))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// A package that the archive does not have is asked for once a day, not at every run of the demo.
func TestNone(t *testing.T) {
	c := &cache{dir: t.TempDir(), log: quiet}
	if err := os.MkdirAll(c.path("resolved"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := replace(c.answer("one x")+".none", "no x"); err != nil {
		t.Fatal(err)
	}
	_, err := c.resolved(t.Context(), "one x", 0, func(*apt) ([]deb, error) {
		t.Error("the archive was asked")
		return nil, nil
	}, "x")
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no x") {
		t.Errorf("%v", err)
	}
}

func TestLock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, file); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second lock: %v, want it to wait", err)
	}
	time.AfterFunc(50*time.Millisecond, unlock)
	unlock, err = lock(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestPrune(t *testing.T) {
	c := &cache{dir: t.TempDir(), log: t.Logf}
	for _, d := range []string{"resolved", "a_1_all", "b_1_all", "kernel-a_1_all", "apt"} {
		if err := os.Mkdir(c.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := replace(c.path("resolved", "x"), "a_1_all"); err != nil {
		t.Fatal(err)
	}
	if err := c.prune(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if !exists(c.path("b_1_all")) {
		t.Error("b_1_all is gone before its time")
	}
	if err := c.prune(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"a_1_all", "kernel-a_1_all", "apt", "resolved"} {
		if !exists(c.path(d)) {
			t.Errorf("%s is gone", d)
		}
	}
	if exists(c.path("b_1_all")) {
		t.Error("b_1_all is still there")
	}
}

// TestUnpackedScript runs a script whose interpreter is a link from one package into another.
func TestUnpackedScript(t *testing.T) {
	dir := t.TempDir()
	tree := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string]string{
		"script/usr/bin/hello":                          "#!/usr/bin/snag-lab-script\n",
		"script/usr/lib/python3/dist-packages/hello.py": "",
		"program/usr/bin/snag-lab-script.1":             "#!/bin/sh\necho $PYTHONPATH $LD_LIBRARY_PATH $*\n",
		"libs/usr/lib/x-linux-gnu/android/liba.so":      "",
	} {
		if err := os.MkdirAll(filepath.Dir(tree(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(tree(name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(tree("link/usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("snag-lab-script.1", tree("link/usr/bin/snag-lab-script")); err != nil {
		t.Fatal(err)
	}
	trees := []string{tree("script"), tree("link"), tree("program"), tree("libs")}
	file, _ := find(trees, "usr/bin/hello")
	out, err := (&tool{"hello", file, trees}).command(t.Context(), "you").CombinedOutput()
	libs := tree("libs/usr/lib/x-linux-gnu")
	want := tree("script/usr/lib/python3/dist-packages") + " " + libs + ":" + libs + "/android " + file + " you\n"
	if err != nil || string(out) != want {
		t.Errorf("%v, %q, want %q", err, out, want)
	}
	if err := os.Symlink("loop", tree("link/usr/bin/loop")); err != nil {
		t.Fatal(err)
	}
	if file, ok := find(trees, "usr/bin/loop"); ok {
		t.Errorf("a link to itself is %s", file)
	}
}
