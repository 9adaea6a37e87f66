package usbdev

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrLinkDown says that the host has not brought the link up, or has taken it down.
var ErrLinkDown = errors.New("link down")

// Link is an Ethernet cable between a board's network stack and what carries its frames: the USB
// function of an [Ethernet] gadget, or a carrier that does without USB. Frames are whole
// Ethernet II frames without FCS. There is no queue: a sender waits until its frame is taken.
type Link struct {
	toHost  chan *frame
	toBoard chan []byte
	gone    <-chan struct{}

	mu      sync.Mutex
	direct  func(ctx context.Context, data []byte, wait time.Duration) error
	up      bool
	changed chan struct{} // closed at the next change of up
}

type frame struct {
	ctx  context.Context // the sender's
	data []byte
	done chan error // buffered
}

func newLink(gone <-chan struct{}) *Link {
	return &Link{toHost: make(chan *frame), toBoard: make(chan []byte), gone: gone, changed: make(chan struct{})}
}

// Send sends a frame to the host and returns when the host has taken it, or without having sent it
// when the context ends. The board's side.
func (l *Link) Send(ctx context.Context, data []byte) error {
	f := &frame{ctx, data, make(chan error, 1)}
	select {
	case l.toHost <- f:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.gone:
		return ErrGone
	}
	select {
	case err := <-f.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-l.gone:
		return ErrGone
	}
}

// errBusy says that another frame is being sent.
var errBusy = errors.New("busy")

// SendWithin is Send for a time. Where the frame can go to the host's transfer without any other goroutine's help, it
// does, and costs a timer only if the host does not take it at once.
func (l *Link) SendWithin(ctx context.Context, data []byte, wait time.Duration) error {
	l.mu.Lock()
	direct := l.direct
	l.mu.Unlock()
	if wait <= 0 {
		return context.DeadlineExceeded
	}
	if direct != nil {
		if err := direct(ctx, data, wait); err != errBusy {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return l.Send(ctx, data)
}

// setDirect sets how a frame is sent without a Carry; nil: not at all.
func (l *Link) setDirect(send func(ctx context.Context, data []byte, wait time.Duration) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.direct = send
}

// Frames is where frames of the host arrive. The board's side.
func (l *Link) Frames() <-chan []byte { return l.toBoard }

// Up says whether the host has brought the link up, and returns a channel that is closed when
// that changes.
func (l *Link) Up() (bool, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up, l.changed
}

// Gone is closed when the device was unplugged.
func (l *Link) Gone() <-chan struct{} { return l.gone }

// SetUp says whether the host has brought the link up. The carrier's side.
func (l *Link) SetUp(up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up != up {
		l.up = up
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// Deliver hands the board a frame, which is the board's from then on. The carrier's side.
func (l *Link) Deliver(ctx context.Context, data []byte) error {
	select {
	case l.toBoard <- data:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.gone:
		return ErrGone
	}
}

// Carry hands every frame of the board to send until the context ends or the device is gone. The
// board's Send returns what send returned; send's context ends with either's. The carrier's side.
func (l *Link) Carry(ctx context.Context, send func(context.Context, []byte) error) {
	for {
		select {
		case f := <-l.toHost:
			sendCtx, cancel := context.WithCancel(f.ctx)
			stop := context.AfterFunc(ctx, cancel)
			f.done <- send(sendCtx, f.data)
			stop()
			cancel()
		case <-ctx.Done():
			return
		case <-l.gone:
			return
		}
	}
}
