package am335x

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Ethernet II header, then the payload; all of this file is big-endian:
//
//	off size
//	0   6    destination
//	6   6    source
//	12  2    type: 0x0800 IPv4, 0x0806 ARP
const (
	etherLen  = 14
	typeIPv4  = 0x0800
	typeARP   = 0x0806
	ipLen     = 20
	udpLen    = 8
	protoUDP  = 17
	minimumIP = etherLen + ipLen + udpLen
)

type mac [6]byte

var broadcastMAC = mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func (m mac) String() string { return net.HardwareAddr(m[:]).String() }

// datagram is a UDP datagram with the addresses that carried it.
type datagram struct {
	srcMAC, dstMAC   mac
	src, dst         netip.Addr
	srcPort, dstPort uint16
	data             []byte
}

// errNotForUs says that a frame is well formed but of no interest.
var errNotForUs = errors.New("not for us")

// encodeUDP makes a whole frame: Ethernet, IPv4 without options, UDP without checksum, as U-Boot
// sends it.
//
//	off size IPv4                      off size UDP
//	0   1    0x45                      0   2    source port
//	1   1    service                   2   2    destination port
//	2   2    length with header        4   2    length with header
//	4   2    identification            6   2    checksum, 0: none
//	6   2    flags, fragment offset
//	8   1    time to live
//	9   1    protocol, 17
//	10  2    header checksum
//	12  4    source
//	16  4    destination
func encodeUDP(d datagram, id uint16) []byte {
	b := make([]byte, minimumIP, minimumIP+len(d.data))
	copy(b[0:], d.dstMAC[:])
	copy(b[6:], d.srcMAC[:])
	binary.BigEndian.PutUint16(b[12:], typeIPv4)
	ip := b[etherLen:]
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(ipLen+udpLen+len(d.data)))
	binary.BigEndian.PutUint16(ip[4:], id)
	ip[6] = 0x40 // do not fragment
	ip[8], ip[9] = 255, protoUDP
	copy(ip[12:], d.src.AsSlice())
	copy(ip[16:], d.dst.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip[:ipLen]))
	udp := ip[ipLen:]
	binary.BigEndian.PutUint16(udp[0:], d.srcPort)
	binary.BigEndian.PutUint16(udp[2:], d.dstPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpLen+len(d.data)))
	return append(b, d.data...)
}

// decodeUDP takes an IPv4 frame apart, as strictly as U-Boot does or more so. errNotForUs is
// returned for another protocol; any other error is a mistake of the sender.
func decodeUDP(b []byte) (datagram, error) {
	if len(b) < etherLen || binary.BigEndian.Uint16(b[12:]) != typeIPv4 {
		return datagram{}, errNotForUs
	}
	d := datagram{dstMAC: mac(b[0:6]), srcMAC: mac(b[6:12])}
	ip := b[etherLen:]
	if len(ip) < ipLen {
		return d, fmt.Errorf("IPv4 packet of %d bytes", len(ip))
	}
	if ip[0] != 0x45 {
		return d, fmt.Errorf("IPv4 version and header length %#x, expected 0x45: no options", ip[0])
	}
	total := int(binary.BigEndian.Uint16(ip[2:]))
	if total < ipLen || total > len(ip) {
		return d, fmt.Errorf("IPv4 length %d in %d bytes", total, len(ip))
	}
	if sum(0, ip[:ipLen]) != 0xffff {
		return d, errors.New("IPv4 header checksum wrong")
	}
	if binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return d, errors.New("IPv4 fragment")
	}
	d.src, d.dst = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	if ip[9] != protoUDP {
		return d, errNotForUs
	}
	udp := ip[ipLen:total]
	if len(udp) < udpLen {
		return d, fmt.Errorf("UDP datagram of %d bytes", len(udp))
	}
	n := int(binary.BigEndian.Uint16(udp[4:]))
	if n < udpLen || n > len(udp) {
		return d, fmt.Errorf("UDP length %d in %d bytes", n, len(udp))
	}
	udp = udp[:n]
	d.srcPort, d.dstPort = binary.BigEndian.Uint16(udp[0:]), binary.BigEndian.Uint16(udp[2:])
	if udp[6] != 0 || udp[7] != 0 {
		pseudo := sum(uint32(protoUDP)+uint32(n), ip[12:20])
		if sum(uint32(pseudo), udp) != 0xffff {
			return d, fmt.Errorf("UDP checksum wrong, port %d to %d", d.srcPort, d.dstPort)
		}
	}
	d.data = udp[udpLen:]
	return d, nil
}

// sum is the Internet checksum's sum (RFC 1071) on top of start, folded.
func sum(start uint32, b []byte) uint16 {
	s := uint64(start)
	for ; len(b) >= 4; b = b[4:] { // 1<<16 is 1 in this sum: two words at a time come to the same
		s += uint64(binary.BigEndian.Uint32(b))
	}
	if len(b) >= 2 {
		s += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// ARP over Ethernet for IPv4 (RFC 826), after the Ethernet header:
//
//	off size                          off size
//	0   2    hardware, 1              8   6    sender's MAC
//	2   2    protocol, 0x0800         14  4    sender's address
//	4   2    lengths, 6 and 4         18  6    target's MAC
//	6   2    1 request, 2 reply       24  4    target's address
type arp struct {
	op        uint16
	senderMAC mac
	sender    netip.Addr
	targetMAC mac
	target    netip.Addr
	etherDst  mac
}

const (
	arpLen     = 28
	arpRequest = 1
	arpReply   = 2
)

func encodeARP(a arp) []byte {
	b := make([]byte, etherLen+arpLen)
	copy(b[0:], a.etherDst[:])
	copy(b[6:], a.senderMAC[:])
	binary.BigEndian.PutUint16(b[12:], typeARP)
	p := b[etherLen:]
	copy(p, []byte{0, 1, 8, 0, 6, 4})
	binary.BigEndian.PutUint16(p[6:], a.op)
	copy(p[8:], a.senderMAC[:])
	copy(p[14:], a.sender.AsSlice())
	copy(p[18:], a.targetMAC[:])
	copy(p[24:], a.target.AsSlice())
	return b
}

func decodeARP(b []byte) (arp, bool) {
	if len(b) < etherLen+arpLen || binary.BigEndian.Uint16(b[12:]) != typeARP {
		return arp{}, false
	}
	p := b[etherLen:]
	if [6]byte(p[:6]) != [6]byte{0, 1, 8, 0, 6, 4} {
		return arp{}, false
	}
	return arp{
		op:        binary.BigEndian.Uint16(p[6:]),
		senderMAC: mac(p[8:14]), sender: netip.AddrFrom4([4]byte(p[14:18])),
		targetMAC: mac(p[18:24]), target: netip.AddrFrom4([4]byte(p[24:28])),
		etherDst: mac(b[0:6]),
	}, true
}
