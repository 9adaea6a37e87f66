package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ErrWriting says that it was the destination that failed.
var ErrWriting = errors.New("writing")

// CopyOptions is how an image is copied.
type CopyOptions struct {
	// Zeroed says that the destination reads as zeros where nothing was written, as a new file does: zeros are left
	// out.
	Zeroed bool
	// Writers is how many writes are in flight; 0: one, which is right for a file: the kernel writes one at a time to
	// it anyway. A device that is written without the page cache wants several.
	Writers int
	// Progress is called with the bytes of the image that were written or left out as zeros since the last call, by
	// several goroutines at a time.
	Progress func(n int64)
}

// ZeroWriter is a destination that has a better way to write zeros than to be given them.
type ZeroWriter interface {
	WriteZeros(off, n int64) error
}

// cachedSize is the length of a piece on its way to a file, which goes through the page cache: what was read is hashed
// and written while the processor has it in its own cache, as all pieces together fit into that.
const cachedSize = 256 << 10

// fillStep is how much of a hole or of a repeated pattern is one write: a long one is not to keep a cancelled copy from
// its end, nor the other writers from work.
const fillStep = 16 << 20

// Copy writes an image to where its bytes belong in dst, in no certain order. It does not sync dst. Only if it returns
// nil, all was written and found right. It closes the image.
func Copy(ctx context.Context, dst io.WriterAt, im *Image, o CopyOptions) error {
	defer im.Close()
	if o.Writers == 0 {
		o.Writers = 1
		im.length = cachedSize
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { im.cancel(context.Cause(ctx)) })
	defer stop()
	pieces := make(chan Piece)
	var writers sync.WaitGroup
	for range o.Writers {
		writers.Go(func() {
			for p := range pieces {
				if ctx.Err() == nil {
					if err := o.write(dst, p); err != nil {
						cancel(&RangeError{Name: im.Name, Off: p.Off, End: p.Off + p.N, Err: fmt.Errorf("%w: %w", ErrWriting, err)})
					} else if o.Progress != nil {
						o.Progress(p.N)
					}
				}
				p.Release()
			}
		})
	}
	var err error
	for {
		var p Piece
		if p, err = im.Next(); err != nil {
			break
		}
		for p.Kind != Data && p.N > fillStep && ctx.Err() == nil {
			part := p
			part.N = fillStep
			pieces <- part
			p.Off, p.N = p.Off+fillStep, p.N-fillStep
		}
		pieces <- p
	}
	close(pieces)
	writers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// sparseStep is the length of zeros that are worth a hole.
const sparseStep = 1 << 16

func (o *CopyOptions) write(dst io.WriterAt, p Piece) error {
	if p.Kind == Data {
		if !o.Zeroed {
			_, err := dst.WriteAt(p.Data, p.Off)
			return err
		}
		return writeSparse(dst, p.Data, p.Off)
	}
	if p.Zero() && o.Zeroed {
		return nil
	}
	if z, ok := dst.(ZeroWriter); ok && p.Zero() {
		return z.WriteZeros(p.Off, p.N)
	}
	block := zeros[:]
	if !p.Zero() {
		block = repeated(p.Pattern, len(zeros))
	}
	for done := int64(0); done < p.N; done += int64(len(block)) {
		if _, err := dst.WriteAt(block[:min(p.N-done, int64(len(block)))], p.Off+done); err != nil {
			return err
		}
	}
	return nil
}

// writeSparse writes b but for its long zeros.
func writeSparse(dst io.WriterAt, b []byte, off int64) error {
	from := 0
	flush := func(to int) error {
		if from == to {
			return nil
		}
		_, err := dst.WriteAt(b[from:to], off+int64(from))
		return err
	}
	for i := 0; i < len(b); i += sparseStep {
		end := min(i+sparseStep, len(b))
		if string(b[i:end]) == string(zeros[:end-i]) {
			if err := flush(i); err != nil {
				return err
			}
			from = end
		}
	}
	return flush(len(b))
}
