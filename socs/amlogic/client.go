package amlogic

import (
	"context"
	"errors"
	"fmt"

	"snag/usb"
)

// device is a ROM, or a BL2.
type device struct {
	handle  usb.Handle
	in, out usb.Endpoint
}

// errInterface says that a device has not the ROM's interface.
var errInterface = errors.New("no interface with bulk endpoints both ways")

// open takes the ROM's interface, which is the first with a bulk endpoint each way.
func open(ctx context.Context, h usb.Handle) (*device, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	for _, i := range h.Device().Interfaces {
		s := h.Descriptors().Setting(uint8(h.Device().Config), uint8(i.Number), 0)
		if s == nil {
			continue
		}
		if in, out, ok := s.Bulk(); ok {
			return &device{h, in, out}, h.Claim(ctx, s.Number)
		}
	}
	return nil, fmt.Errorf("USB device %s on port %s has %w", h.Device().ID, h.Device().Port, errInterface)
}

// identify asks what runs. A BL2 that starts may be deaf to the first question.
func (d *device) identify(ctx context.Context) (identity, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	for {
		once, cancel := context.WithTimeout(ctx, askTime)
		b := make([]byte, identitySize)
		n, err := d.handle.Control(once, usb.Setup{Type: 0xc0, Request: reqIdentify, Length: identitySize}, b)
		deaf := once.Err() != nil && ctx.Err() == nil
		cancel()
		if deaf && errors.Is(err, context.DeadlineExceeded) {
			continue
		}
		if err != nil {
			return identity{}, fmt.Errorf("IDENTIFY: no answer: %w", err)
		}
		id, err := parseIdentity(b[:n])
		if err != nil {
			return id, fmt.Errorf("IDENTIFY: %w", err)
		}
		return id, nil
	}
}

// write writes to memory in small pieces. tell, which may be nil, is told of bytes that are about to be sent.
func (d *device) write(ctx context.Context, addr uint32, data []byte, tell func(int)) error {
	n, err := d.handle.StreamControl(ctx, dataIdle, func(yield func(usb.Setup, []byte) bool) {
		for off := 0; off < len(data); off += writeSize {
			if tell != nil {
				tell(off)
			}
			part := data[off:min(off+writeSize, len(data))]
			if !yield(at(reqWrite, addr+uint32(off), len(part)), part) {
				return
			}
		}
	})
	if err != nil {
		return fmt.Errorf("write of %d bytes to %#08x: after %d: %w", len(data), addr, n*writeSize, err)
	}
	return nil
}

// maxBlocks is how many blocks a large write may have.
const maxBlocks = 0xffff

// large writes to memory by a large write, filled up to whole blocks. A block is a transfer of its own: the ROM waits
// for it as such.
func (d *device) large(ctx context.Context, addr uint32, data []byte, block int, tell func(int)) error {
	blocks := (len(data) + block - 1) / block
	fail := func(off int, err error) error {
		return fmt.Errorf("large write of %d bytes to %#08x: after %d: %w", len(data), addr, off, err)
	}
	if err := d.control(ctx, out(reqLarge, uint16(block), uint16(blocks), 16), largeWrite(addr, blocks*block)); err != nil {
		return fail(0, err)
	}
	n, err := d.handle.Stream(ctx, d.out.Address, dataIdle, func(yield func([]byte) bool) {
		for off := 0; off < len(data); off += block {
			if tell != nil {
				tell(off)
			}
			part := data[off:min(off+block, len(data))]
			if len(part) < block {
				part = append(part[:len(part):len(part)], make([]byte, block-len(part))...)
			}
			if !yield(part) {
				return
			}
		}
	})
	if err != nil {
		return fail(int(n), err)
	}
	return nil
}

// control performs a request to the device.
func (d *device) control(ctx context.Context, s usb.Setup, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	_, err := d.handle.Control(ctx, s, data)
	return err
}

// run starts a program.
func (d *device) run(ctx context.Context, addr uint32) error {
	if err := d.control(ctx, at(reqRun, addr, 4), words(addr|keepPower)); err != nil {
		return fmt.Errorf("run %#08x: %w", addr, err)
	}
	return nil
}

// answer receives up to size bytes.
func (d *device) answer(ctx context.Context, size int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	b := make([]byte, max(size, d.in.MaxPacket))
	n, err := d.handle.In(ctx, d.in.Address, b)
	return b[:n], err
}

// ask asks a BL2 what it wants.
func (d *device) ask(ctx context.Context) (ask, error) {
	if err := d.control(ctx, out(reqAMLC, unit, 0, 0), nil); err != nil {
		return ask{}, fmt.Errorf("AMLC: %w", err)
	}
	b, err := d.answer(ctx, unit)
	if err != nil {
		return ask{}, fmt.Errorf("AMLC: no answer: %w", err)
	}
	a, err := parseAsk(b)
	if err != nil {
		return a, &answerError{"AMLC", err}
	}
	short, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if _, err := d.handle.Out(short, d.out.Address, okay()); err != nil {
		return a, fmt.Errorf("acknowledgement of AMLC: %w", err)
	}
	return a, nil
}

// answerError is an answer that is not what it should be.
type answerError struct {
	what string
	err  error
}

func (e *answerError) Error() string { return e.what + ": " + e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }

// piece gives a BL2 the piece that it has asked for.
func (d *device) piece(ctx context.Context, seq int, a ask, data []byte, tell func(int)) error {
	for off := 0; off < len(data); off += pieceSize {
		part := data[off:min(off+pieceSize, len(data))]
		if err := d.data(ctx, off, part, func(n int) { tell(off + n) }); err != nil {
			return fmt.Errorf("%d bytes for %#x: %w", len(part), int(a.offset)+off, err)
		}
	}
	// The offsets of the data are in the piece, this one is in the file: both peers have it so.
	if err := d.data(ctx, int(a.offset), amls(seq, data), nil); err != nil {
		return fmt.Errorf("%s for %#x: %w", amlsMagic, a.offset, err)
	}
	return nil
}

// data sends part of a piece.
func (d *device) data(ctx context.Context, offset int, data []byte, tell func(int)) error {
	if err := d.control(ctx, out(reqData, uint16(offset/unit), uint16(len(data)-1), 0), nil); err != nil {
		return err
	}
	n, err := d.handle.Stream(ctx, d.out.Address, dataIdle, func(yield func([]byte) bool) {
		for off := 0; off < len(data); off += outSize {
			if tell != nil {
				tell(off)
			}
			if !yield(data[off:min(off+outSize, len(data))]) {
				return
			}
		}
	})
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", n, err)
	}
	b, err := d.answer(ctx, okaySize)
	switch {
	case err != nil:
		return fmt.Errorf("no answer: %w", err)
	case len(b) < 4 || string(b[:4]) != okayMagic:
		return &answerError{"answer", fmt.Errorf("expected %s, got %d bytes: % x", okayMagic, len(b), b[:min(len(b), okaySize)])}
	}
	return nil
}
