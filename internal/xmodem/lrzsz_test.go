package xmodem

import (
	"bytes"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// line is one end of a socket pair as a Port.
type line struct {
	net.Conn
	timeout time.Duration
}

func (l *line) SetReadTimeout(d time.Duration) error { l.timeout = d; return nil }

func (l *line) Read(b []byte) (int, error) {
	l.SetReadDeadline(time.Now().Add(l.timeout))
	n, err := l.Conn.Read(b)
	if os.IsTimeout(err) {
		err = nil
	}
	return n, err
}

func (l *line) ResetInputBuffer() error {
	l.SetReadDeadline(time.Now().Add(time.Millisecond))
	for {
		if _, err := l.Conn.Read(make([]byte, 256)); os.IsTimeout(err) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// receiver starts a program of lrzsz with a socket as its line, in a new directory.
func receiver(t *testing.T, name string, args ...string) (*line, *exec.Cmd) {
	t.Helper()
	file, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s of the package lrzsz is not installed: %v", name, err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	cmd := exec.CommandContext(t.Context(), file, args...)
	cmd.Dir = t.TempDir()
	cmd.Stdin, cmd.Stdout = theirs, theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &line{Conn: conn}, cmd
}

func TestLrzsz(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{1, 128, 1025, 109728} {
		for _, block := range []int{Block128, Block1K} {
			data := make([]byte, size)
			for i := range data {
				data[i] = byte(rng.Uint32())
			}
			name := strconv.Itoa(size) + "-" + strconv.Itoa(block)
			o := Options{BlockSize: block}

			t.Run("rx/"+name, func(t *testing.T) {
				t.Parallel()
				l, cmd := receiver(t, "rx", "--with-crc", "--binary", "--quiet", "file")
				s := NewSender(l)
				if err := s.AwaitPings(t.Context(), 1, false); err != nil {
					t.Fatal(err)
				}
				if err := s.SendXMODEM(t.Context(), data, o); err != nil {
					t.Fatal(err)
				}
				checkReceived(t, cmd, append(bytes.Clone(data), bytes.Repeat([]byte{padding}, (128-size%128)%128)...), block)
			})
			t.Run("rb/"+name, func(t *testing.T) {
				t.Parallel()
				l, cmd := receiver(t, "rb", "--binary", "--quiet")
				s := NewSender(l)
				if err := s.AwaitPings(t.Context(), 1, false); err != nil {
					t.Fatal(err)
				}
				if err := s.SendYMODEM(t.Context(), "some/where/file", data, o); err != nil {
					t.Fatal(err)
				}
				checkReceived(t, cmd, data, 0)
			})
		}
	}
}

// checkReceived compares the file that the receiver wrote; its padding may go on to a multiple of block.
func checkReceived(t *testing.T, cmd *exec.Cmd, want []byte, block int) {
	t.Helper()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %v", cmd, err)
	}
	got, err := os.ReadFile(filepath.Join(cmd.Dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if block == Block1K {
		got = append(got[:len(want):len(want)], bytes.TrimRight(got[len(want):], "\x1a")...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("received %d bytes, want %d, or they differ", len(got), len(want))
	}
}
