package inproc

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"snag/sim/usbdev"
	"snag/usb"
)

// device is an attached device as its host knows it.
type device struct {
	slot    *Port
	dev     usbdev.Device
	port    usb.Port
	bus     int
	address int
	gone    chan struct{}
	work    sync.WaitGroup // what calls dev's methods

	// lock is full while somebody changes the configuration, the claims or the drivers, as Linux's device lock.
	lock chan struct{}

	mu      sync.Mutex
	left    bool // gone is closed
	info    usb.Device
	desc    *usb.Descriptors // nil until the device is listed
	config  uint8
	alts    map[uint8]uint8
	drivers map[uint8]string
	claims  map[uint8]*handle
	flights map[*flight]struct{}
	queues  map[uint8]chan struct{}
}

func newDevice(slot *Port, dev usbdev.Device, port usb.Port, bus, address int) *device {
	d := &device{
		slot: slot, dev: dev, port: port, bus: bus, address: address,
		gone:    make(chan struct{}),
		lock:    make(chan struct{}, 1),
		alts:    make(map[uint8]uint8),
		drivers: make(map[uint8]string),
		claims:  make(map[uint8]*handle),
		flights: make(map[*flight]struct{}),
		queues:  make(map[uint8]chan struct{}),
	}
	d.lock <- struct{}{} // enumerate's
	return d
}

// hold takes the device's lock.
func (d *device) hold(ctx context.Context) error {
	select {
	case <-d.gone:
		return usb.ErrGone
	default:
	}
	select {
	case d.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-d.gone:
		return usb.ErrGone
	}
}

func (d *device) letGo() { <-d.lock }

// leave ends all transfers, pending and to come.
func (d *device) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.left {
		d.left = true
		close(d.gone)
		d.abort(usb.ErrGone, func(*flight) bool { return true })
	}
}

// listing is what Devices says of the device; ok is false until the descriptors are read.
func (d *device) listing() (info usb.Device, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.desc == nil {
		return usb.Device{}, false
	}
	info = d.info
	info.Config = int(d.config)
	for number, s := range d.settings() {
		info.Interfaces = append(info.Interfaces, usb.Interface{
			Number: int(number), Class: s.Class, SubClass: s.SubClass, Protocol: s.Protocol, Driver: d.drivers[number],
		})
	}
	return info, true
}

// settings yields the active settings of the active configuration. d.mu is held.
func (d *device) settings() func(yield func(uint8, *usb.Setting) bool) {
	return func(yield func(uint8, *usb.Setting) bool) {
		for i := range d.desc.Configs {
			if d.config == 0 || d.desc.Configs[i].Value != d.config {
				continue
			}
			for j := range d.desc.Configs[i].Settings {
				s := &d.desc.Configs[i].Settings[j]
				if s.Alt == d.alts[s.Number] && !yield(s.Number, s) {
					return
				}
			}
			return // a second configuration of the same value counts for nothing
		}
	}
}

// requestTimeout bounds each request of the host's own, as Linux does (USB_CTRL_GET_TIMEOUT).
const requestTimeout = 5 * time.Second

// request performs a control transfer of the host's own.
func (d *device) request(s usb.Setup) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	buf := make([]byte, s.Length)
	n, err := d.control(ctx, nil, s, buf)
	return buf[:n], err
}

// enumerate reads the descriptors, selects the first configuration and binds the drivers. A device that does not
// describe itself is not listed.
func (d *device) enumerate() {
	defer d.work.Done()
	defer d.letGo()
	raw, err := d.describe()
	if err != nil {
		return
	}
	desc, err := usb.ParseDescriptors(raw)
	if err != nil {
		return
	}
	info := usb.Device{
		Port: d.port, ID: desc.ID, Release: desc.Release, Bus: d.bus, Address: d.address,
		Speed:        d.dev.Descriptors().Speed.Mbps(),
		Manufacturer: d.text(desc.Manufacturer), Product: d.text(desc.Product), Serial: d.text(desc.Serial),
	}
	d.mu.Lock()
	d.info, d.desc = info, desc
	d.mu.Unlock()
	d.slot.host.changed()
	if len(desc.Configs) > 0 && d.configure(desc.Configs[0].Value) == nil {
		d.bind()
	}
}

// describe reads the device descriptor and all configurations.
func (d *device) describe() ([]byte, error) {
	raw, err := d.request(usb.Setup{Type: 0x80, Request: usb.ReqGetDescriptor, Value: 1 << 8, Length: 18})
	if err != nil {
		return nil, err
	}
	if len(raw) < 18 {
		return nil, usb.ErrProtocol
	}
	for i := range uint16(raw[17]) {
		get := usb.Setup{Type: 0x80, Request: usb.ReqGetDescriptor, Value: 2<<8 | i, Length: 9}
		head, err := d.request(get)
		if err != nil || len(head) < 9 {
			break // what was read until then counts
		}
		get.Length = uint16(head[2]) | uint16(head[3])<<8
		config, err := d.request(get)
		if err != nil {
			break
		}
		raw = append(raw, config...)
	}
	return raw, nil
}

// text is one of the device's strings; empty if it has none.
func (d *device) text(index uint8) string {
	s, _ := usb.String(context.Background(), &handle{device: d}, index)
	return s
}

// configure selects a configuration.
func (d *device) configure(value uint8) error {
	if _, err := d.request(usb.Setup{Request: usb.ReqSetConfiguration, Value: uint16(value)}); err != nil {
		return err
	}
	d.mu.Lock()
	d.config = value
	clear(d.alts)
	clear(d.drivers)
	d.mu.Unlock()
	d.slot.host.changed()
	return nil
}

// reset makes the host's part of a port reset: the device must still be the same. Its
// configuration is selected again.
func (d *device) reset() error {
	d.mu.Lock()
	d.abort(fmt.Errorf("%w: the port was reset", usb.ErrProtocol), func(*flight) bool { return true })
	config, old := d.config, d.desc.Raw
	d.mu.Unlock()
	raw, err := d.describe()
	if err != nil || string(raw) != string(old) {
		return usb.ErrGone
	}
	if config == 0 {
		return nil
	}
	if _, err := d.request(usb.Setup{Request: usb.ReqSetConfiguration, Value: uint16(config)}); err != nil {
		return usb.ErrGone
	}
	d.mu.Lock()
	clear(d.alts)
	d.mu.Unlock()
	return nil
}

// replug enumerates a device that is not what it was before a reset.
func (d *device) replug() {
	p := d.slot
	p.host.mu.Lock()
	if p.dev != d {
		p.host.mu.Unlock()
		return
	}
	d.leave()
	p.host.attach(p, d.dev)
	p.host.mu.Unlock()
	p.host.changed()
}

// driver is the Linux driver of an interface and how many interfaces it takes.
func driver(s *usb.Setting) (name string, span uint8) {
	switch [3]uint8{s.Class, s.SubClass, s.Protocol} {
	case [3]uint8{0x02, 0x02, 0xff}, [3]uint8{0xe0, 0x01, 0x03}, [3]uint8{0xef, 0x04, 0x01}:
		return "rndis_host", 2
	case [3]uint8{0x02, 0x06, 0x00}:
		return "cdc_ether", 2
	case [3]uint8{0x08, 0x06, 0x50}:
		return "usb-storage", 1
	}
	if s.Class == classHID {
		return "usbhid", 1
	}
	return "", 0
}

// bind gives the interfaces that nobody holds to their drivers. The lock is held.
func (d *device) bind() {
	d.mu.Lock()
	var free []*usb.Setting
	for number, s := range d.settings() {
		if d.claims[number] == nil && d.drivers[number] == "" {
			free = append(free, s)
		}
	}
	d.mu.Unlock()
	bound := false
	for _, s := range free {
		name, span := driver(s)
		if name == "" || name == "usbhid" && d.probeHID(s) != nil {
			continue
		}
		d.mu.Lock()
		ok := true
		for i := range span {
			ok = ok && d.claims[s.Number+i] == nil && d.drivers[s.Number+i] == ""
		}
		for i := range span {
			if ok {
				d.drivers[s.Number+i] = name
			}
		}
		d.mu.Unlock()
		bound = bound || ok
	}
	if bound {
		d.slot.host.changed()
	}
}

// unbind detaches an interface's driver, from all interfaces that it took. d.mu is held.
func (d *device) unbind(iface uint8) {
	name := d.drivers[iface]
	for number, s := range d.settings() {
		n, span := driver(s)
		if n != name || iface < number || iface >= number+span {
			continue
		}
		for i := range span {
			delete(d.drivers, number+i)
		}
	}
}

const (
	classHID      = 3
	descHID       = 0x21
	descHIDReport = 0x22
	hidSetIdle    = 0x0a
)

// probeHID makes the requests of usbhid's probe (HID 1.11, sections 7.1.1 and 7.2.4): U-Boot's SPL answers no command
// until its host has asked for the report descriptor.
func (d *device) probeHID(s *usb.Setting) error {
	var length uint16
	for b := s.Extra; len(b) >= 2 && b[0] >= 2 && int(b[0]) <= len(b); b = b[b[0]:] {
		if b[1] == descHID && len(b) >= 9 {
			length = uint16(b[7]) | uint16(b[8])<<8
			break
		}
	}
	if length == 0 {
		return os.ErrInvalid
	}
	iface := uint16(s.Number)
	d.request(usb.Setup{Type: 0x21, Request: hidSetIdle, Index: iface}) // a stall is allowed
	_, err := d.request(usb.Setup{Type: 0x81, Request: usb.ReqGetDescriptor, Value: descHIDReport << 8, Index: iface, Length: length})
	return err
}
