package fastboot_test

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipe is one end of a connection in memory, with a buffer: of datagrams, or of a stream.
type pipe struct {
	in, out chan []byte
	stream  bool
	lossy   bool // of what is written each fifth datagram is lost, and each seventh comes twice
	written int
	rest    []byte

	mu          sync.Mutex
	read, write time.Time     // deadlines
	changed     chan struct{} // closed when they are others
	left        *sync.Once
	gone        chan struct{} // closed with either end
}

func pipes(stream, lossy bool) (*pipe, *pipe) {
	a, b, gone, once := make(chan []byte, 20), make(chan []byte, 20), make(chan struct{}), new(sync.Once)
	end := func(in, out chan []byte) *pipe {
		return &pipe{in: in, out: out, stream: stream, lossy: lossy, changed: make(chan struct{}), gone: gone, left: once}
	}
	return end(a, b), end(b, a)
}

// set sets deadlines.
func (p *pipe) set(d time.Time, which ...*time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range which {
		*w = d
	}
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

// wait performs an operation by its deadline.
func (p *pipe) wait(deadline *time.Time, try func(stop <-chan time.Time, changed <-chan struct{}) bool) error {
	for {
		p.mu.Lock()
		d, changed := *deadline, p.changed
		p.mu.Unlock()
		var stop <-chan time.Time
		if !d.IsZero() {
			if !time.Now().Before(d) {
				return os.ErrDeadlineExceeded
			}
			t := time.NewTimer(time.Until(d))
			defer t.Stop()
			stop = t.C
		}
		if try(stop, changed) {
			return nil
		}
	}
}

func (p *pipe) Read(b []byte) (n int, err error) {
	if len(p.rest) > 0 {
		n = copy(b, p.rest)
		p.rest = p.rest[n:]
		return n, nil
	}
	e := p.wait(&p.read, func(stop <-chan time.Time, changed <-chan struct{}) bool {
		var got []byte
		select {
		case got = <-p.in:
		case <-p.gone:
			select {
			case got = <-p.in: // it was sent before
			default:
				err = io.EOF
				return true
			}
		case <-stop:
			return false
		case <-changed:
			return false
		}
		n = copy(b, got)
		if p.stream {
			p.rest = got[n:]
		}
		return true
	})
	if e != nil {
		err = e
	}
	return n, err
}

func (p *pipe) Write(b []byte) (n int, err error) {
	p.written++
	times := 1
	if p.lossy && p.written%5 == 0 {
		times = 0
	} else if p.lossy && p.written%7 == 0 {
		times = 2
	}
	for range times {
		e := p.wait(&p.write, func(stop <-chan time.Time, changed <-chan struct{}) bool {
			select {
			case p.out <- append([]byte(nil), b...):
				return true
			case <-p.gone:
				err = syscall.EPIPE
				return true
			case <-stop:
				return false
			case <-changed:
				return false
			}
		})
		if e != nil {
			err = e
		}
		if err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func (p *pipe) Close() error {
	p.left.Do(func() { close(p.gone) })
	return nil
}

func (p *pipe) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := p.Read(b)
	return n, p.RemoteAddr(), err
}

func (p *pipe) WriteTo(b []byte, _ net.Addr) (int, error) { return p.Write(b) }
func (p *pipe) SetDeadline(d time.Time) error             { return p.set(d, &p.read, &p.write) }
func (p *pipe) SetReadDeadline(d time.Time) error         { return p.set(d, &p.read) }
func (p *pipe) SetWriteDeadline(d time.Time) error        { return p.set(d, &p.write) }
func (p *pipe) LocalAddr() net.Addr                       { return p.RemoteAddr() }
func (p *pipe) RemoteAddr() net.Addr                      { return &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)} }
