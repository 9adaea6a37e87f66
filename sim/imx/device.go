package imx

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"snag/sim/usbdev"
)

// Endpoints, in all models that have them. uuu and imx_usb read HID reports from 0x81 without looking at
// the descriptors; imx_usb does the same with the bulk ones.
const (
	epOut    = 0x01
	epIn     = 0x81
	epBulkIn = 0x82
)

// HID's requests and descriptors (HID 1.11, sections 6.2 and 7.2).
const (
	hidSetReport = 0x09
	hidSetIdle   = 0x0a
	descHID      = 0x21
	descReport   = 0x22
	getDesc      = 6
)

// reportDescriptor describes the four reports of SDP with one vendor usage each (HID 1.11, section 6.2.2):
// 1 and 2 out with 16 and data bytes, 3 and 4 in with 4 and 64.
func reportDescriptor(data int) []byte {
	b := []byte{
		0x06, 0x00, 0xff, // usage page: vendor
		0x09, 0x01, // usage 1
		0xa1, 0x01, // collection: application
	}
	for i, n := range []int{16, data, 4, 64} {
		b = append(b,
			0x85, byte(i+1), // report ID
			0x19, 0x01, 0x29, 0x01, // usages 1 to 1
			0x15, 0x00, 0x26, 0xff, 0x00, // values 0 to 255
			0x75, 0x08, // bits of a value
			0x96, byte(n), byte(n>>8)) // values
		if i < 2 {
			b = append(b, 0x91, 0x02) // output
		} else {
			b = append(b, 0x81, 0x02) // input
		}
	}
	return append(b, 0xc0)
}

// report is one report, or one transfer of a bulk endpoint, from the host.
type report struct {
	id      byte
	data    []byte
	control bool // by SET_REPORT
	config  int  // how often the host had configured the device by then
}

// errConfigured says that the host selected a configuration: what was going on before is forgotten.
var errConfigured = errors.New("the host configured the device anew")

// device is the USB function of a stage. The stage's goroutine reads reports and sends answers; what
// goes between is in Gadget's pipes and in reports.
type device struct {
	*usbdev.Gadget
	hid        bool
	descriptor []byte // the report descriptor
	max        int    // bytes of the longest report from the host, with its ID
	violation  func(format string, args ...any)
	noControl  bool // SET_REPORT is not served

	reports chan report
	fetched chan struct{} // closed when the host has read the report descriptor
	resume  chan struct{} // holds one: the OUT endpoint is looked at again

	// The stage's own.
	seen  int     // the configuration that it knows of
	early *report // what came for errConfigured

	mu         sync.Mutex
	hasFetched bool
	stalled    int // SET_REPORTs still to be refused
}

// newDevice makes a device. For HID out tells whether there is an interrupt OUT endpoint, and data the size
// of report 2 without its ID; for bulk data is the packet size.
func newDevice(d usbdev.Descriptors, hid, out bool, inPacket, data int, violation func(string, ...any)) *device {
	v := &device{
		hid: hid, max: 1 + data, violation: violation,
		reports: make(chan report), fetched: make(chan struct{}), resume: make(chan struct{}, 1),
	}
	iface := usbdev.Interface{Class: 0xff}
	if hid {
		v.descriptor = reportDescriptor(data)
		iface.Class = 3
		iface.Extra = []byte{9, descHID, 0x10, 0x01, 0, 1, descReport, byte(len(v.descriptor)), byte(len(v.descriptor) >> 8)}
		iface.Endpoints = []usbdev.Endpoint{{Address: epIn, Type: usbdev.Interrupt, MaxPacket: uint16(inPacket), Interval: 1}}
		if out {
			iface.Endpoints = append(iface.Endpoints, usbdev.Endpoint{Address: epOut, Type: usbdev.Interrupt, MaxPacket: 1024, Interval: 1})
		}
	} else {
		iface.Endpoints = []usbdev.Endpoint{
			{Address: epOut, Type: usbdev.Bulk, MaxPacket: uint16(data)},
			{Address: epBulkIn, Type: usbdev.Bulk, MaxPacket: uint16(data)},
		}
	}
	d.Configs = []usbdev.Config{{Value: 1, Attributes: 0x40, MaxPower: 5, Interfaces: []usbdev.Interface{iface}}}
	v.Gadget = usbdev.NewGadget(&d, (*function)(v))
	return v
}

// function is the class's side of a device.
type function device

// watch ends ctx by errConfigured when the host configures the device anew. stop is to be called.
func (v *device) watch(ctx context.Context) (watched context.Context, stop func(), err error) {
	if config, _ := v.Configured(); config != v.seen {
		v.seen = config
		return nil, nil, errConfigured
	}
	watched, stop = v.While(ctx, v.seen, errConfigured)
	return watched, stop, nil
}

func (*function) Configured(uint8) {}

func (*function) Selected(uint8, uint8) {}

func (f *function) Control(ctx context.Context, s usbdev.Setup, data []byte) (int, error) {
	switch {
	case !f.hid:
		return 0, usbdev.ErrStall
	case s.Type == 0x81 && s.Request == getDesc && s.Value == descReport<<8:
		f.mu.Lock()
		if !f.hasFetched {
			f.hasFetched = true
			close(f.fetched)
		}
		f.mu.Unlock()
		return copy(data, f.descriptor), nil
	case s.Type == 0x21 && s.Request == hidSetIdle:
		return 0, nil
	case s.Type == 0x21 && s.Request == hidSetReport && s.Value>>8 == 2 && !f.noControl:
		return f.setReport(ctx, byte(s.Value), data)
	}
	return 0, usbdev.ErrStall
}

func (f *function) setReport(ctx context.Context, id byte, data []byte) (int, error) {
	f.mu.Lock()
	refuse := f.stalled > 0
	if refuse {
		f.stalled--
	}
	f.mu.Unlock()
	config, _ := f.Gadget.Configured()
	if refuse {
		return 0, usbdev.ErrStall
	}
	if len(data) == 0 || data[0] != id {
		f.violation("SET_REPORT %d with a report that begins % x", id, data[:min(len(data), 4)])
		return 0, usbdev.ErrStall
	}
	r := report{id, append([]byte(nil), data[1:]...), true, config}
	select {
	case f.reports <- r: // as a rule the ROM waits for it
		return len(data), nil
	default:
	}
	select {
	case f.reports <- r:
		return len(data), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-f.Gone():
		return 0, usbdev.ErrGone
	}
}

// pump hands what comes by the OUT endpoint to the stage, while that is served.
func (v *device) pump(ctx context.Context, served func() bool) {
	pipe := v.OutPipe(epOut)
	if pipe == nil {
		return
	}
	for {
		if !served() {
			select {
			case <-v.resume:
				continue
			case <-ctx.Done():
				return
			}
		}
		buf := make([]byte, 2048)
		n, err := pipe.Read(ctx, buf)
		if err != nil {
			return
		}
		if n == 0 {
			continue
		}
		config, _ := v.Configured()
		select {
		case v.reports <- report{buf[0], buf[1:n], false, config}:
		case <-ctx.Done():
			return
		}
	}
}

// serve lets pump go on that stopped.
func (v *device) serve() {
	select {
	case v.resume <- struct{}{}:
	default:
	}
}

// receive waits for the host's next report.
func (v *device) receive(ctx context.Context) (report, error) {
	if r := v.early; r != nil {
		v.early = nil
		return *r, nil
	}
	select {
	case r := <-v.reports:
		if r.config != v.seen {
			v.seen, v.early = r.config, &r
			return report{}, errConfigured
		}
		return r, nil
	case <-ctx.Done():
		return report{}, ctx.Err()
	case <-v.Gone():
		return report{}, usbdev.ErrGone
	}
}

// send gives the host a report, its ID first, and returns when the host has it.
func (v *device) send(ctx context.Context, b []byte) error {
	ep := uint8(epIn)
	if !v.hid {
		ep = epBulkIn
	}
	ctx, stop, err := v.watch(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if _, err = v.InPipe(ep).Write(ctx, b); err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("answer not read by the host: %w", err)
	}
	return nil
}

// halt stalls every endpoint until the host clears that, and the next SET_REPORT.
func (v *device) halt() {
	v.mu.Lock()
	v.stalled++
	v.mu.Unlock()
	for _, ep := range []uint8{epOut, epIn, epBulkIn} {
		v.Halt(ep)
	}
}
