package netboot

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
)

const socketBuffer = 1 << 20 // bytes asked for; the kernel grants what its limits allow

// What one call with segments may hold: UDP_MAX_SEGMENTS of the older kernels, and a datagram of IPv4.
const (
	maxSegments     = 64
	maxSegmentBytes = 65535 - 20 - 8
)

// conn writes the packets of transfers to the TFTP socket, and reads from it. Over a kernel socket it allocates nothing
// per packet.
type conn struct {
	pc  net.PacketConn
	udp udpSocket // pc, if it is a kernel socket
	seg segmenter // pc, if it sends windows at once
	buf []byte    // a packet

	to   netip.AddrPort // the peer of addr
	addr *net.UDPAddr
}

// udpSocket is a kernel socket: a *net.UDPConn or a *Socket.
type udpSocket interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
}

// segmenter is a kernel socket that sends several datagrams of the same length at once: a *Socket.
type segmenter interface {
	WriteSegments(b []byte, size int, to netip.AddrPort) error
}

func newConn(pc net.PacketConn) *conn {
	c := &conn{pc: pc, buf: make([]byte, dataHeader+defaultBlksize)}
	if udp, ok := pc.(udpSocket); ok {
		c.udp = udp
		// Best effort: the buffers only save retransmissions.
		_ = udp.SetReadBuffer(socketBuffer)
		_ = udp.SetWriteBuffer(socketBuffer)
	}
	c.seg, _ = pc.(segmenter)
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
	most := 1 // blocks a call
	if c.seg != nil {
		most = max(min(maxSegments, maxSegmentBytes/size), 1)
	}
	if need := min(most, t.sent-t.next+1) * size; len(c.buf) < need {
		c.buf = make([]byte, need)
	}
	for i := t.next; i <= t.sent; {
		first, n := i, 0
		for ; i <= t.sent && i < first+most; i++ {
			binary.BigEndian.PutUint16(c.buf[n:], opDATA)
			binary.BigEndian.PutUint16(c.buf[n+2:], uint16(i))
			n += dataHeader + copy(c.buf[n+dataHeader:], t.block(i))
		}
		var err error
		if i == first+1 {
			err = c.write(c.buf[:n], to)
		} else if err = c.seg.WriteSegments(c.buf[:n], size, to); noSegments(err) {
			c.seg, most, i, err = nil, 1, first, nil // one by one, then
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// noSegments reports whether sending failed for being of several datagrams: the interface computes no checksums (EIO,
// before Linux 6.11), a datagram is larger than its MTU (EINVAL, EMSGSIZE), or the kernel is too old.
func noSegments(err error) bool {
	for _, e := range []syscall.Errno{syscall.EIO, syscall.EINVAL, syscall.EMSGSIZE, syscall.ENOPROTOOPT, syscall.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
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
