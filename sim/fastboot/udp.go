package fastboot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"time"

	"snag/sim/virtual"
)

// maxPacket is how much U-Boot takes in a datagram (net/fastboot_udp.c, PACKET_SIZE).
const maxPacket = 1024

// ServeUDP serves a socket until the context ends, which closes it, or until the host ends the session.
func (b *Board) ServeUDP(ctx context.Context, conn net.PacketConn) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	d := &datagrams{violation: b.board.Violation, conn: conn, seq: 0x1234, size: 512}
	s := newStage(b, d)
	b.board.Begin(StageGadget, nil, s.report)
	err := s.serve(ctx)
	switch {
	case errors.Is(err, errStarted), errors.Is(err, virtual.ErrReset):
		if errors.Is(err, errStarted) {
			b.board.Booted()
		}
		d.linger()
		return nil
	case ctx.Err() != nil, errors.Is(err, virtual.ErrUnplug):
		return nil
	}
	return err
}

// datagrams is the carrier of a UDP socket: kind (1: 0 error, 1 query, 2 initialisation, 3 fastboot), flags (1: bit 0,
// the message goes on), sequence number (2), data. It answers one packet at a time.
type datagrams struct {
	violation func(format string, args ...any)
	conn      net.PacketConn
	peer      net.Addr
	seq       uint16 // expected next
	size      int    // agreed on
	last      []byte // the answer to seq-1, for a host that missed it

	pending []byte // data of a packet that was not all taken
}

// packet waits for the next packet of fastboot that is not a repeated one. It is to be answered by reply.
func (d *datagrams) packet() (payload []byte, more bool, err error) {
	be := binary.BigEndian
	buf := make([]byte, 2*maxPacket)
	for {
		n, peer, err := d.conn.ReadFrom(buf)
		if err != nil {
			return nil, false, err
		}
		if n < 4 {
			d.violation("a packet of %d bytes", n)
			continue
		}
		kind, seq := buf[0], be.Uint16(buf[2:])
		switch {
		case kind == 1:
			d.peer = peer
			d.send(be.AppendUint16([]byte{1, 0, buf[2], buf[3]}, d.seq))
		case seq == d.seq-1 && d.last != nil:
			d.send(d.last)
		case seq != d.seq:
			d.violation("sequence number %d, expected %d", seq, d.seq)
		case kind == 2 && n >= 8:
			if be.Uint16(buf[4:]) < 1 || be.Uint16(buf[6:]) < 512 {
				d.violation("initialisation % x", buf[4:8])
			}
			d.size = min(maxPacket, int(be.Uint16(buf[6:])))
			d.reply(2, false, be.AppendUint16(be.AppendUint16(nil, 1), maxPacket))
		case kind == 3:
			if n > d.size {
				d.violation("a packet of %d bytes, %d were agreed on", n, d.size)
			}
			return bytes.Clone(buf[4:n]), buf[1]&1 != 0, nil
		default:
			d.violation("a packet of kind %d", kind)
		}
	}
}

// reply answers the packet that seq expected.
func (d *datagrams) reply(kind byte, more bool, b []byte) {
	var flags byte
	if more {
		flags = 1
	}
	d.last = append(binary.BigEndian.AppendUint16([]byte{kind, flags}, d.seq), b...)
	d.seq++
	d.send(d.last)
}

// send loses what cannot be sent, as a network does.
func (d *datagrams) send(b []byte) { d.conn.WriteTo(b, d.peer) }

func (d *datagrams) command(context.Context) ([]byte, error) {
	var command []byte
	for {
		b, more, err := d.packet()
		if err != nil {
			return nil, err
		}
		d.reply(3, false, nil)
		command = append(command, b...)
		if len(command) > 64 { // net/fastboot_udp.c
			d.violation("command of %d bytes", len(command))
			command = command[:64]
		}
		if len(command) > 0 && !more {
			return command, nil
		}
	}
}

func (d *datagrams) data(_ context.Context, buf []byte, rest int) (int, error) {
	for len(d.pending) == 0 {
		b, _, err := d.packet()
		if err != nil {
			return 0, err
		}
		if len(b) == 0 {
			d.violation("an empty packet among the data")
		}
		if len(b) > rest {
			d.violation("%d bytes more than the download was announced with", len(b)-rest)
			b = b[:rest]
		}
		d.reply(3, false, nil)
		d.pending = b
	}
	n := copy(buf, d.pending)
	d.pending = d.pending[n:]
	return n, nil
}

func (d *datagrams) answer(_ context.Context, b []byte) error {
	for {
		payload, _, err := d.packet()
		if err != nil {
			return err
		}
		if len(payload) > 0 {
			d.violation("%d bytes where the host was to ask for the answer", len(payload))
		}
		n := min(len(b), d.size-4)
		d.reply(3, n < len(b), b[:n])
		if b = b[n:]; len(b) == 0 {
			return nil
		}
	}
}

func (*datagrams) halt() {}

// linger answers repeated packets for as long as a host that missed the last answer sends them.
func (d *datagrams) linger() {
	d.conn.SetDeadline(time.Now().Add(2 * time.Second))
	for {
		if _, _, err := d.packet(); err != nil {
			return
		}
	}
}
