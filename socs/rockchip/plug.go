package rockchip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"snag/usb"
)

// A USB plug is served as rkdeveloptool (RKComm.h, RKComm.cpp) does: on bulk endpoints, in mass storage's wrappers. To
// the device, 31 bytes:
//
//	0  "USBC"   4  tag   8  length of the data   12 0x80: to the host   13 0   14 6: length of the command   15 the command
//
// then the data; then from the device, 13 bytes:
//
//	0  "USBS"   4  tag   8  residue   12 0: done, 1: failed
const (
	commandSize = 31
	statusSize  = 13
	testReady   = 0x00
	chipInfo    = 0x1b
)

// plug is the server.
type plug struct {
	h       usb.Handle
	in, out usb.Endpoint
	tag     uint32
}

// plugTime bounds a command, readyTime and readyTries how long the plug may say that it is not ready.
const (
	plugTime   = 2 * time.Second
	readyTime  = time.Second
	readyTries = 10
)

var (
	errNoPlug   = errors.New("it has no interface of class ff/06/05 with a bulk endpoint each way")
	errNotReady = errors.New("the command failed (status 1)")
)

// openPlug claims the interface of a device that may be a USB plug: Rockchip's ROMs and plugs look alike.
func openPlug(ctx context.Context, h usb.Handle) (*plug, error) {
	for _, s := range h.Descriptors().Settings(h.Device().Config) {
		if in, out, ok := s.Bulk(); ok && s.Class == 0xff && s.SubClass == 6 && s.Protocol == 5 && s.Alt == 0 {
			return &plug{h: h, in: in, out: out, tag: 0x534e4147}, h.Claim(ctx, s.Number)
		}
	}
	return nil, errNoPlug
}

// command performs one that answers with so many bytes of data.
func (p *plug) command(ctx context.Context, op byte, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, plugTime)
	defer cancel()
	p.tag++
	c := make([]byte, commandSize)
	copy(c, "USBC")
	binary.LittleEndian.PutUint32(c[4:], p.tag)
	binary.LittleEndian.PutUint32(c[8:], uint32(len(data)))
	c[12], c[14], c[15] = 0x80, 6, op
	if _, err := p.h.Out(ctx, p.out.Address, c); err != nil {
		return err
	}
	if len(data) > 0 {
		n, err := p.h.In(ctx, p.in.Address, data)
		if err != nil {
			return err
		}
		if n != len(data) {
			return fmt.Errorf("command %#02x: %d bytes of data, expected %d", op, n, len(data))
		}
	}
	status := make([]byte, 512)
	n, err := p.h.In(ctx, p.in.Address, status)
	switch {
	case err != nil:
		return err
	case n != statusSize || string(status[:4]) != "USBS" || binary.LittleEndian.Uint32(status[4:]) != p.tag:
		return fmt.Errorf("command %#02x: expected a status of 13 bytes with USBS and tag %#08x, got % x", op, p.tag, status[:min(n, statusSize)])
	case status[12] != 0:
		return errNotReady
	}
	return nil
}

// hello asks a plug whether it runs, and for the name of its chip, which is empty if it does not tell.
func (p *plug) hello(ctx context.Context) (chip string, err error) {
	for try := 1; ; try++ {
		err = p.command(ctx, testReady, nil)
		if !errors.Is(err, errNotReady) || try == readyTries {
			break
		}
		select {
		case <-time.After(readyTime):
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	if err != nil && !errors.Is(err, errNotReady) { // not ready is the storage
		return "", err
	}
	info := make([]byte, 16)
	if p.command(ctx, chipInfo, info) != nil {
		return "", err
	}
	// In groups of four, each backwards.
	var b strings.Builder
	for ; len(info) >= 4; info = info[4:] {
		for i := range 4 {
			if c := info[3-i]; c > ' ' && c < 0x7f {
				b.WriteByte(c)
			}
		}
	}
	return b.String(), err
}
