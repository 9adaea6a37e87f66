package netboot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// TFTP packets (RFC 1350, section 5; RFC 2347; big-endian):
//
//	offset  size  RRQ, WRQ      DATA          ACK           ERROR          OACK
//	0       2     opcode 1, 2   opcode 3      opcode 4      opcode 5       opcode 6
//	2       2     file name,    block number  block number  error code     option, NUL,
//	4       -     NUL, mode,    0 to blksize                text, NUL      value, NUL, ...
//	              NUL, then     bytes
//	              option, NUL,
//	              value, NUL...
const (
	opRRQ   = 1
	opWRQ   = 2
	opDATA  = 3
	opACK   = 4
	opERROR = 5
	opOACK  = 6

	dataHeader = 4
)

// Error codes (RFC 1350, appendix; RFC 2347).
const (
	codeUndefined = 0
	codeAccess    = 2
	codeIllegal   = 4
	codeOptions   = 8
)

// Bounds of the options.
const (
	defaultBlksize = 512
	minBlksize     = 8     // RFC 2348
	maxBlksize     = 65464 // RFC 2348
	maxTimeout     = 255   // seconds, RFC 2349

	// maxWindow is the largest window granted, in blocks. RFC 7440 allows 65535, which is no use on a
	// link of one hop and would let a board ask for gigabytes in one burst.
	maxWindow = 64
)

// readRequest is an RRQ.
type readRequest struct {
	name string // as sent: any bytes but NUL
	mode string // lower case

	// Options as asked for; zero where not asked for or out of range.
	blksize int
	window  int
	timeout string // the digits, to be echoed as they are
	tsize   bool
}

var errMalformed = errors.New("malformed request")

// parseReadRequest reads an RRQ, whose opcode was seen already. Options that are unknown, out of range, repeated or
// cut off are passed over, as RFC 2347 has it; boot ROMs are known to append bytes of no meaning.
func parseReadRequest(b []byte) (readRequest, error) {
	if len(b) < 2 {
		return readRequest{}, errMalformed
	}
	fields := strings.Split(string(b[2:]), "\x00")
	if len(fields) < 2 || fields[0] == "" {
		return readRequest{}, errMalformed
	}
	r := readRequest{name: fields[0], mode: strings.ToLower(fields[1])}
	// What follows the last NUL is not a field: a value without its NUL is cut off.
	for opts := fields[2:]; len(opts) > 2; opts = opts[2:] {
		r.option(strings.ToLower(opts[0]), opts[1])
	}
	return r, nil
}

func (r *readRequest) option(name, value string) {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return
	}
	switch {
	case name == "blksize" && r.blksize == 0 && n >= minBlksize:
		r.blksize = int(min(n, maxBlksize))
	case name == "windowsize" && r.window == 0 && n >= 1:
		r.window = int(min(n, maxWindow))
	case name == "timeout" && r.timeout == "" && n >= 1 && n <= maxTimeout:
		r.timeout = value
	case name == "tsize":
		r.tsize = true
	}
}

// oack makes the answer to the options that were asked for; nil if there were none.
func (r *readRequest) oack(size int) []byte {
	b := []byte{0, opOACK}
	add := func(name, value string) {
		b = append(append(b, name...), 0)
		b = append(append(b, value...), 0)
	}
	if r.blksize != 0 {
		add("blksize", strconv.Itoa(r.blksize))
	}
	if r.timeout != "" {
		add("timeout", r.timeout)
	}
	if r.tsize {
		add("tsize", strconv.Itoa(size))
	}
	if r.window != 0 {
		add("windowsize", strconv.Itoa(r.window))
	}
	if len(b) == 2 {
		return nil
	}
	return b
}

// errorPacket makes an ERROR.
func errorPacket(code uint16, text string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, opERROR}, code)
	return append(append(b, text...), 0)
}

// errorText reads an ERROR for people: its code and its text, quoted and bounded.
func errorText(b []byte) string {
	text := b[4:]
	if i := slices.Index(text, 0); i >= 0 {
		text = text[:i]
	}
	return fmt.Sprintf("TFTP error %d %s", binary.BigEndian.Uint16(b[2:]), quote(string(text)))
}

// quote makes a string from the board fit for messages: quoted ASCII, at most about 80 characters.
func quote(s string) string {
	if len(s) > 80 {
		s = s[:80] + "..."
	}
	return strconv.QuoteToASCII(s)
}
