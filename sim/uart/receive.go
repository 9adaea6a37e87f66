package uart

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

const (
	soh = 0x01
	stx = 0x02
	eot = 0x04
	ack = 0x06
	nak = 0x15
	can = 0x18
	ctl = 'C'
)

// kind is what the line brought.
type kind int

const (
	silence   kind = iota // nothing that starts a block
	good                  // a block
	bad                   // a damaged block
	endOfFile             // EOT
	cancel                // CAN CAN
)

// gap is the longest pause within a block.
const gap = 500 * time.Millisecond

// block reads the next block, for at most wait until it starts.
func (b *Board) block(wait time.Duration) (k kind, number int, data []byte, err error) {
	deadline := time.Now().Add(wait)
	for cans := 0; ; {
		c, err := b.readByte(time.Until(deadline))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return silence, 0, nil, nil
		}
		if err != nil {
			return 0, 0, nil, err
		}
		size := 0
		switch c {
		case soh:
			size = 128
		case stx:
			size = 1024
		case eot:
			return endOfFile, 0, nil, nil
		case can:
			if cans++; cans == 2 {
				return cancel, 0, nil, nil
			}
			continue
		default:
			cans = 0
			continue
		}
		body := make([]byte, 2+size+2)
		for i := range body {
			body[i], err = b.readByte(gap)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return bad, 0, nil, nil
			}
			if err != nil {
				return 0, 0, nil, err
			}
		}
		if body[0]+body[1] != 0xff || !crcOK(body[2:]) {
			return bad, 0, nil, b.idle()
		}
		b.blocks++
		if every(b.blocks, b.cfg.Faults.Refuse) {
			return bad, 0, nil, nil
		}
		return good, int(body[0]), body[2 : 2+size], nil
	}
}

// idle drops what comes until the line is quiet.
func (b *Board) idle() error {
	for {
		if _, err := b.readByte(gap); errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// crcOK divides data and its CRC by x^16 + x^12 + x^5 + 1, bit after bit.
func crcOK(data []byte) bool {
	rest := uint32(0)
	for _, c := range data {
		for bit := 7; bit >= 0; bit-- {
			rest = rest<<1 | uint32(c>>bit)&1
			if rest&0x10000 != 0 {
				rest ^= 0x11021
			}
		}
	}
	return rest == 0
}

// parseHeader reads the name and the size of a YMODEM header.
func parseHeader(data []byte) (name string, size int, err error) {
	n, rest, ok := bytes.Cut(data, []byte{0})
	digits, _, ok2 := bytes.Cut(rest, []byte{0})
	digits, _, _ = bytes.Cut(digits, []byte{' '})
	size, err = strconv.Atoi(string(digits))
	if !ok || !ok2 || err != nil || size < 0 {
		return "", 0, fmt.Errorf("SPL: YMODEM header %q", data)
	}
	return string(n), size, nil
}

// answer sends the bytes that a block is answered with, unless they get lost.
func (b *Board) answer(bytes ...byte) error {
	b.answers++
	if every(b.answers, b.cfg.Faults.LoseAnswer) {
		return nil
	}
	if every(b.answers, b.cfg.Faults.Noise) {
		bytes = append([]byte("\x00\xff musb-hdrc: no C here\r\n"), bytes...)
	}
	return b.print(string(bytes))
}

func (b *Board) print(s string) error {
	_, err := b.line.Write([]byte(s))
	return err
}

// readByte returns the next byte that does not get lost.
func (b *Board) readByte(wait time.Duration) (byte, error) {
	for {
		for len(b.unread) == 0 {
			if err := b.line.SetReadDeadline(time.Now().Add(wait)); err != nil {
				return 0, err
			}
			buf := make([]byte, 2048)
			n, err := b.line.Read(buf)
			if err != nil {
				return 0, err
			}
			b.unread = buf[:n]
		}
		c := b.unread[0]
		b.unread = b.unread[1:]
		b.bytes++
		if !every(b.bytes, b.cfg.Faults.LoseByte) {
			return c, nil
		}
	}
}

func every(count, n int) bool { return n > 0 && count%n == 0 }
