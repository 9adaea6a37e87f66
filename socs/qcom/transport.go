package qcom

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"snag/usb"
)

// errNoInterface says that a device has no interface to speak Sahara with.
var errNoInterface = errors.New("no interface of Sahara's")

// protocols are those of Sahara's interface, whose class and subclass are ff (qdl, src/usb.c).
var protocols = []uint8{0xff, 0x10, 0x11, 0x13}

const (
	readSize  = 4096     // of a packet from the board, at most
	writeSize = 64 << 10 // of a transfer to it
	writeTime = 10 * time.Second
)

// transport moves packets and data over the two bulk endpoints.
//
// A packet is one transfer. Data are any number; if they, or a packet, fill their last packet an empty one ends them,
// as USB demands (USB 2.0, 5.8.3), since the board does not count.
type transport struct {
	handle  usb.Handle
	in, out usb.Endpoint
}

// open takes Sahara's interface. The error wraps errNoInterface if the device has none.
func open(ctx context.Context, h usb.Handle) (*transport, error) {
	for _, s := range h.Descriptors().Settings(h.Device().Config) {
		in, out, ok := s.Bulk()
		if !ok || s.Alt != 0 || s.Class != 0xff || s.SubClass != 0xff || !slices.Contains(protocols, s.Protocol) || in.MaxPacket <= 0 || out.MaxPacket <= 0 {
			continue
		}
		return &transport{h, in, out}, h.Claim(ctx, s.Number)
	}
	return nil, fmt.Errorf("%w: USB device %s on port %s, expected class ff/ff with protocol ff, 10, 11 or 13 and a bulk endpoint each way",
		errNoInterface, h.Device().ID, h.Device().Port)
}

// receive waits for the next transfer from the board.
func (t *transport) receive(ctx context.Context, within time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	buf := make([]byte, readSize)
	n, err := t.handle.In(ctx, t.in.Address, buf)
	return buf[:n], err
}

// send sends a packet, or data.
func (t *transport) send(ctx context.Context, b []byte, progress func(n int)) error {
	pieces := func(yield func([]byte) bool) {
		sent := 0
		for piece := range slices.Chunk(b, writeSize) {
			if progress(sent); !yield(piece) {
				return
			}
			sent += len(piece)
		}
		if len(b)%t.out.MaxPacket == 0 {
			yield(nil)
		}
	}
	_, err := t.handle.Stream(ctx, t.out.Address, writeTime, pieces)
	return err
}
