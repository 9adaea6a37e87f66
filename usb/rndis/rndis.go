// Package rndis makes and reads the messages of RNDIS, by which a USB device is a network adapter: bytes in, bytes out.
// What carries them is package snag/usb/usbnet.
//
// It is specified in Microsoft's [MS-RNDIS], "Remote Network Driver Interface Specification (RNDIS) Protocol", and the
// object identifiers in NDIS; over USB control messages go as CDC's encapsulated commands (CDC 1.2, sections 6.2.1 and
// 6.2.2) and data messages over the bulk endpoints. What devices make of it is U-Boot's drivers/usb/gadget/rndis.c, and
// Linux's drivers/net/usb/rndis_host.c what they expect.
//
// All that comes from a device is taken to be hostile: nothing here allocates by a length that a message states, and
// what is returned points into what was read.
package rndis

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Message types ([MS-RNDIS], section 2.2). A completion has bit 31 set.
const (
	TypePacket     = 1
	TypeInitialize = 2
	TypeHalt       = 3
	TypeQuery      = 4
	TypeSet        = 5
	TypeReset      = 6
	TypeIndicate   = 7
	TypeKeepalive  = 8
	Completion     = 0x80000000
)

// StatusSuccess is the status of a request that was carried out; all others are refusals ([MS-RNDIS], section
// 2.2.1.2.4).
const StatusSuccess = 0

// Object identifiers (NDIS; [MS-RNDIS], section 2.2.4).
const (
	OIDPacketFilter     = 0x0001010e // OID_GEN_CURRENT_PACKET_FILTER
	OIDPermanentAddress = 0x01010101 // OID_802_3_PERMANENT_ADDRESS
)

// Packet filter bits (NDIS).
const (
	FilterDirected     = 0x01
	FilterAllMulticast = 0x04
	FilterBroadcast    = 0x08
	FilterPromiscuous  = 0x20
)

const (
	// HeaderSize is the length of a data message in front of its frame.
	HeaderSize = 44

	// MaxControl is the length of the longest answer that a host makes room for (Linux, rndis_host.h,
	// CONTROL_BUFFER_SIZE).
	MaxControl = 1025
)

var le = binary.LittleEndian

// message makes a control message of 32-bit words; its length is filled in.
func message(words ...uint32) []byte {
	b := make([]byte, 0, 4*len(words))
	for _, w := range words {
		b = le.AppendUint32(b, w)
	}
	le.PutUint32(b[4:], uint32(len(b)))
	return b
}

// Initialize opens a session ([MS-RNDIS], section 2.2.2). maxTransfer is what the host has room for in one bulk
// transfer.
//
//	off size
//	0   4    type, 2
//	4   4    length, 24
//	8   4    request ID
//	12  4    major version, 1
//	16  4    minor version, 0
//	20  4    the longest transfer to the host
func Initialize(id, maxTransfer uint32) []byte {
	return message(TypeInitialize, 0, id, 1, 0, maxTransfer)
}

// Query asks for an object ([MS-RNDIS], section 2.2.9).
//
//	off size
//	0   4    type, 4
//	4   4    length, 28
//	8   4    request ID
//	12  4    object identifier
//	16  4    length of the input, 0
//	20  4    its offset from off 8, 20
//	24  4    reserved
func Query(id, oid uint32) []byte {
	return message(TypeQuery, 0, id, oid, 0, 20, 0)
}

// SetFilter says which frames the device is to pass on: with more than none the link is up ([MS-RNDIS], section
// 2.2.11).
//
//	off size
//	0   4    type, 5
//	4   4    length, 32
//	8   4    request ID
//	12  4    object identifier, 0x0001010e
//	16  4    length of the value, 4
//	20  4    its offset from off 8, 20
//	24  4    reserved
//	28  4    the filter
func SetFilter(id, filter uint32) []byte {
	return message(TypeSet, 0, id, OIDPacketFilter, 4, 20, 0, filter)
}

// Halt ends the session; there is no answer ([MS-RNDIS], section 2.2.4): type 3, length 12, request ID.
func Halt(id uint32) []byte { return message(TypeHalt, 0, id) }

// Keepalive asks for a sign of life ([MS-RNDIS], section 2.2.15): type 8, length 12, request ID.
func Keepalive(id uint32) []byte { return message(TypeKeepalive, 0, id) }

// KeepaliveAnswer answers one of the device's ([MS-RNDIS], section 2.2.16): type 0x80000008, length 16, request ID,
// status.
func KeepaliveAnswer(id uint32) []byte {
	return message(TypeKeepalive|Completion, 0, id, StatusSuccess)
}

// Message is a control message of a device's.
//
//	off size
//	0   4    type
//	4   4    length, of all of it
//	8   4    request ID, of a completion or a keep-alive
//	12  4    status, of a completion
type Message struct {
	Type, ID, Status uint32
	b                []byte
}

// ErrNone is the answer of a device that has no message yet: one byte of 0, or nothing ([MS-RNDIS], section 2.1.1.1).
var ErrNone = errors.New("no RNDIS message yet")

// Parse reads a control message. What follows it in b is passed over.
func Parse(b []byte) (Message, error) {
	if len(b) < 2 {
		return Message{}, ErrNone
	}
	if len(b) < 12 {
		return Message{}, fmt.Errorf("RNDIS control message of %d bytes, expected 12 at least", len(b))
	}
	length := le.Uint32(b[4:])
	if length < 12 || uint64(length) > uint64(len(b)) {
		return Message{}, fmt.Errorf("RNDIS control message of type %#x says its length is %d; %d bytes came", le.Uint32(b), length, len(b))
	}
	m := Message{Type: le.Uint32(b), ID: le.Uint32(b[8:]), b: b[:length]}
	if m.Type&Completion != 0 && m.Type != TypeReset|Completion { // a reset's has its status in the place of the ID
		if length < 16 {
			return Message{}, fmt.Errorf("RNDIS completion of type %#x of %d bytes, expected 16 at least", m.Type, length)
		}
		m.Status = le.Uint32(b[12:])
	}
	return m, nil
}

// Limits are what a device says of its data messages.
type Limits struct {
	MaxPackets  uint32 // in one transfer to the device
	MaxTransfer uint32 // bytes of one
	Medium      uint32 // 0: Ethernet
}

// Limits reads the completion of Initialize ([MS-RNDIS], section 2.2.3).
//
//	off size
//	0   16   type 0x80000002, length 52, request ID, status
//	16  8    major, minor version
//	24  4    device flags
//	28  4    medium
//	32  4    packets in a transfer
//	36  4    bytes of a transfer
//	40  12   alignment exponent, reserved
func (m Message) Limits() (Limits, error) {
	if m.Type != TypeInitialize|Completion || len(m.b) < 40 {
		return Limits{}, fmt.Errorf("RNDIS answer to INITIALIZE: type %#x of %d bytes, expected %#x of 52", m.Type, len(m.b), uint32(TypeInitialize|Completion))
	}
	return Limits{Medium: le.Uint32(m.b[28:]), MaxPackets: le.Uint32(m.b[32:]), MaxTransfer: le.Uint32(m.b[36:])}, nil
}

// Value reads the completion of Query ([MS-RNDIS], section 2.2.10). It points into the message.
//
//	off size
//	0   16   type 0x80000004, length, request ID, status
//	16  4    length of the value
//	20  4    its offset from off 8
func (m Message) Value() ([]byte, error) {
	if m.Type != TypeQuery|Completion || len(m.b) < 24 {
		return nil, fmt.Errorf("RNDIS answer to QUERY: type %#x of %d bytes, expected %#x of 24 at least", m.Type, len(m.b), uint32(TypeQuery|Completion))
	}
	length, begin := uint64(le.Uint32(m.b[16:])), 8+uint64(le.Uint32(m.b[20:]))
	if begin < 24 && length > 0 || begin+length > uint64(len(m.b)) {
		return nil, fmt.Errorf("RNDIS answer to QUERY: value at %d to %d of a message of %d bytes", begin, begin+length, len(m.b))
	}
	return m.b[min(begin, uint64(len(m.b))):][:length], nil
}

// AppendPacket appends a data message with a frame ([MS-RNDIS], section 2.2.14).
//
//	off size
//	0   4    type, 1
//	4   4    length, 44 and the frame's
//	8   4    offset of the frame from here, 36
//	12  4    length of the frame
//	16  28   out-of-band data, per-packet information, reserved: 0
//	44  -    the frame
func AppendPacket(b, frame []byte) []byte {
	b = le.AppendUint32(b, TypePacket)
	b = le.AppendUint32(b, HeaderSize+uint32(len(frame)))
	b = le.AppendUint32(b, HeaderSize-8)
	b = le.AppendUint32(b, uint32(len(frame)))
	b = append(b, make([]byte, HeaderSize-16)...)
	return append(b, frame...)
}

// NextPacket takes the first data message from a transfer, which may have several, and returns its frame, which points
// into b, and what follows it. What is too short for another message is padding: then both are nil.
func NextPacket(b []byte) (frame, rest []byte, err error) {
	if len(b) < HeaderSize {
		return nil, nil, nil
	}
	length := uint64(le.Uint32(b[4:]))
	switch typ := le.Uint32(b); {
	case typ != TypePacket:
		return nil, nil, fmt.Errorf("RNDIS data message of type %#x, expected 1", typ)
	case length < HeaderSize || length > uint64(len(b)):
		return nil, nil, fmt.Errorf("RNDIS data message of length %d in a transfer of which %d bytes are left", length, len(b))
	}
	begin := 8 + uint64(le.Uint32(b[8:]))
	end := begin + uint64(le.Uint32(b[12:]))
	if begin < HeaderSize || end > length {
		return nil, nil, fmt.Errorf("RNDIS data at %d to %d of a message of %d bytes", begin, end, length)
	}
	return b[begin:end:end], b[length:], nil
}
