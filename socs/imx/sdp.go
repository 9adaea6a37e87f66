package imx

import (
	"encoding/binary"
	"fmt"
)

// The Serial Download Protocol: i.MX 6Dual/6Quad reference manual, 8.9.3 "Serial Download Protocol". Commands are 16
// bytes, big-endian:
//
//	offset size field
//	0      2    command, both bytes alike
//	2      4    address
//	6      1    width of an access in bits: 8, 16, 32
//	7      4    number of bytes
//	11     4    value to write
//	15     1    bulk ROMs: what the file is, see fileApplication
//
// Over HID a command is report 1, data are reports 2; the answer is report 3 with the HAB word, then report 4 with what
// the command has to say. Over bulk endpoints nothing is around them.
const (
	cmdReadRegister  = 0x0101
	cmdWriteRegister = 0x0202
	cmdWriteFile     = 0x0404
	cmdErrorStatus   = 0x0505
	cmdWriteDCD      = 0x0a0a
	cmdJump          = 0x0b0b
	cmdSkipDCD       = 0x0c0c

	// fileApplication makes a bulk ROM start what it was sent, at the next command (imx_usb, imx_sdp.c).
	fileApplication = 0xaa
)

// HID reports.
const (
	reportCommand = 1
	reportData    = 2
	reportHAB     = 3
	reportStatus  = 4
)

const commandSize = 16

// command is one command.
type command struct {
	code    uint16
	address uint32
	width   uint8 // bits
	count   uint32
	value   uint32
	file    uint8
}

func (c command) bytes() []byte {
	b := binary.BigEndian.AppendUint16(nil, c.code)
	b = binary.BigEndian.AppendUint32(b, c.address)
	b = append(b, c.width)
	b = binary.BigEndian.AppendUint32(b, c.count)
	b = binary.BigEndian.AppendUint32(b, c.value)
	return append(b, c.file)
}

func (c command) String() string {
	switch c.code {
	case cmdReadRegister:
		return fmt.Sprintf("READ_REGISTER %#08x", c.address)
	case cmdWriteRegister:
		return fmt.Sprintf("WRITE_REGISTER %#08x", c.address)
	case cmdWriteFile:
		return fmt.Sprintf("WRITE_FILE (%d bytes to %#08x)", c.count, c.address)
	case cmdErrorStatus:
		return "ERROR_STATUS"
	case cmdWriteDCD:
		return fmt.Sprintf("DCD_WRITE (%d bytes)", c.count)
	case cmdJump:
		return fmt.Sprintf("JUMP_ADDRESS %#08x", c.address)
	case cmdSkipDCD:
		return "SKIP_DCD_HEADER"
	}
	return fmt.Sprintf("command %04x", c.code)
}

// word is four bytes of an answer, as they came.
type word [4]byte

// The answers that mean success.
var (
	wordOpen     = word{0x56, 0x78, 0x78, 0x56} // HAB: development
	wordClosed   = word{0x12, 0x34, 0x34, 0x12} // HAB: signed images only
	wordWritten  = word{0x12, 0x8a, 0x8a, 0x12} // WRITE_REGISTER, DCD_WRITE
	wordComplete = word{0x88, 0x88, 0x88, 0x88} // WRITE_FILE
	wordSkipped  = word{0x09, 0xd0, 0x0d, 0x90} // SKIP_DCD_HEADER
)

func (w word) String() string { return fmt.Sprintf("% x", w[:]) }

// HAB's status: what happened, why, while doing what, where. HAB4 API reference manual (in NXP's CST), appendix
// "Status codes"; U-Boot, arch/arm/include/asm/mach-imx/hab.h.
const (
	habFailure = 0x33
	habWarning = 0x69
	habSuccess = 0xf0
)

var (
	habStatus = map[byte]string{0x00: "any", habFailure: "failure", habWarning: "warning", habSuccess: "success"}
	habReason = map[byte]string{
		0x00: "any reason", 0x03: "unsupported command", 0x05: "invalid IVT", 0x06: "invalid command", 0x09: "unsuitable state",
		0x0a: "unsupported engine", 0x0c: "invalid assertion", 0x0f: "invalid index", 0x11: "invalid CSF", 0x12: "unsupported algorithm",
		0x14: "unsupported protocol", 0x17: "invalid size", 0x18: "invalid signature", 0x1b: "unsupported key", 0x1d: "invalid key",
		0x1e: "invalid return value", 0x21: "invalid certificate", 0x22: "invalid address", 0x24: "unsupported item", 0x27: "invalid DCD",
		0x28: "invalid call", 0x2b: "count exceeded", 0x2d: "storage exceeded", 0x2e: "memory failure", 0x30: "engine failure",
	}
	habContext = map[byte]string{
		0x00: "anywhere", 0x0a: "authentication", 0x33: "target check", 0xa0: "assertion", 0xc0: "command", 0xcf: "CSF",
		0xdb: "authenticated data", 0xdd: "DCD", 0xe1: "entry", 0xee: "exit",
	}
	habEngine = map[byte]string{
		0x00: "any engine", 0x03: "SCC", 0x05: "RTIC", 0x06: "SAHARA", 0x0a: "CSU", 0x0c: "SRTC", 0x1b: "DCP", 0x1d: "CAAM", 0x1e: "SNVS",
		0x21: "OCOTP", 0x22: "DTCP", 0x24: "HDCP", 0x36: "ROM", 0xff: "software",
	}
)

// hab spells a status out: "33 05 0a 00: failure, invalid IVT, in authentication, any engine".
func (w word) hab() string {
	name := func(names map[byte]string, b byte) string {
		if s, ok := names[b]; ok {
			return s
		}
		return fmt.Sprintf("unknown %#02x", b)
	}
	return fmt.Sprintf("%s: %s, %s, in %s, %s", w, name(habStatus, w[0]), name(habReason, w[1]), name(habContext, w[2]), name(habEngine, w[3]))
}

// The command block of a stream, report 1: uuu's sdps.cpp, ST_HID_CBW. Little-endian, but for the length of the
// command.
//
//	offset size field
//	0      4    signature "BLTC"
//	4      4    tag
//	8      4    number of bytes that follow in reports 2
//	12     1    flags: 0 to the device
//	13     2    reserved
//	15     1    command: 2 download
//	16     4    number of bytes, big-endian
//	20     11   reserved
func commandBlock(n uint32) []byte {
	b := make([]byte, 31)
	copy(b, "BLTC")
	binary.LittleEndian.PutUint32(b[4:], 1)
	binary.LittleEndian.PutUint32(b[8:], n)
	b[15] = 2
	binary.BigEndian.PutUint32(b[16:], n)
	return b
}
