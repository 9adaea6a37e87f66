package firmware

import (
	"encoding/binary"
	"fmt"
)

// Command sequence file: what HAB executes to authenticate an image; NXP's HAB4 API reference manual, 6 "Command
// Sequence File". Header and commands have the shape of the DCD's: tag, big-endian length, parameter. Certificates and
// signatures, which the commands refer to by their offset from the header, follow.

// maxCSFCommands bounds the outline: a CSF has some ten commands.
const maxCSFCommands = 64

// CSFCommand is one command of a CSF, without what it refers to.
type CSFCommand struct {
	Offset int // in the CSF
	Name   string
	Param  byte
	Size   int
	Blocks []CSFBlock // what an "authenticate data" command covers
}

// CSFBlock is a piece of memory that a signature covers.
type CSFBlock struct {
	Address, Size uint32
}

var csfCommands = map[byte]string{
	0xb1: "set", 0xb2: "unlock", 0xb4: "initialise", 0xbe: "install key", 0xc0: "nop", 0xca: "authenticate data",
	0xcc: "write data", 0xcf: "check data",
}

// ParseCSF outlines a CSF, header included, as [IVT.CSFBytes] returns it. The commands that could be read are
// returned beside an error, too.
func ParseCSF(b []byte) ([]CSFCommand, error) {
	if len(b) < 4 || b[0] != tagCSF {
		return nil, fmt.Errorf("CSF: expected a header with tag d4, found % x", b[:min(4, len(b))])
	}
	size := int(binary.BigEndian.Uint16(b[1:]))
	if size < 4 || size > len(b) {
		return nil, fmt.Errorf("CSF: it announces %d bytes of %d", size, len(b))
	}
	var cmds []CSFCommand
	for off := 4; size-off >= 4; {
		if len(cmds) == maxCSFCommands {
			return cmds, fmt.Errorf("CSF: more than %d commands", maxCSFCommands)
		}
		n := int(binary.BigEndian.Uint16(b[off+1:]))
		if n < 4 || n > size-off {
			return cmds, fmt.Errorf("CSF: the command at %#x announces %d bytes of the %d that are left", off, n, size-off)
		}
		c := CSFCommand{Offset: off, Name: nameOf(csfCommands, b[off]), Param: b[off+3], Size: n}
		if b[off] == 0xca { // key, protocol, engine and its configuration, offset of the signature; then the blocks
			for at := off + 12; at+8 <= off+n; at += 8 {
				c.Blocks = append(c.Blocks, CSFBlock{binary.BigEndian.Uint32(b[at:]), binary.BigEndian.Uint32(b[at+4:])})
			}
		}
		cmds = append(cmds, c)
		off += n
	}
	return cmds, nil
}
