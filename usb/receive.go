package usb

import "context"

// Receiver is a Handle that keeps several transfers to the host in flight.
type Receiver interface {
	// Receive performs one transfer after the other from an endpoint, as In each with a buffer of so many bytes,
	// several of them in flight, and hands take what each has brought, in their order. It ends with ctx, or with the
	// first transfer that fails, and then returns that error.
	Receive(ctx context.Context, ep uint8, size, inFlight int, take func([]byte)) error
}

// Receive is the handle's own if it is a Receiver; else one transfer is in flight at a time.
func Receive(ctx context.Context, h Handle, ep uint8, size, inFlight int, take func([]byte)) error {
	if r, ok := h.(Receiver); ok {
		return r.Receive(ctx, ep, size, inFlight, take)
	}
	buf := make([]byte, size)
	for {
		n, err := h.In(ctx, ep, buf)
		if err != nil {
			return err
		}
		take(buf[:n])
	}
}
