package fastboot

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"snag/usb"
)

// The interface's class (AOSP, U-Boot).
const (
	class    = 0xff
	subClass = 0x42
	protocol = 0x03
)

// ErrNoInterface says that a device has no interface to speak fastboot with.
var ErrNoInterface = errors.New("no fastboot interface")

// USB is fastboot over a pair of bulk endpoints.
//
// A command is one transfer. One that fills its last packet is ended by an empty packet, as USB demands (USB 2.0,
// 5.8.3): U-Boot's request for it has room for 4096 bytes. Data go without, since the device knows how many come.
//
// An answer is one transfer too, and U-Boot does not send an empty packet after an answer that fills its packet, which
// at full speed its longest ones do. So answers are received packet by packet, and after a full packet the next one
// decides: an answer of its own, or the rest of this one; none means that it was complete.
type USB struct {
	handle  usb.Handle
	iface   uint8
	in, out usb.Endpoint
	next    []byte // a packet that begins the next answer
}

// moreTime is how long the next packet of the same answer may take.
const moreTime = 50 * time.Millisecond

// OpenUSB takes a device's fastboot interface: one of class ff, subclass 42, protocol 03 with a bulk endpoint each way.
// anyClass accepts another one with such endpoints if there is none: for devices that the user has named, or that are
// known. The error wraps ErrNoInterface if there is none either.
func OpenUSB(ctx context.Context, h usb.Handle, anyClass bool) (*USB, error) {
	var found *USB
	var alt uint8
	for _, s := range h.Descriptors().Settings(h.Device().Config) {
		in, out, ok := s.Bulk()
		if !ok {
			continue
		}
		u := &USB{handle: h, iface: s.Number, in: in, out: out}
		if s.Class == class && s.SubClass == subClass && s.Protocol == protocol {
			found, alt = u, s.Alt
			break
		}
		if found == nil && anyClass && s.Alt == 0 {
			found = u
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: USB device %s on port %s, expected class ff/42/03 with a bulk endpoint each way", ErrNoInterface, h.Device().ID, h.Device().Port)
	}
	if found.in.MaxPacket <= 0 || found.out.MaxPacket <= 0 {
		return nil, fmt.Errorf("%w: USB device %s on port %s has endpoints of no packet size", ErrNoInterface, h.Device().ID, h.Device().Port)
	}
	if err := h.Claim(ctx, found.iface); err != nil {
		return nil, err
	}
	if alt != 0 {
		if err := h.SetAlt(ctx, found.iface, alt); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Send implements Transport.
func (u *USB) Send(ctx context.Context, message []byte) error {
	u.next = nil
	if _, err := u.handle.Out(ctx, u.out.Address, message); err != nil {
		return err
	}
	if len(message)%u.out.MaxPacket == 0 {
		_, err := u.handle.Out(ctx, u.out.Address, nil)
		return err
	}
	return nil
}

// Receive implements Transport.
func (u *USB) Receive(ctx context.Context, buf []byte) (int, error) {
	n := copy(buf, u.next)
	u.next = nil
	packet := make([]byte, u.in.MaxPacket)
	for n == 0 {
		got, err := u.handle.In(ctx, u.in.Address, packet)
		if err != nil {
			return 0, err
		}
		n = copy(buf, packet[:got])
		if n < got {
			return 0, tooLong(packet[:got], len(buf))
		}
	}
	for last := n; last == u.in.MaxPacket; {
		got, err := u.more(ctx, packet)
		if err != nil {
			return 0, err
		}
		if isStatus(packet[:got]) {
			u.next = packet[:got]
			break
		}
		if n+got > len(buf) {
			return 0, tooLong(buf[:n], len(buf))
		}
		n += copy(buf[n:], packet[:got])
		last = got
	}
	return n, nil
}

// more receives another packet, if there is one.
func (u *USB) more(ctx context.Context, packet []byte) (int, error) {
	short, cancel := context.WithTimeout(ctx, moreTime)
	defer cancel()
	n, err := u.handle.In(short, u.in.Address, packet)
	if err != nil && (n > 0 || short.Err() != nil && ctx.Err() == nil || errors.Is(err, usb.ErrGone) || errors.Is(err, usb.ErrProtocol)) {
		err = nil // what came before is an answer; whether the device is still there the next transfer tells
	}
	return n, err
}

// Stream implements Transport.
func (u *USB) Stream(ctx context.Context, idle time.Duration, pieces iter.Seq[[]byte]) (int64, error) {
	return u.handle.Stream(ctx, u.out.Address, idle, pieces)
}
