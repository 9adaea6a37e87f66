package usbip

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"

	"snag/sim/usbdev"
)

// readAhead is how much is read of a connection at a time, at most: what a host has in flight of short transfers.
const readAhead = 64 << 10

// answersAhead is how much may wait to be written, about: what a host has asked for and does not read.
const answersAhead = 1 << 20

// leaveTimeout bounds how long the host may take to read the last answers of a device that leaves.
const leaveTimeout = 2 * time.Second

// Serve answers the transfers of one attached device until conn ends, the context ends, or the
// peer sends what is not USB/IP. It closes conn. The end of conn is no error.
//
// The end of the context unplugs the device, but the host still gets what the device has answered, as it would over a
// wire: conn ends behind the last answer, and Serve returns when the host has closed its side thereupon, which
// it does when it has taken everything. [os.ErrDeadlineExceeded] says that it did not in time.
func Serve(ctx context.Context, conn net.Conn, dev usbdev.Device) error {
	ctx, cancel := context.WithCancel(ctx)
	in, out := streams(conn)
	s := &session{conn: conn, out: out, dev: dev, pending: make(map[uint32]*urb), queues: make(map[uint8]*queue), written: make(chan struct{})}
	s.changed.L = &s.mu
	go s.write()
	left := make(chan struct{})
	stay := context.AfterFunc(ctx, func() {
		defer close(left)
		s.leave()
	})
	defer func() {
		if !stay() {
			<-left
		}
		cancel()
		conn.Close()
		s.workers.Wait()
		s.end()
	}()
	requests := bufio.NewReaderSize(in, readAhead) // hosts send several at once
	for {
		q, err := readRequest(requests)
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET):
			return nil
		default:
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
	conn    net.Conn
	dev     usbdev.Device
	out     io.Writer        // conn
	queues  map[uint8]*queue // by endpoint; the reader's
	workers sync.WaitGroup

	mu      sync.Mutex // guards what follows, and the order of replies
	pending map[uint32]*urb
	leaving bool      // nothing is submitted any more
	answers []byte    // that are to be written
	urgent  bool      // one of them at once
	ended   bool      // there will be no more of them
	broken  bool      // nobody reads them
	changed sync.Cond // of answers, ended, broken

	written chan struct{} // closed when all answers are written
}

// leave ends the connection behind the answers to those transfers that the device has performed. The context of all
// others has ended.
func (s *session) leave() {
	s.conn.SetDeadline(time.Now().Add(leaveTimeout))
	s.mu.Lock()
	s.leaving = true
	s.mu.Unlock()
	s.workers.Wait()
	s.end()
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	} else {
		s.conn.Close()
	}
}

// answer has a reply written, soon. It is called with mu held.
func (s *session) answer(command, seq uint32, status int32, actual int, data []byte) {
	for len(s.answers) > answersAhead && !s.broken {
		s.changed.Wait()
	}
	s.answers = appendReply(s.answers, command, seq, status, actual, data)
	s.changed.Broadcast()
}

// write writes the answers. Those that become ready while the processor is busy with others go together: the host's
// kernel takes them one by one anyway, but need not be woken for each. That the device has taken what it was sent is said
// after the model had its turn, whose answer may go with it.
func (s *session) write() {
	defer close(s.written)
	var spare []byte
	for {
		s.mu.Lock()
		for len(s.answers) == 0 && !s.ended {
			s.changed.Wait()
		}
		if len(s.answers) > 0 && !s.urgent {
			s.mu.Unlock()
			runtime.Gosched()
			s.mu.Lock()
		}
		s.urgent = false
		answers := s.answers
		s.answers = spare[:0]
		s.changed.Broadcast()
		s.mu.Unlock()
		if len(answers) == 0 {
			return
		}
		if _, err := s.out.Write(answers); err != nil { // a broken conn ends the reader
			s.mu.Lock()
			s.broken = true
			s.changed.Broadcast()
			s.mu.Unlock()
		}
		spare = answers
	}
}

// end waits until the answers are written. There are no workers any more.
func (s *session) end() {
	s.mu.Lock()
	s.ended = true
	s.changed.Broadcast()
	s.mu.Unlock()
	<-s.written
}

// urb is a submitted transfer, pending until it is answered or unlinked.
type urb struct {
	*request
	queue *queue
}

// queue is the transfers of one endpoint.
type queue struct {
	urbs chan *urb

	// Guarded by the session's mu.
	current *urb               // that is performed
	cancel  context.CancelFunc // ends it
}

func (s *session) submit(ctx context.Context, r *request) error {
	q, known := s.queues[r.ep]
	if !known {
		q = &queue{urbs: make(chan *urb, maxPending)}
	}
	u := &urb{r, q}
	s.mu.Lock()
	_, twice := s.pending[r.seq]
	full, leaving := len(s.pending) >= maxPending, s.leaving
	s.pending[r.seq] = u
	if !known && !leaving {
		s.workers.Add(1)
	}
	s.mu.Unlock()
	switch {
	case leaving:
		return nil
	case !known:
		s.queues[r.ep] = q
		go s.work(ctx, q)
	}
	if twice || full {
		return fmt.Errorf("USB/IP submit %d: %d transfers pending, sequence number in use: %t", r.seq, maxPending, twice)
	}
	q.urbs <- u
	return nil
}

// work performs the transfers of an endpoint. All have one context, and the next that comes after an unlinked one has
// another.
func (s *session) work(ctx context.Context, q *queue) {
	defer s.workers.Done()
	for ctx.Err() == nil {
		current, cancel := context.WithCancel(ctx)
		s.mu.Lock()
		q.cancel = cancel
		s.mu.Unlock()
		for current.Err() == nil {
			select {
			case u := <-q.urbs:
				s.perform(current, u)
			case <-current.Done():
			}
		}
		cancel()
	}
}

// unlink cancels a transfer. A cancelled one is answered by RET_UNLINK alone; for one that was
// answered before, RET_UNLINK says 0.
func (s *session) unlink(r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var st int32
	if u := s.pending[r.unlink]; u != nil {
		if u.queue.current == u {
			u.queue.cancel()
		}
		delete(s.pending, r.unlink)
		st = -int32(syscall.ECONNRESET)
	}
	s.urgent = true
	s.answer(retUnlink, r.seq, st, 0, nil)
}

// perform performs a transfer and answers it, unless it was unlinked, or the device is unplugged: then the host is to
// see the end of the connection and no error of its transfer.
func (s *session) perform(ctx context.Context, u *urb) {
	s.mu.Lock()
	if s.pending[u.seq] != u || ctx.Err() != nil {
		s.mu.Unlock()
		return
	}
	u.queue.current = u
	s.mu.Unlock()
	n, data, err := s.transfer(ctx, u)
	s.mu.Lock()
	defer s.mu.Unlock()
	u.queue.current = nil
	if s.pending[u.seq] != u || err != nil && ctx.Err() != nil {
		return
	}
	delete(s.pending, u.seq)
	s.urgent = s.urgent || u.ep == 0 || u.toHost
	s.answer(retSubmit, u.seq, status(err), n, data)
}

func (s *session) transfer(ctx context.Context, u *urb) (n int, data []byte, err error) {
	switch {
	case u.isoPkts > 0:
		return 0, nil, usbdev.ErrStall
	case u.ep == 0:
		if u.setup.ToHost() {
			buf := make([]byte, min(u.length, int(u.setup.Length)))
			n, err = s.dev.Control(ctx, u.setup, buf)
			return n, buf[:n], err
		}
		n, err = s.dev.Control(ctx, u.setup, u.data)
		return n, nil, err
	case u.toHost:
		buf := make([]byte, u.length)
		n, err = s.dev.In(ctx, u.ep, buf)
		return n, buf[:n], err
	}
	n, err = s.dev.Out(ctx, u.ep, u.data)
	if err == nil && u.flags&flagZeroPacket != 0 && n > 0 && n%s.maxPacket(u.ep) == 0 {
		_, err = s.dev.Out(ctx, u.ep, nil)
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
