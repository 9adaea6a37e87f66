//go:build linux

package netsetup

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The ports of the servers. A board talks to BOOTP's and TFTP's own (RFC 951, section 3; RFC 1350,
// section 4); in the namespace these are translated from and to unprivileged ones.
const (
	portBOOTP = 67
	portTFTP  = 69

	portBOOTPInside = 9067
	portTFTPInside  = 9069
)

// TranslatePorts gives the network namespace of the calling thread the table of a recovery, in the words of nft(8):
//
//	table ip snag {
//		chain pre  { type nat hook prerouting priority dstnat; policy accept;
//			udp dport 67 dnat to :9067
//			udp dport 69 dnat to :9069 }
//		chain post { type nat hook postrouting priority srcnat; policy accept;
//			udp sport 9067 snat to :67
//			udp sport 9069 snat to :69 }
//		chain in   { type filter hook prerouting priority raw; policy accept;
//			udp dport 9069 notrack }
//		chain out  { type filter hook output priority raw; policy accept;
//			udp sport 9069 notrack }
//	}
//
// It must be dnat, not redirect: that would replace the broadcast address of a BOOTP request by the
// interface's, and the kernel accepts the source 0.0.0.0 with a broadcast only. What answers within a
// translated flow is translated back without a rule; the second chain is for what begins a flow, like a
// BOOTP reply to the broadcast address. The server's address is right as it is, so it needs no masquerade
// (whose port the kernel heeds only with a flag that expr.Masq does not send).
//
// Of TFTP only the request is translated. The answer's port is the server's choice, its transfer identifier (RFC 1350,
// section 4), so that blocks and acknowledgements go between the client and 9069 and need no connection
// tracking, which costs 20 µs a turn, and spoils the checksums of blocks that are sent at once (netboot's Socket). So a
// kernel without notrack gets none of it.
func TranslatePorts() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	accept := nftables.ChainPolicyAccept
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "snag"})
	for _, ch := range table {
		nc := c.AddChain(&nftables.Chain{
			Name: ch.name, Table: t, Type: ch.kind, Hooknum: ch.hook, Priority: ch.priority, Policy: &accept,
		})
		for _, r := range ch.rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: nc, Exprs: r})
		}
	}
	return c.Flush() // all of it or nothing
}

// chain is a chain of the table, rule by rule.
type chain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	rules    [][]expr.Any
}

var (
	table = []chain{
		{"pre", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, [][]expr.Any{
			match(udpDestination, portBOOTP, to(portBOOTPInside), destinationNAT),
			match(udpDestination, portTFTP, to(portTFTPInside), destinationNAT),
		}},
		{"post", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, [][]expr.Any{
			match(udpSource, portBOOTPInside, to(portBOOTP), sourceNAT),
			match(udpSource, portTFTPInside, to(portTFTP), sourceNAT),
		}},
		{"in", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, [][]expr.Any{
			match(udpDestination, portTFTPInside, &expr.Notrack{}),
		}},
		{"out", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityRaw, [][]expr.Any{
			match(udpSource, portTFTPInside, &expr.Notrack{}),
		}},
	}

	destinationNAT = &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegProtoMin: 1, Specified: true}
	sourceNAT      = &expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegProtoMin: 1, Specified: true}
)

// Offsets in a UDP header (RFC 768).
const (
	udpSource      = 0
	udpDestination = 2
)

// match is the rule "udp, the port at offset is port: do it".
func match(offset uint32, port uint16, do ...expr.Any) []expr.Any {
	return append([]expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)},
	}, do...)
}

// to puts the new port where NAT looks for it.
func to(port uint16) expr.Any {
	return &expr.Immediate{Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)}
}
