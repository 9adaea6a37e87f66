package am335x

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// transfer is one TFTP read.
type transfer struct {
	server  netip.Addr
	peer    mac // the server's, or the router's
	file    string
	port    uint16 // own
	options []option

	firstTimeout time.Duration // for the answer to the RRQ
	firstTries   int
	timeout      time.Duration // for each DATA after it; zero: none, the server must repeat
	tries        int

	deadline time.Time // of the whole transfer, zero: none
	limit    int       // bytes that the board has room for, zero: any
}

// tftpError is a TFTP ERROR that the server sent.
type tftpError struct {
	code uint16
	text string
}

func (e *tftpError) Error() string {
	return fmt.Sprintf("TFTP error %d from the server: %q", e.code, e.text)
}

var errBadOACK = errors.New("the server's OACK is not acceptable")

// fetchState is a transfer under way.
type fetchState struct {
	*client
	transfer
	negotiated

	data   []byte
	remote uint16 // the server's port, once known
	last   []byte // what is repeated when nothing comes
	blocks uint64 // received
	acked  uint64 // the block count of the last ACK
	lose   bool   // the next answer is lost, as a fault
	nacked bool   // the gap after the last block was told once
}

// fetch reads a file and keeps what arrived in the report, whether it ends well or not.
func (c *client) fetch(ctx context.Context, t transfer) error {
	s := &fetchState{client: c, transfer: t, negotiated: negotiated{512, 1, -1}}
	c.edit(func(st *Stage) {
		st.Data, st.BlockSize, st.Window = nil, 512, 1
		st.FirstByte, st.LastByte = time.Time{}, time.Time{}
		st.Requests++
	})
	s.last = encodeRRQ(t.file, t.options)
	c.send(ctx, c.udp(t.peer, t.server, t.port, tftpPort, s.last))
	until, tries := time.Now().Add(t.firstTimeout), 1
	for {
		wait := until
		if !t.deadline.IsZero() && t.deadline.Before(wait) {
			wait = t.deadline
		}
		d, _, err := c.next(ctx, wait)
		switch {
		case errors.Is(err, errTimeout):
			if !t.deadline.IsZero() && !time.Now().Before(t.deadline) {
				err := fmt.Errorf("the whole transfer took longer than %v; %d bytes came", c.cfg.ROMDeadline, len(s.data))
				c.violation(err)
				return err
			}
			begun := s.remote != 0
			limit := t.tries
			if !begun {
				limit = t.firstTries
			}
			if tries == limit {
				return fmt.Errorf("TFTP: no answer after %d tries; %d bytes came", tries, len(s.data))
			}
			tries++
			s.repeat(ctx)
			until = time.Now().Add(t.firstTimeout)
			if begun {
				until = time.Now().Add(t.timeout)
			}
			continue
		case err != nil:
			return err
		case d == nil:
			continue
		}
		progress, done, err := s.handle(ctx, d)
		if done || err != nil {
			return err
		}
		if progress {
			tries = 1
			if t.timeout > 0 {
				until = time.Now().Add(t.timeout)
			} else {
				until = t.deadline
			}
		}
	}
}

// repeat sends the last packet again.
func (s *fetchState) repeat(ctx context.Context) {
	to := s.remote
	if to == 0 {
		to = tftpPort
	}
	s.edit(func(st *Stage) {
		st.Retries++
		if s.remote == 0 {
			st.Requests++
		}
	})
	s.send(ctx, s.udp(s.peer, s.server, s.port, to, s.last))
}

// answer sends a packet to the server's port and keeps it for repetition.
func (s *fetchState) answer(ctx context.Context, packet []byte) {
	s.last = packet
	if s.lose {
		s.lose = false
		s.b.count(func(f *Frames) { f.LostOut++ })
		return
	}
	if packet[1] == opACK {
		s.edit(func(st *Stage) { st.Acks++ })
	}
	s.send(ctx, s.udp(s.peer, s.server, s.port, s.remote, packet))
}

// handle takes one datagram.
func (s *fetchState) handle(ctx context.Context, d *datagram) (progress, done bool, err error) {
	if d.dstPort != s.port {
		s.ignore()
		return false, false, nil
	}
	if d.src != s.server {
		s.violation(fmt.Errorf("TFTP packet from %v, expected the server %v", d.src, s.server))
		return false, false, nil
	}
	if s.remote != 0 && d.srcPort != s.remote {
		s.ignore() // the answer to a repeated RRQ, from another port
		return false, false, nil
	}
	p, err := decodeTFTP(d.data)
	if err != nil {
		s.violation(err)
		return false, false, nil
	}
	switch p.op {
	case opERROR:
		return false, false, &tftpError{p.code, string(p.data)}
	case opOACK:
		return s.option(ctx, d, p)
	default:
		return s.block(ctx, d, p)
	}
}

// option takes an OACK.
func (s *fetchState) option(ctx context.Context, d *datagram, p tftpPacket) (progress, done bool, err error) {
	if len(s.options) == 0 || s.blocks > 0 {
		s.violation(errors.New("TFTP OACK that was not asked for"))
		return false, false, nil
	}
	n, err := negotiate(s.options, p.options)
	s.remote = d.srcPort
	if err != nil {
		s.violation(err)
		s.answer(ctx, encodeError(errOptions, "option"))
		return false, false, fmt.Errorf("%w: %w", errBadOACK, err)
	}
	s.negotiated = n
	s.edit(func(st *Stage) { st.BlockSize, st.Window = n.blockSize, n.window })
	s.answer(ctx, encodeACK(0))
	return true, false, nil
}

// block takes a DATA packet.
func (s *fetchState) block(ctx context.Context, d *datagram, p tftpPacket) (progress, done bool, err error) {
	if len(p.data) > s.blockSize {
		s.violation(fmt.Errorf("TFTP DATA of %d bytes, the block size is %d", len(p.data), s.blockSize))
		return false, false, nil
	}
	if p.block != uint16(s.blocks+1) {
		s.unexpected(ctx, p.block)
		return false, false, nil
	}
	if s.remote == 0 {
		s.remote = d.srcPort
	}
	s.blocks++
	s.nacked = false
	if s.limit > 0 && len(s.data)+len(p.data) > s.limit {
		s.violation(fmt.Errorf("file longer than the %d bytes there is room for", s.limit))
		s.answer(ctx, encodeError(errDiskFull, "no room"))
		return false, false, fmt.Errorf("file longer than %d bytes", s.limit)
	}
	s.data = append(s.data, p.data...)
	s.edit(func(st *Stage) {
		if s.blocks == 1 {
			st.FirstByte = time.Now()
		}
		st.LastByte, st.Data = time.Now(), s.data
	})
	if err := s.due(ctx, len(s.data)); err == errLose {
		s.lose = true
	} else if err != nil {
		if err == errTold {
			s.answer(ctx, encodeError(errUndefined, "fault"))
		}
		return false, false, err
	}
	if len(p.data) < s.blockSize {
		s.answer(ctx, encodeACK(p.block))
		if s.size >= 0 && s.size != int64(len(s.data)) {
			s.violation(fmt.Errorf("TFTP tsize=%d for a file of %d bytes", s.size, len(s.data)))
		}
		return true, true, nil
	}
	if s.blocks == s.acked+uint64(s.window) {
		s.ack(ctx)
	}
	return true, false, nil
}

func (s *fetchState) ack(ctx context.Context) {
	s.acked = s.blocks
	s.answer(ctx, encodeACK(uint16(s.blocks)))
}

// unexpected takes a DATA packet out of order. The ROM, which has no timer of its own, acknowledges
// the last block again whenever it comes again. SPL acknowledges what it has once per gap and then
// leaves it to its timer.
func (s *fetchState) unexpected(ctx context.Context, block uint16) {
	if uint16(s.blocks)-block < 1<<15 {
		s.edit(func(st *Stage) { st.Duplicates++ })
	}
	if s.blocks == 0 {
		return
	}
	rom := s.timeout == 0
	if rom && block == uint16(s.blocks) || !rom && !s.nacked {
		s.nacked = true
		s.ack(ctx)
	}
}
