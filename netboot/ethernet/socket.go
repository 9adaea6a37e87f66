package ethernet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// room is how many datagrams a socket keeps for its reader: a boot client sends one and waits.
const room = 64

// socket is one of the host's UDP ports: a net.PacketConn.
type socket struct {
	h    *Host
	port uint16

	in, free chan *received // free has those that in has not, once they were needed

	handling sync.Mutex                          // held while handler runs
	handler  func(b []byte, from netip.AddrPort) // nil: datagrams are kept for a reader

	mu      sync.Mutex
	made    int           // received, of room
	expired chan struct{} // closed when the read deadline has passed
	timer   *time.Timer   // closes it
	err     error         // of a closed socket
	out     []byte        // a frame
}

// received is a datagram that waits for its reader.
type received struct {
	from netip.AddrPort
	n    int
	b    [maxDatagram]byte
}

func newSocket(h *Host, port uint16) *socket {
	return &socket{h: h, port: port, in: make(chan *received, room), free: make(chan *received, room), expired: make(chan struct{})}
}

// Handle implements [netboot.Handler].
func (s *socket) Handle(handler func(b []byte, from netip.AddrPort)) {
	s.handling.Lock()
	defer s.handling.Unlock()
	s.handler = handler
}

// put hands a datagram to the handler, or keeps it for the reader. It is false if there is no room.
func (s *socket) put(d datagram) bool {
	s.handling.Lock()
	if s.handler != nil {
		defer s.handling.Unlock()
		s.handler(d.data, d.src)
		return true
	}
	s.handling.Unlock()
	r := s.take()
	if r == nil {
		return false
	}
	r.from, r.n = d.src, copy(r.b[:], d.data)
	s.in <- r // which has room for all that were made
	return true
}

// take returns room for a datagram; nil if there is none.
func (s *socket) take() *received {
	select {
	case r := <-s.free:
		return r
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made == room || s.err != nil {
		return nil
	}
	s.made++
	return new(received)
}

// ReadFromUDPAddrPort is as that of net.UDPConn.
func (s *socket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	s.mu.Lock()
	expired := s.expired
	s.mu.Unlock()
	select {
	case <-expired:
		return 0, netip.AddrPort{}, s.expiry()
	default:
	}
	select {
	case r := <-s.in:
		n, from := copy(b, r.b[:r.n]), r.from
		s.free <- r
		return n, from, nil
	case <-expired:
		return 0, netip.AddrPort{}, s.expiry()
	}
}

// expiry is why a read has ended without a datagram.
func (s *socket) expiry() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	return os.ErrDeadlineExceeded
}

// WriteToUDPAddrPort is as that of net.UDPConn. It never waits.
func (s *socket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	addr := to.Addr().Unmap()
	if !addr.Is4() {
		return 0, fmt.Errorf("sending to %v: not an IPv4 address", to)
	}
	if len(b) > maxDatagram {
		return 0, syscall.EMSGSIZE
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	if s.out == nil {
		s.out = make([]byte, 0, etherHeader+mtu)
	}
	if err := s.h.output(s.out, s.port, b, netip.AddrPortFrom(addr, to.Port())); err != nil {
		return 0, err
	}
	return len(b), nil
}

// ReadFrom is as in net.PacketConn.
func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.ReadFromUDPAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteTo is as in net.PacketConn.
func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("sending to %v: not a UDP address", to)
	}
	return s.WriteToUDPAddrPort(b, a.AddrPort())
}

// SetReadDeadline is as in net.PacketConn.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.setDeadline(t)
	return nil
}

// setDeadline is called with mu held.
func (s *socket) setDeadline(t time.Time) {
	if s.timer != nil {
		if !s.timer.Stop() {
			<-s.expired // its function has run, or is about to
		} else if d := time.Until(t); d > 0 {
			s.timer.Reset(d)
			return
		}
	}
	s.timer = nil
	select {
	case <-s.expired:
		s.expired = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	expired := s.expired
	if d := time.Until(t); d > 0 {
		s.timer = time.AfterFunc(d, func() { close(expired) })
	} else {
		close(expired)
	}
}

// SetDeadline is SetReadDeadline: writing never waits.
func (s *socket) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetWriteDeadline does nothing.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr is the host's address with the port.
func (s *socket) LocalAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.h.cfg.Server.Addr(), s.port))
}

// SetReadBuffer does nothing: see room.
func (s *socket) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing: there is none.
func (s *socket) SetWriteBuffer(int) error { return nil }

// Close makes a read that is under way, and what follows, fail with net.ErrClosed.
func (s *socket) Close() error {
	if !s.close(net.ErrClosed) {
		return errors.New("closed already")
	}
	return nil
}

func (s *socket) close(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false
	}
	s.err = err
	s.setDeadline(time.Unix(1, 0))
	return true
}
