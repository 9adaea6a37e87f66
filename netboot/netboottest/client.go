package netboottest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// Client fetches files by TFTP as a boot loader does. The zero value is a plain client of RFC 1350.
type Client struct {
	Blksize int           // asked for if not 0
	Window  int           // asked for if not 0
	Options []string      // more options: name, value, ...
	Timeout time.Duration // before an RRQ or an ACK is sent again; 1 s if 0

	// Passive is the ROM's way: only the RRQ is repeated, ACKs are never.
	Passive bool
	// Stop, if not nil, ends the transfer as if the power went, before the block of that number is acknowledged.
	Stop func(block int) bool
	// Silent leaves out the last ACK.
	Silent bool
}

// ErrStopped says that Client.Stop ended a transfer.
var ErrStopped = errors.New("stopped")

// Fetched is what a client received.
type Fetched struct {
	Data    []byte
	OACK    map[string]string // nil if the server sent none
	Packets int               // all packets received
	Repeats int               // DATA that had been received before
}

// Fetch gets one file. The buffer for its data may be given with into.
func (c *Client) Fetch(ctx context.Context, pc net.PacketConn, server netip.AddrPort, name string, into []byte) (Fetched, error) {
	f := fetch{Client: c, pc: pc, server: server, blksize: 512, window: 1, timeout: c.Timeout, reported: -1}
	f.udp, _ = pc.(kernelSocket)
	f.got.Data = into[:0]
	if f.timeout == 0 {
		f.timeout = time.Second
	}
	defer context.AfterFunc(ctx, func() { _ = pc.SetReadDeadline(time.Unix(1, 0)) })()
	err := f.run(ctx, name)
	return f.got, err
}

// kernelSocket is what a *net.UDPConn has for those who do not want an allocation with each datagram.
type kernelSocket interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

type fetch struct {
	*Client
	pc      net.PacketConn
	udp     kernelSocket // pc, if it is one
	server  netip.AddrPort
	peer    netip.AddrPort // the server's port of this transfer
	blksize int
	window  int
	timeout time.Duration
	got     Fetched

	block    int // the last block received in order
	inWindow int // blocks received since the last ACK
	reported int // the block after which an unexpected one was last reported
	ackBuf   [4]byte
}

func (f *fetch) run(ctx context.Context, name string) error {
	rrq := "\x00\x01" + name + "\x00octet\x00"
	add := func(name, value string) { rrq += name + "\x00" + value + "\x00" }
	if f.Blksize != 0 {
		add("blksize", strconv.Itoa(f.Blksize))
	}
	if f.Window != 0 {
		add("windowsize", strconv.Itoa(f.Window))
	}
	for i := 0; i+1 < len(f.Options); i += 2 {
		add(f.Options[i], f.Options[i+1])
	}
	buf := make([]byte, 65536+8)
	if err := f.write([]byte(rrq), f.server); err != nil {
		return err
	}
	armed := time.Time{}
	heard := time.Now()
	for {
		// The deadline is moved seldom, as that costs as much as a packet.
		now := time.Now()
		if due := heard.Add(f.timeout); armed.IsZero() || armed.Before(now) {
			armed = due
			_ = f.pc.SetReadDeadline(due)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("after block %d: %w", f.block, context.Cause(ctx))
		}
		n, from, err := f.read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			armed = time.Time{}
			if time.Since(heard) < f.timeout {
				continue
			}
			heard = time.Now()
			switch {
			case !f.peer.IsValid():
				err = f.write([]byte(rrq), f.server)
			case !f.Passive:
				err = f.ack()
			default:
				err = nil
			}
			if err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if n < 4 || f.peer.IsValid() && from != f.peer {
			continue
		}
		heard = now
		f.got.Packets++
		switch binary.BigEndian.Uint16(buf) {
		case 3:
			f.peer = from
			if done, err := f.data(int(binary.BigEndian.Uint16(buf[2:])), buf[4:n]); done || err != nil {
				return err
			}
		case 5:
			return fmt.Errorf("the server sent error %d: %s", buf[3], buf[4:n-1])
		case 6:
			f.peer = from
			if err := f.oack(string(buf[2:n])); err != nil {
				return err
			}
		}
	}
}

func (f *fetch) oack(s string) error {
	if f.block > 0 {
		return nil
	}
	f.got.OACK = map[string]string{}
	fields := strings.Split(s, "\x00")
	for i := 0; i+1 < len(fields)-1; i += 2 {
		f.got.OACK[fields[i]] = fields[i+1]
	}
	if v, ok := f.got.OACK["blksize"]; ok {
		f.blksize, _ = strconv.Atoi(v)
	}
	if v, ok := f.got.OACK["windowsize"]; ok {
		f.window, _ = strconv.Atoi(v)
	}
	return f.ack()
}

func (f *fetch) data(n int, b []byte) (bool, error) {
	switch d := uint16(n - f.block); {
	case d == 1:
		f.block++
		f.inWindow++
		f.got.Data = append(f.got.Data, b...)
		if f.Stop != nil && f.Stop(f.block) {
			return true, ErrStopped
		}
		last := len(b) < f.blksize
		if last && f.Silent {
			return true, nil
		}
		if last || f.inWindow >= f.window {
			return last, f.ack()
		}
		return false, nil
	case f.window == 1 && d != 0 && d <= 0x8000: // a block of the future
		return false, nil
	default: // received before, or one is missing
		if d == 0 || d > 0x8000 {
			f.got.Repeats++
		}
		// As U-Boot does it: with a window, any unexpected block is answered, once.
		if f.window > 1 && f.reported == f.block {
			return false, nil
		}
		f.reported = f.block
		return false, f.ack()
	}
}

func (f *fetch) ack() error {
	f.inWindow = 0
	binary.BigEndian.PutUint16(f.ackBuf[:], 4)
	binary.BigEndian.PutUint16(f.ackBuf[2:], uint16(f.block))
	return f.write(f.ackBuf[:], f.peer)
}

func (f *fetch) read(b []byte) (int, netip.AddrPort, error) {
	if f.udp != nil {
		n, from, err := f.udp.ReadFromUDPAddrPort(b)
		return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
	}
	n, a, err := f.pc.ReadFrom(b)
	if err != nil {
		return n, netip.AddrPort{}, err
	}
	return n, a.(*net.UDPAddr).AddrPort(), nil
}

func (f *fetch) write(b []byte, to netip.AddrPort) error {
	var err error
	if f.udp != nil {
		_, err = f.udp.WriteToUDPAddrPort(b, to)
	} else {
		_, err = f.pc.WriteTo(b, net.UDPAddrFromAddrPort(to))
	}
	return err
}
