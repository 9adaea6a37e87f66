package netboot

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
)

const (
	socketBuffer = 1 << 20 // bytes asked for; the kernel grants what its limits allow
	batchBytes   = 1 << 18 // bytes of packets put together for one batch, unless one block is larger
)

// conn writes the packets of transfers to the TFTP socket, and reads from it. Over a kernel socket it allocates
// nothing per packet, and sends a window at once (sendmmsg). As one datagram that the kernel cuts (UDP_SEGMENT) a
// window would have wrong checksums: Linux from 6.11 on miscounts where such a datagram passes NAT and
// the interface computes none, as USB adapters do not (seen on 6.18).
type conn struct {
	pc   net.PacketConn
	udp  *net.UDPConn // pc, if it is a kernel socket
	v4   *ipv4.PacketConn
	buf  []byte // packets back to back
	msgs []ipv4.Message

	to   netip.AddrPort // the peer of addr
	addr *net.UDPAddr
}

func newConn(pc net.PacketConn) *conn {
	c := &conn{pc: pc, buf: make([]byte, dataHeader+defaultBlksize)}
	if udp, ok := pc.(*net.UDPConn); ok {
		c.udp, c.v4 = udp, ipv4.NewPacketConn(udp)
		// Best effort: the buffers only save retransmissions.
		_ = udp.SetReadBuffer(socketBuffer)
		_ = udp.SetWriteBuffer(socketBuffer)
	}
	return c
}

// read returns the next datagram and its sender; an invalid sender if it is no UDP address.
func (c *conn) read(b []byte) (int, netip.AddrPort, error) {
	if c.udp != nil {
		n, from, err := c.udp.ReadFromUDPAddrPort(b)
		return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
	}
	n, a, err := c.pc.ReadFrom(b)
	ua, ok := a.(*net.UDPAddr)
	if !ok {
		return n, netip.AddrPort{}, err
	}
	from := ua.AddrPort()
	return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
}

// write sends one datagram.
func (c *conn) write(b []byte, to netip.AddrPort) error {
	if c.udp != nil {
		_, err := c.udp.WriteToUDPAddrPort(b, to)
		return err
	}
	_, err := c.pc.WriteTo(b, c.udpAddr(to))
	return err
}

func (c *conn) udpAddr(to netip.AddrPort) *net.UDPAddr {
	if c.to != to {
		c.to, c.addr = to, net.UDPAddrFromAddrPort(to)
	}
	return c.addr
}

// writeFlight sends what a transfer has to send now: its OACK, or the blocks next to sent.
func (c *conn) writeFlight(t *transfer, to netip.AddrPort) error {
	if t.sent == 0 {
		return c.write(t.oack, to)
	}
	size := dataHeader + t.blksize
	batch := max(batchBytes/size, 1)
	if need := min(t.sent-t.next+1, batch) * size; len(c.buf) < need {
		c.buf = make([]byte, need)
	}
	for first := t.next; first <= t.sent; first += batch {
		if err := c.writeBlocks(t, first, min(first+batch-1, t.sent), to); err != nil {
			return err
		}
	}
	return nil
}

// writeBlocks sends the blocks first to last, which fit into buf.
func (c *conn) writeBlocks(t *transfer, first, last int, to netip.AddrPort) error {
	n := 0
	for i := first; i <= last; i++ {
		binary.BigEndian.PutUint16(c.buf[n:], opDATA)
		binary.BigEndian.PutUint16(c.buf[n+2:], uint16(i))
		n += dataHeader + copy(c.buf[n+dataHeader:], t.block(i))
	}
	packets, size := c.buf[:n], dataHeader+t.blksize
	if first == last {
		return c.write(packets, to)
	}
	if c.udp != nil {
		return c.writeBatch(packets, size, to)
	}
	for len(packets) > 0 {
		k := min(size, len(packets))
		if err := c.write(packets[:k], to); err != nil {
			return err
		}
		packets = packets[k:]
	}
	return nil
}

// writeBatch sends packets, all but the last of the given size, with as few system calls as can be.
func (c *conn) writeBatch(packets []byte, size int, to netip.AddrPort) error {
	addr := c.udpAddr(to)
	k := 0
	for ; len(packets) > 0; k++ {
		if k == len(c.msgs) {
			c.msgs = append(c.msgs, ipv4.Message{Buffers: make([][]byte, 1)})
		}
		c.msgs[k].Buffers[0] = packets[:min(size, len(packets))]
		c.msgs[k].Addr = addr
		packets = packets[len(c.msgs[k].Buffers[0]):]
	}
	for msgs := c.msgs[:k]; len(msgs) > 0; {
		n, err := c.v4.WriteBatch(msgs, 0)
		if err != nil {
			return err
		}
		msgs = msgs[max(n, 1):]
	}
	return nil
}

// transient reports whether an error on a socket says only that a packet is lost: the interface is just being moved
// or set up, the board has left, or a queue is full. Retransmission deals with all of them.
func transient(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.ENODEV,
		syscall.ENXIO, syscall.EPERM, syscall.ECONNREFUSED, syscall.ENOBUFS, syscall.ENOMEM,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
