package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"snag/sim/usbdev"
)

// Port is a USB port of the sandbox. It implements [usbdev.Port].
type Port struct {
	s    *Sandbox
	name string

	mu       sync.Mutex
	attached bool
	link     *usbdev.Link // the board's cable; nil for other devices
	ctx      context.Context
	stop     context.CancelFunc
	gen      int      // which of the veth pairs
	file     *os.File // its packet socket
	running  sync.WaitGroup
}

// network is what a device must be, besides, to get a network interface: [usbdev.Ethernet] is.
type network interface {
	NetLink() *usbdev.Link
	HostMAC() net.HardwareAddr
}

// Attach implements [usbdev.Port].
func (p *Port) Attach(_ context.Context, dev usbdev.Device) error {
	p.mu.Lock()
	if p.attached {
		p.mu.Unlock()
		return fmt.Errorf("port %s: occupied", p.name)
	}
	p.attached = true
	m := message{Op: "attach", Port: p.name, Device: dev.Descriptors()}
	p.ctx, p.stop = context.WithCancel(context.Background())
	if n, ok := dev.(network); ok {
		p.link, m.HostMAC = n.NetLink(), n.HostMAC()
	}
	link, ctx := p.link, p.ctx
	p.mu.Unlock()
	if link != nil {
		p.running.Go(func() { link.Carry(ctx, p.send) })
	}
	if _, err := p.s.request(m, nil); err != nil {
		p.clear()
		return fmt.Errorf("attach to port %s of the sandbox: %w", p.name, err)
	}
	return nil
}

// Detach implements [usbdev.Port].
func (p *Port) Detach() error {
	p.mu.Lock()
	attached := p.attached
	p.mu.Unlock()
	if !attached {
		return nil
	}
	_, err := p.s.request(message{Op: "detach", Port: p.name}, nil)
	p.clear()
	if err != nil && !errors.Is(err, errGone) {
		return fmt.Errorf("detach from port %s of the sandbox: %w", p.name, err)
	}
	return nil
}

func (p *Port) clear() {
	p.mu.Lock()
	p.stop()
	if p.file != nil {
		p.file.Close()
	}
	p.attached, p.link, p.file = false, nil, nil
	p.mu.Unlock()
	p.running.Wait()
}

// newLink takes the packet socket of a veth pair: the first of an attach, or one that replaces it
// because the namespace that it was in died.
func (p *Port) newLink(gen int, f *os.File) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link == nil {
		f.Close()
		return
	}
	if p.file != nil {
		p.file.Close()
	}
	p.gen, p.file = gen, f
	link, ctx := p.link, p.ctx
	p.running.Go(func() { receive(ctx, f, link) })
}

// receive moves frames from the interface to the board until the socket is closed.
func receive(ctx context.Context, f *os.File, link *usbdev.Link) {
	buf := make([]byte, 65536)
	for {
		n, err := f.Read(buf)
		if errors.Is(err, unix.ENETDOWN) {
			continue // told once each time the interface goes down
		}
		if err != nil {
			return
		}
		if link.Deliver(ctx, append([]byte(nil), buf[:n]...)) != nil {
			return
		}
	}
}

// carrier says whether the command's end of a veth pair is up.
func (p *Port) carrier(gen int, up bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != nil && p.gen == gen {
		p.link.SetUp(up)
	}
}

// send gives the interface a frame. While the interface is down the frame waits, as it waits in a USB
// device's buffer until the host asks for it.
func (p *Port) send(ctx context.Context, frame []byte) error {
	for {
		p.mu.Lock()
		f, link := p.file, p.link
		p.mu.Unlock()
		if link == nil {
			return usbdev.ErrGone
		}
		up, changed := link.Up()
		if up && f != nil {
			_, err := f.Write(frame)
			if err == nil {
				return nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
