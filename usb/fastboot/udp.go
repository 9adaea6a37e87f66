package fastboot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"time"
)

// UDP is fastboot over datagrams (AOSP; U-Boot, net/fastboot_udp.c). Each begins with
//
//	off size
//	0   1    0 error, 1 query, 2 initialisation, 3 fastboot
//	1   1    bit 0: the message goes on in the next packet
//	2   2    sequence number, big-endian
//
// The host sends, the device answers with the same number and kind, one packet at a time. A packet that is not answered
// is sent again, and the device answers a repeated number as it did before. A host's message is answered by packets
// without data; for the device's messages the host sends such ones.
//
//	query:          the device answers with the number that it expects next (2 bytes)
//	initialisation: each side sends its version, 1, and the longest packet that it takes, at least 512 bytes (2 bytes each)
type UDP struct {
	conn net.Conn
	max  int // bytes of a packet
	seq  uint16
	buf  []byte
}

const (
	udpError    = 0
	udpQuery    = 1
	udpInit     = 2
	udpFastboot = 3

	udpContinued = 1
	udpHeader    = 4
	udpVersion   = 1
	udpMost      = 8192 // AOSP's host; U-Boot takes 1024
	udpLeast     = 512

	resendTime = 500 * time.Millisecond
	askTime    = 10 * time.Millisecond // between questions that are answered by nothing
	queryTime  = 4 * resendTime
)

// NewUDP finds out where a device is in its sequence, and agrees with it on the size of packets. The connection is
// connected to the device, and remains the caller's to close.
func NewUDP(ctx context.Context, conn net.Conn) (*UDP, error) {
	u := &UDP{conn: conn, max: udpLeast, buf: make([]byte, udpMost+1)}
	short, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	b, _, err := u.exchange(short, udpQuery, 0, nil)
	if err != nil {
		return nil, fmt.Errorf("fastboot query of %s: %w", conn.RemoteAddr(), err)
	}
	if len(b) < 2 {
		return nil, replyError("fastboot query", "a sequence number of 2 bytes", b)
	}
	u.seq = binary.BigEndian.Uint16(b)
	hello := binary.BigEndian.AppendUint16(nil, udpVersion)
	hello = binary.BigEndian.AppendUint16(hello, udpMost)
	long, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if b, _, err = u.exchange(long, udpInit, 0, hello); err != nil {
		return nil, fmt.Errorf("fastboot initialisation with %s: %w", conn.RemoteAddr(), err)
	}
	if len(b) < 4 || binary.BigEndian.Uint16(b) < udpVersion || binary.BigEndian.Uint16(b[2:]) < udpLeast {
		return nil, replyError("fastboot initialisation", "version 1 and packets of 512 bytes or more", b)
	}
	u.max = min(udpMost, int(binary.BigEndian.Uint16(b[2:])))
	return u, nil
}

// exchange sends one packet until it is answered, and returns the answer's data, which the next exchange overwrites,
// and whether its message goes on.
func (u *UDP) exchange(ctx context.Context, kind, flags byte, payload []byte) (answer []byte, more bool, err error) {
	packet := append(binary.BigEndian.AppendUint16([]byte{kind, flags}, u.seq), payload...)
	err = bound(ctx, u.conn, func() error {
		for {
			if _, err := u.conn.Write(packet); err != nil {
				return err
			}
			again := time.Now().Add(resendTime)
			for {
				n, err := u.read(ctx, again)
				if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
					break
				}
				if err != nil {
					return err
				}
				b := u.buf[:n]
				if n < udpHeader || binary.BigEndian.Uint16(b[2:]) != u.seq || b[0] != kind && b[0] != udpError {
					continue // an answer to an earlier packet, or none of the device's
				}
				if b[0] == udpError {
					return fmt.Errorf("the device answers with an error packet: %q", printable(b[udpHeader:]))
				}
				if n > udpMost {
					return tooLong(b, udpMost)
				}
				answer, more = b[udpHeader:], b[1]&udpContinued != 0
				return nil
			}
		}
	})
	if err == nil && kind != udpQuery {
		u.seq++
	}
	return answer, more, err
}

// read receives a packet until a time, or until the context ends.
func (u *UDP) read(ctx context.Context, until time.Time) (int, error) {
	if err := u.conn.SetReadDeadline(until); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil { // its end may have come before the deadline was set
		return 0, err
	}
	return u.conn.Read(u.buf)
}

// message sends one message in as many packets as it needs.
func (u *UDP) message(ctx context.Context, idle time.Duration, b []byte) (int, error) {
	sent := 0
	for {
		part := b[sent:min(len(b), sent+u.max-udpHeader)]
		var flags byte
		if sent+len(part) < len(b) {
			flags = udpContinued
		}
		if err := u.packet(ctx, idle, flags, part); err != nil {
			return sent, err
		}
		if sent += len(part); sent == len(b) {
			return sent, nil
		}
	}
}

// packet sends one packet, which is answered by an empty one.
func (u *UDP) packet(ctx context.Context, idle time.Duration, flags byte, b []byte) error {
	if idle > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, idle)
		defer cancel()
	}
	answer, _, err := u.exchange(ctx, udpFastboot, flags, b)
	if err == nil && len(answer) > 0 {
		err = replyError("send", "an empty packet", bytes.Clone(answer))
	}
	return err
}

// Send implements Transport.
func (u *UDP) Send(ctx context.Context, message []byte) error {
	_, err := u.message(ctx, 0, message)
	return err
}

// Receive implements Transport.
func (u *UDP) Receive(ctx context.Context, buf []byte) (int, error) {
	for n := 0; ; {
		b, more, err := u.exchange(ctx, udpFastboot, 0, nil)
		if err != nil {
			return 0, err
		}
		if n+len(b) > len(buf) {
			return 0, tooLong(append(buf[:n:n], b...), len(buf))
		}
		n += copy(buf[n:], b)
		if n > 0 && !more {
			return n, nil
		}
		if len(b) == 0 { // it has nothing to say yet
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(askTime):
			}
		}
	}
}

// Stream implements Transport.
func (u *UDP) Stream(ctx context.Context, idle time.Duration, pieces iter.Seq[[]byte]) (int64, error) {
	var total int64
	for b := range pieces {
		n, err := u.message(ctx, idle, b)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, ctx.Err()
}
