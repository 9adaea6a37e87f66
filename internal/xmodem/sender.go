package xmodem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Port is an open serial line, raw and 8N1.
type Port interface {
	io.ReadWriter
	// SetReadTimeout bounds every following Read; a Read that meets it returns 0, nil.
	SetReadTimeout(time.Duration) error
	// ResetInputBuffer drops what arrived and was not read.
	ResetInputBuffer() error
}

const (
	// answerTimeout is how long an answer to a block may take (Forsberg, chapter 7.3: 10 s). U-Boot
	// refuses a damaged block after 2 s and as long as it takes until the line is idle for 2 s more:
	// whoever repeats earlier prolongs that.
	answerTimeout = 10 * time.Second
	// maxTries is how often a block is sent before the transfer is given up.
	maxTries = 10
	// stalePing is how long after the first block a 'C' still counts as sent before it.
	stalePing = 500 * time.Millisecond
	// nextPing is how long to wait for the 'C' that invites the first block after a YMODEM header. U-Boot
	// sends none and begins to drop what arrives after 2 s.
	nextPing = 500 * time.Millisecond
	// lateAnswer is how long to wait for a second answer to a block that was sent twice, lest
	// it be taken for the next block's.
	lateAnswer = 100 * time.Millisecond
	// nextFile is how long to wait for the 'C' that asks for the next file of a batch. rb of lrzsz drops what
	// arrives within a second of its ACK to an EOT.
	nextFile = 1500 * time.Millisecond
	// closing bounds one attempt to end a YMODEM batch: the receiver has its file already.
	closing = 2 * time.Second
	// poll is how long one Read may keep the context waiting.
	poll = 100 * time.Millisecond
)

// Sender is the sending side of one serial line. It is not safe for concurrent use. When a method
// returned an error from a write that did not end, a goroutine may use the port until it is closed.
type Sender struct {
	port    Port
	buf     []byte // read and not consumed: a part of store
	store   [256]byte
	retries int
}

// NewSender returns a Sender on port, which stays the caller's to close.
func NewSender(port Port) *Sender { return &Sender{port: port} }

// Options of a transfer.
type Options struct {
	// BlockSize is Block128 or Block1K. A rest of at most 128 bytes always goes into a short block.
	BlockSize int
	// Progress, if set, is called after every acknowledged block with the bytes of the file
	// that the receiver has.
	Progress func(sent int)
}

// Retries is how many times something had to be sent again since the Sender was made.
func (s *Sender) Retries() int { return s.retries }

// AwaitPings waits until n single 'C' arrive in a row: boot messages hold a C now and then, three in a
// row they do not. What arrived before the call is dropped if fresh is set. The error is a
// *SilenceError if ctx ends first.
func (s *Sender) AwaitPings(ctx context.Context, n int, fresh bool) error {
	if fresh {
		if err := s.drop(); err != nil {
			return err
		}
	}
	silence := &SilenceError{Want: n}
	for row := 0; row < n; {
		c, err := s.readByte(ctx, time.Time{})
		if err != nil {
			if ctx.Err() != nil {
				silence.Err = context.Cause(ctx)
				return silence
			}
			return err
		}
		row++
		if c != ctl {
			row = 0
		}
		silence.add(c)
	}
	return nil
}

// SendXMODEM sends data by XMODEM-CRC to a receiver that pinged. The last block is padded with 0x1A,
// which the receiver cannot tell from data.
func (s *Sender) SendXMODEM(ctx context.Context, data []byte, o Options) error {
	if len(data) == 0 {
		return errors.New("xmodem: nothing to send: the file is empty")
	}
	return s.abortOnError(s.sendData(ctx, data, o, true))
}

// SendYMODEM sends data by YMODEM as a batch of one file. name is cut to its last element.
// If the receiver does not acknowledge the end of the batch, after it did that of the file, the
// transfer is complete all the same: U-Boot may already be running.
func (s *Sender) SendYMODEM(ctx context.Context, name string, data []byte, o Options) error {
	h, err := header(name, len(data))
	if err != nil {
		return err
	}
	if err := s.sendBlock(ctx, 0, appendBlock(nil, 0, h, Block128, 0), true); err != nil {
		return s.abortOnError(err)
	}
	if err := s.awaitNextPing(ctx, nextPing); err != nil {
		return s.abortOnError(err)
	}
	if err := s.sendData(ctx, data, o, false); err != nil {
		return s.abortOnError(err)
	}
	return s.closeBatch(ctx)
}

// abortOnError tells the receiver that the sender gave up, if it did.
func (s *Sender) abortOnError(err error) error {
	if err != nil && !errors.Is(err, ErrCancelled) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		// U-Boot wants three CANs. That they may not get through is no news.
		s.write(ctx, []byte{can, can, can, bs, bs, bs})
	}
	return err
}

// sendData sends the blocks of a file and its EOT. first says that its first block is the first of all.
func (s *Sender) sendData(ctx context.Context, data []byte, o Options, first bool) error {
	if o.BlockSize != Block128 && o.BlockSize != Block1K {
		return fmt.Errorf("xmodem: block size %d: expected %d or %d", o.BlockSize, Block128, Block1K)
	}
	block := make([]byte, 0, 3+Block1K+2)
	for sent, number := 0, 1; sent < len(data); number++ {
		size := o.BlockSize
		if len(data)-sent <= Block128 {
			size = Block128
		}
		n := min(size, len(data)-sent)
		block = appendBlock(block[:0], byte(number), data[sent:sent+n], size, padding)
		if err := s.sendBlock(ctx, number, block, first && number == 1); err != nil {
			return fmt.Errorf("%w (%d of %d bytes acknowledged)", err, sent, len(data))
		}
		sent += n
		if o.Progress != nil {
			o.Progress(sent)
		}
	}
	return s.sendEOT(ctx)
}

// sendBlock sends a block until it is acknowledged. first says that pings may still be on their way. The error wraps
// [ErrAnew] if the receiver asked for a file in the middle of one.
func (s *Sender) sendBlock(ctx context.Context, number int, block []byte, first bool) (err error) {
	var came string
	asked := false
	defer func() {
		if err != nil && asked && number > 1 && ctx.Err() == nil && !errors.Is(err, ErrLine) {
			err = fmt.Errorf("%w: %w", ErrAnew, err)
		}
	}()
	for try := range maxTries {
		if try > 0 {
			s.retries++
		}
		if err := s.drop(); err != nil {
			return err
		}
		if err := s.write(ctx, block); err != nil {
			return err
		}
		sent := time.Now()
		deadline := sent.Add(answerTimeout)
	answers:
		for {
			c, err := s.readAnswer(ctx, deadline)
			switch {
			case errors.Is(err, errTimeout):
				came = "nothing"
				break answers
			case err != nil:
				return fmt.Errorf("xmodem: block %d: %w", number, err)
			case c == ack:
				if try > 0 {
					return s.settle(ctx)
				}
				return nil
			case c == ctl && first && time.Since(sent) < stalePing:
				// sent before the block arrived
			default:
				came = answerName(c)
				asked = c == ctl
				break answers
			}
		}
	}
	return fmt.Errorf("xmodem: block %d, sent %d times: expected ACK, got %s", number, maxTries, came)
}

// sendEOT ends a file. Many receivers refuse the first EOT to be sure of it (Forsberg, chapter 5).
// A receiver that asks for a new file has taken the EOT, though its ACK was lost: three 'C' in a row
// are as good.
func (s *Sender) sendEOT(ctx context.Context) error {
	came, row := "nothing", 0
	for try := range maxTries {
		if try > 1 { // the first refusal is custom
			s.retries++
		}
		if err := s.write(ctx, []byte{eot}); err != nil {
			return err
		}
		deadline := time.Now().Add(answerTimeout)
	answers:
		for {
			c, err := s.readAnswer(ctx, deadline)
			switch {
			case errors.Is(err, errTimeout):
				break answers
			case err != nil:
				return fmt.Errorf("xmodem: end of file: %w", err)
			case c == ack:
				return nil
			case c == ctl:
				came = answerName(c)
				if row++; row == 3 {
					return nil
				}
			default:
				came, row = answerName(c), 0
				break answers
			}
		}
	}
	return fmt.Errorf("xmodem: all blocks acknowledged, end of file sent %d times: expected ACK, got %s", maxTries, came)
}

// closeBatch sends the empty header that ends a YMODEM batch, without insisting.
func (s *Sender) closeBatch(ctx context.Context) error {
	if err := s.awaitNextPing(ctx, nextFile); err != nil {
		return err
	}
	block := appendBlock(nil, 0, nil, Block128, 0)
	for range 3 {
		if err := s.drop(); err != nil {
			return err
		}
		if err := s.write(ctx, block); err != nil {
			return err
		}
		deadline := time.Now().Add(closing)
		for {
			c, err := s.readAnswer(ctx, deadline)
			if errors.Is(err, errTimeout) || err == nil && c == nak {
				break
			}
			if errors.Is(err, ErrCancelled) || err == nil && c == ack {
				return nil
			}
			if err != nil {
				return fmt.Errorf("ymodem: end of the batch: %w", err)
			}
		}
	}
	return nil
}

// awaitNextPing waits for the 'C' that follows the ACK of a header or of an EOT, but no longer than d.
func (s *Sender) awaitNextPing(ctx context.Context, d time.Duration) error {
	deadline := time.Now().Add(d)
	for {
		c, err := s.readAnswer(ctx, deadline)
		if errors.Is(err, errTimeout) || err == nil && c == ctl {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ymodem: between the files of a batch: %w", err)
		}
	}
}

// settle drops the answers to earlier copies of a block that is acknowledged now.
func (s *Sender) settle(ctx context.Context) error {
	deadline := time.Now().Add(lateAnswer)
	for {
		if _, err := s.readByte(ctx, deadline); errors.Is(err, errTimeout) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// ErrLine is wrapped by errors of the serial line itself: the receiver may be well.
var ErrLine = errors.New("serial line")

// ErrAnew is wrapped by errors of a receiver that began to ask for a file in the middle of one: it was reset.
var ErrAnew = errors.New("the receiver asks for the file from its beginning")

var errTimeout = errors.New("no answer")

// readAnswer returns the next ACK, NAK or 'C'. Everything else is noise. One CAN may be noise too, two
// in a row are ErrCancelled.
func (s *Sender) readAnswer(ctx context.Context, deadline time.Time) (byte, error) {
	cans := 0
	for {
		c, err := s.readByte(ctx, deadline)
		if err != nil {
			return 0, err
		}
		switch c {
		case ack, nak, ctl:
			return c, nil
		case can:
			if cans++; cans == 2 {
				return 0, ErrCancelled
			}
		default:
			cans = 0
		}
	}
}

// readByte returns the next byte, errTimeout at the deadline (none if zero), or why ctx ended.
func (s *Sender) readByte(ctx context.Context, deadline time.Time) (byte, error) {
	for {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		wait := poll
		if !deadline.IsZero() {
			left := time.Until(deadline)
			if left <= 0 {
				return 0, errTimeout
			}
			wait = min(wait, max(left, time.Millisecond)) // ports count in milliseconds
		}
		if len(s.buf) > 0 {
			c := s.buf[0]
			s.buf = s.buf[1:]
			return c, nil
		}
		if err := s.port.SetReadTimeout(wait); err != nil {
			return 0, fmt.Errorf("%w: %w", ErrLine, err)
		}
		n, err := s.port.Read(s.store[:])
		s.buf = s.store[:n]
		if n == 0 && err != nil {
			return 0, fmt.Errorf("%w: read: %w", ErrLine, err)
		}
	}
}

// drop forgets what arrived so far.
func (s *Sender) drop() error {
	s.buf = nil
	if err := s.port.ResetInputBuffer(); err != nil {
		return fmt.Errorf("%w: %w", ErrLine, err)
	}
	return nil
}

// write writes b. A Write that does not return within answerTimeout (a line with nobody at its other
// end) is left behind: it ends when the port's owner closes it.
func (s *Sender) write(ctx context.Context, b []byte) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout,
		fmt.Errorf("%w: write: %d bytes not taken within %v", ErrLine, len(b), answerTimeout))
	defer cancel()
	b = bytes.Clone(b)
	done := make(chan error, 1)
	go func() {
		for len(b) > 0 {
			n, err := s.port.Write(b) // a tty's write is cut short by any signal
			if err == nil && n == 0 {
				err = io.ErrShortWrite
			}
			if err != nil {
				done <- err
				return
			}
			b = b[n:]
		}
		done <- nil
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%w: write: %w", ErrLine, err)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func answerName(c byte) string {
	switch c {
	case nak:
		return "NAK"
	case ctl:
		return "'C'"
	}
	return fmt.Sprintf("%#02x", c)
}

// SilenceError says that no receiver asked for a file.
type SilenceError struct {
	Want  int    // pings in a row that were awaited
	Bytes int    // how many bytes arrived
	Pings int    // how many of them were 'C'
	NAKs  int    // how many of them were NAK: a receiver that wants 8-bit sums
	Last  []byte // the last of them, at most 48
	Err   error  // why the wait ended
}

func (e *SilenceError) add(c byte) {
	e.Bytes++
	switch c {
	case ctl:
		e.Pings++
	case nak:
		e.NAKs++
	}
	if len(e.Last) == 48 {
		e.Last = append(e.Last[:0], e.Last[1:]...)
	}
	e.Last = append(e.Last, c)
}

// Got says in words what arrived instead.
func (e *SilenceError) Got() string {
	if e.Bytes == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%d bytes, %d of them 'C', ending in %q", e.Bytes, e.Pings, e.Last)
}

func (e *SilenceError) Error() string {
	return fmt.Sprintf("expected 'C' %d times in a row, got %s: %v", e.Want, e.Got(), e.Err)
}

func (e *SilenceError) Unwrap() error { return e.Err }
