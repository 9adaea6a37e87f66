package am335x

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// A BOOTP message (RFC 951, RFC 2131), big-endian:
//
//	off size                         off size
//	0   1    op: 1 request, 2 reply  16  4    yiaddr: address given to the client
//	1   1    hardware type, 1        20  4    siaddr: TFTP server
//	2   1    address length, 6       24  4    giaddr
//	3   1    hops                    28  16   chaddr: client's MAC, zeros
//	4   4    xid                     44  64   sname
//	8   2    secs                    108 128  file, NUL-terminated
//	10  2    flags                   236 4    cookie 63 82 53 63
//	12  4    ciaddr                  240 n    options: code, length, value; 255 ends, 0 pads
const (
	bootpFixed   = 236
	bootpOptions = 240
	bootpMinimum = 300
	clientPort   = 68
	serverPort   = 67
)

var cookie = []byte{0x63, 0x82, 0x53, 0x63}

// DHCP options and message types (RFC 2132).
const (
	optMask      = 1
	optRouter    = 3
	optRequested = 50
	optMessage   = 53
	optServer    = 54
	optParams    = 55
	optMaxSize   = 57
	optVendor    = 60
	optClientID  = 61
	optBootFile  = 67
	optArch      = 93
	optUNDI      = 94
	optEnd       = 255

	dhcpDiscover = 1
	dhcpRequest  = 3
	dhcpOffer    = 2
	dhcpACK      = 5
)

// bootpRequest makes the fixed part of a request and the cookie.
func bootpRequest(xid uint32, client mac) []byte {
	b := make([]byte, bootpOptions, 400)
	b[0], b[1], b[2] = 1, 1, 6
	binary.BigEndian.PutUint32(b[4:], xid)
	copy(b[28:], client[:])
	copy(b[bootpFixed:], cookie)
	return b
}

// romRequestLen is the length of the ROM's request in the reference capture.
const romRequestLen = 364

// romRequest is the ROM's request: xid 1 always, options
//
//	off size
//	240 12   60, 10, vendor class "AM335x ROM"
//	252 83   61, 81, client identifier: the ASIC ID
//	335 1    255, then zeros to 364
func romRequest(client mac, vendorClass string, asicID [81]byte) []byte {
	b := bootpRequest(1, client)
	b = append(b, optVendor, byte(len(vendorClass)))
	b = append(b, vendorClass...)
	b = append(b, optClientID, byte(len(asicID)))
	b = append(b, asicID[:]...)
	b = append(b, optEnd)
	return pad(b, romRequestLen)
}

// splBOOTP is the request of an SPL without DHCP: option 60 alone.
func splBOOTP(xid uint32, client mac, vendorClass string) []byte {
	b := appendVendor(bootpRequest(xid, client), vendorClass)
	return pad(append(b, optEnd), bootpMinimum)
}

// splDHCP is a DISCOVER, or a REQUEST for the offered address. server is zero if the offer named none.
func splDHCP(xid uint32, client mac, vendorClass string, message byte, offered, server netip.Addr) []byte {
	b := append(bootpRequest(xid, client), optMessage, 1, message, optMaxSize, 2, 576>>8, 576&0xff)
	if message == dhcpRequest {
		if server.IsValid() {
			b = append(append(b, optServer, 4), server.AsSlice()...)
		}
		b = append(append(b, optRequested, 4), offered.AsSlice()...)
	}
	b = append(b, optArch, 2, 0, 21, optUNDI, 3, 1, 0, 0)
	b = appendVendor(b, vendorClass)
	b = append(b, optParams, 5, 1, 3, 6, 12, 17, optEnd)
	return pad(b, bootpMinimum)
}

func appendVendor(b []byte, vendorClass string) []byte {
	if vendorClass == "" {
		return b
	}
	return append(append(b, optVendor, byte(len(vendorClass))), vendorClass...)
}

func pad(b []byte, n int) []byte {
	if len(b) < n {
		b = append(b, make([]byte, n-len(b))...)
	}
	return b
}

// offer is what a client takes from a reply.
type offer struct {
	address netip.Addr // yiaddr
	tftp    netip.Addr // siaddr; the zero Addr if the reply had none
	file    string
	message byte       // option 53, 0 if absent
	server  netip.Addr // option 54, the zero Addr if absent
	mask    netip.Addr // option 1
	router  netip.Addr // option 3
}

// decodeReply checks a reply to one of the client's requests, as ROM and SPL do. The error says why they
// would drop it.
func decodeReply(b []byte, xids []uint32, client mac, minimum int) (offer, error) {
	var o offer
	if len(b) < max(minimum, bootpFixed) {
		return o, fmt.Errorf("BOOTP reply of %d bytes, at least %d are needed", len(b), max(minimum, bootpFixed))
	}
	if b[0] != 2 || b[1] != 1 || b[2] != 6 {
		return o, fmt.Errorf("BOOTP op %d, hardware %d, length %d; expected 2, 1, 6", b[0], b[1], b[2])
	}
	if got := binary.BigEndian.Uint32(b[4:]); !slices.Contains(xids, got) {
		return o, fmt.Errorf("BOOTP reply with xid %#x, expected one of %#x", got, xids)
	}
	if mac(b[28:34]) != client {
		return o, fmt.Errorf("BOOTP reply for %v, this is %v", mac(b[28:34]), client)
	}
	o.address = netip.AddrFrom4([4]byte(b[16:20]))
	if o.address.IsUnspecified() {
		return o, fmt.Errorf("BOOTP reply without an address for the client")
	}
	if a := netip.AddrFrom4([4]byte(b[20:24])); !a.IsUnspecified() {
		o.tftp = a
	}
	file := b[108:236]
	end := bytes.IndexByte(file, 0)
	if end < 0 {
		return o, fmt.Errorf("BOOTP file name without an end")
	}
	o.file = string(file[:end])
	if len(b) < bootpOptions || !bytes.Equal(b[bootpFixed:bootpOptions], cookie) {
		return o, nil // no options, then
	}
	opts := b[bootpOptions:]
	for len(opts) > 0 && opts[0] != optEnd {
		if opts[0] == 0 {
			opts = opts[1:]
			continue
		}
		if len(opts) < 2 || len(opts) < 2+int(opts[1]) {
			return o, fmt.Errorf("BOOTP option %d beyond the end of the reply", opts[0])
		}
		v := opts[2 : 2+int(opts[1])]
		switch {
		case opts[0] == optMessage && len(v) == 1:
			o.message = v[0]
		case opts[0] == optServer && len(v) == 4:
			o.server = netip.AddrFrom4([4]byte(v))
		case opts[0] == optMask && len(v) == 4:
			o.mask = netip.AddrFrom4([4]byte(v))
		case opts[0] == optRouter && len(v) >= 4:
			o.router = netip.AddrFrom4([4]byte(v[:4]))
		case opts[0] == optBootFile && len(v) > 0:
			o.file = string(bytes.TrimRight(v, "\x00"))
		}
		opts = opts[2+len(v):]
	}
	return o, nil
}
