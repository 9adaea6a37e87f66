package amlogic

import (
	"encoding/binary"
	"fmt"

	"snag/usb"
)

// Requests (pyamlboot, PROTOCOL.md and pyamlboot/pyamlboot.py). All are the vendor's, to the device itself. Where one
// has an address, its upper half is wValue, its lower half wIndex.
const (
	reqWrite    = 0x01 // address; up to 64 bytes
	reqRun      = 0x05 // address; the address with keepPower, 4 bytes
	reqLarge    = 0x11 // wValue: bytes of a block, wIndex: number of blocks; 16 bytes, see largeWrite; then the blocks, bulk OUT
	reqIdentify = 0x20 // to the host: 8 bytes, see identity
	reqAMLC     = 0x50 // wValue: 512; then bulk IN, see ask, and bulk OUT, okay
	reqData     = 0x60 // wValue: offset / 512, wIndex: length - 1; then bulk OUT, and bulk IN, okay

	keepPower = 0x10 // for reqRun; pyamlboot, FLAG_KEEP_POWER_ON
)

const (
	writeSize  = 64      // of one simple write
	unit       = 512     // of offsets, and the size of AMLC and AMLS
	pieceSize  = 0x10000 // of one reqData
	outSize    = 0x4000  // of one bulk transfer in it
	okaySize   = 16
	okayMagic  = "OKAY"
	amlcMagic  = "AMLC"
	amlsMagic  = "AMLS"
	amlsHeader = 16
)

// out is a request to the device.
func out(request uint8, value, index uint16, length int) usb.Setup {
	return usb.Setup{Type: 0x40, Request: request, Value: value, Index: index, Length: uint16(length)}
}

// at is one with an address.
func at(request uint8, addr uint32, length int) usb.Setup {
	return out(request, uint16(addr>>16), uint16(addr), length)
}

// The stages that a board tells to be at.
const (
	stepROM   = 0  // IPL
	stepBL2   = 8  // SPL
	stepUBoot = 16 // TPL: Amlogic's U-Boot
)

// identity is the answer to IDENTIFY. Old ROMs have but the first four bytes.
//
//	offset size field
//	0      2    version of the ROM, major and minor
//	2      1    stage, major
//	3      1    stage, minor: the one that counts
//	4      1    1: a password is needed
//	5      1    1: and was given
//	6      2    -
type identity struct {
	major, minor uint8
	stage        uint8
	locked       bool
}

const identitySize = 8

func parseIdentity(b []byte) (identity, error) {
	if len(b) < 4 {
		return identity{}, fmt.Errorf("expected 4 to %d bytes, got %d: % x", identitySize, len(b), b)
	}
	id := identity{major: b[0], minor: b[1], stage: b[3]}
	if len(b) > 4 && b[4] != 0 {
		id.locked = len(b) < 6 || b[5] == 0
	}
	return id, nil
}

func (id identity) String() string {
	return fmt.Sprintf("ROM version %d.%d, stage %d", id.major, id.minor, id.stage)
}

// largeWrite is what comes with reqLarge: address, length, two words that do not matter.
func largeWrite(addr uint32, length int) []byte {
	b := binary.LittleEndian.AppendUint32(nil, addr)
	b = binary.LittleEndian.AppendUint32(b, uint32(length))
	return append(b, make([]byte, 8)...)
}

// Blocks of parameters for the BL2 of GX and AXG, which pyamlboot has as files (files/usbbl2runpara_*.bin) and Snagboot
// as constants. Little-endian words: magic, version, command; of the others those that are understood are a FIP's
// offset (word 5), address (7) and size (8), which need not be that of the file. The last three of the second are not.
var (
	initDRAM = words(0x3412cdab, 0x200, 0xc0df, 1, 0x00400000, 0x0082c0cc, 0x10000000, 0)
	runFIP   = words(0x3412cdab, 0x200, 0xc0e1, 1, 0, 0xc000, 1, 0x0200c000, 0x000a4000, 0x85cc6257, 0x105e7ec6, 0xdf84f8d4)
)

func words(w ...uint32) (b []byte) {
	for _, v := range w {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// ask is a piece of the file that BL2 wants, the answer to reqAMLC:
//
//	offset size field
//	0      4    "AMLC"
//	4      4    sequence number
//	8      4    length
//	12     4    offset in the file
//	16     496  -
type ask struct{ length, offset uint32 }

func parseAsk(b []byte) (ask, error) {
	if len(b) < 16 || string(b[:4]) != amlcMagic {
		return ask{}, fmt.Errorf("expected %s and where what it wants is, got %d bytes: % x", amlcMagic, len(b), b[:min(len(b), 16)])
	}
	return ask{binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])}, nil
}

// within checks what a BL2 asks for against the size of the file.
func (a ask) within(size int) error {
	switch {
	case a.length == 0:
		return fmt.Errorf("BL2 asks for no bytes, at %#x", a.offset)
	case uint64(a.offset)+uint64(a.length) > uint64(size):
		return fmt.Errorf("BL2 asks for %d bytes at %#x, and the file has %d", a.length, a.offset, size)
	}
	return nil
}

// okay is the acknowledgement, either way.
func okay() []byte {
	b := make([]byte, okaySize)
	copy(b, okayMagic)
	return b
}

// amls ends a piece. It takes the place of the piece's begin, so that BL2 gets that twice:
//
//	offset size field
//	0      4    "AMLS"
//	4      1    sequence number
//	5      3    0
//	8      4    sum of the piece's words, the last filled up with zeros
//	12     4    0
//	16     496  what the piece has there
//
// The peers do not fill up what ends a piece of less than 512 bytes.
func amls(seq int, piece []byte) []byte {
	b := make([]byte, unit)
	copy(b, piece)
	clear(b[:amlsHeader])
	copy(b, amlsMagic)
	b[4] = byte(seq)
	binary.LittleEndian.PutUint32(b[8:], sum32(piece))
	return b
}

func sum32(b []byte) (sum uint32) {
	for ; len(b) >= 4; b = b[4:] {
		sum += binary.LittleEndian.Uint32(b)
	}
	var last [4]byte
	copy(last[:], b)
	return sum + binary.LittleEndian.Uint32(last[:])
}
