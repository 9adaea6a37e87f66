//go:build linux

package block

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"sync"

	"snag/flash/image"
)

// record is a stretch of the medium, and the hash of what was written there.
type record struct {
	off, n int64
	sum    uint64
	zeros  bool // it was n zeros; there is no sum
}

// records is what was written, in the order in which it was. It keeps limit of them in memory, the others in a file
// without a name.
type records struct {
	seed  maphash.Seed
	limit int

	mu    sync.Mutex
	tail  []record
	spill *os.File
}

// spillAt is how many records are kept in memory: 32 MiB of them. An image of 2^20 pieces is rare: 1 TiB without holes,
// or a lot of holes.
const spillAt = 1 << 20

func newRecords() *records { return &records{seed: maphash.MakeSeed(), limit: spillAt} }

// add notes what was written. A hash of 64 bits with a random seed is enough: no device is able to aim at it.
func (r *records) add(p []byte, off int64) error {
	for len(p) > 0 { // what is read back at once
		n := min(len(p), image.PieceSize)
		if err := r.append(record{off: off, n: int64(n), sum: maphash.Bytes(r.seed, p[:n])}); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (r *records) addZeros(off, n int64) error {
	return r.append(record{off: off, n: n, zeros: true})
}

func (r *records) append(rec record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tail = append(r.tail, rec); len(r.tail) < r.limit {
		return nil
	}
	if r.spill == nil {
		f, err := os.CreateTemp("", "snag-verify")
		if err != nil {
			return fmt.Errorf("noting what is to be read back: %w", err)
		}
		os.Remove(f.Name())
		r.spill = f
	}
	if _, err := r.spill.Write(encodeRecords(r.tail)); err != nil {
		return fmt.Errorf("noting what is to be read back: %w", err)
	}
	r.tail = r.tail[:0]
	return nil
}

// encodeRecords makes three words of each: offset, length, negative for zeros, and sum.
func encodeRecords(list []record) []byte {
	b := make([]byte, 0, 24*len(list))
	for _, rec := range list {
		n := rec.n
		if rec.zeros {
			n = -n
		}
		for _, word := range []uint64{uint64(rec.off), uint64(n), rec.sum} {
			b = binary.NativeEndian.AppendUint64(b, word)
		}
	}
	return b
}

// all calls f for every record, until it returns false.
func (r *records) all(f func(record) bool) error {
	if r.spill != nil {
		if _, err := r.spill.Seek(0, io.SeekStart); err != nil {
			return err
		}
		in := bufio.NewReader(r.spill)
		for {
			var b [24]byte
			if _, err := io.ReadFull(in, b[:]); err == io.EOF {
				break
			} else if err != nil {
				return fmt.Errorf("what is to be read back: %w", err)
			}
			n := int64(binary.NativeEndian.Uint64(b[8:]))
			rec := record{off: int64(binary.NativeEndian.Uint64(b[:])), n: max(n, -n), sum: binary.NativeEndian.Uint64(b[16:]), zeros: n < 0}
			if !f(rec) {
				return nil
			}
		}
	}
	for _, rec := range r.tail {
		if !f(rec) {
			break
		}
	}
	return nil
}

func (r *records) close() {
	if r.spill != nil {
		r.spill.Close()
	}
}

// verify reads back what was written. The error names the first range that is found to differ.
func (w *writer) verify(ctx context.Context, progress func(n int64)) error {
	if err := w.Forget(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	batches := make(chan []record)
	var readers sync.WaitGroup
	var mu sync.Mutex
	var first *image.RangeError
	for range writers {
		readers.Go(func() {
			block := w.Block()
			buf := aligned(image.PieceSize+2*int(block), block)
			for batch := range batches {
				if ctx.Err() != nil {
					continue
				}
				if err := w.compare(batch, buf); err != nil {
					mu.Lock()
					if first == nil || err.Off < first.Off {
						first = err
					}
					mu.Unlock()
					cancel(err)
				} else if progress != nil {
					n := int64(0)
					for _, rec := range batch {
						n += rec.n
					}
					progress(n)
				}
			}
		})
	}
	// Small records that are near each other are read at once.
	var batch []record
	flush := func() bool {
		if len(batch) > 0 {
			batches <- batch
			batch = nil
		}
		return ctx.Err() == nil
	}
	err := w.written.all(func(rec record) bool {
		if len(batch) > 0 {
			if last := batch[len(batch)-1]; rec.off < last.off+last.n || rec.off+rec.n-batch[0].off > image.PieceSize {
				if !flush() {
					return false
				}
			}
		}
		for rec.n > image.PieceSize { // zeros
			part := rec
			part.n = image.PieceSize
			batch = append(batch, part)
			if !flush() {
				return false
			}
			rec.off, rec.n = rec.off+part.n, rec.n-part.n
		}
		batch = append(batch, rec)
		return true
	})
	flush()
	close(batches)
	readers.Wait()
	switch {
	case first != nil:
		return first
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

// compare reads back what some records are of, which is at most a piece's length from end to end.
func (w *writer) compare(batch []record, buf []byte) *image.RangeError {
	block := w.Block()
	from := batch[0].off / block * block
	last := batch[len(batch)-1]
	b := buf[:(last.off+last.n-from+block-1)/block*block]
	if _, err := w.ReadAt(b, from); err != nil && err != io.EOF {
		return &image.RangeError{Name: w.name, Off: batch[0].off, End: last.off + last.n, Err: fmt.Errorf("reading back: %w", err)}
	}
	for _, rec := range batch {
		if w.right(rec, b[rec.off-from:][:rec.n]) {
			continue
		}
		e := &image.RangeError{Name: w.name, Off: rec.off, End: rec.off + rec.n, Err: ErrDiffers}
		again := aligned(len(b), block)
		_, err := w.ReadAt(again, from)
		switch {
		case err != nil && err != io.EOF:
			e.Err = fmt.Errorf("%w, and cannot be read again: %w", ErrDiffers, err)
		case !bytes.Equal(again, b):
			e.Err = fmt.Errorf("%w, nor the same each time: look at the cable and the hub before the medium", ErrDiffers)
		default:
			e.Err = fmt.Errorf("%w: the medium is worn out, or smaller than it says", ErrDiffers)
		}
		return e
	}
	return nil
}

func (w *writer) right(rec record, b []byte) bool {
	if rec.zeros {
		for ; len(b) > 0; b = b[min(len(b), len(zeros)):] {
			if n := min(len(b), len(zeros)); !bytes.Equal(b[:n], zeros[:n]) {
				return false
			}
		}
		return true
	}
	return maphash.Bytes(w.written.seed, b) == rec.sum
}

var zeros [1 << 16]byte
