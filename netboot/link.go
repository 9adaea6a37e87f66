package netboot

import (
	"net"
	"net/netip"
)

// Link is the packet link to one board: the two datagram sockets a boot client talks to.
// They may be kernel sockets of a network namespace or the ends of a user-space IP stack;
// the servers know only these interfaces. Addresses that ReadFrom returns and WriteTo takes
// are *net.UDPAddr.
type Link struct {
	BOOTP  net.PacketConn // datagrams to the BOOTP server port (67); what is written leaves from port 67
	TFTP   net.PacketConn // datagrams to the TFTP server port (69); what is written leaves from that or from another port, always the same
	Server netip.Prefix   // the host's address on the link, with the net's mask
	Client netip.Addr     // the address to give to the board

	// Largest is the payload of the longest datagram that the link carries; 0: it carries any, in fragments. TFTP's
	// blocks are cut to it (RFC 2348 lets a server answer with a smaller size).
	Largest int
}

// Handler is a TFTP socket that can hand datagrams to the server in the goroutine that has them from the wire, so that
// none need be woken for each.
type Handler interface {
	// Handle has handler called with the datagrams that come, one at a time, in the place of reading them; nil ends
	// that, and returns when no call is under way. The bytes are the handler's until it returns, which it does soon.
	Handle(handler func(b []byte, from netip.AddrPort))
}

// HostAddress and BoardAddress are those of the little network between host and board. All boards have the same: no
// link leads to a second one.
var (
	HostAddress  = netip.MustParsePrefix("192.168.0.100/24")
	BoardAddress = netip.MustParseAddr("192.168.0.101")
)
