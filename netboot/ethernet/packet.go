package ethernet

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// All numbers are big-endian.
var be = binary.BigEndian

// Ethernet types (RFC 894, RFC 826).
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
)

// Lengths of headers, and of what an Ethernet frame carries (RFC 894).
const (
	etherHeader = 14
	arpLength   = 28
	ipHeader    = 20
	udpHeader   = 8
	mtu         = 1500

	// maxDatagram is the longest payload of a datagram.
	maxDatagram = mtu - ipHeader - udpHeader
)

var (
	errBad      = errors.New("broken packet")
	errOther    = errors.New("another protocol")
	errFragment = errors.New("fragment")
)

// ether is an Ethernet frame (RFC 894), without its checksum:
//
//	off size
//	0   6    destination
//	6   6    source
//	12  2    type
//	14  -    payload, maybe with padding
type ether struct {
	dst, src [6]byte
	typ      uint16
	payload  []byte
}

func parseEthernet(b []byte) (ether, error) {
	if len(b) < etherHeader {
		return ether{}, errBad
	}
	return ether{[6]byte(b), [6]byte(b[6:]), be.Uint16(b[12:]), b[etherHeader:]}, nil
}

func appendEthernet(b []byte, dst, src [6]byte, typ uint16) []byte {
	b = append(append(b, dst[:]...), src[:]...)
	return be.AppendUint16(b, typ)
}

// arp is an ARP packet for IPv4 on Ethernet (RFC 826):
//
//	off size
//	0   2    hardware, 1
//	2   2    protocol, 0x0800
//	4   2    address lengths, 6 and 4
//	6   2    operation: 1 request, 2 reply
//	8   6,4  the sender's addresses
//	18  6,4  the target's
type arp struct {
	op             uint16
	sender         [6]byte
	senderIP       [4]byte
	target         netip.Addr
	targetHardware [6]byte
}

const (
	arpRequest = 1
	arpReply   = 2
)

// arpEthernet is how the packets of interest begin.
const arpEthernet = "\x00\x01\x08\x00\x06\x04"

func parseARP(b []byte) (arp, error) {
	if len(b) < arpLength || string(b[:6]) != arpEthernet {
		return arp{}, errBad
	}
	return arp{
		op: be.Uint16(b[6:]), sender: [6]byte(b[8:]), senderIP: [4]byte(b[14:]),
		targetHardware: [6]byte(b[18:]), target: netip.AddrFrom4([4]byte(b[24:])),
	}, nil
}

// appendARPReply tells the sender of a request that the address it asks for is own.
func appendARPReply(b []byte, own [6]byte, request arp) []byte {
	target := request.target.As4()
	b = appendEthernet(b, request.sender, own, typeARP)
	b = be.AppendUint16(append(b, arpEthernet...), arpReply)
	b = append(append(b, own[:]...), target[:]...)
	return append(append(b, request.sender[:]...), request.senderIP[:]...)
}

// datagram is a UDP datagram; data points into the frame.
type datagram struct {
	src, dst netip.AddrPort
	data     []byte
}

// parseUDP reads an IPv4 packet (RFC 791, section 3.1) with a UDP datagram (RFC 768):
//
//	off size
//	0   1    version 4, header length in words
//	1   1    type of service
//	2   2    total length
//	4   2    identification
//	6   2    bit 14 do not fragment, bit 13 more fragments, bits 12-0 offset
//	8   1    time to live
//	9   1    protocol, 17
//	10  2    header checksum
//	12  4,4  source, destination
//	20  -    options: passed over
//
//	0   2,2  source, destination port
//	4   2    length, header included
//	6   2    checksum, with the pseudo-header; 0: none
//	8   -    data
func parseUDP(b []byte) (datagram, error) {
	if len(b) < ipHeader || b[0]>>4 != 4 {
		return datagram{}, errBad
	}
	header, total := int(b[0]&0xf)*4, int(be.Uint16(b[2:]))
	if header < ipHeader || total < header || total > len(b) || fold(sum(0, b[:header])) != 0xffff {
		return datagram{}, errBad
	}
	if be.Uint16(b[6:])&0x3fff != 0 {
		return datagram{}, errFragment
	}
	if b[9] != protocolUDP {
		return datagram{}, errOther
	}
	u := b[header:total]
	if len(u) < udpHeader {
		return datagram{}, errBad
	}
	length := int(be.Uint16(u[4:]))
	if length < udpHeader || length > len(u) {
		return datagram{}, errBad
	}
	u = u[:length]
	if be.Uint16(u[6:]) != 0 && fold(sum(pseudo(b[12:20], length), u)) != 0xffff {
		return datagram{}, errBad
	}
	return datagram{
		src:  netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:])), be.Uint16(u)),
		dst:  netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:])), be.Uint16(u[2:])),
		data: u[udpHeader:],
	}, nil
}

const (
	protocolUDP = 17
	timeToLive  = 64 // RFC 1700
)

// appendUDP makes a frame with a datagram of at most maxDatagram bytes.
func appendUDP(b []byte, dstMAC, srcMAC [6]byte, src, dst netip.AddrPort, ident uint16, data []byte) []byte {
	from, to := src.Addr().As4(), dst.Addr().As4()
	b = appendEthernet(b, dstMAC, srcMAC, typeIPv4)
	ip := len(b)
	b = append(b, 0x45, 0)
	b = be.AppendUint16(b, uint16(ipHeader+udpHeader+len(data)))
	b = be.AppendUint16(b, ident)
	b = append(b, 0x40, 0, timeToLive, protocolUDP, 0, 0) // not to be fragmented
	b = append(append(b, from[:]...), to[:]...)
	be.PutUint16(b[ip+10:], ^fold(sum(0, b[ip:])))

	udp := len(b)
	b = be.AppendUint16(be.AppendUint16(b, src.Port()), dst.Port())
	b = be.AppendUint16(b, uint16(udpHeader+len(data)))
	b = append(append(b, 0, 0), data...)
	check := ^fold(sum(pseudo(b[ip+12:ip+20], udpHeader+len(data)), b[udp:]))
	if check == 0 {
		check = 0xffff // RFC 768: 0 is for none
	}
	be.PutUint16(b[udp+6:], check)
	return b
}

// pseudo is the sum of UDP's pseudo-header: both addresses, protocol and length.
func pseudo(addresses []byte, length int) uint64 {
	return sum(protocolUDP+uint64(length), addresses)
}

// sum adds 16-bit words to a sum, the last one padded with 0 (RFC 1071).
func sum(s uint64, b []byte) uint64 {
	for ; len(b) >= 16; b = b[16:] { // folding makes two words of each 32 bits
		x, y := be.Uint64(b), be.Uint64(b[8:])
		s += x>>32 + x&0xffffffff + y>>32 + y&0xffffffff
	}
	for ; len(b) >= 2; b = b[2:] {
		s += uint64(be.Uint16(b))
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

// fold makes a sum one of ones' complement 16-bit words.
func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
