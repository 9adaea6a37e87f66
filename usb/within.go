package usb

import (
	"context"
	"sync"
	"time"
)

// Within is [context.WithTimeoutCause] for a transfer that is one of thousands: until somebody waits for the context's
// end, or derives another one, there is no timer, and parent does not know of it.
func Within(parent context.Context, d time.Duration, cause error) (context.Context, context.CancelFunc) {
	c := &within{Context: parent, end: time.Now().Add(d), cause: cause}
	return c, c.cancel
}

// within is a context that is made when it is needed.
type within struct {
	context.Context // the parent
	end             time.Time
	cause           error

	mu        sync.Mutex
	made      context.Context // nil: not yet
	stop      context.CancelFunc
	cancelled bool
}

// make is for the first one who needs the context. mu is held.
func (c *within) make() context.Context {
	if c.made == nil {
		c.made, c.stop = context.WithDeadlineCause(c.Context, c.end, c.cause)
		if c.cancelled {
			c.stop()
		}
	}
	return c.made
}

func (c *within) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancelled = true
	if c.stop != nil {
		c.stop()
	}
}

// Deadline implements [context.Context].
func (c *within) Deadline() (time.Time, bool) {
	if end, ok := c.Context.Deadline(); ok && end.Before(c.end) {
		return end, true
	}
	return c.end, true
}

// Done implements [context.Context].
func (c *within) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.make().Done()
}

// Err implements [context.Context].
func (c *within) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil && !c.cancelled && c.Context.Err() == nil && time.Until(c.end) > 0 {
		return nil
	}
	return c.make().Err()
}

// Value implements [context.Context]. Package context asks so for what it derives from, and for the cause.
func (c *within) Value(key any) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made != nil {
		return c.made.Value(key)
	}
	return c.Context.Value(key)
}
