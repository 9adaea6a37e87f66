package am335x

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// TFTP (RFC 1350; options RFC 2347, 2348, 2349, 7440). Each begins with a 16-bit opcode:
//
//	1 RRQ    file, NUL, mode, NUL, then option, NUL, value, NUL …
//	3 DATA   block (2), up to blksize bytes; fewer end the file
//	4 ACK    block (2)
//	5 ERROR  code (2), text, NUL
//	6 OACK   option, NUL, value, NUL …
const (
	opRRQ   = 1
	opDATA  = 3
	opACK   = 4
	opERROR = 5
	opOACK  = 6

	tftpPort = 69

	errUndefined = 0
	errNotFound  = 1
	errAccess    = 2
	errDiskFull  = 3
	errOptions   = 8
)

// option is a TFTP option; order matters on the wire.
type option struct{ name, value string }

func encodeRRQ(file string, options []option) []byte {
	b := []byte{0, opRRQ}
	for _, s := range []string{file, "octet"} {
		b = append(append(b, s...), 0)
	}
	for _, o := range options {
		b = append(append(b, o.name...), 0)
		b = append(append(b, o.value...), 0)
	}
	return b
}

func encodeACK(block uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{0, opACK}, block)
}

func encodeError(code uint16, text string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, opERROR}, code)
	return append(append(b, text...), 0)
}

// tftpPacket is a packet of the server.
type tftpPacket struct {
	op      uint16
	block   uint16 // DATA
	code    uint16 // ERROR
	data    []byte // DATA; the text of an ERROR
	options []option
}

func decodeTFTP(b []byte) (tftpPacket, error) {
	if len(b) < 4 {
		return tftpPacket{}, fmt.Errorf("TFTP packet of %d bytes", len(b))
	}
	p := tftpPacket{op: binary.BigEndian.Uint16(b)}
	switch p.op {
	case opDATA:
		p.block, p.data = binary.BigEndian.Uint16(b[2:]), b[4:]
	case opERROR:
		p.code, p.data = binary.BigEndian.Uint16(b[2:]), bytes.TrimRight(b[4:], "\x00")
	case opOACK:
		if b[len(b)-1] != 0 {
			return p, fmt.Errorf("TFTP OACK without a final NUL")
		}
		f := strings.Split(string(b[2:len(b)-1]), "\x00")
		if len(f)%2 != 0 {
			return p, fmt.Errorf("TFTP OACK with an option without a value")
		}
		for i := 0; i < len(f); i += 2 {
			p.options = append(p.options, option{strings.ToLower(f[i]), f[i+1]})
		}
	default:
		return p, fmt.Errorf("TFTP opcode %d", p.op)
	}
	return p, nil
}

// negotiated is what an OACK came to.
type negotiated struct {
	blockSize, window int
	size              int64 // tsize, -1 if not told
}

// negotiate checks an OACK against what was asked for, as U-Boot does.
func negotiate(asked, answer []option) (negotiated, error) {
	n := negotiated{512, 1, -1}
	for _, o := range answer {
		var want string
		for _, a := range asked {
			if a.name == o.name {
				want = a.value
			}
		}
		v, err := strconv.ParseInt(o.value, 10, 64)
		if want == "" || err != nil {
			return n, fmt.Errorf("TFTP OACK %s=%s, asked for %q", o.name, o.value, want)
		}
		limit, _ := strconv.ParseInt(want, 10, 64)
		switch o.name {
		case "blksize":
			n.blockSize = int(v)
			if v < 8 || v > limit {
				return n, fmt.Errorf("TFTP OACK blksize=%d, asked for %d", v, limit)
			}
		case "windowsize":
			n.window = int(v)
			if v < 1 || v > limit {
				return n, fmt.Errorf("TFTP OACK windowsize=%d, asked for %d", v, limit)
			}
		case "timeout":
			if v != limit {
				return n, fmt.Errorf("TFTP OACK timeout=%d, asked for %d", v, limit)
			}
		case "tsize":
			n.size = v
		}
	}
	return n, nil
}
