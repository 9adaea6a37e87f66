package qcom

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sahara's packets (qdl, src/sahara.c; edl, sahara_defs.py), little-endian. Each begins with
//
//	off size
//	0   4    command
//	4   4    length of the packet
//
// and goes on, of those that a board sends, with
//
//	command            length  fields, of 4 bytes but where it says 8
//	0x01 HELLO         48      8: version, 12: oldest compatible version, 16: longest packet, 20: mode, 24: 6 reserved
//	0x03 READ_DATA     20      8: image id, 12: offset, 16: length
//	0x04 END_IMAGE_TX  16      8: image id, 12: status
//	0x06 DONE_RESP     12      8: 0 more images are to come, 1 complete
//	0x08 RESET_RESP    8
//	0x09 MEM_DEBUG     16      8: address of a table, 12: its length
//	0x0b CMD_READY     8
//	0x0e EXECUTE_RESP  16      8: client command, 12: length of its data
//	0x10 MEM_DEBUG64   24      8 (8): address of a table, 16 (8): its length
//	0x12 READ_DATA64   32      8 (8): image id, 16 (8): offset, 24 (8): length
//
// and of those that the host sends here
//
//	0x02 HELLO_RESP    48      8: version, 12: oldest compatible version, 16: status, 20: mode, 24: 6 reserved
//	0x05 DONE          8
//	0x07 RESET         8
//	0x0c SWITCH_MODE   12      8: mode
const (
	cmdHello       = 0x01
	cmdHelloResp   = 0x02
	cmdReadData    = 0x03
	cmdEndImage    = 0x04
	cmdDone        = 0x05
	cmdDoneResp    = 0x06
	cmdReset       = 0x07
	cmdResetResp   = 0x08
	cmdMemDebug    = 0x09
	cmdReady       = 0x0b
	cmdSwitchMode  = 0x0c
	cmdExecuteResp = 0x0e
	cmdMemDebug64  = 0x10
	cmdReadData64  = 0x12
)

// commands are the names and lengths of what a board may send.
var commands = map[uint32]struct {
	name   string
	length int
}{
	cmdHello:       {"HELLO", 48},
	cmdReadData:    {"READ_DATA", 20},
	cmdEndImage:    {"END_IMAGE_TX", 16},
	cmdDoneResp:    {"DONE_RESP", 12},
	cmdResetResp:   {"RESET_RESP", 8},
	cmdMemDebug:    {"MEM_DEBUG", 16},
	cmdReady:       {"CMD_READY", 8},
	cmdExecuteResp: {"EXECUTE_RESP", 16},
	cmdMemDebug64:  {"MEM_DEBUG64", 24},
	cmdReadData64:  {"READ_DATA64", 32},
}

// The modes of HELLO and its answer. Two are about images: more are to come, or this is the last.
const (
	modePending  = 0
	modeComplete = 1
	modeDump     = 2
	modeCommand  = 3
)

// packet is what a board said. Which fields there are depends on the command.
type packet struct {
	Command         uint32
	Version, Oldest uint32 // HELLO
	Mode            uint32 // HELLO
	Image           uint64 // READ_DATA, READ_DATA64, END_IMAGE_TX
	Offset, Length  uint64 // READ_DATA, READ_DATA64
	Status          uint32 // END_IMAGE_TX, DONE_RESP
}

func (p packet) String() string {
	if p.Command == cmdReadData || p.Command == cmdReadData64 {
		return fmt.Sprintf("%s of image %d, %d bytes at %#x", commands[p.Command].name, p.Image, p.Length, p.Offset)
	}
	return commands[p.Command].name
}

// errPacket is what is no packet of Sahara's.
var errPacket = errors.New("no Sahara packet")

// parsePacket decodes one transfer. Its errors wrap errPacket.
func parsePacket(b []byte) (packet, error) {
	if len(b) < 8 {
		return packet{}, fmt.Errorf("%w: expected 8 bytes at least, got %d: % x", errPacket, len(b), b)
	}
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	p := packet{Command: word(0)}
	c, ok := commands[p.Command]
	switch {
	case !ok:
		return p, fmt.Errorf("%w: command %#x, which is not known, in %d bytes: % x", errPacket, p.Command, len(b), b[:min(len(b), 48)])
	case uint64(word(4)) != uint64(len(b)):
		return p, fmt.Errorf("%w: %s says that it has %d bytes, %d came", errPacket, c.name, word(4), len(b))
	case len(b) != c.length:
		return p, fmt.Errorf("%w: %s of %d bytes, expected %d", errPacket, c.name, len(b), c.length)
	}
	switch p.Command {
	case cmdHello:
		p.Version, p.Oldest, p.Mode = word(8), word(12), word(20)
	case cmdReadData:
		p.Image, p.Offset, p.Length = uint64(word(8)), uint64(word(12)), uint64(word(16))
	case cmdReadData64:
		wide := func(off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
		p.Image, p.Offset, p.Length = wide(8), wide(16), wide(24)
	case cmdEndImage:
		p.Image, p.Status = uint64(word(8)), word(12)
	case cmdDoneResp:
		p.Status = word(8)
	}
	return p, nil
}

// request encodes a packet for the board.
func request(command uint32, words ...uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, command)
	b = binary.LittleEndian.AppendUint32(b, uint32(8+4*len(words)))
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// newest is the latest version of Sahara that is spoken here.
const newest = 3

// helloResponse answers a HELLO. The version is the board's unless that is newer than all that is known, as far as it
// lets be.
func helloResponse(version, oldest, mode uint32) []byte {
	return request(cmdHelloResp, max(min(version, newest), oldest), 1, 0, mode, 0, 0, 0, 0, 0, 0)
}
