package netboot

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
)

const socketBuffer = 1 << 20 // bytes asked for; the kernel grants what its limits allow

// conn writes the packets of transfers to the TFTP socket, and reads from it. Over a kernel socket it allocates nothing
// per packet. A window is not sent as one datagram that the kernel cuts (UDP_SEGMENT): Linux from 6.11 on miscounts the
// checksums where such a datagram passes NAT and the interface computes none, as USB adapters do not (seen on 6.18).
type conn struct {
	pc  net.PacketConn
	udp udpSocket // pc, if it is a kernel socket
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

func newConn(pc net.PacketConn) *conn {
	c := &conn{pc: pc, buf: make([]byte, dataHeader+defaultBlksize)}
	if udp, ok := pc.(udpSocket); ok {
		c.udp = udp
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
	if size := dataHeader + t.blksize; len(c.buf) < size {
		c.buf = make([]byte, size)
	}
	for i := t.next; i <= t.sent; i++ {
		binary.BigEndian.PutUint16(c.buf, opDATA)
		binary.BigEndian.PutUint16(c.buf[2:], uint16(i))
		n := dataHeader + copy(c.buf[dataHeader:], t.block(i))
		if err := c.write(c.buf[:n], to); err != nil {
			return err
		}
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
