package qemu

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// maxText is how much of what a UART printed is kept.
const maxText = 1 << 20

// Console is the other end of a UART.
type Console struct {
	name string
	conn net.Conn
	also io.Writer // nil for none

	mu    sync.Mutex
	text  []byte
	first int // how many bytes came before text
	read  int // how many bytes Await has returned or passed over
	more  chan struct{}
	err   error // after the last byte
}

func newConsole(name string, conn net.Conn, also io.Writer) *Console {
	return &Console{name: name, conn: conn, also: also, more: make(chan struct{})}
}

// receive takes what the UART prints until QEMU ends.
func (c *Console) receive() {
	buf := make([]byte, 4096)
	for {
		n, err := c.conn.Read(buf)
		if n > 0 && c.also != nil {
			c.also.Write(buf[:n]) // whoever does not listen misses something
		}
		c.mu.Lock()
		c.text = append(c.text, buf[:n]...)
		if drop := len(c.text) - maxText; drop > 0 {
			c.text = append([]byte(nil), c.text[drop:]...)
			c.first += drop
		}
		c.err = err
		close(c.more)
		c.more = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Write types on the console.
func (c *Console) Write(b []byte) (int, error) {
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	return c.conn.Write(b)
}

// Await waits until text was printed after what the call before it returned, and returns all from there to the
// end of text. The error says what came instead; the next call will look there again.
func (c *Console) Await(ctx context.Context, text string) (string, error) {
	c.mu.Lock()
	from := max(c.read, c.first)
	c.mu.Unlock()
	end, err := c.await(ctx, from, text)
	c.mu.Lock()
	defer c.mu.Unlock()
	from = max(from, c.first)
	if err != nil {
		came := c.text[from-c.first:]
		return "", fmt.Errorf("%w; it printed %q", err, came[max(0, len(came)-2000):])
	}
	c.read = end
	return string(c.text[from-c.first : end-c.first]), nil
}

// Text returns what was printed so far, the last MiB of it.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

// printed returns how many bytes were printed so far.
func (c *Console) printed() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first + len(c.text)
}

// await waits until text is among what was printed after the first from bytes, and returns how many bytes were
// printed with it.
func (c *Console) await(ctx context.Context, from int, text string) (end int, err error) {
	for {
		c.mu.Lock()
		from = max(from, c.first)
		i := bytes.Index(c.text[from-c.first:], []byte(text))
		total, more, ended := c.first+len(c.text), c.more, c.err
		c.mu.Unlock()
		switch {
		case i >= 0:
			return from + i + len(text), nil
		case ended != nil:
			return 0, fmt.Errorf("%s: QEMU ended before it printed %q", c.name, text)
		}
		from = max(from, total-len(text)+1) // what was searched needs no second look
		select {
		case <-more:
		case <-ctx.Done():
			return 0, fmt.Errorf("%s: waiting for %q: %w", c.name, text, context.Cause(ctx))
		}
	}
}
