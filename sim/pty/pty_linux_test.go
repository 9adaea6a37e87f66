package pty

import (
	"bytes"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestLine(t *testing.T) {
	l, err := Open()
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	defer l.Close()

	// More than the buffer holds, and nobody listens.
	for range 100 {
		if n, err := l.Write(make([]byte, 10_000)); n != 10_000 || err != nil {
			t.Fatal(n, err)
		}
	}

	// Two listeners, one after the other; all bytes pass both ways.
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for range 2 {
		tty, err := os.OpenFile(l.TTY, os.O_RDWR|syscall.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tty.Write(all); err != nil {
			t.Fatal(err)
		}
		l.SetReadDeadline(time.Now().Add(5 * time.Second))
		expect(t, l, all)
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			for buf := make([]byte, 4096); ; {
				if n, err := tty.Read(buf); err != nil || bytes.HasSuffix(buf[:n], all[1:]) {
					return
				}
			}
		}()
		for sent := false; !sent; {
			l.Write(all)
			select {
			case <-drained:
				sent = true
			case <-time.After(10 * time.Millisecond):
			}
		}
		tty.Close()
	}
}

// expect reads all of want.
func expect(t *testing.T, l *Line, want []byte) {
	t.Helper()
	var got []byte
	for len(got) < len(want) {
		buf := make([]byte, 4096)
		n, err := l.Read(buf)
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(got), err)
		}
		got = append(got, buf[:n]...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("% x arrives", got)
	}
}
