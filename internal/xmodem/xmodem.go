// Package xmodem sends files over a serial line by XMODEM-CRC and YMODEM, the protocols that boot
// ROMs and first-stage loaders speak on their UARTs.
//
// The protocols are described in Chuck Forsberg's "XMODEM/YMODEM Protocol Reference" (1988):
// XMODEM-CRC in chapter 7, 1024-byte blocks in 4.2, YMODEM batches in chapter 5. Where real receivers
// differ, and this package follows them, the receiver is named; U-Boot's is common/xyzModem.c.
//
// A [Sender] lives as long as the line does: [Sender.AwaitPings] until the receiver asks, then
// [Sender.SendXMODEM] or [Sender.SendYMODEM], then again for the next stage. It trusts nothing that
// arrives: other bytes than answers are console noise and skipped, every wait has a deadline,
// every repetition a limit.
package xmodem

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// Control bytes (Forsberg, chapter 3, 7 and 4.2).
const (
	soh = 0x01 // starts a block of 128 bytes
	stx = 0x02 // starts a block of 1024 bytes
	eot = 0x04 // end of the file
	ack = 0x06 // block accepted
	nak = 0x15 // block refused; before the first block: wants 8-bit sums
	can = 0x18 // two in a row cancel the transfer
	bs  = 0x08 // follows CANs, so that they leave no trace on a console
	ctl = 'C'  // wants CRCs; U-Boot also refuses blocks with it
)

// padding fills the last block of a file (Forsberg, chapter 7: CPMEOF).
const padding = 0x1a

// Lengths of a block's data.
const (
	Block128 = 128
	Block1K  = 1024
)

// ErrCancelled says that the receiver cancelled the transfer (CAN CAN).
var ErrCancelled = errors.New("the receiver cancelled the transfer (CAN CAN)")

// appendBlock appends one block as it goes over the line. data is at most size bytes and is padded to it.
//
//	offset    length  field
//	0         1       SOH (size 128) or STX (size 1024)
//	1         1       block number, modulo 256
//	2         1       255 - block number
//	3         size    data
//	3+size    2       CRC-16 of the data, high byte first
func appendBlock(b []byte, number byte, data []byte, size int, pad byte) []byte {
	start := byte(soh)
	if size == Block1K {
		start = stx
	}
	b = append(b, start, number, ^number)
	b = append(b, data...)
	b = append(b, bytes.Repeat([]byte{pad}, size-len(data))...)
	return binary.BigEndian.AppendUint16(b, crc16(b[len(b)-size:]))
}

// crc16 is CRC-16/XMODEM: polynomial 0x1021, start 0, not reflected, nothing added at the end
// (Forsberg, chapter 8).
func crc16(data []byte) uint16 {
	var crc uint16
	for _, c := range data {
		crc ^= uint16(c) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// maxName keeps block 0 within 128 bytes: name, NUL, up to 20 digits, NUL.
const maxName = 100

// header is the data of a YMODEM batch's block 0 (Forsberg, chapter 5), to be padded with NULs.
//
//	offset  length  field
//	0       n       file name, without directories
//	n       1       NUL
//	n+1     m       length of the file in decimal digits
func header(name string, size int) ([]byte, error) {
	name = path.Base(name)
	if name == "." || name == "/" || strings.ContainsRune(name, 0) || len(name) > maxName {
		return nil, fmt.Errorf("ymodem: file name %.120q: expected 1 to %d bytes", name, maxName)
	}
	return strconv.AppendInt(append([]byte(name), 0), int64(size), 10), nil
}
