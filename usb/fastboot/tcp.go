package fastboot

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"net"
	"time"
)

// Port is that of fastboot over TCP and over UDP.
const Port = 5554

const handshakeTime = 2 * time.Second // AOSP

// TCP is fastboot over a TCP connection. Each side first sends "FB" and two digits, the protocol's version, of which
// there is 01. A message, or a part of the data, then is
//
//	off size
//	0   8    length, big-endian
//	8   -    so many bytes
//
// U-Boot's server exchanges commands only: it has no room for a download.
type TCP struct{ conn net.Conn }

// NewTCP shakes hands over a connection, which remains the caller's to close.
func NewTCP(ctx context.Context, conn net.Conn) (*TCP, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	t := &TCP{conn}
	var theirs [4]byte
	err := bound(ctx, conn, func() error {
		if _, err := conn.Write([]byte("FB01")); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, theirs[:])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("fastboot handshake with %s: %w", conn.RemoteAddr(), err)
	}
	digit := func(b byte) bool { return '0' <= b && b <= '9' }
	if string(theirs[:2]) != "FB" || !digit(theirs[2]) || !digit(theirs[3]) || string(theirs[2:]) == "00" {
		return nil, &ReplyError{Command: "fastboot handshake", Expected: "FB01", Reply: theirs[:]}
	}
	return t, nil
}

// bound does I/O on a connection until the context ends, and then with an error that wraps the context's.
func bound(ctx context.Context, conn net.Conn, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.SetDeadline(time.Unix(1, 0))
		close(ended)
	})
	err := f()
	if !stop() {
		<-ended // or it would hit the next one
		if err != nil {
			return fmt.Errorf("%w (%w)", ctx.Err(), err)
		}
	}
	return err
}

// Send implements Transport.
func (t *TCP) Send(ctx context.Context, message []byte) error {
	return bound(ctx, t.conn, func() error { return t.write(message) })
}

func (t *TCP) write(message []byte) error {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(message)), uint64(len(message)))
	_, err := t.conn.Write(append(b, message...))
	return err
}

// Receive implements Transport.
func (t *TCP) Receive(ctx context.Context, buf []byte) (n int, err error) {
	err = bound(ctx, t.conn, func() error {
		for n == 0 {
			var head [8]byte
			if _, err := io.ReadFull(t.conn, head[:]); err != nil {
				return err
			}
			length := binary.BigEndian.Uint64(head[:])
			if length > uint64(len(buf)) {
				return tooLong(head[:], len(buf)) // its length
			}
			if _, err := io.ReadFull(t.conn, buf[:length]); err != nil {
				return err
			}
			n = int(length)
		}
		return nil
	})
	return n, err
}

// Stream implements Transport. A piece that was written counts: TCP does not tell what the device took.
func (t *TCP) Stream(ctx context.Context, idle time.Duration, pieces iter.Seq[[]byte]) (int64, error) {
	var total int64
	for b := range pieces {
		if err := t.within(ctx, idle, b); err != nil {
			return total, err
		}
		total += int64(len(b))
	}
	return total, ctx.Err()
}

func (t *TCP) within(ctx context.Context, idle time.Duration, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, idle)
	defer cancel()
	return t.Send(ctx, b)
}
