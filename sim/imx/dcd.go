package imx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"snag/sim/virtual"
)

// maxDCD is HAB's limit (HAB_MAX_DCD_SIZE in imx_usb's imx_sdp.c), in bytes.
const maxDCD = 1768

// pollMax bounds a check command without a count, which a ROM would poll for ever.
const pollMax = 10 * time.Second

// runDCD carries out a device configuration data list (IMX6DQRM, section 8.7.2), big-endian:
//
//	d2, length of all (2), version        then commands:
//	cc, length (2), parameter             write: pairs of address and value
//	cf, length (2), parameter             check: address, mask and, if there is one, the count of polls
//	c0, length (2), 0                     nothing
//	b2, length (2), engine                unlock: taken for done
//
// The parameter's bits 0 to 2 are the width in bytes; bits 3 and 4 are the flags:
//
//	write 0, 2: the value; 1: clear the value's bits; 3: set them
//	check 0: all of the mask clear; 2: all set; 1: any clear; 3: any set
func runDCD(ctx context.Context, m Machine, b []byte, d *DCD) (word, error) {
	if len(b) < 4 || b[0] != 0xd2 || b[3]&0xfc != 0x40 {
		return failDCD, fmt.Errorf("no DCD (d2 .. .. 4x) but % x", b[:min(4, len(b))])
	}
	if n := int(binary.BigEndian.Uint16(b[1:])); n != len(b) {
		return failDCD, fmt.Errorf("DCD of length %d in %d bytes", n, len(b))
	}
	be := binary.BigEndian
	for rest := b[4:]; len(rest) > 0; {
		if len(rest) < 4 {
			return failCommand, errors.New("DCD: bytes behind the last command")
		}
		n := int(be.Uint16(rest[1:]))
		if n < 4 || n > len(rest) {
			return failCommand, fmt.Errorf("DCD: command %#x of length %d with %d bytes left", rest[0], n, len(rest))
		}
		tag, width, flags, body := rest[0], int(rest[3]&7), rest[3]>>3&3, rest[4:n]
		rest = rest[n:]
		if tag == 0xc0 || tag == 0xb2 {
			continue
		}
		if width != 1 && width != 2 && width != 4 {
			return failCommand, fmt.Errorf("DCD: command %#x of width %d", tag, width)
		}
		switch {
		case tag == 0xcc && len(body)%8 == 0:
			for ; len(body) > 0; body = body[8:] {
				if err := modify(ctx, m, be.Uint32(body), be.Uint32(body[4:]), width, flags); err != nil {
					return failCommand, err
				}
				d.Writes++
			}
		case tag == 0xcf && (len(body) == 8 || len(body) == 12):
			count := -1
			if len(body) == 12 {
				count = int(be.Uint32(body[8:]))
			}
			d.Checks++
			if err := check(ctx, m, be.Uint32(body), be.Uint32(body[4:]), width, flags, count); err != nil {
				return failCheck, err
			}
		default:
			return failCommand, fmt.Errorf("DCD: command %#x with %d bytes", tag, len(body))
		}
	}
	return word{}, nil
}

// modify writes a register as the flags have it.
func modify(ctx context.Context, m Machine, addr, value uint32, width int, flags uint8) error {
	if flags&1 != 0 {
		old, err := readRegister(ctx, m, addr, width)
		if err != nil {
			return err
		}
		if flags == 1 {
			value = old &^ value
		} else {
			value |= old
		}
	}
	return writeRegister(ctx, m, addr, value, width)
}

// check polls a register.
func check(ctx context.Context, m Machine, addr, mask uint32, width int, flags uint8, count int) error {
	if count == 0 {
		return nil
	}
	mask &= 1<<(8*width) - 1
	holds := func(v uint32) bool {
		switch v &= mask; flags {
		case 0:
			return v == 0
		case 2:
			return v == mask
		case 1:
			return v != mask
		}
		return v != 0
	}
	until := time.Now().Add(pollMax)
	settled := false
	for n := 0; count < 0 || n < count || settled; n++ {
		v, err := readRegister(ctx, m, addr, width)
		if err != nil {
			return err
		}
		if holds(v) {
			return nil
		}
		p, ok := m.(Poller)
		if settled || !ok && time.Now().After(until) {
			break
		}
		if settled = ok; ok {
			var want uint32
			if flags&2 != 0 {
				want = mask
			}
			p.Settle(addr, mask, want)
		} else if err := virtual.Sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("DCD: register %#x with mask %#x never came to be as checked", addr, mask)
}

func readRegister(ctx context.Context, m Machine, addr uint32, width int) (uint32, error) {
	var b [4]byte
	err := m.ReadMemory(ctx, addr, b[:width])
	return binary.LittleEndian.Uint32(b[:]), err
}

func writeRegister(ctx context.Context, m Machine, addr, value uint32, width int) error {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], value)
	return m.WriteMemory(ctx, addr, b[:width])
}
