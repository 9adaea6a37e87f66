// Package uart provides virtual boards that are recovered over a serial line, on a pseudo-terminal.
//
// [Start] starts an AM335x whose boot ROM takes its first stage by XMODEM-CRC, as TI's SPRUH73, chapter
// 26.1.8.5, has it, and whose U-Boot SPL then takes the second by YMODEM. SPL behaves as
// common/xyzModem.c of U-Boot does, where that differs from the protocol's description: it refuses with
// 'C' instead of NAK, sends no 'C' after the header, and acknowledges EOT twice.
// The receivers share no code with the sender in internal/xmodem.
package uart

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"snag/sim/pty"
)

// Config says what the board is like. Zero values are those of a real board.
type Config struct {
	ROMPing time.Duration // between two 'C' of the ROM; 3 s
	SPLPing time.Duration // between two 'C' of SPL; 2 s
	MaxSPL  int           // bytes that the ROM has room for; 0x402F0400 to 0x4030B800
	Banner  string        // what SPL prints before it asks; by default a U-Boot banner, which holds a 'C'
	Faults  Faults
}

// Faults is what goes wrong. Counts are "every n-th"; 0 is never.
type Faults struct {
	Silent      bool   // nothing ever comes from the ROM
	Text        string // this comes instead of pings: a board that boots from elsewhere
	Noise       int    // answers that have console noise before them
	Refuse      int    // good blocks that are refused
	LoseByte    int    // bytes that do not arrive
	LoseAnswer  int    // answers that do not leave
	CancelBlock int    // the number of a block of the ROM stage that is answered by CAN CAN; once
	SilentSPL   bool   // SPL prints its banner and nothing else
	ResetROM    int    // bytes of the ROM stage after which the board is reset, once
	ResetSPL    int    // the same of SPL's
}

// Board is a running virtual board.
type Board struct {
	TTY string // the pseudo-terminal to open

	cfg   Config
	line  *pty.Line
	ended chan struct{}

	mu  sync.Mutex
	err error
	got Received

	bytes, answers, blocks int // counters for the faults
	unread                 []byte
	cancelled, wasReset    bool
}

// Received is what the board has got.
type Received struct {
	SPL       []byte // as the ROM stored it, padding included
	UBoot     []byte // as SPL loaded it
	UBootName string // the name in the YMODEM header
	Done      bool   // the batch ended and U-Boot runs
}

const (
	defaultBanner = "\r\nU-Boot SPL 2026.01 (Nov 01 2026 - 12:00:00 +0000)\r\nCPU: AM335X-GP rev 2.1\r\nTrying to boot from UART\r\n"
	ubootBanner   = "\r\n\r\nU-Boot 2026.01 (Nov 01 2026 - 12:00:00 +0000)\r\n\r\nCPU  : AM335X-GP rev 2.1\r\n"
	maxSPL        = 0x4030B800 - 0x402F0400
)

// patience is how long the receivers wait for a block once the file has begun.
const patience = 2 * time.Second

// Start starts a board. Close ends it.
func Start(cfg Config) (*Board, error) {
	if cfg.ROMPing == 0 {
		cfg.ROMPing = 3 * time.Second
	}
	if cfg.SPLPing == 0 {
		cfg.SPLPing = 2 * time.Second
	}
	if cfg.MaxSPL == 0 {
		cfg.MaxSPL = maxSPL
	}
	if cfg.Banner == "" {
		cfg.Banner = defaultBanner
	}
	line, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("virtual UART board: %w", err)
	}
	b := &Board{TTY: line.TTY, cfg: cfg, line: line, ended: make(chan struct{})}
	go func() {
		defer close(b.ended)
		err := b.run()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.err = err
	}()
	return b, nil
}

// Close ends the board.
func (b *Board) Close() error {
	err := b.line.Close()
	<-b.ended
	return err
}

// Received returns what the board has got so far; the caller must not change it.
func (b *Board) Received() Received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.got
}

// Ended is closed when the board runs U-Boot, cannot go on, or was closed.
func (b *Board) Ended() <-chan struct{} { return b.ended }

// Err says, after Ended, why the board could not go on. It is nil if U-Boot runs.
func (b *Board) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *Board) run() error {
	spl, err := b.rom()
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.got.SPL = spl
	b.mu.Unlock()

	if err := b.print(b.cfg.Banner); err != nil {
		return err
	}
	if b.cfg.Faults.SilentSPL {
		_, err := io.Copy(io.Discard, b.line)
		return err
	}
	name, uboot, err := b.spl()
	if errors.Is(err, errReset) {
		return b.run()
	}
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.got.UBoot, b.got.UBootName, b.got.Done = uboot, name, true
	b.mu.Unlock()
	return b.print(ubootBanner)
}

// errReset says that the board was reset.
var errReset = errors.New("reset")

// reset tells whether the board is to be reset when it has so many bytes.
func (b *Board) reset(after, have int) bool {
	if b.wasReset || after == 0 || have < after {
		return false
	}
	b.wasReset = true
	return true
}

// rom takes a file by XMODEM-CRC, as often as it takes.
func (b *Board) rom() ([]byte, error) {
	for f := b.cfg.Faults; f.Silent || f.Text != ""; {
		if err := b.print(f.Text); err != nil {
			return nil, err
		}
		if _, err := b.readByte(b.cfg.ROMPing); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
	}
restart:
	for {
		var file []byte
		for next := 1; ; {
			if next == 1 {
				if err := b.print("C"); err != nil {
					return nil, err
				}
			}
			wait := patience
			if next == 1 {
				wait = b.cfg.ROMPing
			}
			k, number, data, err := b.block(wait)
			if err != nil {
				return nil, err
			}
			answer := byte(ack)
			switch {
			case k == silence && next == 1:
				continue // ping again
			case k == endOfFile && next > 1:
				return file, b.answer(ack)
			case k == cancel:
				continue restart
			case k != good:
				answer = nak
			case !b.cancelled && b.cfg.Faults.CancelBlock > 0 && next == b.cfg.Faults.CancelBlock:
				b.cancelled = true
				if err := b.answer(can, can); err != nil {
					return nil, err
				}
				continue restart
			case number == next&0xff:
				if len(file)+len(data) > b.cfg.MaxSPL {
					if err := b.answer(can, can); err != nil {
						return nil, err
					}
					continue restart
				}
				file = append(file, data...)
				next++
				if b.reset(b.cfg.Faults.ResetROM, len(file)) {
					continue restart
				}
			case number != (next-1)&0xff: // neither the next nor the last again
				if err := b.answer(can, can); err != nil {
					return nil, err
				}
				continue restart
			}
			if err := b.answer(answer); err != nil {
				return nil, err
			}
		}
	}
}

// spl takes a file by YMODEM.
func (b *Board) spl() (name string, file []byte, err error) {
	size, next := 0, 0
	if err := b.print("C"); err != nil {
		return "", nil, err
	}
	for refusals := 0; refusals < 20; {
		wait := patience
		if next == 0 {
			wait = b.cfg.SPLPing
		}
		k, number, data, err := b.block(wait)
		if err != nil {
			return "", nil, err
		}
		answer := byte(ctl)
		switch {
		case k == cancel:
			return "", nil, errors.New("SPL: cancelled by the host")
		case k == endOfFile && next > 0:
			if err := errors.Join(b.answer(ack), b.answer(ack), b.answer(ctl)); err != nil {
				return "", nil, err
			}
			// the header that ends the batch, or not: SPL does not care
			if _, _, _, err := b.block(patience); err != nil {
				return "", nil, err
			}
			if len(file) != size {
				return "", nil, fmt.Errorf("SPL: received %d bytes of %d", len(file), size)
			}
			return name, file, b.answer(ack)
		case k != good:
			refusals++
		case number == next&0xff:
			if next == 0 {
				if name, size, err = parseHeader(data); err != nil {
					return "", nil, err
				}
			} else {
				file = append(file, data[:min(len(data), size-len(file))]...)
				if b.reset(b.cfg.Faults.ResetSPL, len(file)) {
					return "", nil, errReset
				}
			}
			next++
			refusals = 0
			answer = ack
		case number == (next-1)&0xff:
			answer = ack
		default:
			return "", nil, fmt.Errorf("SPL: block %d, want %d", number, next)
		}
		if err := b.answer(answer); err != nil {
			return "", nil, err
		}
	}
	return "", nil, errors.New("SPL: too many retries")
}
