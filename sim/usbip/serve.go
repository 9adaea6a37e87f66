package usbip

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"snag/sim/usbdev"
)

// readAhead is how much is read of a connection at a time, at most: what a host has in flight of short transfers.
const readAhead = 64 << 10

// Serve answers the transfers of one attached device until conn ends, the context ends, or the
// peer sends what is not USB/IP. It closes conn. The end of conn is no error.
func Serve(ctx context.Context, conn io.ReadWriteCloser, dev usbdev.Device) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &session{conn: conn, dev: dev, pending: make(map[uint32]*urb), queues: make(map[uint8]chan *urb)}
	unwatch := context.AfterFunc(ctx, func() { conn.Close() })
	defer func() {
		unwatch()
		cancel()
		conn.Close()
		s.workers.Wait()
	}()
	requests := bufio.NewReaderSize(conn, readAhead) // hosts send several at once
	for {
		q, err := readRequest(requests)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
				errors.Is(err, syscall.ECONNRESET) || ctx.Err() != nil {
				return nil
			}
			return err
		}
		if q.command == cmdUnlink {
			s.unlink(q)
			continue
		}
		if err := s.submit(ctx, q); err != nil {
			return err
		}
	}
}

// session is one attached device. Transfers of one endpoint run one after the other in a
// goroutine of the endpoint; the reader never waits for them.
type session struct {
	conn    io.ReadWriteCloser
	dev     usbdev.Device
	queues  map[uint8]chan *urb // by endpoint; the reader's
	workers sync.WaitGroup

	mu      sync.Mutex // guards pending and the order of replies
	pending map[uint32]*urb
}

// urb is a submitted transfer, pending until it is answered or unlinked.
type urb struct {
	*request
	ctx    context.Context
	cancel context.CancelFunc
}

func (s *session) submit(ctx context.Context, q *request) error {
	u := &urb{request: q}
	u.ctx, u.cancel = context.WithCancel(ctx)
	s.mu.Lock()
	_, twice := s.pending[q.seq]
	full := len(s.pending) >= maxPending
	s.pending[q.seq] = u
	s.mu.Unlock()
	if twice || full {
		u.cancel()
		return fmt.Errorf("USB/IP submit %d: %d transfers pending, sequence number in use: %t", q.seq, maxPending, twice)
	}
	ch := s.queues[q.ep]
	if ch == nil {
		ch = make(chan *urb, maxPending)
		s.queues[q.ep] = ch
		s.workers.Add(1)
		go func() {
			defer s.workers.Done()
			for {
				select {
				case u := <-ch:
					s.perform(u)
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	ch <- u
	return nil
}

// unlink cancels a transfer. A cancelled one is answered by RET_UNLINK alone; for one that was
// answered before, RET_UNLINK says 0.
func (s *session) unlink(q *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var st int32
	if u := s.pending[q.unlink]; u != nil {
		u.cancel()
		delete(s.pending, q.unlink)
		st = -int32(syscall.ECONNRESET)
	}
	s.conn.Write(encodeReply(retUnlink, q.seq, st, 0, nil)) // a broken conn ends the reader
}

func (s *session) perform(u *urb) {
	defer u.cancel()
	if u.ctx.Err() != nil {
		return
	}
	n, data, err := s.transfer(u)
	if err != nil && u.ctx.Err() != nil {
		return // unlinked, or unplugged: then the host is to see the end of the connection and no error of its transfer
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending[u.seq] != u {
		return // unlinked
	}
	delete(s.pending, u.seq)
	s.conn.Write(encodeReply(retSubmit, u.seq, status(err), n, data))
}

func (s *session) transfer(u *urb) (n int, data []byte, err error) {
	switch {
	case u.isoPkts > 0:
		return 0, nil, usbdev.ErrStall
	case u.ep == 0:
		if u.setup.ToHost() {
			buf := make([]byte, min(u.length, int(u.setup.Length)))
			n, err = s.dev.Control(u.ctx, u.setup, buf)
			return n, buf[:n], err
		}
		n, err = s.dev.Control(u.ctx, u.setup, u.data)
		return n, nil, err
	case u.toHost:
		buf := make([]byte, u.length)
		n, err = s.dev.In(u.ctx, u.ep, buf)
		return n, buf[:n], err
	}
	n, err = s.dev.Out(u.ctx, u.ep, u.data)
	if err == nil && u.flags&flagZeroPacket != 0 && n > 0 && n%s.maxPacket(u.ep) == 0 {
		_, err = s.dev.Out(u.ctx, u.ep, nil)
	}
	return n, nil, err
}

func (s *session) maxPacket(ep uint8) int {
	for _, c := range s.dev.Descriptors().Configs {
		for _, i := range c.Interfaces {
			for _, e := range i.Endpoints {
				if e.Address == ep {
					return max(1, int(e.MaxPacket&0x7ff))
				}
			}
		}
	}
	return 1
}
