//go:build linux

package netsetup

import (
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDecode(t *testing.T) {
	for s, want := range map[string]string{
		`{"kind":"setup","nonat":true}`:                        "",
		`{"kind":"configure","id":1,"parent":"1-2:1.0"}`:       "",
		`{"kind":"configured","id":1,"index":2,"name":"usb0"}`: "",
		`{"kind":"gone","index":2}`:                            "",
		`{"kind":"note","text":"x"}`:                           "",
		`{"kind":"failed","errno":19,"text":"no such device"}`: "",
		``:                               "EOF",
		`{}`:                             "unknown kind",
		`{"kind":"format"}`:              "unknown kind",
		`{"kind":"gone"}`:                "no interface",
		`{"kind":"gone","index":-2}`:     "negative",
		`{"kind":"configure"}`:           "no request number",
		`{"kind":"configured","id":1}`:   "no interface",
		`{"kind":"note"}{"kind":"note"}`: "more than one",
		`{"kind":"note","path":"/"}`:     "unknown field",
		`{"kind":"configured","id":1,"index":2,"name":"` + strings.Repeat("x", 16) + `"}`: "too long",
		`{"kind":"configure","id":1,"parent":"` + strings.Repeat("x", 64) + `"}`:          "too long",
	} {
		_, err := decode([]byte(s))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("decode(%s): %v, expected %q", s, err, want)
		}
	}
}

// TestEncode: whatever the worker has to say fits into a message.
func TestEncode(t *testing.T) {
	b, err := message{Kind: kindFailed, ID: 1, Text: strings.Repeat("\x00", 2*maxMessage), Errno: unix.EPERM}.encode()
	if err != nil || len(b) > maxMessage {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	m, err := decode(b)
	if err != nil || m.Errno != unix.EPERM || m.Text == "" {
		t.Errorf("%+v, %v", m, err)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"kind":"configured","id":1,"index":2,"name":"usb0","carrier":true,"took":1000000}`))
	f.Add([]byte(`{"kind":"failed","errno":19,"text":"x\u0000"}`))
	f.Add([]byte(`{"kind":"gone","index":1e3}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		if len(m.Text) > 100 {
			return // may be cut
		}
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := decode(again); err != nil || !reflect.DeepEqual(m, n) {
			t.Fatalf("%+v, %v; expected %+v", n, err, m)
		}
	})
}

// pair is a connected pair of sockets as between snag and its worker.
func pair(t *testing.T) (channel, channel) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var c [2]channel
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		c[i] = channel{conn.(*net.UnixConn)}
	}
	return c[0], c[1]
}

func openFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestChannel(t *testing.T) {
	a, b := pair(t)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())

	if err := a.send(message{Kind: kindReady}, fd, fd, fd); err != nil {
		t.Fatal(err)
	}
	m, fds, err := b.receive()
	if err != nil || m.Kind != kindReady || len(fds) != 3 {
		t.Fatalf("%+v, %v, %v", m, fds, err)
	}
	for _, fd := range fds {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d is inherited by other programs: %v", fd, err)
		}
	}
	closeAll(fds)
	if err := a.send(message{Kind: kindReady}, fd); err == nil {
		t.Error("sent too few descriptors")
	}

	// What a worker of another mind might send: none of it may leave descriptors behind.
	before := openFDs(t)
	for name, raw := range map[string]struct {
		data string
		fds  []int
	}{
		"too few":             {`{"kind":"ready"}`, []int{fd, fd}},
		"too many":            {`{"kind":"ready"}`, []int{fd, fd, fd, fd}},
		"far too many":        {`{"kind":"ready"}`, []int{fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd}},
		"not expected":        {`{"kind":"note"}`, []int{fd}},
		"with no message":     {`{`, []int{fd, fd, fd}},
		"with a long message": {`{"kind":"ready"}` + strings.Repeat(" ", maxMessage), []int{fd, fd, fd}},
	} {
		if _, _, err := a.conn.WriteMsgUnix([]byte(raw.data), unix.UnixRights(raw.fds...), nil); err != nil {
			t.Fatal(err)
		}
		if m, fds, err := b.receive(); err == nil || len(fds) != 0 {
			t.Errorf("%s: %+v, %v", name, m, fds)
		}
	}
	if after := openFDs(t); after > before { // another test's may have gone
		t.Errorf("%d descriptors are open, %d were", after, before)
	}

	a.conn.Close()
	if _, _, err := b.receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}
