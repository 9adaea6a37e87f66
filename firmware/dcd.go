package firmware

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Device configuration data: i.MX 6Dual/6Quad reference manual, 8.7.2 "Device Configuration Data".
// Big-endian. A header, then commands that each have a header of their own:
//
//	offset size field
//	0      1    tag: 0xd2; 0xcc write, 0xcf check, 0xc0 NOP, 0xb2 unlock
//	1      2    length, this header included; of the first header, of all
//	3      1    version 0x40 or 0x41; the commands' parameter
//
// Write and check: parameter bits 0 to 2 are the width in bytes, bit 3 "mask", bit 4 "set".
// A write command has pairs of address and value: mask and set together set the value's bits, mask
// alone clears them, else the value is stored. A check command has an address, a mask and perhaps
// how often to look: without "mask" all bits of the mask are waited for, with it any; to
// become 1 with "set", else 0. An unlock command has the engine as its parameter and values for it.
const (
	cmdWrite  = 0xcc
	cmdCheck  = 0xcf
	cmdNOP    = 0xc0
	cmdUnlock = 0xb2

	// MaxDCDSize is what the ROMs have room for: HAB_MAX_DCD_SIZE in U-Boot, 220 pairs in one write command.
	MaxDCDSize = 1768
)

// DCDOp is what one command of a DCD does.
type DCDOp int

const (
	DCDWrite  DCDOp = iota // store Value
	DCDClear               // clear the bits of Value
	DCDSet                 // set the bits of Value
	DCDCheck               // wait for bits of Value, as Condition says
	DCDNOP                 // nothing
	DCDUnlock              // something with the engine Engine, see the reference manual of the SoC
)

func (op DCDOp) String() string {
	switch op {
	case DCDWrite:
		return "write"
	case DCDClear:
		return "clear bits"
	case DCDSet:
		return "set bits"
	case DCDCheck:
		return "check"
	case DCDNOP:
		return "nop"
	case DCDUnlock:
		return "unlock"
	}
	return fmt.Sprintf("DCDOp(%d)", int(op))
}

// DCDCondition is what a check waits for.
type DCDCondition int

const (
	AllClear DCDCondition = iota // (register & Value) == 0
	AllSet                       // (register & Value) == Value
	AnyClear                     // (register & Value) != Value
	AnySet                       // (register & Value) != 0
)

func (c DCDCondition) String() string {
	switch c {
	case AllClear:
		return "all clear"
	case AllSet:
		return "all set"
	case AnyClear:
		return "any clear"
	case AnySet:
		return "any set"
	}
	return fmt.Sprintf("DCDCondition(%d)", int(c))
}

// Met tells whether a register's value is what is waited for.
func (c DCDCondition) Met(register, mask uint32) bool {
	switch c {
	case AllClear:
		return register&mask == 0
	case AllSet:
		return register&mask == mask
	case AnyClear:
		return register&mask != mask
	default:
		return register&mask != 0
	}
}

// DCDCommand is one command; of a write command with many pairs, one pair.
type DCDCommand struct {
	Offset int // in the DCD: of the pair, or of the command
	Op     DCDOp

	// Write, clear, set, check.
	Width          int // 1, 2 or 4 bytes
	Address, Value uint32

	// Check.
	Condition DCDCondition
	HasCount  bool   // else it looks for ever
	Count     uint32 // how often it looks before it fails; if 0 it does not look at all

	// Unlock.
	Engine byte
	Data   []byte // part of the parsed slice
}

// ParseDCD reads a DCD, header included, as [IVT.DCDBytes] returns it; what follows it is ignored. The commands
// that could be read are returned beside an error, too.
func ParseDCD(b []byte) ([]DCDCommand, error) {
	if len(b) < 4 || b[0] != tagDCD {
		return nil, fmt.Errorf("DCD: expected a header with tag d2, found % x", b[:min(4, len(b))])
	}
	size := int(binary.BigEndian.Uint16(b[1:]))
	switch {
	case b[3]&0xf0 != 0x40:
		return nil, fmt.Errorf("DCD: version %#02x, expected 0x40 or 0x41", b[3])
	case size < 4:
		return nil, fmt.Errorf("DCD: it announces %d bytes, its header alone has 4", size)
	case size > len(b):
		return nil, fmt.Errorf("DCD: %w: it announces %d bytes, there are %d", ErrTruncated, size, len(b))
	case size > MaxDCDSize:
		return nil, fmt.Errorf("DCD: it has %d bytes, the ROMs take at most %d", size, MaxDCDSize)
	}
	var cmds []DCDCommand
	for off := 4; off < size; {
		if size-off < 4 {
			return cmds, fmt.Errorf("DCD: %d bytes after the last command", size-off)
		}
		n := int(binary.BigEndian.Uint16(b[off+1:]))
		if n < 4 || n > size-off {
			return cmds, fmt.Errorf("DCD: the command at %#x announces %d bytes of the %d that are left", off, n, size-off)
		}
		var err error
		if cmds, err = appendDCD(cmds, off, b[off:off+n]); err != nil {
			return cmds, fmt.Errorf("DCD: the command at %#x: %w", off, err)
		}
		off += n
	}
	return cmds, nil
}

// appendDCD decodes the command b, which lies at off of the DCD.
func appendDCD(cmds []DCDCommand, off int, b []byte) ([]DCDCommand, error) {
	tag, param, body := b[0], b[3], b[4:]
	switch tag {
	case cmdNOP:
		if len(body) != 0 {
			return cmds, fmt.Errorf("a NOP of %d bytes, expected 4", len(b))
		}
		return append(cmds, DCDCommand{Offset: off, Op: DCDNOP}), nil
	case cmdUnlock:
		return append(cmds, DCDCommand{Offset: off, Op: DCDUnlock, Engine: param, Data: body}), nil
	case cmdWrite, cmdCheck:
	default:
		return cmds, fmt.Errorf("unknown tag %#02x", tag)
	}
	width := int(param & 7)
	if width != 1 && width != 2 && width != 4 {
		return cmds, fmt.Errorf("access of %d bytes, expected 1, 2 or 4", width)
	}
	word := func(i int) uint32 { return binary.BigEndian.Uint32(body[i:]) }
	mask, set := param&8 != 0, param&16 != 0
	if tag == cmdCheck {
		if len(body) != 8 && len(body) != 12 {
			return cmds, fmt.Errorf("a check of %d bytes, expected 12, or 16 with a count", len(b))
		}
		c := DCDCommand{Offset: off, Op: DCDCheck, Width: width, Address: word(0), Value: word(4)}
		if set {
			c.Condition |= 1
		}
		if mask {
			c.Condition |= 2
		}
		if c.HasCount = len(body) == 12; c.HasCount {
			c.Count = word(8)
		}
		return append(cmds, c), nil
	}
	if len(body)%8 != 0 {
		return cmds, fmt.Errorf("a write of %d bytes: no whole pairs of address and value", len(b))
	}
	op := DCDWrite
	switch {
	case mask && set:
		op = DCDSet
	case mask:
		op = DCDClear
	}
	for i := 0; i < len(body); i += 8 {
		cmds = append(cmds, DCDCommand{Offset: off + 4 + i, Op: op, Width: width, Address: word(i), Value: word(i + 4)})
	}
	return cmds, nil
}

// The DCD of i.MX51 and before, little-endian: U-Boot's include/imximage.h, dcd_v1_t.
//
//	offset size field
//	0      4    barker 0xb17219e9
//	4      4    length of what follows
//	8      12   width in bytes (1, 2, 4), address, value; and so on
const (
	dcdV1Barker = 0xb17219e9
	dcdV1Entry  = 12
	// MaxDCDv1 is the number of entries that the ROMs take: MAX_HW_CFG_SIZE_V1 of U-Boot.
	MaxDCDv1 = 60
)

// ParseDCDv1 reads a DCD of version 1, header included; what follows it is ignored. All its commands are writes.
func ParseDCDv1(b []byte) ([]DCDCommand, error) {
	if len(b) < 8 || binary.LittleEndian.Uint32(b) != dcdV1Barker {
		return nil, errors.New("DCD v1: it does not begin with e9 19 72 b1")
	}
	n := binary.LittleEndian.Uint32(b[4:])
	switch {
	case n%dcdV1Entry != 0:
		return nil, fmt.Errorf("DCD v1: %d bytes are no whole entries of %d", n, dcdV1Entry)
	case n > MaxDCDv1*dcdV1Entry:
		return nil, fmt.Errorf("DCD v1: %d entries, the ROMs take at most %d", n/dcdV1Entry, MaxDCDv1)
	case int(n) > len(b)-8:
		return nil, fmt.Errorf("DCD v1: %w: it announces %d bytes, there are %d", ErrTruncated, n, len(b)-8)
	}
	var cmds []DCDCommand
	for off := 8; off < 8+int(n); off += dcdV1Entry {
		word := func(i int) uint32 { return binary.LittleEndian.Uint32(b[off+i:]) }
		width := word(0)
		if width != 1 && width != 2 && width != 4 {
			return cmds, fmt.Errorf("DCD v1: the entry at %#x: access of %d bytes, expected 1, 2 or 4", off, width)
		}
		cmds = append(cmds, DCDCommand{Offset: off, Op: DCDWrite, Width: int(width), Address: word(4), Value: word(8)})
	}
	return cmds, nil
}
