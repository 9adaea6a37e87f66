// Package netboottest has what tests and benchmarks of package netboot play the board with: a network in memory
// that loses, delays, repeats and reorders datagrams, and a TFTP client. Nothing in it uses netboot, so that a
// misreading of a protocol is not made twice the same way.
package netboottest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Faults are what a Network does to the datagrams of one direction; the rates are from 0 to 1.
type Faults struct {
	Loss, Dup, Reorder float64
	Delay              time.Duration // of every datagram
}

// Network joins sockets in memory. Its zero value is not usable: see New.
type Network struct {
	mu     sync.Mutex
	rand   *rand.Rand
	socks  map[netip.AddrPort]*Sock
	faults func(from, to netip.AddrPort) Faults
}

// New makes a network whose accidents are decided by the seed. The faults are asked for with each datagram; nil is
// none.
func New(seed uint64, faults func(from, to netip.AddrPort) Faults) *Network {
	if faults == nil {
		faults = func(_, _ netip.AddrPort) Faults { return Faults{} }
	}
	return &Network{rand: rand.New(rand.NewPCG(seed, 1)), socks: map[netip.AddrPort]*Sock{}, faults: faults}
}

// queued is how many datagrams a socket holds before it drops more.
const queued = 4096

type datagram struct {
	b    []byte
	from *net.UDPAddr
}

// Sock is a socket of a Network: a net.PacketConn.
type Sock struct {
	n    *Network
	addr netip.AddrPort
	in   chan datagram

	latest time.Time // the arrival of the last datagram that came in order; the network's

	mu      sync.Mutex
	expired chan struct{} // closed when the read deadline has passed
	timer   *time.Timer
	closed  bool
}

// Listen opens a socket at an address, in the place of one that may be there.
func (n *Network) Listen(addr string) *Sock {
	s := &Sock{n: n, addr: netip.MustParseAddrPort(addr), in: make(chan datagram, queued), expired: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.socks[s.addr] = s
	return s
}

// ReadFrom waits for the next datagram, until the read deadline.
func (s *Sock) ReadFrom(b []byte) (int, net.Addr, error) {
	s.mu.Lock()
	expired, closed := s.expired, s.closed
	s.mu.Unlock()
	if closed {
		return 0, nil, net.ErrClosed
	}
	select {
	case <-expired:
		return 0, nil, s.expiry()
	default:
	}
	select {
	case d := <-s.in:
		return copy(b, d.b), d.from, nil
	case <-expired:
		return 0, nil, s.expiry()
	}
}

func (s *Sock) expiry() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	return fmt.Errorf("read %v: %w", s.addr, os.ErrDeadlineExceeded)
}

// WriteTo sends a datagram; to 255.255.255.255 it goes to all sockets of that port.
func (s *Sock) WriteTo(b []byte, to net.Addr) (int, error) {
	dst := to.(*net.UDPAddr).AddrPort()
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	for addr, sock := range s.n.socks {
		if addr == dst || dst.Addr() == broadcast && addr.Port() == dst.Port() {
			s.n.deliver(append([]byte(nil), b...), s.addr, sock)
		}
	}
	return len(b), nil
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (n *Network) deliver(b []byte, from netip.AddrPort, to *Sock) {
	f := n.faults(from, to.addr)
	times := 1
	if n.rand.Float64() < f.Dup {
		times = 2
	}
	for range times {
		if n.rand.Float64() < f.Loss {
			continue
		}
		d := datagram{b, net.UDPAddrFromAddrPort(from)}
		put := func() {
			select {
			case to.in <- d:
			default:
			}
		}
		delay := f.Delay
		if delay > 0 {
			// Timers of the same moment fire in any order: keep them apart.
			if next := to.latest.Add(time.Microsecond); time.Now().Add(delay).Before(next) {
				delay = time.Until(next)
			}
			to.latest = time.Now().Add(delay)
		}
		if n.rand.Float64() < f.Reorder {
			delay += time.Duration(n.rand.Int64N(int64(5*time.Millisecond + f.Delay)))
		}
		if delay == 0 {
			put()
		} else {
			time.AfterFunc(delay, put)
		}
	}
}

// SetReadDeadline is as in net.PacketConn.
func (s *Sock) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil && !s.timer.Stop() {
		<-s.expired // the timer's function has run or is about to: its channel is spent
	}
	s.timer = nil
	select {
	case <-s.expired:
		s.expired = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return nil
	}
	ch := s.expired
	if d := time.Until(t); d > 0 {
		s.timer = time.AfterFunc(d, func() { close(ch) })
	} else {
		close(ch)
	}
	return nil
}

// SetDeadline is SetReadDeadline: writing never waits.
func (s *Sock) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetWriteDeadline does nothing.
func (s *Sock) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr is the address given to Listen.
func (s *Sock) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.addr) }

// Close makes reads fail with net.ErrClosed.
func (s *Sock) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.SetReadDeadline(time.Unix(1, 0))
}
