package inproc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"snag/sim/usbdev"
	"snag/usb"
)

// Pair is the two buses of one controller. They share their ports: a device of super speed is on Super, any other on
// High.
type Pair struct{ High, Super int }

// Host is a USB host with virtual ports. It implements [usb.Host], [usb.Peerer] and [usb.Namer].
type Host struct {
	name  string
	pairs []Pair

	mu       sync.Mutex // before a device's
	ports    map[usb.Port]*Port
	last     map[int]int // the last device number that each bus has given
	watchers map[chan struct{}]struct{}
}

var _ interface {
	usb.Host
	usb.Peerer
	usb.Namer
} = (*Host)(nil)

// New makes a host with nothing attached. It has every bus and every port that is asked for.
func New(pairs ...Pair) *Host {
	return &Host{
		name:     rand.Text(),
		pairs:    pairs,
		ports:    make(map[usb.Port]*Port),
		last:     make(map[int]int),
		watchers: make(map[chan struct{}]struct{}),
	}
}

// Name implements [usb.Namer].
func (h *Host) Name() string { return h.name }

// Port is a physical port. Both names of a port of paired buses mean the same one.
func (h *Host) Port(name usb.Port) *Port {
	name = h.at(name, usbdev.HighSpeed)
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.ports[name]
	if p == nil {
		p = &Port{host: h, name: name}
		h.ports[name] = p
	}
	return p
}

// at is the name that a port has for a device of a speed.
func (h *Host) at(name usb.Port, speed usbdev.Speed) usb.Port {
	bus, chain := split(name)
	for _, p := range h.pairs {
		if bus == p.High || bus == p.Super {
			bus = p.High
			if speed >= usbdev.SuperSpeed {
				bus = p.Super
			}
			break
		}
	}
	return usb.Port(fmt.Sprintf("%d-%s", bus, chain))
}

func split(name usb.Port) (bus int, chain string) {
	number, chain, _ := strings.Cut(string(name), "-")
	bus, _ = strconv.Atoi(number)
	return bus, chain
}

// Peer implements [usb.Peerer].
func (h *Host) Peer(name usb.Port) (usb.Port, error) {
	for _, speed := range []usbdev.Speed{usbdev.HighSpeed, usbdev.SuperSpeed} {
		if peer := h.at(name, speed); peer != name {
			return peer, nil
		}
	}
	return "", nil
}

// Devices implements [usb.Host].
func (h *Host) Devices() ([]usb.Device, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []usb.Device
	for _, p := range h.ports {
		if p.dev != nil {
			if d, ok := p.dev.listing(); ok {
				list = append(list, d)
			}
		}
	}
	slices.SortFunc(list, func(a, b usb.Device) int { return a.Port.Compare(b.Port) })
	return list, nil
}

// Watch implements [usb.Host].
func (h *Host) Watch(ctx context.Context) (<-chan struct{}, error) {
	ch := make(chan struct{}, 1)
	ch <- struct{}{}
	h.mu.Lock()
	h.watchers[ch] = struct{}{}
	h.mu.Unlock()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers, ch)
		close(ch)
	})
	return ch, nil
}

// changed wakes the watchers.
func (h *Host) changed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch := range h.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// Open implements [usb.Host]. It waits for the end of the enumeration.
func (h *Host) Open(ctx context.Context, d usb.Device) (usb.Handle, error) {
	fail := func(err error) (usb.Handle, error) {
		return nil, &usb.TransferError{Op: "open", Port: d.Port, ID: d.ID, Endpoint: -1, Err: err}
	}
	h.mu.Lock()
	var dev *device
	if p := h.ports[h.at(d.Port, usbdev.HighSpeed)]; p != nil {
		dev = p.dev
	}
	h.mu.Unlock()
	if dev == nil || dev.port != d.Port || dev.address != d.Address {
		return fail(usb.ErrGone)
	}
	if err := dev.hold(ctx); err != nil {
		return fail(err)
	}
	defer dev.letGo()
	info, ok := dev.listing()
	if !ok {
		return fail(errors.New("the device did not enumerate"))
	}
	return &handle{device: dev, info: info}, nil
}

// Port is one physical port. It implements [usbdev.Port].
type Port struct {
	host *Host
	name usb.Port // for a device of high speed

	plug sync.Mutex // held by Attach and Detach
	dev  *device    // what is attached; guarded by host.mu
	last int        // the device number that was given last; guarded by host.mu
}

var _ usbdev.Port = (*Port)(nil)

// Name is the port's name for devices of less than super speed.
func (p *Port) Name() usb.Port { return p.name }

// Attach implements [usbdev.Port].
func (p *Port) Attach(ctx context.Context, dev usbdev.Device) error {
	return p.attach(ctx, dev, false)
}

// AttachSame is Attach to the device number of what was attached here before, as it may happen
// when the bus has given all others in between.
func (p *Port) AttachSame(ctx context.Context, dev usbdev.Device) error {
	return p.attach(ctx, dev, true)
}

func (p *Port) attach(ctx context.Context, dev usbdev.Device, same bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.plug.Lock()
	defer p.plug.Unlock()
	h := p.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.dev != nil {
		return fmt.Errorf("port %s: occupied", p.name)
	}
	if same && p.last > 0 {
		bus, _ := split(h.at(p.name, dev.Descriptors().Speed))
		h.last[bus] = p.last - 1
	}
	h.attach(p, dev)
	return nil
}

// attach gives a device the next free number of its bus and begins to enumerate it. h.mu is held.
func (h *Host) attach(p *Port, dev usbdev.Device) {
	port := h.at(p.name, dev.Descriptors().Speed)
	bus, _ := split(port)
	used := make(map[int]bool)
	for _, other := range h.ports {
		if other.dev != nil && other.dev.bus == bus {
			used[other.dev.address] = true
		}
	}
	address := h.last[bus]
	for range maxAddress {
		address = address%maxAddress + 1
		if !used[address] {
			break
		}
	}
	h.last[bus], p.last = address, address
	p.dev = newDevice(p, dev, port, bus, address)
	p.dev.work.Add(1)
	go p.dev.enumerate()
}

// maxAddress is the highest device address (USB 2.0, 9.4.6).
const maxAddress = 127

// Detach implements [usbdev.Port]. It returns when no call of the device's methods is pending any more.
func (p *Port) Detach() error {
	p.plug.Lock()
	defer p.plug.Unlock()
	p.host.mu.Lock()
	d := p.dev
	p.dev = nil
	p.host.mu.Unlock()
	if d != nil {
		d.leave()
		d.work.Wait()
		p.host.changed()
	}
	return nil
}
