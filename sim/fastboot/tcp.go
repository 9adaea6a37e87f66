package fastboot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"snag/sim/virtual"
)

// ServeTCP serves one connection after the other until the context ends, which closes the listener, or until the host
// ends the session. It takes downloads, as Android's server does; U-Boot's does not.
func (b *Board) ServeTCP(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				err = nil
			}
			return err
		}
		err = b.ServeConn(ctx, conn)
		if errors.Is(err, errStarted) || errors.Is(err, virtual.ErrUnplug) || errors.Is(err, virtual.ErrReset) {
			l.Close()
			return nil
		}
	}
}

// ServeConn serves one TCP connection, and closes it. The error says how the session ended.
func (b *Board) ServeConn(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write([]byte("FB01")); err != nil {
		return err
	}
	var hello [4]byte
	if _, err := io.ReadFull(conn, hello[:]); err != nil {
		return err
	}
	if string(hello[:]) != "FB01" {
		b.board.Violation("handshake % x, expected FB01", hello)
		return errors.New("handshake")
	}
	s := newStage(b, &stream{violation: b.board.Violation, conn: conn})
	b.board.Begin(StageGadget, nil, s.report)
	err := s.serve(ctx)
	if errors.Is(err, errStarted) {
		b.board.Booted()
	}
	return err
}

// stream is the carrier of a TCP connection: 8 bytes of length, big-endian, before each message.
type stream struct {
	violation func(format string, args ...any)
	conn      net.Conn
	rest      uint64 // of a message of data
}

func (t *stream) head() (uint64, error) {
	var b [8]byte
	_, err := io.ReadFull(t.conn, b[:])
	return binary.BigEndian.Uint64(b[:]), err
}

func (t *stream) command(context.Context) ([]byte, error) {
	n, err := t.head()
	if err != nil {
		return nil, err
	}
	if n == 0 || n > request {
		t.violation("command of %d bytes", n)
		return nil, fmt.Errorf("command of %d bytes", n)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(t.conn, b)
	return b, err
}

func (t *stream) data(_ context.Context, buf []byte, rest int) (int, error) {
	if t.rest == 0 {
		n, err := t.head()
		if err != nil {
			return 0, err
		}
		if n == 0 || n > uint64(rest) {
			t.violation("data of %d bytes, %d are left of the download", n, rest)
			return 0, errors.New("too much data")
		}
		t.rest = n
	}
	n, err := t.conn.Read(buf[:min(uint64(len(buf)), t.rest)])
	t.rest -= uint64(n)
	return n, err
}

func (t *stream) answer(_ context.Context, b []byte) error {
	_, err := t.conn.Write(append(binary.BigEndian.AppendUint64(nil, uint64(len(b))), b...))
	return err
}

func (*stream) halt() {}
