package sama5

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"snag/usb"
)

const (
	syncTime   = time.Second            // for the answer to the first command, which another program may have prevented
	drainTime  = 100 * time.Millisecond // for what is still to come of an older answer
	answerTime = 5 * time.Second
	maxText    = 256 // of an answer that is text
)

// piece is how much is loaded by one command (SAM-BA's maxChunkSize).
const piece = 16 << 10

var (
	// errNoMonitor says that the device is another one.
	errNoMonitor = errors.New("no SAM-BA monitor")
	// errSecure says that the monitor takes the commands of Microchip's secure tools alone.
	errSecure = errors.New("the chip is in secure mode")
	// errOdd is an answer that cannot be.
	errOdd = errors.New("odd answer")
	// errMemory says that memory does not have what was written.
	errMemory = errors.New("memory lost what was written")
)

// monitor is the SAM-BA monitor on the data interface of a CDC ACM device: a stream of bytes each way, whose line
// settings do not matter. A command is a letter, arguments in hexadecimal, and '#'. In binary mode only reads are
// answered:
//
//	N#            binary mode         LF CR
//	V#            version             text, LF CR
//	wADDR,#       read 32 bits        4 bytes, little-endian
//	WADDR,VALUE#  write 32 bits       -
//	SADDR,SIZE#   load; data follow   -
//	GADDR#        call                -
//
// There are no acknowledgements and no errors: a wrong address ends the monitor. It takes the next command when it is
// done with the one before, so that a read proves all before it.
type monitor struct {
	h       usb.Handle
	in, out usb.Endpoint
}

// open takes the interfaces: the one for data, and the other too, since the kernel's driver wants both.
func open(ctx context.Context, h usb.Handle) (*monitor, error) {
	m := &monitor{h: h}
	var data *usb.Setting
	var control []uint8
	for _, s := range h.Descriptors().Settings(h.Device().Config) {
		in, out, ok := s.Bulk()
		switch {
		case s.Alt != 0:
		case data == nil && ok && in.MaxPacket > 0 && out.MaxPacket > 0:
			data, m.in, m.out = &s, in, out
		default:
			control = append(control, s.Number)
		}
	}
	if data == nil {
		return nil, fmt.Errorf("%w: USB device %s on port %s has no interface with a bulk endpoint each way", errNoMonitor, h.Device().ID, h.Device().Port)
	}
	for _, n := range append(control, data.Number) {
		if err := h.Claim(ctx, n); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// within performs what is to be done within a time.
func within(ctx context.Context, most time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("%w: %s", context.DeadlineExceeded, most))
	defer cancel()
	return f(ctx)
}

// send sends bytes.
func (m *monitor) send(ctx context.Context, b []byte) error {
	return within(ctx, answerTime, func(ctx context.Context) error {
		_, err := m.h.Out(ctx, m.out.Address, b)
		return err
	})
}

// receive receives what comes next, which may be nothing.
func (m *monitor) receive(ctx context.Context) ([]byte, error) {
	b := make([]byte, m.in.MaxPacket)
	n, err := m.h.In(ctx, m.in.Address, b)
	return b[:n], err
}

// command sends a command that has no answer.
func (m *monitor) command(ctx context.Context, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if err := m.send(ctx, []byte(text)); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return nil
}

// line sends a command whose answer ends with LF CR, and has something before that unless it may be empty. What comes
// in front may be the end of an older answer.
func (m *monitor) line(ctx context.Context, command string, most time.Duration, empty bool) (string, error) {
	var got []byte
	err := within(ctx, most, func(ctx context.Context) error {
		if _, err := m.h.Out(ctx, m.out.Address, []byte(command)); err != nil {
			return err
		}
		for {
			b, err := m.receive(ctx)
			got = append(got, b...)
			switch {
			case bytes.HasPrefix(got, []byte("CACK,")):
				return errSecure
			case bytes.HasSuffix(got, []byte("\n\r")) && (empty || len(bytes.TrimSpace(got)) > 0):
				return nil
			case errors.Is(err, context.DeadlineExceeded):
				return fmt.Errorf("no answer: %w", err)
			case err != nil:
				return err
			case len(got) > maxText:
				return fmt.Errorf("%w: expected a line, got %q", errOdd, got[:maxText])
			}
		}
	})
	if err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	return strings.TrimSpace(string(got)), nil
}

// binary gets the monitor into binary mode, out of whatever state another program has left it in. reset says that it
// took a reset of the port.
func (m *monitor) binary(ctx context.Context) (reset bool, err error) {
	_, err = m.line(ctx, "N#", syncTime, true)
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return false, err
	}
	if err := m.h.Reset(ctx); err != nil {
		return true, err
	}
	// An empty command ends what may have begun; its answer is of no use.
	if err := m.command(ctx, "#"); err != nil {
		return true, err
	}
	err = within(ctx, drainTime, func(ctx context.Context) error {
		for {
			if _, err := m.receive(ctx); err != nil {
				return err
			}
		}
	})
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return true, err
	}
	_, err = m.line(ctx, "N#", answerTime, true)
	return true, err
}

// word reads 32 bits.
func (m *monitor) word(ctx context.Context, address uint32) (uint32, error) {
	return m.wordWithin(ctx, address, answerTime)
}

// wordWithin reads 32 bits when the monitor is back from what it has called, or within a time.
func (m *monitor) wordWithin(ctx context.Context, address uint32, most time.Duration) (uint32, error) {
	command := fmt.Sprintf("w%x,#", address)
	var got []byte
	err := within(ctx, most, func(ctx context.Context) error {
		if _, err := m.h.Out(ctx, m.out.Address, []byte(command)); err != nil {
			return err
		}
		for len(got) < 4 {
			b, err := m.receive(ctx)
			if got = append(got, b...); err != nil && len(got) < 4 {
				return fmt.Errorf("%d of 4 bytes: %w", len(got), err)
			}
		}
		if len(got) > 4 {
			return fmt.Errorf("%w: expected 4 bytes, got %d: % x", errOdd, len(got), got[:min(len(got), 16)])
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", command, err)
	}
	return binary.LittleEndian.Uint32(got), nil
}

// setWord writes 32 bits.
func (m *monitor) setWord(ctx context.Context, address, value uint32) error {
	return m.command(ctx, "W%x,%x#", address, value)
}

// load writes to memory. The last word of each piece is read back: that is all there is to prove that the piece
// arrived, and that there is memory.
func (m *monitor) load(ctx context.Context, address uint32, data []byte, progress func(n int)) error {
	for at := 0; at < len(data); {
		b := data[at:min(len(data), at+piece)]
		begin := address + uint32(at)
		if err := m.command(ctx, "S%x,%x#", begin, len(b)); err != nil {
			return err
		}
		if err := m.send(ctx, b); err != nil {
			return fmt.Errorf("%d bytes to %#x: %w", len(b), begin, err)
		}
		at += len(b)
		if err := m.compare(ctx, begin, b); err != nil {
			return err
		}
		progress(at)
	}
	return nil
}

// compare reads the last word of what was written back.
func (m *monitor) compare(ctx context.Context, address uint32, b []byte) error {
	last := (address + uint32(len(b)) - 1) &^ 3
	begin := max(last, address)
	v, err := m.word(ctx, last)
	if err != nil {
		return err
	}
	var word [4]byte
	binary.LittleEndian.PutUint32(word[:], v)
	want := b[begin-address:]
	if got := word[begin-last:][:len(want)]; !bytes.Equal(got, want) {
		return fmt.Errorf("%w: at %#x is % x, % x was written", errMemory, begin, got, want)
	}
	return nil
}
