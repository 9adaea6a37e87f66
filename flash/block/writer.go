//go:build linux

package block

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"snag/flash/image"
)

// writer is where an image is copied to: it makes whole blocks of what comes in pieces of any size, in any order and
// several at a time.
type writer struct {
	medium
	name    string   // the image's
	written *records // nil if nothing is to be read back
	hold    int64    // so many bytes of the begin are held back until the end
	buffers sync.Pool

	edges sync.Mutex // held while a block is written of which only a part is new
	head  struct {
		sync.Mutex
		data  []byte     // hold bytes, once one of them came
		spans [][2]int64 // what came of them
	}
}

// holdSize is how much of a device holds what makes it boot: partition tables, boot sectors, and the boot loaders that
// ROMs look for.
const holdSize = 1 << 20

// firstSize is how much of it is written last of all.
const firstSize = 4096

func newWriter(m medium, name string, verify bool) *writer {
	w := &writer{medium: m, name: name}
	w.buffers.New = func() any { b := aligned(image.PieceSize, m.Block()); return &b }
	if verify {
		w.written = newRecords()
	}
	return w
}

func (w *writer) close() {
	if w.written != nil {
		w.written.close()
	}
}

// errFull says that the medium ends before the image.
func (w *writer) errFull(off, n int64) error {
	if size := w.Size(); off+n > size {
		return fmt.Errorf("the device ends at byte %d: %w", size, unix.ENOSPC)
	}
	return nil
}

// WriteAt implements [io.WriterAt].
func (w *writer) WriteAt(p []byte, off int64) (int, error) {
	if err := w.errFull(off, int64(len(p))); err != nil {
		return 0, err
	}
	n := len(p)
	if off < w.hold {
		k := min(int64(n), w.hold-off)
		if err := w.keep(p[:k], off); err != nil {
			return 0, err
		}
		p, off = p[k:], off+k
	}
	if err := w.put(p, off); err != nil {
		return n - len(p), err
	}
	return n, nil
}

// WriteZeros implements [image.ZeroWriter].
func (w *writer) WriteZeros(off, n int64) error {
	if err := w.errFull(off, n); err != nil {
		return err
	}
	block := w.Block()
	from, to := (max(off, w.hold)+block-1)/block*block, (off+n)/block*block
	if from >= to {
		from, to = off+n, off+n
	} else if err := again(func() error { return w.Zero(from, to-from) }); errors.Is(err, errors.ErrUnsupported) {
		from, to = off+n, off+n
	} else if err != nil {
		return err
	} else if w.written != nil {
		if err := w.written.addZeros(from, to-from); err != nil {
			return err
		}
	}
	var zeros [1 << 16]byte
	for _, span := range [][2]int64{{off, from}, {to, off + n}} {
		for at := span[0]; at < span[1]; at += int64(len(zeros)) {
			if _, err := w.WriteAt(zeros[:min(span[1]-at, int64(len(zeros)))], at); err != nil {
				return err
			}
		}
	}
	return nil
}

// keep holds back a part of the begin. Until the end there are zeros in its place: neither what the image brings nor
// what was there before is to boot with half of the image behind it.
func (w *writer) keep(p []byte, off int64) error {
	w.head.Lock()
	defer w.head.Unlock()
	if w.head.data == nil {
		w.head.data = aligned(int(w.hold), w.Block())
	}
	copy(w.head.data[off:], p)
	w.head.spans = append(w.head.spans, [2]int64{off, off + int64(len(p))})
	return w.raw(make([]byte, len(p)), off)
}

// finish writes what was held back, if all else is stored.
func (w *writer) finish() error {
	sync := func() error {
		if err := w.Sync(); err != nil {
			return fmt.Errorf("having the device store what it was given: %w", err)
		}
		return nil
	}
	if err := sync(); err != nil {
		return err
	}
	spans := w.head.spans
	if len(spans) == 0 {
		return nil
	}
	slices.SortFunc(spans, func(a, b [2]int64) int { return int(a[0] - b[0]) })
	var whole [][2]int64
	for _, span := range spans {
		if n := len(whole); n > 0 && whole[n-1][1] == span[0] && span[0] != firstSize {
			whole[n-1][1] = span[1]
		} else {
			whole = append(whole, span)
		}
	}
	if first := whole[0]; first[0] < firstSize && first[1] > firstSize {
		whole = append([][2]int64{{first[0], firstSize}, {firstSize, first[1]}}, whole[1:]...)
	}
	for _, span := range slices.Backward(whole) {
		if err := w.put(w.head.data[span[0]:span[1]], span[0]); err != nil {
			return &image.RangeError{Name: w.name, Off: span[0], End: span[1], Err: fmt.Errorf("writing: %w", err)}
		}
	}
	return sync()
}

// put writes bytes, and notes it.
func (w *writer) put(p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	if err := w.raw(p, off); err != nil {
		return err
	}
	if w.written != nil {
		return w.written.add(p, off)
	}
	return nil
}

// raw writes bytes in whole blocks.
func (w *writer) raw(p []byte, off int64) error {
	block := w.Block()
	for len(p) > 0 {
		if odd := off % block; odd > 0 || int64(len(p)) < block {
			n := min(block-odd, int64(len(p)))
			if err := w.edge(p[:n], off); err != nil {
				return err
			}
			p, off = p[n:], off+n
			continue
		}
		n := len(p) / int(block) * int(block)
		if isAligned(p, block) {
			if err := w.whole(p[:n], off); err != nil {
				return err
			}
		} else {
			b := w.buffers.Get().(*[]byte)
			n = copy((*b)[:min(n, len(*b)/int(block)*int(block))], p)
			err := w.whole((*b)[:n], off)
			w.buffers.Put(b)
			if err != nil {
				return err
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// edge writes a part of a block.
func (w *writer) edge(p []byte, off int64) error {
	w.edges.Lock()
	defer w.edges.Unlock()
	block := w.Block()
	b := aligned(int(block), block)
	from := off / block * block
	if _, err := w.ReadAt(b, from); err != nil {
		return fmt.Errorf("reading what is in the same block: %w", err)
	}
	copy(b[off-from:], p)
	return w.whole(b, from)
}

// whole writes whole blocks.
func (w *writer) whole(p []byte, off int64) error {
	return again(func() error {
		_, err := w.medium.WriteAt(p, off)
		return err
	})
}

// again does something to a medium, after an error of input or output once more: the kernel gives up a transfer in
// whose middle the device was reset, though the next one may well succeed.
func again(do func() error) error {
	err := do()
	if errors.Is(err, unix.EIO) {
		err = do()
	}
	return err
}
