package usbdev

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// RNDIS messages ([MS-RNDIS], section 2.2), all little-endian 32-bit words. A control message begins
//
//	off size
//	0   4    message type; a completion is the type with bit 31 set
//	4   4    message length
//	8   4    request ID
//
// and goes on as told at each. Completions carry a status at 12.
const (
	rndisPacket     = 1
	rndisInitialize = 2
	rndisHalt       = 3
	rndisQuery      = 4
	rndisSet        = 5
	rndisReset      = 6
	rndisKeepalive  = 8
	rndisCompletion = 0x80000000

	rndisStatusSuccess      = 0
	rndisStatusNotSupported = 0xc00000bb
	rndisStatusInvalidData  = 0xc0010015
)

// Object identifiers that a host asks for or sets ([MS-RNDIS], section 2.2.4; NDIS).
const (
	oidSupportedList    = 0x00010101
	oidHardwareStatus   = 0x00010102
	oidMediaSupported   = 0x00010103
	oidMediaInUse       = 0x00010104
	oidMaxFrameSize     = 0x00010106
	oidLinkSpeed        = 0x00010107
	oidVendorID         = 0x0001010c
	oidVendorDesc       = 0x0001010d
	oidPacketFilter     = 0x0001010e
	oidMaxTotalSize     = 0x00010111
	oidMediaConnected   = 0x00010114
	oidPermanentAddress = 0x01010101
	oidCurrentAddress   = 0x01010102
	oidMaxListSize      = 0x01010104
)

const (
	rndisHeader  = 44  // bytes before a frame
	rndisMaxCtrl = 256 // bytes of the longest control message that is looked at
	maxFrame     = 1514
	rndisMaxData = rndisHeader + maxFrame + 22 // as U-Boot's gadget announces it
)

// encodeRNDISPacket puts a frame into a data message:
//
//	off size
//	0   4    type, 1
//	4   4    message length, 44 + frame
//	8   4    offset of the frame from here, 36
//	12  4    frame length
//	16  28   out-of-band data, per-packet information, reserved: 0
func encodeRNDISPacket(frame []byte) []byte {
	b := make([]byte, rndisHeader, rndisHeader+len(frame)+1)
	binary.LittleEndian.PutUint32(b[0:], rndisPacket)
	binary.LittleEndian.PutUint32(b[4:], uint32(rndisHeader+len(frame)))
	binary.LittleEndian.PutUint32(b[8:], rndisHeader-8)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(frame)))
	return append(b, frame...)
}

// decodeRNDISPackets returns the frames of one transfer, which point into b. Bytes after the last
// message that are too few for another are padding.
func decodeRNDISPackets(b []byte) ([][]byte, error) {
	var frames [][]byte
	for len(b) >= rndisHeader {
		typ, length := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		if typ != rndisPacket {
			return frames, fmt.Errorf("RNDIS data message of type %#x, expected 1", typ)
		}
		if length < rndisHeader || uint64(length) > uint64(len(b)) {
			return frames, fmt.Errorf("RNDIS data message of length %d in a transfer of %d bytes", length, len(b))
		}
		start := 8 + uint64(binary.LittleEndian.Uint32(b[8:]))
		end := start + uint64(binary.LittleEndian.Uint32(b[12:]))
		if start < 16 || end > uint64(length) {
			return frames, fmt.Errorf("RNDIS data at %d to %d of a message of %d bytes", start, end, length)
		}
		frames = append(frames, b[start:end])
		b = b[length:]
	}
	return frames, nil
}

// rndisState is the control side of an RNDIS function.
type rndisState struct {
	hostMAC [6]byte // what the host's interface is to have
	vendor  string

	initialized bool
	filter      uint32
}

var errRNDISMessage = errors.New("malformed RNDIS control message")

// command handles one control message and returns the response, nil for none.
func (r *rndisState) command(b []byte) ([]byte, error) {
	if len(b) < 12 || len(b) > rndisMaxCtrl {
		return nil, fmt.Errorf("%w: %d bytes", errRNDISMessage, len(b))
	}
	word := func(off int) uint32 {
		if off+4 > len(b) {
			return 0
		}
		return binary.LittleEndian.Uint32(b[off:])
	}
	typ, id := word(0), word(8)
	switch typ {
	case rndisInitialize:
		// request: 12 major version, 16 minor version, 20 max transfer size
		r.initialized, r.filter = true, 0
		return words(typ|rndisCompletion, 52, id, rndisStatusSuccess,
			1, 0, // version
			1,            // device flags: connectionless
			0,            // medium: 802.3
			1,            // packets per transfer
			rndisMaxData, // bytes per transfer
			0, 0, 0), nil // alignment exponent, reserved
	case rndisHalt:
		r.initialized, r.filter = false, 0
		return nil, nil
	case rndisQuery:
		// request: 12 OID, 16 length and 20 offset from 8 of the input, 24 reserved
		// response: 12 status, 16 length and 20 offset from 8 of the output
		info, ok := r.query(word(12))
		if !ok {
			return words(typ|rndisCompletion, 24, id, rndisStatusNotSupported, 0, 0), nil
		}
		return append(words(typ|rndisCompletion, uint32(24+len(info)), id, rndisStatusSuccess, uint32(len(info)), 16), info...), nil
	case rndisSet:
		// request: 12 OID, 16 length and 20 offset from 8 of the input, 24 reserved
		status := uint32(rndisStatusNotSupported)
		if word(12) == oidPacketFilter {
			start := 8 + uint64(word(20))
			if word(16) < 4 || start < 28 || start+4 > uint64(len(b)) {
				status = rndisStatusInvalidData
			} else if r.initialized {
				status, r.filter = rndisStatusSuccess, binary.LittleEndian.Uint32(b[start:])
			}
		} else if word(12) == 0x01010103 { // multicast list: all pass
			status = rndisStatusSuccess
		}
		return words(typ|rndisCompletion, 16, id, status), nil
	case rndisReset:
		// response: 8 status, 12 addressing reset
		return words(typ|rndisCompletion, 16, rndisStatusSuccess, 1), nil
	case rndisKeepalive:
		return words(typ|rndisCompletion, 16, id, rndisStatusSuccess), nil
	}
	return nil, fmt.Errorf("%w: type %#x", errRNDISMessage, typ)
}

func (r *rndisState) query(oid uint32) ([]byte, bool) {
	switch oid {
	case oidSupportedList:
		return words(oidSupportedList, oidHardwareStatus, oidMediaSupported, oidMediaInUse, oidMaxFrameSize, oidLinkSpeed,
			oidVendorID, oidVendorDesc, oidPacketFilter, oidMaxTotalSize, oidMediaConnected,
			oidPermanentAddress, oidCurrentAddress, oidMaxListSize), true
	case oidHardwareStatus, oidMediaSupported, oidMediaInUse, oidMediaConnected:
		return words(0), true
	case oidMaxFrameSize:
		return words(maxFrame - 14), true
	case oidLinkSpeed:
		return words(4_800_000), true // in units of 100 bit/s
	case oidVendorID:
		return words(0x00ffffff), true
	case oidVendorDesc:
		return append([]byte(r.vendor), 0), true
	case oidPacketFilter:
		return words(r.filter), true
	case oidMaxTotalSize:
		return words(rndisMaxData), true
	case oidPermanentAddress, oidCurrentAddress:
		return r.hostMAC[:], true
	case oidMaxListSize:
		return words(1), true
	}
	return nil, false
}

func words(w ...uint32) []byte {
	b := make([]byte, 0, 4*len(w))
	for _, v := range w {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}
