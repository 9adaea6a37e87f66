package netboot

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// A BOOTP message (RFC 951, section 3; RFC 2131, section 2; big-endian):
//
//	offset  size  field
//	0       1     op: 1 request, 2 reply
//	1       1     htype: 1 Ethernet
//	2       1     hlen: 6
//	3       1     hops
//	4       4     xid: chosen by the client
//	8       2     secs
//	10      2     flags: bit 15 asks for a broadcast reply
//	12      4     ciaddr: the client's address, if it knows one
//	16      4     yiaddr: the client's address, as the server says
//	20      4     siaddr: the next server, for TFTP
//	24      4     giaddr: the relay
//	28      16    chaddr: the client's MAC, then zeros
//	44      64    sname
//	108     128   file: the boot file's name, ended by a NUL
//	236     4     magic cookie 63 82 53 63 (RFC 2132, section 2)
//	240     -     options: code, length, value; 0 pads, 255 ends
const (
	bootpFixed  = 236 // all before the cookie: the least that is taken for a request
	bootpCookie = 240 // the end of the cookie
	bootpMin    = 300 // the least that is sent: RFC 951's message, which plain BOOTP clients insist on
	optPad      = 0
	optEnd      = 255
)

// MaxBootFile is the length of the longest file name that a BOOTP reply has room for: the field's, without its NUL.
const MaxBootFile = 127

var cookie = []byte{0x63, 0x82, 0x53, 0x63}

// errNotOurs is wrapped by the reasons for which a datagram on the BOOTP port is not answered.
var errNotOurs = errors.New("not a request to answer")

// request is a BOOTP or DHCP request that was found to be one.
type request struct {
	msg    *dhcpv4.DHCPv4
	chaddr []byte // the whole field
	cookie bool   // it had the magic cookie, so the reply may have options
}

// parseRequest reads a datagram that came to the BOOTP port. It is lenient where clients are known to be
// sloppy: the cookie, the END option and the end of the last option may be missing.
func parseRequest(b []byte) (request, error) {
	if len(b) < bootpFixed {
		return request{}, fmt.Errorf("%w: %d bytes, fewer than %d", errNotOurs, len(b), bootpFixed)
	}
	if b[0] != 1 || b[1] != 1 || b[2] != 6 {
		return request{}, fmt.Errorf("%w: op %d, htype %d, hlen %d; expected 1, 1, 6", errNotOurs, b[0], b[1], b[2])
	}
	whole, hadCookie := normalise(b)
	msg, err := dhcpv4.FromBytes(whole)
	if err != nil {
		return request{}, fmt.Errorf("%w: %w", errNotOurs, err)
	}
	return request{msg: msg, chaddr: whole[28:44], cookie: hadCookie}, nil
}

// normalise returns b as a message that a strict parser takes: with the cookie, with the options up to the
// first that is cut off, and with END. It reports whether the cookie was there.
func normalise(b []byte) ([]byte, bool) {
	out := append([]byte(nil), b[:bootpFixed]...)
	out = append(out, cookie...)
	if len(b) < bootpCookie || string(b[bootpFixed:bootpCookie]) != string(cookie) {
		return append(out, optEnd), false
	}
	for opts := b[bootpCookie:]; len(opts) > 0 && opts[0] != optEnd; {
		if opts[0] == optPad {
			opts = opts[1:]
			continue
		}
		if len(opts) < 2 || len(opts) < 2+int(opts[1]) {
			break
		}
		n := 2 + int(opts[1])
		out = append(out, opts[:n]...)
		opts = opts[n:]
	}
	return append(out, optEnd), true
}

// client is the request's sender, as the caller's Pick sees it.
func (r request) client() Client {
	return Client{
		MAC:         r.msg.ClientHWAddr,
		VendorClass: r.msg.ClassIdentifier(),
		DHCP:        r.msg.MessageType() != dhcpv4.MessageTypeNone,
	}
}

// forServer reports whether the request is one that the server at the given address answers, and if not why:
// DHCP messages other than DISCOVER and REQUEST expect no file, and a REQUEST may be for another server.
func (r request) forServer(server netip.Addr) error {
	switch t := r.msg.MessageType(); t {
	case dhcpv4.MessageTypeNone, dhcpv4.MessageTypeDiscover:
		return nil
	case dhcpv4.MessageTypeRequest:
		if id := r.msg.ServerIdentifier(); id != nil && !id.Equal(server.AsSlice()) {
			return fmt.Errorf("%w: DHCP REQUEST to the server %v", errNotOurs, id)
		}
		return nil
	default:
		return fmt.Errorf("%w: DHCP %v", errNotOurs, t)
	}
}

// reply makes the answer that offers the file: one form for all clients. It is at least 300 bytes (old SPLs),
// says ACK to a DISCOVER too (no SPL looks at the type of an offer, and all want ACK in the end; ROMs ignore it), and
// repeats none of the request's options, so that nothing stands in the way of a ROM's parser.
// To a request without the cookie the vendor area is zeros.
func (r request) reply(server netip.Prefix, client netip.Addr, file string) []byte {
	host := net.IP(server.Addr().AsSlice())
	m := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootReply,
		HWType:        iana.HWTypeEthernet,
		TransactionID: r.msg.TransactionID,
		Flags:         r.msg.Flags,
		ClientIPAddr:  r.msg.ClientIPAddr,
		YourIPAddr:    client.AsSlice(),
		ServerIPAddr:  host,
		GatewayIPAddr: r.msg.GatewayIPAddr,
		ClientHWAddr:  r.msg.ClientHWAddr,
		BootFileName:  file[:min(len(file), MaxBootFile)],
		Options: dhcpv4.OptionsFromList(
			dhcpv4.OptMessageType(dhcpv4.MessageTypeAck),
			dhcpv4.OptServerIdentifier(host),
			dhcpv4.OptSubnetMask(net.CIDRMask(server.Bits(), 32)),
			dhcpv4.OptRouter(host),
			dhcpv4.OptIPAddressLeaseTime(dhcpv4.MaxLeaseTime),
		),
	}
	b := m.ToBytes()
	copy(b[28:44], r.chaddr)
	if !r.cookie {
		clear(b[bootpFixed:])
	}
	return b
}
