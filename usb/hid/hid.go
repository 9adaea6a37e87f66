// Package hid is a client of USB's class of human interface devices, which boot ROMs use as a channel for messages: no
// operating system asks for a driver.
//
// It is specified in "Device Class Definition for Human Interface Devices (HID)", version 1.11, here HID 1.11. A
// message is a report. [Open] takes an interface from the kernel's driver and reads from its report descriptor how long
// the reports are ([ParseReports]); [Device.Send] and [Device.SendAll] send output reports, [Device.Receive] waits for
// an input report.
package hid

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"snag/usb"
)

// Class, descriptor types and requests (HID 1.11, sections 4.1, 7.1 and 7.2).
const (
	class         = 3
	descHID       = 0x21
	descReport    = 0x22
	setReport     = 0x09
	typeOutput    = 2
	toInterface   = 0x21 // class request to an interface
	fromInterface = 0x81 // standard request for an interface's data
)

// Device is an open HID interface. Its methods may be called from several goroutines.
type Device struct {
	// Reports are the sizes that the device states. They are empty, and Numbered set, if it refuses to, or states what
	// cannot be read: boot ROMs and gadgets were not all tried with an operating system that looks.
	Reports Reports

	// ForceControl sends reports over endpoint 0 also where the interface has an interrupt OUT endpoint. It is to be
	// set before the first report.
	ForceControl bool

	handle usb.Handle
	iface  uint8
	in     usb.Endpoint
	out    usb.Endpoint // Address is 0 if there is none
}

// Open claims the first HID interface of the active configuration and asks once for its report descriptor: there are
// gadgets that answer nothing before (U-Boot, drivers/usb/gadget/f_sdp.c). The handle remains the caller's.
func Open(ctx context.Context, h usb.Handle) (*Device, error) {
	s := find(h)
	if s == nil {
		return nil, fmt.Errorf("USB device %s on port %s: no HID interface in configuration %d", h.Device().ID, h.Device().Port, h.Device().Config)
	}
	d := &Device{handle: h, iface: s.Number}
	d.out, _ = s.Find(usb.Interrupt, false)
	var ok bool
	if d.in, ok = s.Find(usb.Interrupt, true); !ok || d.in.MaxPacket == 0 {
		return nil, fmt.Errorf("USB device %s on port %s: HID interface %d has no interrupt IN endpoint", h.Device().ID, h.Device().Port, s.Number)
	}
	if err := h.Claim(ctx, d.iface); err != nil {
		return nil, err
	}
	if err := d.describe(ctx, s); err != nil {
		// The context may be what ended.
		h.Release(context.WithoutCancel(ctx), d.iface)
		return nil, err
	}
	return d, nil
}

// find returns the first HID interface; nil if there is none.
func find(h usb.Handle) *usb.Setting {
	for _, s := range h.Descriptors().Settings(h.Device().Config) {
		if s.Class == class && s.Alt == 0 {
			return &s
		}
	}
	return nil
}

// describe reads the report descriptor.
func (d *Device) describe(ctx context.Context, s *usb.Setting) error {
	buf := make([]byte, reportDescriptorLength(s.Extra))
	n, err := d.handle.Control(ctx, usb.Setup{
		Type: fromInterface, Request: usb.ReqGetDescriptor, Value: descReport << 8, Index: uint16(d.iface), Length: uint16(len(buf)),
	}, buf)
	if errors.Is(err, usb.ErrStall) {
		d.Reports.Numbered = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("HID report descriptor: %w", err)
	}
	if d.Reports, err = ParseReports(buf[:n]); err != nil {
		d.Reports.Numbered = true
	}
	return nil
}

// reportDescriptorLength finds it in the HID descriptor (HID 1.11, section 6.2.1):
//
//	off size                    off size
//	0   1    length             5   1    number of class descriptors
//	1   1    type, 0x21         6   1    type, and
//	2   2    bcdHID             7   2    length of the first one
//	4   1    country            ...      and so on
func reportDescriptorLength(extra []byte) int {
	for b := extra; len(b) >= 2 && b[0] >= 2 && int(b[0]) <= len(b); b = b[b[0]:] {
		if b[1] != descHID {
			continue
		}
		for e := b[min(6, b[0]):b[0]]; len(e) >= 3; e = e[3:] {
			if n := int(e[1]) | int(e[2])<<8; e[0] == descReport && n > 0 {
				return n
			}
		}
	}
	return 1024 // a device ends the data stage where its descriptor ends
}

// Release gives the interface back.
func (d *Device) Release(ctx context.Context) error { return d.handle.Release(ctx, d.iface) }

// report appends the report of an ID to b: the ID, unless it is 0, the payload, and zeros up to a payload of padTo
// bytes.
func report(b []byte, id uint8, payload []byte, padTo int) []byte {
	if id != 0 {
		b = append(b, id)
	}
	b = append(b, payload...)
	if n := padTo - len(payload); n > 0 {
		b = append(b, make([]byte, n)...)
	}
	return b
}

// Send sends an output report, with its payload filled up with zeros to padTo bytes. It uses the interrupt OUT endpoint
// if there is one, else SET_REPORT. ID 0 is for a device without report IDs.
func (d *Device) Send(ctx context.Context, id uint8, payload []byte, padTo int) error {
	b := report(nil, id, payload, padTo)
	var n int
	var err error
	switch {
	case d.interrupt():
		n, err = d.handle.Out(ctx, d.out.Address, b)
	case len(b) > maxReport:
		err = tooLong(b)
	default:
		n, err = d.handle.Control(ctx, d.set(id, b), b)
	}
	if err == nil && n < len(b) {
		err = fmt.Errorf("%d of %d bytes were taken: %w", n, len(b), usb.ErrProtocol)
	}
	return failed(id, err)
}

// set is the setup packet of SET_REPORT with an output report (HID 1.11, section 7.2.2).
func (d *Device) set(id uint8, report []byte) usb.Setup {
	return usb.Setup{Type: toInterface, Request: setReport, Value: typeOutput<<8 | uint16(id), Index: uint16(d.iface), Length: uint16(len(report))}
}

func tooLong(report []byte) error {
	return fmt.Errorf("%d bytes, more than SET_REPORT can carry", len(report))
}

// failed describes an output report that failed; nil if none did.
func failed(id uint8, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("HID output report %d: %w", id, err)
}

// interrupt says how output reports go.
func (d *Device) interrupt() bool { return d.out.Address != 0 && !d.ForceControl }

// SendAll sends one output report for each payload, with several in flight. All payloads but the last must have padTo
// bytes; the last is filled up with zeros. A payload may be changed when the next one is asked for. It returns how many
// bytes of the payloads the device took, by SET_REPORT those of whole reports. idle bounds the time in which the device
// takes no report (0: [usb.DefaultTimeout]), ctx the whole.
//
// Several SET_REPORTs in flight ask no more of a device than one does: they wait in the host controller's queue for
// endpoint 0, which does not begin one before the device has ended the status stage of the one before (USB 2.0, 8.5.3).
// A ROM that is not done with a report yet answers NAK until it is, whoever asks.
func (d *Device) SendAll(ctx context.Context, id uint8, padTo int, idle time.Duration, payloads iter.Seq[[]byte]) (int64, error) {
	var offered, wire int64
	var buf []byte
	reports := func(yield func([]byte) bool) {
		for p := range payloads {
			offered += int64(len(p))
			buf = report(buf[:0], id, p, padTo)
			if !yield(buf) {
				return
			}
		}
	}
	var err error
	if d.interrupt() {
		wire, err = d.handle.Stream(ctx, d.out.Address, idle, reports)
	} else {
		var length int // of every report
		var long error
		var n int
		n, err = d.handle.StreamControl(ctx, idle, func(yield func(usb.Setup, []byte) bool) {
			reports(func(b []byte) bool {
				if length = len(b); length > maxReport {
					long = tooLong(b)
					return false
				}
				return yield(d.set(id, b), b)
			})
		})
		if err == nil {
			err = long
		}
		wire = int64(n) * int64(length)
	}
	err = failed(id, err)
	if id == 0 || padTo <= 0 {
		return min(wire, offered), err
	}
	size := int64(padTo) + 1
	return min(wire/size*int64(padTo)+max(wire%size-1, 0), offered), err
}

// minInput is the room for an input report where the device states no sizes.
const minInput = 65

// Receive waits for an input report on the interrupt IN endpoint. A device without report IDs has ID 0.
func (d *Device) Receive(ctx context.Context) (id uint8, payload []byte, err error) {
	size := 0
	for _, n := range d.Reports.Input {
		size = max(size, n)
	}
	if size == 0 {
		size = minInput
	} else if d.Reports.Numbered {
		size++
	}
	// Whole packets: one larger than its report should be is no overflow then.
	size = (size + d.in.MaxPacket - 1) / d.in.MaxPacket * d.in.MaxPacket
	buf := make([]byte, size)
	n, err := d.handle.In(ctx, d.in.Address, buf)
	if err != nil {
		return 0, nil, fmt.Errorf("HID input report: %w", err)
	}
	if !d.Reports.Numbered {
		return 0, buf[:n], nil
	}
	if n == 0 {
		return 0, nil, fmt.Errorf("HID input report: expected a report ID, got an empty report from %s on port %s", d.handle.Device().ID, d.handle.Device().Port)
	}
	return buf[0], buf[1:n], nil
}
