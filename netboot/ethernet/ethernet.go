// Package ethernet makes a [netboot.Link] of Ethernet frames, for a board that no network interface of the system leads
// to: ARP, IPv4 and UDP for the host and its one peer, and no more than a boot client needs.
//
// [Host.Input] takes the frames that come, Config.Send those that leave. A request for the host's address is answered,
// UDP to the BOOTP and the TFTP port is handed to the two sockets of [Host.Link]. Everything else is dropped and
// counted: other protocols, other hosts' frames, fragments, wrong checksums. The peer's address on the wire is the one
// its last frame came from: it speaks first, so nobody need be asked for it. What is sent is never in fragments.
//
// Specified in: RFC 894 (IP over Ethernet), RFC 826 (ARP), RFC 791 (IPv4), RFC 768 (UDP), RFC 1071 (the checksum); what
// they leave open is decided as RFC 1122 has it for hosts.
//
// The peer is taken to be hostile: memory is bounded by the two sockets' queues.
package ethernet

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"snag/netboot"
)

// Config is the link.
type Config struct {
	MAC    [6]byte      // the host's
	Server netip.Prefix // the host's IPv4 address, with the net's mask
	Client netip.Addr   // the address that the peer is to have

	// Send sends a frame. It must copy it, and not wait. An error that is to pass for a lost packet wraps
	// syscall.ENOBUFS. Calls may come from several goroutines.
	Send func(frame []byte) error
}

// Counts are what became of the frames so far.
type Counts struct {
	Taken    int64 // datagrams for the two sockets
	ARP      int64 // requests answered
	Other    int64 // frames that are none of the host's: other protocols, addresses and ports
	Bad      int64 // broken: lengths, versions, checksums
	Fragment int64
	Full     int64 // datagrams that a socket had no room for
}

// The ports of BOOTP's and TFTP's servers (RFC 951; RFC 1350).
const (
	bootpPort = 67
	tftpPort  = 69
)

// Host is the host's end of the link.
type Host struct {
	cfg         Config
	bootp, tftp *socket

	mu     sync.Mutex
	peer   [6]byte // where the last frame of the peer's came from; all ones before
	ident  uint16  // of the next datagram
	counts Counts
}

var broadcastMAC = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// New makes a host. The addresses must be IPv4's.
func New(cfg Config) *Host {
	h := &Host{cfg: cfg, peer: broadcastMAC}
	h.bootp, h.tftp = newSocket(h, bootpPort), newSocket(h, tftpPort)
	return h
}

// Link is the way to the peer. The sockets are the host's, which closes them.
func (h *Host) Link() netboot.Link {
	return netboot.Link{BOOTP: h.bootp, TFTP: h.tftp, Server: h.cfg.Server, Client: h.cfg.Client, Largest: maxDatagram}
}

// Counts are the counts so far.
func (h *Host) Counts() Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts
}

// Close makes what is read from the sockets and written to them, now and later, fail with err, net.ErrClosed if that is
// nil. The first call decides.
func (h *Host) Close(err error) {
	if err == nil {
		err = net.ErrClosed
	}
	h.bootp.close(err)
	h.tftp.close(err)
}

// Input takes a frame from the peer. It may be followed by padding. It is not kept.
func (h *Host) Input(frame []byte) {
	if reply := h.input(frame); reply != nil {
		_ = h.cfg.Send(reply) // a lost one is asked for again
	}
}

// input does what is to be done with a frame, and returns the frame that answers it.
func (h *Host) input(frame []byte) (reply []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, err := parseEthernet(frame)
	if err != nil {
		h.counts.Bad++
		return nil
	}
	if e.dst != h.cfg.MAC && e.dst != broadcastMAC { // whoever sends it is the peer, even if its address is a group's
		h.counts.Other++
		return nil
	}
	switch e.typ {
	case typeARP:
		a, err := parseARP(e.payload)
		switch {
		case err != nil:
			h.counts.Bad++
		case a.op != arpRequest || a.target != h.cfg.Server.Addr():
			h.counts.Other++
		default:
			h.counts.ARP++
			h.peer = e.src
			return appendARPReply(nil, h.cfg.MAC, a)
		}
	case typeIPv4:
		d, err := parseUDP(e.payload)
		switch {
		case errors.Is(err, errFragment):
			h.counts.Fragment++
		case errors.Is(err, errOther) || err == nil && !h.concerns(d):
			h.counts.Other++
		case err != nil:
			h.counts.Bad++
		default:
			h.peer = e.src
			to := h.bootp
			if d.dst.Port() == tftpPort {
				to = h.tftp
			}
			h.mu.Unlock() // who writes to the socket has its lock, and wants this one
			taken := to.put(d)
			h.mu.Lock()
			if taken {
				h.counts.Taken++
			} else {
				h.counts.Full++
			}
		}
	default:
		h.counts.Other++
	}
	return nil
}

// concerns says whether a datagram is the peer's, for one of the sockets. BOOTP may come from the address that a client
// has from elsewhere (RFC 2131, section 4.1): the answer is broadcast. TFTP is answered to where it comes from.
func (h *Host) concerns(d datagram) bool {
	from, to := d.src.Addr(), d.dst.Addr()
	return (d.dst.Port() == bootpPort || d.dst.Port() == tftpPort && (from.IsUnspecified() || h.cfg.Server.Contains(from))) &&
		(to == h.cfg.Server.Addr() || to == broadcast || to == lastOf(h.cfg.Server)) &&
		from != h.cfg.Server.Addr() && from != broadcast && !from.IsMulticast() && !from.IsLoopback()
}

// lastOf is the broadcast address of a net.
func lastOf(net netip.Prefix) netip.Addr {
	a := net.Addr().As4()
	for i := net.Bits(); i < 32; i++ {
		a[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(a)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// output sends a datagram from one of the host's ports. buf is room for the frame.
func (h *Host) output(buf []byte, port uint16, data []byte, to netip.AddrPort) error {
	h.mu.Lock()
	h.ident++
	ident, mac := h.ident, h.peer
	h.mu.Unlock()
	if to.Addr() == broadcast || to.Addr() == lastOf(h.cfg.Server) {
		mac = broadcastMAC
	}
	return h.cfg.Send(appendUDP(buf[:0], mac, h.cfg.MAC, netip.AddrPortFrom(h.cfg.Server.Addr(), port), to, ident, data))
}
