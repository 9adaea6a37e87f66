// Package fel speaks FEL, the protocol of the boot ROMs of Allwinner's SoCs: read and write memory, call a function.
//
// There is no public documentation of it by its maker. The sources are the descriptions in sunxi-tools (fel.c,
// fel_lib.c) and xfel, and linux-sunxi's page "FEL/Protocol". FEL is carried by AWUSB, which is like USB's Bulk-Only
// Transport: each of its transfers is a request, data in one direction, and a status. All fields are little-endian.
//
// The request, to the device:
//
//	offset size field
//	0      4    "AWUC"
//	4      4    tag, 0
//	8      4    length of the data
//	12     3    0
//	15     1    length of the command, 12
//	16     1    0x11: data from the device; 0x12: to it
//	17     1    0
//	18     4    length of the data
//	22     10   0
//
// The status, from the device:
//
//	0      4    "AWUS"
//	4      4    tag
//	8      4    what is left
//	12     1    0: done
//
// A command of FEL is a transfer with its request, one with data if it has some, and one with its status.
//
//	0      2    command                          0      2    0xffff
//	2      2    tag, 0                           2      2    tag
//	4      4    address                          4      1    0: done
//	8      4    length                           5      3    0
//	12     4    flags, 0
package fel

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"snag/usb"
)

// ROM is what all boot ROMs show that wait in FEL mode.
var ROM = usb.ID{Vendor: 0x1f3a, Product: 0xefe8}

// Commands.
const (
	cmdVersion = 0x001
	cmdWrite   = 0x101
	cmdExec    = 0x102
	cmdRead    = 0x103
)

const (
	requestSize  = 32
	statusSize   = 13
	commandSize  = 16
	answerSize   = 8
	versionSize  = 32
	fromDevice   = 0x11
	toDevice     = 0x12
	answerTime   = 5 * time.Second
	chunk        = 64 << 10 // of data, in one USB transfer: a slow ROM takes it in a second
	versionMagic = "AWUSBFEX"
)

// ErrNoInterface says that a device has no interface that FEL can be spoken over.
var ErrNoInterface = errors.New("no interface with a bulk endpoint each way")

// ProtocolError is an answer that is none of FEL's: host and device are out of step, or the device is no FEL.
type ProtocolError struct {
	What      string // what it should be the answer to
	Want, Got string
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("%s: expected %s, got %s", e.What, e.Want, e.Got)
}

// RefusedError is a device's no.
type RefusedError struct {
	What   string
	Status byte // of AWUSB, or of FEL
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s: the boot ROM refuses it with status %#02x", e.What, e.Status)
}

// Device is an open boot ROM in FEL mode. One of its methods is called at a time.
type Device struct {
	// AnswerTime bounds each USB transfer; 0 is 5 seconds.
	AnswerTime time.Duration

	handle  usb.Handle
	in, out usb.Endpoint
}

// Open claims the first interface that has a bulk endpoint each way. Which they are differs from SoC to SoC.
func Open(ctx context.Context, h usb.Handle) (*Device, error) {
	config := uint8(h.Device().Config)
	if all := h.Descriptors().Configs; config == 0 && len(all) > 0 {
		config = all[0].Value
		if err := h.Configure(ctx, config); err != nil {
			return nil, err
		}
	}
	for _, s := range h.Descriptors().Settings(int(config)) {
		if in, out, ok := s.Bulk(); ok && s.Alt == 0 {
			return &Device{handle: h, in: in, out: out}, h.Claim(ctx, s.Number)
		}
	}
	return nil, fmt.Errorf("%w: USB device %s on port %s", ErrNoInterface, h.Device().ID, h.Device().Port)
}

// Version is the answer to the command of that name.
//
//	offset size field
//	0      8    "AWUSBFEX"
//	8      4    bits 23-8: the SoC
//	12     4    firmware
//	16     2    protocol
//	18     1    flag of the data area
//	19     1    its length
//	20     4    its address
//	24     8    0
type Version struct {
	SoC      uint16 // 0x1680: H3
	Firmware uint32
	Protocol uint16
	Scratch  uint32 // the data area
}

// Version asks for the SoC.
func (d *Device) Version(ctx context.Context) (Version, error) {
	const what = "version"
	b := make([]byte, versionSize)
	if err := d.command(ctx, what, cmdVersion, 0, 0, func() error { return d.receive(ctx, what, b) }); err != nil {
		return Version{}, err
	}
	if string(b[:8]) != versionMagic {
		return Version{}, &ProtocolError{what, versionMagic, fmt.Sprintf("% x", b[:8])}
	}
	le := binary.LittleEndian
	return Version{SoC: uint16(le.Uint32(b[8:]) >> 8), Firmware: le.Uint32(b[12:]), Protocol: le.Uint16(b[16:]), Scratch: le.Uint32(b[20:])}, nil
}

// Write writes to memory. progress, which may be nil, is told how many bytes the device has taken, but for those in
// flight.
func (d *Device) Write(ctx context.Context, addr uint32, data []byte, progress func(int)) error {
	what := fmt.Sprintf("write of %d bytes to %#08x", len(data), addr)
	return d.command(ctx, what, cmdWrite, addr, uint32(len(data)), func() error { return d.send(ctx, what, data, progress) })
}

// Read fills a buffer from memory.
func (d *Device) Read(ctx context.Context, addr uint32, buf []byte) error {
	what := fmt.Sprintf("read of %d bytes from %#08x", len(buf), addr)
	return d.command(ctx, what, cmdRead, addr, uint32(len(buf)), func() error { return d.receive(ctx, what, buf) })
}

// Exec has the processor call a function, in ARM state. The ROM answers before it does so: the function may never
// return, and what is asked of the ROM next waits until it does.
func (d *Device) Exec(ctx context.Context, addr uint32) error {
	return d.command(ctx, fmt.Sprintf("call of %#08x", addr), cmdExec, addr, 0, nil)
}

// Started reports whether an error of [Device.Exec] may be that of a device which runs the function and did not get to
// answer.
func Started(err error) bool {
	e, ok := errors.AsType[*answerError](err)
	return ok && (errors.Is(e.err, context.DeadlineExceeded) || errors.Is(e.err, usb.ErrGone) || errors.Is(e.err, usb.ErrProtocol))
}

// answerError is an answer that did not come, to what the device has taken.
type answerError struct {
	what string
	err  error
}

func (e *answerError) Error() string { return e.what + ": no answer: " + e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }

// command performs a command; data transfers its data, if it has some.
func (d *Device) command(ctx context.Context, what string, code uint16, addr, length uint32, data func() error) error {
	c := binary.LittleEndian.AppendUint32(nil, uint32(code))
	c = binary.LittleEndian.AppendUint32(c, addr)
	c = binary.LittleEndian.AppendUint32(c, length)
	if err := d.send(ctx, what, append(c, 0, 0, 0, 0)[:commandSize], nil); err != nil {
		return err
	}
	if data != nil {
		if err := data(); err != nil {
			return err
		}
	}
	var b [answerSize]byte
	if err := d.receive(ctx, what, b[:]); err != nil {
		return err
	}
	switch {
	case b[0] != 0xff || b[1] != 0xff:
		return &ProtocolError{what, "a status that begins with ff ff", fmt.Sprintf("% x", b)}
	case b[4] != 0:
		return &RefusedError{what, b[4]}
	}
	return nil
}

// send is an AWUSB transfer to the device. Request and data are in the host controller's queue together.
func (d *Device) send(ctx context.Context, what string, data []byte, progress func(int)) error {
	n, err := d.handle.Stream(ctx, d.out.Address, d.patience(), transfers(request(toDevice, len(data)), data, progress))
	if err != nil {
		return fmt.Errorf("%s: after %d bytes: %w", what, max(n-requestSize, 0), err)
	}
	return d.status(ctx, what)
}

// transfers are the USB transfers that a request and its data are sent by.
func transfers(request, data []byte, progress func(int)) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if !yield(request) {
			return
		}
		sent := 0
		for piece := range slices.Chunk(data, chunk) {
			if progress != nil {
				progress(sent)
			}
			if !yield(piece) {
				return
			}
			sent += len(piece)
		}
	}
}

// receive is an AWUSB transfer from the device.
func (d *Device) receive(ctx context.Context, what string, buf []byte) error {
	short, cancel := d.bounded(ctx)
	defer cancel()
	if _, err := d.handle.Out(short, d.out.Address, request(fromDevice, len(buf))); err != nil {
		return &answerError{what, err}
	}
	for n := 0; n < len(buf); {
		got, err := d.receiveOne(ctx, buf[n:min(len(buf), n+chunk)])
		if n += got; err != nil {
			return &answerError{what, fmt.Errorf("after %d of %d bytes: %w", n, len(buf), err)}
		}
		if got == 0 {
			return &ProtocolError{what, fmt.Sprintf("%d bytes", len(buf)), fmt.Sprintf("%d and an empty packet", n)}
		}
	}
	return d.status(ctx, what)
}

// status receives the status of an AWUSB transfer.
func (d *Device) status(ctx context.Context, what string) error {
	b := make([]byte, max(d.in.MaxPacket, 64))
	n, err := d.receiveOne(ctx, b)
	if n == 0 && err == nil { // one that ends data of whole packets (USB 2.0, section 5.8.3)
		n, err = d.receiveOne(ctx, b)
	}
	switch b = b[:n]; {
	case err != nil:
		return &answerError{what, err}
	case n != statusSize || !bytes.HasPrefix(b, []byte("AWUS")):
		return &ProtocolError{what, `"AWUS" and 9 bytes`, fmt.Sprintf("%d bytes: % x", n, b[:min(n, 16)])}
	case b[12] != 0:
		return &RefusedError{what, b[12]}
	}
	return nil
}

// receiveOne receives one USB transfer.
func (d *Device) receiveOne(ctx context.Context, buf []byte) (int, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	return d.handle.In(ctx, d.in.Address, buf)
}

// bounded gives a transfer its time.
func (d *Device) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return usb.Within(ctx, d.patience(), nil)
}

func (d *Device) patience() time.Duration { return cmp.Or(d.AnswerTime, answerTime) }

// request is the beginning of an AWUSB transfer.
func request(direction byte, length int) []byte {
	b := make([]byte, requestSize)
	copy(b, "AWUC")
	binary.LittleEndian.PutUint32(b[8:], uint32(length))
	b[15] = 12
	b[16] = direction
	binary.LittleEndian.PutUint32(b[18:], uint32(length))
	return b
}
