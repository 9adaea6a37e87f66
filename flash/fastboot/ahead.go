package fastboot

import (
	"context"
	"errors"
	"slices"
)

// ahead runs prepare and use at the same time: prepare makes one thing after the other in buffers that it gets from
// next, and hands them over; use works on what was handed over before. There are two buffers. The error is the first.
func ahead(ctx context.Context, prepare func(ctx context.Context, next func() (*buffer, error), hand func(*buffer) error) error, use func(context.Context, *buffer) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	const buffers = 2
	free, full := make(chan *buffer, buffers), make(chan *buffer, buffers)
	for range buffers {
		free <- new(buffer)
	}
	ended := make(chan error, 1)
	go func() {
		defer close(full)
		ended <- prepare(ctx, func() (*buffer, error) {
			select {
			case b := <-free:
				*b = buffer{data: b.data[:0]}
				return b, nil
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}, func(b *buffer) error {
			select {
			case full <- b:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}()
	var failed error
	for b := range full {
		if failed == nil {
			if failed = use(ctx, b); failed != nil {
				cancel(failed)
			}
		}
		free <- b
	}
	err := <-ended
	if failed != nil && (err == nil || errors.Is(err, failed)) {
		return failed
	}
	return errors.Join(failed, err)
}

// buffer is a part of an image on its way to the device.
type buffer struct {
	data     []byte
	off, end int64 // bytes of the image
	written  int64 // bytes that the device writes
	fill     bool  // data are 4 bytes to be repeated
}

// WriteAt implements io.WriterAt.
func (b *buffer) WriteAt(p []byte, off int64) (int, error) {
	return copy(b.Room(off, int64(len(p))), p), nil
}

// Room implements sparse.Memory.
func (b *buffer) Room(off, n int64) []byte {
	if end := int(off + n); end > len(b.data) {
		if end > cap(b.data) {
			b.data = slices.Grow(b.data, end-len(b.data))
		}
		if from := len(b.data); int(off) > from {
			clear(b.data[from:off])
		}
		b.data = b.data[:end]
	}
	return b.data[off : off+n]
}
