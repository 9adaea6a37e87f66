package fastboot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"

	"snag/flash"
	"snag/flash/image"
	"snag/usb/fastboot"
)

// What is on a medium is compared with an image without sending the image, where U-Boot has crc32 (CONFIG_CMD_CRC32,
// which is on unless it is turned off): that stores the sum of what was read in memory, where cmp finds whether it is
// the image's. Else the image is downloaded once more and compared as a whole.

var (
	_ flash.Verifier = MMC{}
	_ flash.Verifier = MTD{}
)

// Verify implements [flash.Verifier]. What a block map or a sparse image leaves out is not looked at. Before anything
// is compared it makes sure of what Write does.
func (t MMC) Verify(ctx context.Context, im *image.Image, o flash.Options) error {
	defer im.Close()
	if err := t.verify(ctx, im, reporter(o)); err != nil {
		return fmt.Errorf("%s: %w", t, err)
	}
	return nil
}

func (t MMC) verify(ctx context.Context, im *image.Image, r reporter) error {
	a, err := t.open(ctx, im)
	if err != nil {
		return err
	}
	order, err := a.m.sums(ctx)
	if err != nil {
		return err
	}
	a.most = (a.m.size - sumRoom) / blockSize * blockSize
	check := func(ctx context.Context, b *buffer) error {
		return a.commands(b, func(lba, n, bytes int64) error {
			if err := a.read(ctx, a.m.addr, lba, n); err != nil {
				return err
			}
			from := (lba-a.start)*blockSize - b.off
			return a.m.checkSums(ctx, 0, bytes, b, from, order)
		})
	}
	if order == nil {
		a.most = a.m.size / 2 / blockSize * blockSize
		check = func(ctx context.Context, b *buffer) error {
			if err := a.load(ctx, b); err != nil {
				return err
			}
			return a.commands(b, func(lba, n, bytes int64) error {
				if err := a.read(ctx, a.m.addr+uint64(a.most), lba, n); err != nil {
					return err
				}
				return checkRead(a.m.compare(ctx, 0, a.most, bytes), ErrOther)
			})
		}
	}
	return a.each(ctx, im, false, func(ctx context.Context, b *buffer) error {
		if err := check(ctx, b); err != nil {
			return err
		}
		r.verified(b)
		return nil
	})
}

// sum is the CRC-32 of n bytes of a slice, from one on whose number is a multiple of 4.
func (b *buffer) sum(from, n int64) uint32 {
	if !b.fill {
		return crc32.ChecksumIEEE(b.data[from:][:n])
	}
	pattern := make([]byte, min(n, 64<<10))
	for i := range pattern {
		pattern[i] = b.data[i%4]
	}
	sum := uint32(0)
	for ; n > 0; n -= int64(len(pattern)) {
		sum = crc32.Update(sum, crc32.IEEETable, pattern[:min(n, int64(len(pattern)))])
	}
	return sum
}

// sumRoom is how much of the buffer's end is for a sum and what it should be, and so that the rest is whole blocks.
const sumRoom = blockSize

// sums finds out whether U-Boot has crc32, and how it stores a sum: the most significant byte first (common/hash.c) or,
// an old one, as its processor has it. order makes a sum the word that is in memory then; it is nil if there is no
// crc32.
func (m *memory) sums(ctx context.Context) (order func(uint32) uint32, err error) {
	m.filled = 0
	word := []byte("snag")
	if err := m.run(ctx, 0, "mw.l %#x %#x 1", m.addr, binary.LittleEndian.Uint32(word)); err != nil {
		return nil, err
	}
	for _, order := range []func(uint32) uint32{bits.ReverseBytes32, func(s uint32) uint32 { return s }} {
		err := m.checkSum(ctx, 0, int64(len(word)), order(crc32.ChecksumIEEE(word)))
		if err == nil {
			return order, nil
		}
		if _, refused := errors.AsType[*fastboot.FailError](err); !refused && !errors.Is(err, ErrOther) {
			return nil, err
		}
	}
	return nil, nil
}

// narrow is what is wrong with a part of a slice.
type narrow struct {
	off, end int64 // bytes of the image
	error
}

func (e *narrow) Unwrap() error { return e.error }

// checkSums has U-Boot compare the sum of n bytes at a place of the buffer with that of a slice's, from one of them on.
// If it is another one it looks where.
func (m *memory) checkSums(ctx context.Context, at, n int64, b *buffer, from int64, order func(uint32) uint32) error {
	err := m.checkSum(ctx, at, n, order(b.sum(from, n)))
	if !errors.Is(err, ErrOther) {
		return err
	}
	for done := int64(0); done < n; done += step {
		part := min(step, n-done)
		one := m.checkSum(ctx, at+done, part, order(b.sum(from+done, part)))
		if errors.Is(one, ErrOther) {
			off := b.off + from + done
			return &narrow{off, off + part, err}
		}
		if one != nil {
			return one
		}
	}
	return err
}

// inSlice says which bytes of an image an error is about: a slice's, unless it knows better.
func inSlice(im *image.Image, b *buffer, err error) error {
	off, end := b.off, b.end
	if n, ok := errors.AsType[*narrow](err); ok {
		off, end = n.off, n.end
	}
	return fmt.Errorf("%s: bytes %d-%d: %w", im.Name, off, end-1, err)
}

// checkSum has U-Boot compare the sum of n bytes of the buffer.
func (m *memory) checkSum(ctx context.Context, from, n int64, want uint32) error {
	m.filled = 0
	at := (m.size - sumRoom) / blockSize * blockSize
	if err := m.run(ctx, fastboot.WriteTime(n), "crc32 %#x %#x %#x", m.addr+uint64(from), n, m.addr+uint64(at)); err != nil {
		return err
	}
	if err := m.run(ctx, 0, "mw.l %#x %#x 1", m.addr+uint64(at)+4, want); err != nil {
		return err
	}
	return checkRead(m.compare(ctx, at, at+4, 4), ErrOther)
}

// Verify implements [flash.Verifier]. What an image leaves out is compared too: it is erased, as Write leaves it. An
// image on NAND is read in one go, since U-Boot tells nobody which blocks it passes over: it must fit into the buffer.
func (t MTD) Verify(ctx context.Context, im *image.Image, o flash.Options) error {
	defer im.Close()
	if err := t.verify(ctx, im, reporter(o)); err != nil {
		return fmt.Errorf("%s: %w", t, err)
	}
	return nil
}

// step is the most that is compared at a time of what is in the buffer as a whole.
const step = 1 << 20

func (t MTD) verify(ctx context.Context, im *image.Image, r reporter) error {
	m, err := t.open(ctx)
	if err != nil {
		return err
	}
	order, err := m.sums(ctx)
	if err != nil {
		return err
	}
	// What is read goes to the begin of the buffer, or into its second half.
	half, room := int64(0), (m.size-sumRoom)/t.Block*t.Block
	if order == nil {
		room = m.size / 2 / t.Block * t.Block
		half = room
	}
	k := cutter{unit: t.Block, most: room, pad: 0xff}
	switch {
	case t.SF:
		k.unit = 1
	case !t.NOR && im.Size < 0:
		return fmt.Errorf("%s: what is on NAND can be compared only with an image whose size is known before", im.Name)
	case !t.NOR && im.Size > room:
		return fmt.Errorf("%s has %d bytes, and U-Boot's buffer room for %d of what is on NAND, where bad blocks would move the rest: it can be verified only as it is written", im.Name, im.Size, room)
	case !t.NOR:
		k.most = max(step/t.Block*t.Block, t.Block)
	}
	if room < t.Block {
		return fmt.Errorf("U-Boot's buffer has %d bytes, too few for erase blocks of %d", m.size, t.Block)
	}
	if err := t.room(ctx, m, im); err != nil {
		return err
	}
	if !t.NOR {
		if err := t.read(ctx, m, half, t.Offset, (im.Size+t.Block-1)/t.Block*t.Block); err != nil {
			return err
		}
	}
	check := func(ctx context.Context, b *buffer) error {
		at, n := half, b.end-b.off // of what was read
		if !t.NOR {
			at += b.off
		} else if err := t.read(ctx, m, half, t.Offset+b.off, int64(len(b.data))); err != nil {
			return err
		}
		if order != nil {
			return m.checkSums(ctx, at, n, b, 0, order)
		}
		if err := m.load(ctx, b.data); err != nil {
			return err
		}
		return checkRead(m.compare(ctx, 0, at, n), ErrOther)
	}
	return ahead(ctx, func(ctx context.Context, next func() (*buffer, error), hand func(*buffer) error) error {
		return k.cut(ctx, im, next, hand)
	}, func(ctx context.Context, b *buffer) error {
		if err := check(ctx, b); err != nil {
			return inSlice(im, b, err)
		}
		r.verified(b)
		return nil
	})
}
