package usbip

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"snag/sim/usbdev"
)

const (
	version      = 0x0111
	opReqImport  = 0x8003
	opReqDevlist = 0x8005
	opRepImport  = 0x0003
	opRepDevlist = 0x0005

	busIDLen     = 32
	deviceRecLen = 312
)

// Server exports ports over TCP for a stock usbip client. The zero value has none.
type Server struct {
	mu    sync.Mutex
	ports []*Port
}

// Port is one exported port; it implements [usbdev.Port]. A client imports what is attached at
// that moment; when the board re-enumerates, its connection ends and it must import again, as with
// any USB/IP server.
type Port struct {
	busID  string
	number uint32

	mu   sync.Mutex
	dev  usbdev.Device
	stop context.CancelFunc
	ctx  context.Context // ends when dev is detached
	used bool
}

// NewPort adds a port under a bus ID such as "1-1".
func (s *Server) NewPort(busID string) (*Port, error) {
	if len(busID) >= busIDLen {
		return nil, fmt.Errorf("bus ID %q: longer than %d bytes", busID, busIDLen-1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &Port{busID: busID, number: uint32(len(s.ports) + 1)}
	s.ports = append(s.ports, p)
	return p, nil
}

// Attach implements [usbdev.Port].
func (p *Port) Attach(_ context.Context, dev usbdev.Device) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dev != nil {
		return fmt.Errorf("port %s: occupied", p.busID)
	}
	p.dev, p.used = dev, false
	p.ctx, p.stop = context.WithCancel(context.Background())
	return nil
}

// Detach implements [usbdev.Port].
func (p *Port) Detach() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dev != nil {
		p.stop()
		p.dev = nil
	}
	return nil
}

// record is a device's entry in a list or an import reply; interfaces follow it in a list:
//
//	off size                     off size
//	0   256  path                300 2    idVendor
//	256 32   bus ID              302 2    idProduct
//	288 4    bus number          304 2    bcdDevice
//	292 4    device number       306 3    class, subclass, protocol
//	296 4    speed               309 3    configuration, configurations, interfaces
func (p *Port) record(dev usbdev.Device) []byte {
	d := dev.Descriptors()
	b := make([]byte, deviceRecLen)
	copy(b[0:255], "/sys/devices/platform/sim/"+p.busID)
	copy(b[256:287], p.busID)
	binary.BigEndian.PutUint32(b[288:], 1)
	binary.BigEndian.PutUint32(b[292:], p.number)
	binary.BigEndian.PutUint32(b[296:], uint32(d.Speed))
	binary.BigEndian.PutUint16(b[300:], d.ID.Vendor)
	binary.BigEndian.PutUint16(b[302:], d.ID.Product)
	binary.BigEndian.PutUint16(b[304:], d.Release)
	b[306], b[307], b[308] = d.Class, d.SubClass, d.Protocol
	b[310] = uint8(len(d.Configs))
	return b
}

// Serve accepts clients until the context ends. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("USB/IP server: %w", err)
		}
		clients.Go(func() {
			defer conn.Close()
			s.client(ctx, conn) // its error concerns that client alone
		})
	}
}

// client reads one operation:
//
//	off size
//	0   2    version, 0x0111
//	2   2    operation
//	4   4    status, 0
//	8   32   import: bus ID
//
// and answers with the same header, then the list (a count, then records) or the imported
// device's record, after which the connection carries transfers.
func (s *Server) client(ctx context.Context, conn net.Conn) error {
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var h [8]byte
	if _, err := io.ReadFull(conn, h[:]); err != nil {
		return err
	}
	switch op := binary.BigEndian.Uint16(h[2:]); op {
	case opReqDevlist:
		_, err := conn.Write(s.list())
		return err
	case opReqImport:
		var id [busIDLen]byte
		if _, err := io.ReadFull(conn, id[:]); err != nil {
			return err
		}
		conn.SetReadDeadline(time.Time{})
		return s.importDevice(ctx, conn, id)
	default:
		return fmt.Errorf("USB/IP operation %#x", op)
	}
}

func opHeader(op uint16, status uint32) []byte {
	b := binary.BigEndian.AppendUint16(nil, version)
	b = binary.BigEndian.AppendUint16(b, op)
	return binary.BigEndian.AppendUint32(b, status)
}

func (s *Server) list() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n uint32
	var body []byte
	for _, p := range s.ports {
		p.mu.Lock()
		if p.dev != nil && !p.used {
			n++
			rec := p.record(p.dev)
			var numbers []byte
			if c := p.dev.Descriptors().Configs; len(c) > 0 {
				for _, i := range c[0].Interfaces {
					if i.Alt == 0 && !slices.Contains(numbers, i.Number) {
						numbers = append(numbers, i.Number)
						rec = append(rec, i.Class, i.SubClass, i.Protocol, 0)
					}
				}
			}
			rec[311] = uint8(len(numbers))
			body = append(body, rec...)
		}
		p.mu.Unlock()
	}
	return append(binary.BigEndian.AppendUint32(opHeader(opRepDevlist, 0), n), body...)
}

func (s *Server) importDevice(ctx context.Context, conn net.Conn, id [busIDLen]byte) error {
	s.mu.Lock()
	ports := slices.Clone(s.ports)
	s.mu.Unlock()
	for _, p := range ports {
		var want [busIDLen]byte
		copy(want[:], p.busID)
		if id != want {
			continue
		}
		p.mu.Lock()
		dev, attached := p.dev, p.ctx
		free := dev != nil && !p.used
		if free {
			p.used = true
		}
		p.mu.Unlock()
		if !free {
			break
		}
		defer func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.dev == dev {
				p.used = false
			}
		}()
		if _, err := conn.Write(append(opHeader(opRepImport, 0), p.record(dev)...)); err != nil {
			return err
		}
		attached, cancel := context.WithCancel(attached)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		return Serve(attached, conn, dev)
	}
	_, err := conn.Write(opHeader(opRepImport, 1))
	return err
}
