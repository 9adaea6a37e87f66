package bcm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"snag/usb"
)

// The requests, of both stages (usbboot, main.c, ep_write and ep_read): both vendor's, to the device, number 0, with
// the number of bytes in wValue (lower half) and wIndex (upper half).
const (
	toBoard = 0x40 // so many bytes follow on the bulk endpoint; none: there is no such file
	toHost  = 0xc0 // so many bytes are the data stage
)

const (
	chunk       = 16 << 10 // of a bulk transfer
	chunkTime   = 5 * time.Second
	lengthTime  = time.Second
	statusTime  = 20 * time.Second
	statusDelay = time.Second
	thanksTime  = time.Second
	retryTime   = time.Second
	idleTime    = 30 * time.Second // without a message from the second stage
)

// The boot message tells the ROM of the second stage, little-endian:
//
//	offset size
//	0      4    its length
//	4      20   its signature, of a signed boot of BCM2835 to 2837; else zero
const bootMessageSize = 24

// A message is what the second stage wants, little-endian:
//
//	offset size
//	0      4    command: 0 a file's length, 1 the file, 2 nothing more
//	4      256  name, ended by a zero
const (
	messageSize = 260

	cmdSize = 0
	cmdRead = 1
	cmdDone = 2
)

var (
	errInterface = errors.New("no interface to send files to")
	errMessage   = errors.New("a message that makes no sense")
)

// port is one of the stages.
type port struct {
	handle usb.Handle
	rom    bool
	out    uint8 // endpoint
}

// open takes the interface of a stage: the last one, since the first of two is a disk's (usbboot, main.c,
// Initialize_Device).
//
// The index of the serial number in the device descriptor tells the stages apart: it is 0 or 3 in the ROM.
func open(ctx context.Context, h usb.Handle) (*port, error) {
	d := h.Descriptors()
	p := &port{handle: h, rom: d.Serial == 0 || d.Serial == 3}
	var found *usb.Setting
	for _, s := range d.Settings(h.Device().Config) {
		if s.Alt == 0 && (found == nil || s.Number > found.Number) {
			found = &s
		}
	}
	if found != nil {
		if e, ok := found.Find(usb.Bulk, false); ok {
			p.out = e.Address
			return p, h.Claim(ctx, found.Number)
		}
	}
	return nil, fmt.Errorf("%w: %s on port %s has no bulk endpoint for them", errInterface, h.Device().ID, h.Device().Port)
}

// length tells how many bytes there are.
func (p *port) length(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, lengthTime)
	defer cancel()
	_, err := p.handle.Control(ctx, usb.Setup{Type: toBoard, Value: uint16(n), Index: uint16(n >> 16)}, nil)
	return err
}

// write sends bytes with their length. progress is told how many of them the board may have; it may be nil.
func (p *port) write(ctx context.Context, data []byte, progress func(int)) error {
	if err := p.length(ctx, len(data)); err != nil {
		return err
	}
	n, err := p.handle.Stream(ctx, p.out, chunkTime, chunks(data, progress))
	if err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", n, len(data), err)
	}
	return nil
}

// chunks cuts what is to be sent. A chunk is taken when there is room for it, so what is told is ahead of the board by
// a few.
func chunks(data []byte, progress func(int)) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for n := 0; n < len(data); {
			end := min(n+chunk, len(data))
			if !yield(data[n:end]) {
				return
			}
			if n = end; progress != nil {
				progress(n)
			}
		}
	}
}

// read reads as many bytes as buf has.
func (p *port) read(ctx context.Context, buf []byte, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	n, err := p.handle.Control(ctx, usb.Setup{Type: toHost, Value: uint16(len(buf)), Index: uint16(len(buf) >> 16), Length: uint16(len(buf))}, buf)
	if err == nil && n < len(buf) {
		err = fmt.Errorf("%w: expected %d bytes, got %d: % x", errMessage, len(buf), n, buf[:min(n, 16)])
	}
	return err
}

// sendSecond sends the ROM the second stage.
func (p *port) sendSecond(ctx context.Context, data []byte, progress func(int)) error {
	message := make([]byte, bootMessageSize)
	binary.LittleEndian.PutUint32(message, uint32(len(data)))
	if err := p.write(ctx, message, nil); err != nil {
		return fmt.Errorf("the length of the second stage: %w", err)
	}
	if err := p.write(ctx, data, progress); err != nil {
		return fmt.Errorf("the second stage: %w", err)
	}
	return nil
}

// status is how the ROM likes the second stage: 0 is well.
func (p *port) status(ctx context.Context) (uint32, error) {
	var b [4]byte
	err := p.read(ctx, b[:], statusTime)
	return binary.LittleEndian.Uint32(b[:]), err
}

// message is what the second stage wants.
type message struct {
	command uint32
	name    string
}

// next waits for the second stage's next message. A refusal is no message yet.
func (p *port) next(ctx context.Context) (message, error) {
	short, cancel := context.WithTimeout(ctx, idleTime)
	defer cancel()
	var b [messageSize]byte
	for {
		err := p.read(short, b[:], idleTime)
		if err == nil {
			return parseMessage(b[:])
		}
		if !errors.Is(err, usb.ErrStall) {
			return message{}, err
		}
		select {
		case <-time.After(retryTime):
		case <-short.Done():
			return message{}, err
		}
	}
}

// parseMessage reads a message.
func parseMessage(b []byte) (message, error) {
	m := message{command: binary.LittleEndian.Uint32(b)}
	name, _, ended := bytes.Cut(b[4:], []byte{0})
	m.name = string(name)
	switch {
	case m.command > cmdDone:
		return m, fmt.Errorf("%w: command %d of the second stage, expected 0, 1 or 2", errMessage, m.command)
	case !ended && m.command != cmdDone:
		return m, fmt.Errorf("%w: the second stage asks for a name without end: %q", errMessage, m.name[:min(32, len(m.name))])
	}
	return m, nil
}
