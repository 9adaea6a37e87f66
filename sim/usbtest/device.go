package usbtest

import (
	"bytes"
	"context"
	"sync"

	"snag/sim/usbdev"
	"snag/usb"
)

// Endpoints of a Device. The interrupt endpoints of wide packets are those of setting 1 of interface 0.
const (
	bulkIn, bulkOut     = 0x81, 0x01 // interface 0, setting 0: packets of 512 bytes, 1024 at super speed
	wideIn, wideOut     = 0x82, 0x02 // interface 0, setting 1: packets of 1024 bytes
	narrowIn, narrowOut = 0x83, 0x03 // interface 1: packets of 64 bytes
	hidIn               = 0x84       // interface 2
)

// The interfaces of a Device.
const (
	ifaceBulk   = 0
	ifaceNarrow = 1
	ifaceHID    = 2
)

// dfu is a DFU functional descriptor (DFU 1.1, section 4.1.3): an example of what only a class knows.
var dfu = []byte{9, 0x21, 0x0d, 0xe8, 0x03, 0x00, 0x10, 0x10, 0x01}

// hidReports describes one input report of 8 bytes of a vendor's (HID 1.11, section 6.2.2).
var hidReports = []byte{0x06, 0x00, 0xff, 0x09, 0x01, 0xa1, 0x01, 0x15, 0, 0x26, 0xff, 0, 0x09, 1, 0x75, 8, 0x95, 8, 0x81, 2, 0xc0}

// Vendor requests of a Device, to the device.
const (
	reqStore  = 1 // to the device: keeps the data; to the host: what was kept
	reqStall  = 2 // is stalled
	reqSilent = 3 // is not answered until the host gives up
	reqAppend = 4 // to the device: keeps the data behind what was kept
)

// maxStore is what reqStore keeps: the data stage that Linux's usbfs allows is one page. maxAppend bounds reqAppend.
const (
	maxStore  = 4096
	maxAppend = 1 << 20
)

const stringExtra = 5 // index of a string that no standard descriptor names

// texts are the strings by index.
var texts = [...]string{1: "snag", 2: "Prüfling \U0001f41f", 3: "0123456789abcdef", stringExtra: "extra"}

// Options say how a Device differs from the usual one.
type Options struct {
	ID    usb.ID       // 1209:0001 (a test ID of pid.codes) if zero
	Speed usbdev.Speed // high speed if zero
	NoHID bool         // leaves out the interface that has a kernel driver
}

// Device is a gadget whose ends of the pipes are the test's. It keeps the control requests that it got. It has two
// configurations:
//
//	configuration 1: interface 0 (vendor): setting 0 bulk, setting 1 interrupt endpoints of 1024-byte packets
//	                 interface 1 (vendor): interrupt endpoints of 64-byte packets
//	                 interface 2 (HID): an interrupt IN endpoint
//	configuration 2: interface 0 as in configuration 1
type Device struct {
	*usbdev.Gadget

	mu       sync.Mutex
	stored   []byte
	requests []usb.Setup
	silent   chan struct{} // gets a value when reqSilent arrives
}

// NewDevice makes a device.
func NewDevice(o Options) *Device {
	if o.ID == (usb.ID{}) {
		o.ID = usb.ID{Vendor: 0x1209, Product: 0x0001}
	}
	if o.Speed == 0 {
		o.Speed = usbdev.HighSpeed
	}
	bulk := uint16(512)
	if o.Speed == usbdev.SuperSpeed {
		bulk = 1024
	}
	pair := func(in, out, typ uint8, size uint16, interval uint8) []usbdev.Endpoint {
		return []usbdev.Endpoint{
			{Address: in, Type: typ, MaxPacket: size, Interval: interval},
			{Address: out, Type: typ, MaxPacket: size, Interval: interval},
		}
	}
	first := []usbdev.Interface{
		{Number: ifaceBulk, Class: 0xff, Extra: dfu, Endpoints: pair(bulkIn, bulkOut, usbdev.Bulk, bulk, 0)},
		{Number: ifaceBulk, Alt: 1, Class: 0xff, SubClass: 1, Endpoints: pair(wideIn, wideOut, usbdev.Interrupt, 1024, 1)},
	}
	all := append(first[:2:2], usbdev.Interface{
		Number: ifaceNarrow, Class: 0xff, Endpoints: pair(narrowIn, narrowOut, usbdev.Interrupt, 64, 1),
	})
	if !o.NoHID {
		all = append(all, usbdev.Interface{
			Number: ifaceHID, Class: 3,
			Extra:     []byte{9, 0x21, 0x11, 1, 0, 1, 0x22, byte(len(hidReports)), 0},
			Endpoints: []usbdev.Endpoint{{Address: hidIn, Type: usbdev.Interrupt, MaxPacket: 8, Interval: 4}},
		})
	}
	d := &Device{silent: make(chan struct{}, 1)}
	d.Gadget = usbdev.NewGadget(&usbdev.Descriptors{
		Speed: o.Speed, ID: o.ID, Release: 0x0123,
		Manufacturer: texts[1], Product: texts[2], Serial: texts[3],
		Strings: map[uint8]string{stringExtra: texts[stringExtra]},
		Configs: []usbdev.Config{
			{Value: 1, Attributes: 0x40, MaxPower: 1, Interfaces: all},
			{Value: 2, Attributes: 0x40, MaxPower: 1, Interfaces: first},
		},
	}, function{d})
	return d
}

// Control implements [usbdev.Device].
func (d *Device) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	d.mu.Lock()
	d.requests = append(d.requests, s)
	d.mu.Unlock()
	return d.Gadget.Control(ctx, s, data)
}

// count says how often a request has come; its Length does not matter.
func (d *Device) count(want usb.Setup) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, s := range d.requests {
		s.Length = want.Length
		if s == want {
			n++
		}
	}
	return n
}

// kept is what reqStore and reqAppend have kept.
func (d *Device) kept() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.stored)
}

// function answers a Device's class and vendor requests.
type function struct{ d *Device }

func (f function) Configured(uint8)      {}
func (f function) Selected(uint8, uint8) {}

func (f function) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	d := f.d
	switch {
	case s.Type == 0x40 && s.Request == reqStore && len(data) <= maxStore:
		d.mu.Lock()
		defer d.mu.Unlock()
		d.stored = append([]byte(nil), data...)
		return len(data), nil
	case s.Type == 0x40 && s.Request == reqAppend:
		d.mu.Lock()
		defer d.mu.Unlock()
		if len(d.stored)+len(data) > maxAppend {
			return 0, usb.ErrStall
		}
		d.stored = append(d.stored, data...)
		return len(data), nil
	case s.Type == 0xc0 && s.Request == reqStore:
		d.mu.Lock()
		defer d.mu.Unlock()
		return copy(data, d.stored), nil
	case s.Type&0x60 == 0x40 && s.Request == reqSilent:
		select {
		case d.silent <- struct{}{}:
		default:
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-d.Gone():
			return 0, usb.ErrGone
		}
	case s.Type == 0x81 && s.Request == usb.ReqGetDescriptor && s.Value == 0x2200 && s.Index == ifaceHID:
		return copy(data, hidReports), nil
	case s.Type == 0x21 && s.Request == 0x0a: // SET_IDLE
		return 0, nil
	}
	return 0, usb.ErrStall
}
