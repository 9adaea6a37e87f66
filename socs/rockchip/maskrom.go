package rockchip

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"snag/usb"
)

// The maskrom's request (rkdeveloptool, RKComm.cpp, RKU_DeviceRequest): vendor, to the device, with 0x471 or 0x472 as
// its index.
const (
	requestType = 0x40
	request     = 0x0c
	pieceSize   = 4096
)

// pieceTime bounds each piece: what 471 loaded may be running, which does not serve USB.
const pieceTime = 5 * time.Second

// downloadError is a section that was not taken.
type downloadError struct {
	section *section
	first   bool // of all sections
	sent    int  // bytes that the ROM took, at least
	total   int
	err     error
}

func (e *downloadError) Error() string {
	return fmt.Sprintf("%#x: %s: after %d of %d bytes: %v", e.section.request, e.section.name, e.sent, e.total, e.err)
}

func (e *downloadError) Unwrap() error { return e.err }

// wire is a section as it goes over the wire: with its CRC16, high byte first.
//
// A section ends with the first piece that is shorter than 4096 bytes. If the CRC16 were cut in two, a zero goes before
// it; if it ends a full piece, one follows, which changes the CRC16 of all, 0, no more.
func wire(data []byte) []byte {
	b := make([]byte, 0, len(data)+4)
	b = append(b, data...)
	if len(b)%pieceSize == pieceSize-1 {
		b = append(b, 0)
	}
	c := crc16(b)
	if b = append(b, byte(c>>8), byte(c)); len(b)%pieceSize == 0 {
		b = append(b, 0)
	}
	return b
}

// pieces yields the requests of a section.
func pieces(request16 uint16, b []byte, taken func(n int) bool) iter.Seq2[usb.Setup, []byte] {
	return func(yield func(usb.Setup, []byte) bool) {
		for n := 0; n < len(b); n += pieceSize {
			part := b[n:min(n+pieceSize, len(b))]
			if !taken(n) || !yield(usb.Setup{Type: requestType, Request: request, Index: request16, Length: uint16(len(part))}, part) {
				return
			}
		}
	}
}

// download sends a section. progress is told how many of its bytes are on their way.
func download(ctx context.Context, h usb.Handle, s *section, progress func(int)) error {
	b := wire(s.data)
	n, err := h.StreamControl(ctx, pieceTime, pieces(s.request, b, func(n int) bool {
		progress(min(n, len(s.data)))
		return true
	}))
	if err != nil {
		return &downloadError{section: s, sent: min(n*pieceSize, len(b)), total: len(b), err: err}
	}
	progress(len(s.data))
	return nil
}

// lastPiece tells whether all but the last piece of a section were taken: the ROM may have jumped before it told that
// of the last.
func (e *downloadError) lastPiece() bool { return e.sent+pieceSize >= e.total }

// How long a ROM may stay on the bus after the last section before it is asked whether it is that ROM still, and how
// often: an RK3576 takes more than 3 s to the USB plug.
const (
	leaveTime = time.Second
	probes    = 10
	probeTime = time.Second
)

// errStays says that the ROM did not start its last section.
var errStays = errors.New("the ROM took everything, and is still there")

// left waits until the ROM has left the bus. gone is false if the device is there but answers nothing any more: U-Boot,
// which has not touched USB.
func left(ctx context.Context, h usb.Handle, leaves <-chan struct{}) (gone bool, err error) {
	for range probes {
		select {
		case <-leaves:
			return true, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(leaveTime):
		}
		err := alive(ctx, h)
		switch {
		case errors.Is(err, usb.ErrGone):
			return true, nil
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, usb.ErrProtocol):
			return false, nil
		}
	}
	return false, errStays
}

// alive asks for the device descriptor, which nobody answers but who serves USB.
func alive(ctx context.Context, h usb.Handle) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	const device = 1
	_, err := h.Control(ctx, usb.Setup{Type: 0x80, Request: usb.ReqGetDescriptor, Value: device << 8, Length: 18}, make([]byte, 18))
	return err
}

// crcTable is that of crc16.
var crcTable = sync.OnceValue(func() *[256]uint16 {
	var t [256]uint16
	for i := range t {
		c := uint16(i) << 8
		for range 8 {
			if c&0x8000 != 0 {
				c = c<<1 ^ 0x1021
			} else {
				c <<= 1
			}
		}
		t[i] = c
	}
	return &t
})

// crc16 is CRC-16/IBM-3740: polynomial 0x1021, first 0xffff, highest bit first.
func crc16(b []byte) uint16 {
	table, c := crcTable(), uint16(0xffff)
	for _, x := range b {
		c = c<<8 ^ table[byte(c>>8)^x]
	}
	return c
}
