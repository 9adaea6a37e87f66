// Package usbip serves a [usbdev.Device] over the USB/IP protocol: to the kernel's vhci_hcd over any
// stream, and to a stock "usbip attach" over TCP ([Server]).
//
// The protocol is the one of the kernel document Documentation/usb/usbip_protocol.rst, version
// 1.1.1; all words are big-endian. Isochronous transfers are refused.
package usbip

import (
	"encoding/binary"
	"fmt"
	"io"
	"syscall"

	"snag/sim/usbdev"
)

// Commands of the transfer phase.
const (
	cmdSubmit = 1
	cmdUnlink = 2
	retSubmit = 3
	retUnlink = 4
)

const (
	headerLen   = 48
	maxTransfer = 16 << 20 // bytes; the kernel's usbfs allows no more either
	maxPending  = 1024     // transfers at once
	maxFirst    = 1 << 20  // bytes of a transfer that memory is made for before they have come

	flagZeroPacket = 0x40 // URB_ZERO_PACKET
)

// request is a CMD_SUBMIT or CMD_UNLINK:
//
//	off size                           off size
//	0   4    command                   24  4    submit: transfer length
//	4   4    sequence number           28  4    submit: start frame
//	8   4    device: bus<<16 | number  32  4    submit: isochronous packets, 0 or -1 for none
//	12  4    direction, 1 to host      36  4    submit: interval
//	16  4    endpoint number           40  8    submit: setup packet
//	20  4    submit: flags of the URB  48  n    submit to the device: data
//	         unlink: sequence number
type request struct {
	command uint32
	seq     uint32
	toHost  bool
	ep      uint8 // with the direction bit
	flags   uint32
	unlink  uint32
	length  int
	isoPkts int32
	setup   usbdev.Setup
	data    []byte // to the device
}

// readRequest reads one request. An error means that the stream cannot be followed any further.
func readRequest(r io.Reader) (*request, error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return nil, err
	}
	word := func(off int) uint32 { return binary.BigEndian.Uint32(h[off:]) }
	q := &request{
		command: word(0),
		seq:     word(4),
		toHost:  word(12) == 1,
		flags:   word(20),
		unlink:  word(20),
		isoPkts: int32(word(32)),
		setup:   usbdev.ParseSetup([8]byte(h[40:48])),
	}
	switch q.command {
	case cmdUnlink:
		return q, nil
	case cmdSubmit:
	default:
		return nil, fmt.Errorf("USB/IP command %#x, expected 1 or 2", q.command)
	}
	if word(12) > 1 || word(16) > 15 {
		return nil, fmt.Errorf("USB/IP submit for endpoint %d, direction %d", word(16), word(12))
	}
	q.ep = uint8(word(16))
	if q.toHost && q.ep != 0 {
		q.ep |= 0x80
	}
	if word(24) > maxTransfer {
		return nil, fmt.Errorf("USB/IP transfer of %d bytes, at most %d are taken", word(24), maxTransfer)
	}
	q.length = int(word(24))
	if !q.toHost && q.length > 0 {
		var err error
		if q.data, err = readData(r, q.length); err != nil {
			return nil, err
		}
	}
	if q.isoPkts > 0 {
		// Sixteen bytes a packet follow; they must be read to stay in step.
		if q.isoPkts > 1024 {
			return nil, fmt.Errorf("USB/IP submit with %d isochronous packets", q.isoPkts)
		}
		if _, err := io.CopyN(io.Discard, r, 16*int64(q.isoPkts)); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// readData reads n bytes. A length alone costs no more memory than maxFirst: room is made as bytes come.
func readData(r io.Reader, n int) ([]byte, error) {
	var data []byte
	for have := 0; have < n; have = len(data) {
		data = append(data, make([]byte, min(n-have, max(have, maxFirst)))...)
		if _, err := io.ReadFull(r, data[have:]); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// appendReply appends a RET_SUBMIT or RET_UNLINK:
//
//	off size                       off size
//	0   4    command               24  4    submit: actual length
//	4   4    sequence number       28  4    submit: start frame
//	8   12   0                     32  4    submit: isochronous packets
//	20  4    status: 0 or -errno   36  4    submit: errors
//	                               48  n    submit to the host: data
func appendReply(to []byte, command, seq uint32, status int32, actual int, data []byte) []byte {
	var b [headerLen]byte
	binary.BigEndian.PutUint32(b[0:], command)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[20:], uint32(status))
	binary.BigEndian.PutUint32(b[24:], uint32(actual))
	return append(append(to, b[:]...), data...)
}

// status is the kernel's URB status for an error of a device.
func status(err error) int32 {
	switch err {
	case nil:
		return 0
	case usbdev.ErrStall:
		return -int32(syscall.EPIPE)
	case usbdev.ErrGone:
		return -int32(syscall.ESHUTDOWN)
	case usbdev.ErrOverflow:
		return -int32(syscall.EOVERFLOW)
	default:
		return -int32(syscall.EPROTO)
	}
}
