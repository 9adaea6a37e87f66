package usbdev

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// EthernetConfig describes a gadget that is a network adapter.
type EthernetConfig struct {
	// Descriptors names at least one configuration that RNDISConfig or ECMConfig made.
	Descriptors Descriptors

	// HostMAC is the address that the host's network interface is told to have.
	HostMAC net.HardwareAddr

	// NeedNotification holds an RNDIS link down until the host has read the notification that
	// follows the packet filter, as U-Boot's gadget does. Linux reads it when the interface is
	// opened. Otherwise the link is up when the filter is set and the host polls for frames.
	NeedNotification bool

	// Malformed, if set, is told of messages that a real device would have trouble with.
	Malformed func(error)
}

// Ethernet is a network adapter: a [Gadget] and a [Link].
//
// With RNDIS the link is up after INITIALIZE and a non-zero packet filter, see
// [EthernetConfig].NeedNotification, and down after HALT. With CDC-ECM it is up when the
// setting of the data interface that has the endpoints, 1 as a rule, is selected.
type Ethernet struct {
	*Gadget
	Link *Link

	cfg EthernetConfig

	mu        sync.Mutex
	active    *Config // the selected configuration
	stop      context.CancelFunc
	rndis     rndisState
	polling   bool     // the host reads the bulk endpoint
	on        bool     // ECM: a setting of the data interface that has endpoints was selected
	responses [][]byte // RNDIS: for GET_ENCAPSULATED_RESPONSE
	notify    chan struct{}
}

// iMACAddress is the string index that ECMConfig's Ethernet descriptor names.
const iMACAddress = 4

// NewEthernet makes a network adapter. HostMAC must have six bytes.
func NewEthernet(cfg EthernetConfig) *Ethernet {
	e := &Ethernet{cfg: cfg}
	d := cfg.Descriptors
	strings := map[uint8]string{iMACAddress: macString(cfg.HostMAC)}
	for i, s := range d.Strings {
		strings[i] = s
	}
	d.Strings = strings
	e.rndis = rndisState{hostMAC: [6]byte(cfg.HostMAC), vendor: d.Manufacturer}
	e.Gadget = NewGadget(&d, adapter{e})
	e.Link = newLink(e.Gadget.Gone())
	for _, c := range d.Configs {
		for _, i := range c.Interfaces {
			for _, ep := range i.Endpoints {
				if ep.Type == Bulk && ep.Address&0x80 != 0 {
					e.InPipe(ep.Address).OnPoll(e.polled)
				}
			}
		}
	}
	return e
}

func macString(mac net.HardwareAddr) string {
	return strings.ToUpper(strings.ReplaceAll(mac.String(), ":", ""))
}

// HostMAC is the address that the host's network interface is told to have.
func (e *Ethernet) HostMAC() net.HardwareAddr { return e.cfg.HostMAC }

// NetLink is the cable to the board, for a carrier that does without USB.
func (e *Ethernet) NetLink() *Link { return e.Link }

// CDC and RNDIS descriptor and request codes (CDC 1.2, ECM 1.2).
const (
	classComm     = 0x02
	classCDCData  = 0x0a
	subClassACM   = 0x02
	subClassECM   = 0x06
	protocolRNDIS = 0xff

	reqSendEncapsulated = 0x00
	reqGetEncapsulated  = 0x01
	reqSetPacketFilter  = 0x43
)

// RNDISConfig is a configuration with an RNDIS function: interface 0 class 02/02/ff with the
// interrupt endpoint, interface 1 class 0a with the bulk endpoints.
func RNDISConfig(value, interruptIn, bulkIn, bulkOut uint8, bulkMax uint16) Config {
	return Config{Value: value, Attributes: 0x40, MaxPower: 1, Interfaces: []Interface{{
		Number: 0, Class: classComm, SubClass: subClassACM, Protocol: protocolRNDIS,
		Extra: []byte{
			5, 0x24, 0, 0x10, 0x01, // header, CDC 1.10
			5, 0x24, 1, 0, 1, // call management
			4, 0x24, 2, 0, // abstract control management
			5, 0x24, 6, 0, 1, // union: 0 controls 1
		},
		Endpoints: []Endpoint{{Address: interruptIn, Type: Interrupt, MaxPacket: 16, Interval: 9}},
	}, {
		Number: 1, Class: classCDCData,
		Endpoints: []Endpoint{{Address: bulkIn, Type: Bulk, MaxPacket: bulkMax}, {Address: bulkOut, Type: Bulk, MaxPacket: bulkMax}},
	}}}
}

// ECMConfig is a configuration with a CDC-ECM function: interface 0 class 02/06/00 with the
// interrupt endpoint; interface 1 class 0a, whose alternate setting 1 has the bulk endpoints.
func ECMConfig(value, interruptIn, bulkIn, bulkOut uint8, bulkMax uint16) Config {
	return Config{Value: value, Attributes: 0x40, MaxPower: 1, Interfaces: []Interface{{
		Number: 0, Class: classComm, SubClass: subClassECM,
		Extra: []byte{
			5, 0x24, 0, 0x10, 0x01,
			5, 0x24, 6, 0, 1,
			13, 0x24, 15, iMACAddress, 0, 0, 0, 0, maxFrame & 0xff, maxFrame >> 8, 0, 0, 0, // Ethernet
		},
		Endpoints: []Endpoint{{Address: interruptIn, Type: Interrupt, MaxPacket: 16, Interval: 9}},
	}, {
		Number: 1, Alt: 0, Class: classCDCData,
	}, {
		Number: 1, Alt: 1, Class: classCDCData,
		Endpoints: []Endpoint{{Address: bulkIn, Type: Bulk, MaxPacket: bulkMax}, {Address: bulkOut, Type: Bulk, MaxPacket: bulkMax}},
	}}}
}

// IsRNDIS says whether the configuration is one of RNDISConfig.
func (c *Config) IsRNDIS() bool {
	return len(c.Interfaces) > 0 && c.Interfaces[0].Class == classComm && c.Interfaces[0].Protocol == protocolRNDIS
}

// IsECM says whether the configuration is one of ECMConfig.
func (c *Config) IsECM() bool {
	return len(c.Interfaces) > 0 && c.Interfaces[0].Class == classComm && c.Interfaces[0].SubClass == subClassECM
}

// endpoint finds an endpoint of a type and direction in the configuration, 0 if there is none.
func (c *Config) endpoint(typ uint8, in bool) uint8 {
	for _, i := range c.Interfaces {
		for _, e := range i.Endpoints {
			if e.Type == typ && (e.Address&0x80 != 0) == in {
				return e.Address
			}
		}
	}
	return 0
}

// adapter is the [Function] of an Ethernet, which as a [Device] has a Control of its own.
type adapter struct{ e *Ethernet }

// Configured implements [Function].
func (a adapter) Configured(value uint8) {
	e := a.e
	e.mu.Lock()
	if e.stop != nil {
		e.Link.setDirect(nil)
		e.stop()
		e.stop = nil
	}
	e.active = e.desc.config(value)
	e.on, e.polling, e.responses = false, false, nil
	e.rndis.initialized, e.rndis.filter = false, 0
	if e.active != nil {
		ctx, stop := context.WithCancel(context.Background())
		e.stop = stop
		e.notify = make(chan struct{}, 64)
		go e.receive(ctx, *e.active)
		send, sendNow := e.sender(*e.active, (*pipe).give), e.sender(*e.active, (*pipe).giveNow)
		go e.Link.Carry(ctx, func(ctx context.Context, frame []byte) error { return send(transfer{ctx: ctx}, frame) })
		e.Link.setDirect(func(sender context.Context, frame []byte, wait time.Duration) error {
			return sendNow(transfer{ctx: sender, until: ctx.Done(), wait: wait}, frame)
		})
		go e.notifier(ctx, *e.active, e.notify)
	}
	e.Link.SetUp(false)
	e.mu.Unlock()
}

// Close unplugs the device.
func (e *Ethernet) Close() {
	e.Gadget.Close()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stop != nil {
		e.stop()
		e.stop = nil
	}
}

// Selected implements [Function].
func (a adapter) Selected(iface, alt uint8) {
	e := a.e
	e.mu.Lock()
	if e.active != nil && iface == 1 {
		e.on = slices.ContainsFunc(e.active.Interfaces, func(i Interface) bool { return i.Number == iface && i.Alt == alt && len(i.Endpoints) > 0 })
	}
	e.update(false)
	e.mu.Unlock()
}

func (e *Ethernet) polled(on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.polling != on {
		e.polling = on
		e.update(false)
	}
}

// update works out whether the link is up. notified: the host has just read a notification.
// e.mu is held.
func (e *Ethernet) update(notified bool) {
	up, _ := e.Link.Up()
	switch {
	case e.active == nil:
		up = false
	case !e.active.IsRNDIS():
		up = e.on
	case !e.rndis.initialized || e.rndis.filter == 0:
		up = false
	case e.cfg.NeedNotification:
		up = up || notified
	default:
		up = e.polling
	}
	e.Link.SetUp(up)
}

// Control implements [Function].
func (a adapter) Control(_ context.Context, s Setup, data []byte) (int, error) {
	e := a.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.active == nil {
		return 0, ErrStall
	}
	rndis := e.active.IsRNDIS()
	switch {
	case rndis && s.Type == 0x21 && s.Request == reqSendEncapsulated:
		response, err := e.rndis.command(data)
		if err != nil {
			e.malformed(err)
			return 0, ErrStall
		}
		if response != nil {
			if len(e.responses) < cap(e.notify) {
				e.responses = append(e.responses, response)
				select {
				case e.notify <- struct{}{}:
				default:
				}
			}
		}
		e.update(false)
		return len(data), nil
	case rndis && s.Type == 0xa1 && s.Request == reqGetEncapsulated:
		if len(e.responses) == 0 {
			return copy(data, []byte{0}), nil // "nothing yet" ([MS-RNDIS], 2.1.1.1)
		}
		response := e.responses[0]
		e.responses = e.responses[1:]
		return copy(data, response), nil
	case !rndis && s.Type == 0x21 && s.Request == reqSetPacketFilter:
		return len(data), nil
	}
	return 0, ErrStall
}

func (e *Ethernet) malformed(err error) {
	if e.cfg.Malformed != nil {
		e.cfg.Malformed(err)
	}
}

// receive moves frames from the bulk OUT endpoint to the link.
func (e *Ethernet) receive(ctx context.Context, c Config) {
	pipe := e.OutPipe(c.endpoint(Bulk, false))
	if pipe == nil {
		return
	}
	buf := make([]byte, 4096)
	for {
		n, err := pipe.Read(ctx, buf)
		if err != nil {
			return
		}
		frames := [][]byte{buf[:n]}
		if c.IsRNDIS() {
			if frames, err = decodeRNDISPackets(buf[:n]); err != nil {
				e.malformed(err)
			}
		}
		for _, f := range frames {
			if len(f) == 0 {
				continue
			}
			if e.Link.Deliver(ctx, append([]byte(nil), f...)) != nil {
				return
			}
		}
	}
}

// sender puts frames of the link into the bulk IN endpoint. There are no zero-length packets: a
// transfer that would need one gets a byte of padding, as U-Boot's gadget sends it.
func (e *Ethernet) sender(c Config, give func(*pipe, transfer) (int, error)) func(transfer, []byte) error {
	in := e.InPipe(c.endpoint(Bulk, true))
	return func(t transfer, frame []byte) error {
		if in == nil {
			return fmt.Errorf("configuration %d: %w", c.Value, ErrLinkDown)
		}
		if c.IsRNDIS() {
			t.data = encodeRNDISPacket(frame)
		} else {
			t.data = append([]byte(nil), frame...)
		}
		if len(t.data)%in.max == 0 {
			t.data = append(t.data, 0)
		}
		_, err := give(&in.pipe, t)
		return err
	}
}

// notifier sends a notification for each response that waits (word 0 = 1: response available).
func (e *Ethernet) notifier(ctx context.Context, c Config, responses <-chan struct{}) {
	pipe := e.InPipe(c.endpoint(Interrupt, true))
	if pipe == nil {
		return
	}
	note := binary.LittleEndian.AppendUint64(nil, 1)
	for {
		select {
		case <-ctx.Done():
			return
		case <-responses:
			if _, err := pipe.Write(ctx, note); err != nil {
				return
			}
			e.mu.Lock()
			e.update(true)
			e.mu.Unlock()
		}
	}
}
