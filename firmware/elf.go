package firmware

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// An ELF file: System V gABI, chapter 4 "Object Files" and 5 "Program Loading". debug/elf is not hardened against
// hostile files; what a board's loader needs is little. The header, with the offsets of 32 and of 64 bits:
//
//	offset    size field
//	0         4    7f "ELF"
//	4         1    1 for 32 bits, 2 for 64
//	5         1    1 for little-endian, 2 for big-endian
//	16        2    type: 2 executable, 3 shared
//	18        2    machine
//	24        4, 8 entry point
//	28 / 32   4, 8 offset of the program headers
//	42 / 54   2    size of one
//	44 / 56   2    number of them
//
// A program header:
//
//	0         4    type; 1 is to be loaded
//	4 / 8     4, 8 offset in the file
//	8 / 16    4, 8 virtual address
//	12 / 24   4, 8 physical address
//	16 / 32   4, 8 bytes in the file
//	20 / 40   4, 8 bytes in memory
//	24 / 4    4    flags: 1 to be executed, 2 written, 4 read
const (
	elfMagic      = "\x7fELF"
	elfMaxHeaders = 256
	elfLoad       = 1
)

// ELF is what of an ELF file concerns whoever loads it.
type ELF struct {
	Bits     int // 32 or 64
	Big      bool
	Type     uint16
	Machine  uint16
	Entry    uint64
	Segments []ELFSegment // those that are to be loaded
	Headers  []ELFHeader  // all program headers
}

// ELFHeader is a program header of any type.
type ELFHeader struct {
	Type, Flags uint32
	Offset      int    // in the file
	Size        uint64 // bytes in the file
	Data        []byte // those that are there
}

// ELFSegment is a program header of type PT_LOAD.
type ELFSegment struct {
	Offset   int // in the file
	Data     []byte
	Virtual  uint64
	Physical uint64
	Memory   uint64 // bytes in memory, of which those behind Data are 0
	Flags    uint32
}

// MachineName names the processor.
func (e *ELF) MachineName() string { return elfMachine(e.Machine) }

func elfMachine(m uint16) string {
	name := map[uint16]string{3: "x86", 8: "MIPS", 20: "PowerPC", 40: "ARM", 62: "x86-64", 183: "64-bit ARM", 189: "MicroBlaze", 243: "RISC-V"}[m]
	if name == "" {
		return fmt.Sprintf("machine %d", m)
	}
	return name
}

// TypeName names the type of file.
func (e *ELF) TypeName() string {
	switch e.Type {
	case 1:
		return "relocatable"
	case 2:
		return "executable"
	case 3:
		return "shared"
	}
	return fmt.Sprintf("type %d", e.Type)
}

// ParseELF reads the header and the program headers. If a segment lies outside of the file, the rest is returned with
// the error.
func ParseELF(b []byte) (*ELF, error) {
	if !matches(b, 0, elfMagic) || len(b) < 20 {
		return nil, errors.New("no ELF file: it does not begin with 7f \"ELF\"")
	}
	var order binary.ByteOrder = binary.LittleEndian
	e := &ELF{Bits: 32, Big: b[5] == 2}
	header, size := 52, 32
	if b[4] == 2 {
		e.Bits, header, size = 64, 64, 56
	}
	if e.Big {
		order = binary.BigEndian
	}
	if b[4] < 1 || b[4] > 2 || b[5] < 1 || b[5] > 2 {
		return nil, fmt.Errorf("ELF: class %d and byte order %d are not known", b[4], b[5])
	}
	if len(b) < header {
		return nil, fmt.Errorf("ELF: %w: the file has %d bytes, the header %d", ErrTruncated, len(b), header)
	}
	// num reads an address or offset, whose place depends on the class.
	num := func(b []byte, at32, at64 int) uint64 {
		if e.Bits == 64 {
			return order.Uint64(b[at64:])
		}
		return uint64(order.Uint32(b[at32:]))
	}
	at := func(at32, at64 int) int {
		if e.Bits == 64 {
			return at64
		}
		return at32
	}
	e.Type, e.Machine, e.Entry = order.Uint16(b[16:]), order.Uint16(b[18:]), num(b, 24, 24)
	table, each, count := num(b, 28, 32), int(order.Uint16(b[at(42, 54):])), int(order.Uint16(b[at(44, 56):]))
	switch have := uint64(len(b)); {
	case count == 0:
		return e, nil
	case count > elfMaxHeaders || each < size:
		return nil, fmt.Errorf("ELF: %d program headers of %d bytes each", count, each)
	case table > have || uint64(count)*uint64(each) > have-table:
		return nil, fmt.Errorf("ELF: %w: %d program headers at %#x, the file has %#x bytes", ErrTruncated, count, table, have)
	}
	var cut error
	for n := range count {
		h := b[int(table)+n*each:][:size]
		kind, flags := order.Uint32(h), order.Uint32(h[at(24, 4):])
		start, length, have := num(h, 4, 8), num(h, 16, 32), uint64(len(b))
		from := min(start, have)
		data := b[from:][:min(length, have-from)]
		e.Headers = append(e.Headers, ELFHeader{Type: kind, Flags: flags, Offset: int(from), Size: length, Data: data})
		if kind != elfLoad {
			continue
		}
		if cut == nil && (start > have || uint64(len(data)) < length) {
			cut = fmt.Errorf("ELF: %w: segment %d has %d bytes at %#x, the file has %#x bytes", ErrTruncated, n, length, start, have)
		}
		e.Segments = append(e.Segments, ELFSegment{Offset: int(from), Data: data, Virtual: num(h, 8, 16), Physical: num(h, 12, 24),
			Memory: num(h, 20, 40), Flags: flags})
	}
	return e, cut
}
