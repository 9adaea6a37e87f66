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

// nat is the table of the namespace, in the words of nft(8):
//
//	table ip snag {
//		chain pre  { type nat hook prerouting priority dstnat; policy accept;
//			udp dport 67 dnat to :9067
//			udp dport 69 dnat to :9069 }
//		chain post { type nat hook postrouting priority srcnat; policy accept;
//			udp sport 9067 snat to :67
//			udp sport 9069 snat to :69 }
//	}
//
// It must be dnat, not redirect: that would replace the broadcast address of a BOOTP request by the
// interface's, and the kernel accepts the source 0.0.0.0 with a broadcast only. What answers within a
// translated flow is translated back without a rule; the second chain is for what begins a flow, like a
// BOOTP reply to the broadcast address. The server's address is right as it is, so it needs no masquerade
// (whose port the kernel heeds only with a flag that expr.Masq does not send).
type nat struct {
	table     *nftables.Table
	pre, post *nftables.Chain
	rules     []*nftables.Rule
}

func newNAT() nat {
	accept := nftables.ChainPolicyAccept
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "snag"}
	pre := &nftables.Chain{
		Name: "pre", Table: t, Type: nftables.ChainTypeNAT, Policy: &accept,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	}
	post := &nftables.Chain{
		Name: "post", Table: t, Type: nftables.ChainTypeNAT, Policy: &accept,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	}
	dnat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegProtoMin: 1, Specified: true}
	snat := &expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegProtoMin: 1, Specified: true}
	rule := func(c *nftables.Chain, offset uint32, from, to uint16, do expr.Any) *nftables.Rule {
		return &nftables.Rule{Table: t, Chain: c, Exprs: translate(offset, from, to, do)}
	}
	return nat{t, pre, post, []*nftables.Rule{
		rule(pre, udpDestination, portBOOTP, portBOOTPInside, dnat),
		rule(pre, udpDestination, portTFTP, portTFTPInside, dnat),
		rule(post, udpSource, portBOOTPInside, portBOOTP, snat),
		rule(post, udpSource, portTFTPInside, portTFTP, snat),
	}}
}

// Offsets in a UDP header (RFC 768).
const (
	udpSource      = 0
	udpDestination = 2
)

// translate is the rule "udp port at offset is from: do it, with the new port to".
func translate(offset uint32, from, to uint16, do expr.Any) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, from)},
		&expr.Immediate{Register: 1, Data: binary.BigEndian.AppendUint16(nil, to)},
		do,
	}
}

// install gives the table to the kernel, all of it or nothing.
func (n nat) install() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.AddTable(n.table)
	c.AddChain(n.pre)
	c.AddChain(n.post)
	for _, r := range n.rules {
		c.AddRule(r)
	}
	return c.Flush()
}
