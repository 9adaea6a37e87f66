package fastboot

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"snag/flash"
	"snag/flash/image"
	"snag/usb/fastboot"
)

// The extended flow, which Snagboot has too: what is downloaded lies in U-Boot's memory, and a command of U-Boot's
// writes it from there to where it belongs. So nothing need fit into the buffer, storage that "flash" does not know can
// be reached, and what was written can be read back.
//
// The address of the buffer must be known. NXP's U-Boot tells it in the environment, for others it is FASTBOOT_BUF_ADDR
// of the configuration; a trial proves it before anything is written. Numbers in U-Boot's commands are hexadecimal.

// memory is U-Boot's buffer.
type memory struct {
	c    *fastboot.Client
	addr uint64
	size int64

	pattern [4]byte // what it is full of, up to filled
	filled  int64
}

// usualBuffer is what a device is taken for to have that does not say.
const usualBuffer = 16 << 20

// newMemory asks for the buffer, and makes sure of the address.
func newMemory(ctx context.Context, c *fastboot.Client, addr uint64) (*memory, error) {
	limit, err := c.MaxDownload(ctx)
	if err != nil {
		return nil, err
	}
	if limit == 0 {
		limit = usualBuffer
	}
	if addr == 0 {
		if addr, err = bufferAddress(ctx, c); err != nil {
			return nil, err
		}
	}
	m := &memory{c: c, addr: addr, size: min(limit, mostPiece)}
	if m.size < MinPiece {
		return nil, fmt.Errorf("U-Boot's buffer has %d bytes, expected %d at least", m.size, MinPiece)
	}
	return m, m.try(ctx)
}

// variable has U-Boot store the value of an expression of its shell where getvar finds it, and gets it from there.
func variable(ctx context.Context, c *fastboot.Client, expression string) (string, error) {
	const name = "snag"
	if err := c.Run(ctx, "setenv fastboot."+name+" "+expression, 0); err != nil {
		return "", err
	}
	v, err := c.GetVar(ctx, name)
	if _, refused := errors.AsType[*fastboot.FailError](err); refused {
		return "", nil
	}
	return strings.TrimSpace(v), err
}

// ErrBuffer says that the address of U-Boot's buffer is not known, which [MMC] and [MTD] need.
var ErrBuffer = errors.New("U-Boot does not tell where its fastboot buffer is (only NXP's has ${fastboot_buffer}): give its address, CONFIG_FASTBOOT_BUF_ADDR of its configuration")

func bufferAddress(ctx context.Context, c *fastboot.Client) (uint64, error) {
	text, err := variable(ctx, c, "${fastboot_buffer}")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(text), "0x"), 16, 64)
	if err != nil || n == 0 {
		return 0, ErrBuffer
	}
	return n, nil
}

// try downloads 8 bytes, has U-Boot write the same behind them, and compare.
func (m *memory) try(ctx context.Context) error {
	var b [8]byte
	rand.Read(b[:])
	if err := m.c.DownloadBytes(ctx, b[:]); err != nil {
		return err
	}
	for i := 0; i < len(b); i += 4 {
		err := m.run(ctx, 0, "mw.l %#x %#x 1", m.addr+uint64(len(b)+i), binary.LittleEndian.Uint32(b[i:]))
		if _, refused := errors.AsType[*fastboot.FailError](err); refused {
			return fmt.Errorf("U-Boot's memory commands are needed (CONFIG_CMD_MEMORY): %w", err)
		}
		if err != nil {
			return err
		}
	}
	err := m.run(ctx, 0, "cmp.l %#x %#x 2", m.addr, m.addr+uint64(len(b)))
	if _, refused := errors.AsType[*fastboot.FailError](err); refused {
		return fmt.Errorf("what is downloaded is not at %#x: this is not the address of U-Boot's fastboot buffer (CONFIG_FASTBOOT_BUF_ADDR): %w", m.addr, err)
	}
	return err
}

func (m *memory) run(ctx context.Context, patience time.Duration, format string, args ...any) error {
	return m.c.Run(ctx, fmt.Sprintf(format, args...), patience)
}

// fill has the first n bytes repeat 4.
func (m *memory) fill(ctx context.Context, pattern [4]byte, n int64) error {
	if m.pattern == pattern && m.filled >= n {
		return nil
	}
	m.filled = 0
	if err := m.run(ctx, fastboot.WriteTime(n), "mw.l %#x %#x %#x", m.addr, binary.LittleEndian.Uint32(pattern[:]), n/4); err != nil {
		return err
	}
	m.pattern, m.filled = pattern, n
	return nil
}

func (m *memory) load(ctx context.Context, b []byte) error {
	m.filled = 0
	return m.c.DownloadBytes(ctx, b)
}

// compare has U-Boot compare n bytes of the buffer with those at another offset.
func (m *memory) compare(ctx context.Context, from, with, n int64) error {
	unit, count := "l", n/4
	if n%4 != 0 {
		unit, count = "b", n
	}
	return m.run(ctx, fastboot.WriteTime(n), "cmp.%s %#x %#x %#x", unit, m.addr+uint64(from), m.addr+uint64(with), count)
}

// errDiffers is what is wrong with a medium that does not hold what was written, ErrOther with one that does not hold
// an image.
var (
	errDiffers = errors.New("what was written is not what is read back")
	ErrOther   = errors.New("the medium holds something else than the image")
)

// checkRead is the error for what compare has found.
func checkRead(err, differs error) error {
	if _, refused := errors.AsType[*fastboot.FailError](err); refused {
		return fmt.Errorf("%w (%v)", differs, err)
	}
	return err
}

// cutter cuts an image into what can be written at a time.
type cutter struct {
	unit  int64 // whole ones are written
	most  int64 // bytes, a multiple of unit
	pad   byte  // of the last unit
	gaps  bool  // what is not to be written is left out; else it is made of pad
	skip  bool  // zeros are left out
	fills bool  // what repeats 4 bytes is handed over as such
}

// fillStep is the least that is worth to be filled by U-Boot.
const fillStep = image.PieceSize

// cut hands over the image in order. Slices of data are padded up to whole units.
func (k cutter) cut(ctx context.Context, im *image.Image, next func() (*buffer, error), hand func(*buffer) error) error {
	defer im.Close()
	stop := context.AfterFunc(ctx, func() { im.Close() })
	defer stop()
	var b *buffer
	flush := func() error {
		if b == nil {
			return nil
		}
		full := b
		b = nil
		full.end = full.off + int64(len(full.data))
		if full.fill {
			full.end = full.off + full.written
			return hand(full)
		}
		for int64(len(full.data))%k.unit != 0 {
			full.data = append(full.data, k.pad)
		}
		full.written = int64(len(full.data))
		return hand(full)
	}
	begin := func(off int64) (err error) {
		if off%k.unit != 0 {
			return fmt.Errorf("%s: what is to be written begins at byte %d, not at a multiple of %d", im.Name, off, k.unit)
		}
		if b, err = next(); err == nil {
			b.off = off
		}
		return err
	}
	// bytes adds some that write makes.
	at := int64(0)
	bytes := func(n int64, write func(p []byte, off int64)) error {
		for n > 0 {
			if b != nil && (b.fill || int64(len(b.data)) == k.most) {
				if err := flush(); err != nil {
					return err
				}
			}
			if b == nil {
				if err := begin(at); err != nil {
					return err
				}
			}
			have := int64(len(b.data))
			m := min(n, k.most-have)
			b.grow(have+m, k.most)
			write(b.data[have:], at)
			at, n = at+m, n-m
		}
		return nil
	}
	for {
		p, err := im.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		err = k.gap(p.Off-at, &at, flush, bytes)
		pattern, same := repeats(p)
		switch {
		case err != nil:
		case same && k.skip && pattern == [4]byte{} && p.Off%k.unit == 0 && p.N%k.unit == 0:
			err = flush()
			at += p.N
		case same && k.fills && p.N >= fillStep && p.Off%k.unit == 0 && p.N%k.unit == 0:
			if b == nil || !b.fill || [4]byte(b.data) != pattern || b.written+p.N > mostFilled {
				if err = flush(); err == nil {
					err = begin(p.Off)
				}
			}
			if err == nil {
				b.fill, b.data = true, append(b.data[:0], pattern[:]...)
				b.written += p.N
				at += p.N
			}
		default:
			err = bytes(p.N, func(dst []byte, off int64) { expand(dst, p, off) })
		}
		p.Release()
		if err != nil {
			return err
		}
	}
	if err := k.gap(im.Size-at, &at, flush, bytes); err != nil {
		return err
	}
	return flush()
}

// gap is n bytes that are not to be written.
func (k cutter) gap(n int64, at *int64, flush func() error, bytes func(int64, func([]byte, int64)) error) error {
	if n <= 0 {
		return nil
	}
	if !k.gaps {
		return bytes(n, func(p []byte, _ int64) {
			for i := range p {
				p[i] = k.pad
			}
		})
	}
	if *at%k.unit != 0 {
		return fmt.Errorf("what is not to be written begins at byte %d, not at a multiple of %d", *at, k.unit)
	}
	*at += n
	return flush()
}

// repeats reports whether a piece repeats 4 bytes.
func repeats(p image.Piece) ([4]byte, bool) {
	if p.Kind != image.Data {
		return p.Pattern, true
	}
	if len(p.Data) < fillStep {
		return [4]byte{}, false
	}
	return [4]byte(p.Data), bytes.Equal(p.Data[4:8], p.Data[:4]) && bytes.Equal(p.Data[4:], p.Data[:len(p.Data)-4])
}

// grow makes the data longer, with room for most at last.
func (b *buffer) grow(n, most int64) {
	if int64(cap(b.data)) < n {
		grown := make([]byte, len(b.data), min(most, max(n, 2*int64(cap(b.data)))))
		copy(grown, b.data)
		b.data = grown
	}
	b.data = b.data[:n]
}

// reporter tells what is done.
type reporter flash.Options

func (r reporter) wrote(b *buffer) {
	if r.Progress != nil {
		r.Progress(flash.Writing, b.end-b.off)
	}
}

func (r reporter) verified(b *buffer) {
	if r.Progress != nil {
		r.Progress(flash.Verifying, b.end-b.off)
	}
}
