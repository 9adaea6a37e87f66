package main

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// link is what the kernel says of an interface.
type link struct {
	index             int
	ethernet          bool   // ARPHRD_ETHER, and not the loopback interface
	virtual           bool   // made by software, on top of another, or part of a bridge, bond or the like
	parentBus, parent string // IFLA_PARENT_DEV_BUS_NAME and IFLA_PARENT_DEV_NAME; Linux 5.14 and later
}

// conn is an rtnetlink socket.
type conn struct{ fd int }

func dialRtnetlink() (conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return conn{}, err
	}
	// A kernel that does not answer must not keep the helper, and its capability, around.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return conn{}, err
	}
	return conn{fd}, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// link asks for one interface, by index.
func (c conn) link(index int) (link, error) {
	reply, err := c.request(getLink(index))
	if err != nil {
		return link{}, err
	}
	return parseLink(reply)
}

// move moves an interface, by index, into the namespace of a descriptor.
func (c conn) move(index, netns int) error {
	_, err := c.request(setLink(index, netns))
	return err
}

// A request is a netlink header and an ifinfomsg, in the byte order of the machine:
//
//	0  u32 length of everything       16 u8  family, 0     24 u32 flags, 0
//	4  u16 type                       17 u8  padding       28 u32 change, 0
//	6  u16 flags                      18 u16 type, 0       32 attributes: u16 length, u16 type, value
//	8  u32 sequence number            20 i32 index
//	12 u32 port, 0 for the kernel
func header(kind, flags uint16, index, attributes int) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg+attributes)
	binary.NativeEndian.PutUint32(b[0:], uint32(cap(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(b[8:], sequence)
	binary.NativeEndian.PutUint32(b[20:], uint32(index))
	return b
}

// sequence marks the helper's requests. It sends the next one only after the answer to the last.
const sequence = 1

func getLink(index int) []byte { return header(unix.RTM_GETLINK, 0, index, 0) }

func setLink(index, netns int) []byte {
	b := header(unix.RTM_SETLINK, unix.NLM_F_ACK, index, 8)
	b = binary.NativeEndian.AppendUint16(b, 8)
	b = binary.NativeEndian.AppendUint16(b, unix.IFLA_NET_NS_FD)
	return binary.NativeEndian.AppendUint32(b, uint32(netns))
}

// request sends one message and returns the kernel's answer, empty for an acknowledgement.
func (c conn) request(msg []byte) ([]byte, error) {
	if err := unix.Sendto(c.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<10)
	for range 16 { // what is not an answer of the kernel is passed over, within reason
		n, _, flags, from, err := unix.Recvmsg(c.fd, buf, nil, 0)
		if err != nil {
			return nil, err
		}
		if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
			continue
		}
		if flags&unix.MSG_TRUNC != 0 {
			return nil, unix.EMSGSIZE
		}
		answer, mine, err := parseAnswer(buf[:n])
		if mine {
			return answer, err
		}
	}
	return nil, unix.EPROTO
}

// parseAnswer takes the answer to the request out of a datagram: the datagram itself if it is an
// RTM_NEWLINK, nothing if it is an acknowledgement, or the error that it reports.
func parseAnswer(b []byte) (answer []byte, mine bool, err error) {
	if len(b) < unix.SizeofNlMsghdr || binary.NativeEndian.Uint32(b[8:]) != sequence {
		return nil, false, nil
	}
	switch binary.NativeEndian.Uint16(b[4:]) {
	case unix.RTM_NEWLINK:
		return b, true, nil
	case unix.NLMSG_ERROR: // i32 negative errno, then the request's header
		if len(b) < unix.SizeofNlMsghdr+4 {
			return nil, true, unix.EPROTO
		}
		if e := int32(binary.NativeEndian.Uint32(b[16:])); e != 0 {
			return nil, true, unix.Errno(-e)
		}
		return nil, true, nil
	}
	return nil, false, nil
}

// parseLink decodes an RTM_NEWLINK, which is all that b holds: the header as above, the struct ifinfomsg, then
// attributes, each at a multiple of 4:
//
//	offset size field
//	0      2    length with these 4 bytes, without padding
//	2      2    type; the two highest bits are flags
//	4           value
//
// The functions of package syscall for this panic at an attribute whose padding is missing.
func parseLink(b []byte) (link, error) {
	const start = unix.SizeofNlMsghdr + unix.SizeofIfInfomsg
	if len(b) < start || binary.NativeEndian.Uint16(b[4:]) != unix.RTM_NEWLINK {
		return link{}, unix.EPROTO
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < start || n > len(b) || align(n) < len(b) {
		return link{}, unix.EPROTO
	}
	info, attrs := b[unix.SizeofNlMsghdr:start], b[start:n]
	l := link{index: int(int32(binary.NativeEndian.Uint32(info[4:])))}
	l.ethernet = binary.NativeEndian.Uint16(info[2:]) == unix.ARPHRD_ETHER &&
		binary.NativeEndian.Uint32(info[8:])&unix.IFF_LOOPBACK == 0
	for len(attrs) > 0 {
		if len(attrs) < 4 {
			return link{}, unix.EPROTO
		}
		n := int(binary.NativeEndian.Uint16(attrs))
		if n < 4 || n > len(attrs) {
			return link{}, unix.EPROTO
		}
		value := attrs[4:n]
		switch binary.NativeEndian.Uint16(attrs[2:]) & 0x3fff { // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
		case unix.IFLA_LINKINFO, unix.IFLA_MASTER, unix.IFLA_LINK:
			l.virtual = true
		case unix.IFLA_PARENT_DEV_BUS_NAME:
			l.parentBus = cString(value)
		case unix.IFLA_PARENT_DEV_NAME:
			l.parent = cString(value)
		}
		attrs = attrs[min(align(n), len(attrs)):]
	}
	return l, nil
}

// align rounds up to where the next message or attribute begins.
func align(n int) int { return (n + 3) &^ 3 }

func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
