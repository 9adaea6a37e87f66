package amlogic

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
)

// fetch is the BL2 of G12, which asks for u-boot.bin piece by piece (pyamlboot, PROTOCOL.md, "BL2 BOOT").
//
// Request 0x50 (wValue 0x200) has it ask, by 512 bytes on bulk IN, which the host acknowledges by 16 on bulk OUT
// ("OKAY", 0):
//
//	offset size field
//	0      4    "AMLC"
//	4      4    sequence number
//	8      4    length
//	12     4    offset in the file
//
// The piece comes by one request 0x60 for each 64 KiB at most (wValue: offset in the piece, in units of 512; wIndex:
// length less 1), bulk OUT, and 16 bytes on bulk IN ("OKAY"). One more request 0x60, with the piece's offset in the
// file, carries its first 512 bytes once more, with this in front:
//
//	offset size field
//	0      4    "AMLS"
//	4      1    sequence number
//	5      3    0
//	8      4    sum of the piece's words
//	12     4    0
//
// A BL2 that has all asks for the last piece again.
type fetch struct {
	*session
	asks    []Ask
	derived bool // the asks are from the FIP
	endless bool
	seq     uint32
	now     Ask
	got     []byte // of the piece
	pending bool   // now has not come yet
}

// firstAsk is the begin of the FIP, in all that was listened to.
var firstAsk = Ask{0x4000, 0x10000}

const (
	amlcSize = 512
	ackSize  = 16
	maxPiece = 64 << 20
)

func newFetch(s *session) *fetch {
	f := &fetch{session: s, asks: s.b.cfg.Asks}
	if f.asks == nil {
		f.asks, f.derived = []Ask{firstAsk}, true
	}
	return f
}

// complete tells whether the piece has come, but for what ends it.
func (f *fetch) complete() bool { return f.pending && len(f.got) == int(f.now.Length) }

// ask answers request 0x50.
func (f *fetch) ask(ctx context.Context, r *request, fault FaultKind, refuse func(string, ...any) error) error {
	switch {
	case r.Value != amlcSize || r.Index != 0 || r.Length != 0:
		return refuse("request for AMLC with wValue %#x, wIndex %#x, %d bytes", r.Value, r.Index, r.Length)
	case f.pending:
		return refuse("request for AMLC while the piece at %#x is missing", f.now.Offset)
	}
	over := len(f.asks) == 0
	ask := f.now
	if !over {
		ask = f.asks[0]
	}
	switch fault {
	case Endless:
		f.endless = true
	case Beyond:
		ask.Length = 0x7fff0000
	case Nothing:
		ask.Length = 0
	}
	if f.endless {
		over, f.asks = false, []Ask{firstAsk, {0x200, 0x10200}}
		ask = f.asks[f.seq%2]
	}
	r.accept(nil)
	if fault == Mute {
		return nil
	}
	b := make([]byte, amlcSize)
	copy(b, "AMLC")
	if fault == Wrong {
		copy(b, "What")
	}
	binary.LittleEndian.PutUint32(b[4:], f.seq)
	binary.LittleEndian.PutUint32(b[8:], ask.Length)
	binary.LittleEndian.PutUint32(b[12:], ask.Offset)
	if fault == Cut {
		b = b[:2]
	}
	ack := make([]byte, packet)
	var n int
	err := f.dev.bulk(ctx, func(ctx context.Context) (err error) {
		if _, err = f.dev.InPipe(epIn).Write(ctx, b); err == nil {
			n, err = f.dev.OutPipe(epOut).Read(ctx, ack)
		}
		return err
	})
	if err != nil {
		return err
	}
	if !bytes.Equal(ack[:n], append([]byte("OKAY"), make([]byte, ackSize-4)...)) {
		f.violation("AMLC was acknowledged by % x", ack[:min(n, ackSize)])
	}
	if over {
		return f.start()
	}
	if !f.endless {
		f.asks = f.asks[1:]
	}
	f.now, f.got, f.pending = ask, nil, true
	return nil
}

// start starts U-Boot.
func (f *fetch) start() error {
	f.ran(0, "U-Boot")
	return errStarted
}

// data answers request 0x60.
func (f *fetch) data(ctx context.Context, r *request, fault FaultKind, refuse func(string, ...any) error) error {
	offset, size := uint32(r.Value)*amlcSize, int(r.Index)+1
	switch {
	case !f.pending:
		return refuse("data that were not asked for")
	case f.complete() && (offset != f.now.Offset || size != amlcSize):
		return refuse("the end of the piece at %#x came as %d bytes for %#x", f.now.Offset, size, offset)
	case !f.complete() && (int(offset) != len(f.got) || len(f.got)+size > int(f.now.Length)):
		return refuse("%d bytes at %#x of a piece of %d, of which %d have come", size, offset, f.now.Length, len(f.got))
	}
	r.accept(nil)
	last := f.complete()
	answer := append([]byte("OKAY"), make([]byte, ackSize-4)...)
	return f.dev.bulk(ctx, func(ctx context.Context) error {
		buf := make([]byte, (size+packet-1)/packet*packet)
		for n := 0; n < size; {
			if err := f.due(ctx, ""); err != nil {
				return err
			}
			if f.fault == Stall {
				f.fault = ""
				f.dev.halt()
				return nil
			}
			const most = 0x4000 // of one transfer
			m, err := f.dev.OutPipe(epOut).Read(ctx, buf[n:min(n+most, len(buf))])
			if err != nil {
				return err
			}
			n += m
			if m == 0 || n > size || n < size && n%most != 0 {
				f.violation("transfers of %d bytes after %d, of %d", m, n-m, size)
			}
			f.received(m)
		}
		if last {
			if err := f.end(buf[:size]); err != nil {
				f.violation("%v", err)
				copy(answer, "FAIL")
			}
		} else {
			f.got = append(f.got, buf[:size]...)
		}
		switch fault {
		case Mute:
			return nil
		case Wrong:
			copy(answer, "What")
		case Cut:
			answer = answer[:2]
		}
		if _, err := f.dev.InPipe(epIn).Write(ctx, answer); err != nil {
			return err
		}
		if last && !f.pending && len(f.asks) == 0 && f.b.cfg.Leaves {
			return f.start()
		}
		return nil
	})
}

// end judges what ends a piece.
func (f *fetch) end(b []byte) error {
	want := make([]byte, amlcSize)
	copy(want, f.got[:min(len(f.got), amlcSize)])
	clear(want[:16])
	copy(want, "AMLS")
	want[4] = byte(f.seq)
	var sum uint32
	for off := 0; off < len(f.got); off += 4 {
		var word [4]byte
		copy(word[:], f.got[off:])
		sum += binary.LittleEndian.Uint32(word[:])
	}
	binary.LittleEndian.PutUint32(want[8:], sum)
	for i := range want {
		if want[i] != b[i] {
			return fmt.Errorf("the end of piece %d, at %#x, differs at its byte %d: % x, expected % x", f.seq, f.now.Offset, i, b[i:min(i+4, len(b))], want[i:min(i+4, len(want))])
		}
	}
	f.edit(func(t *Stage) {
		if len(t.Pieces) < 10_000 {
			i := len(t.Pieces)
			t.Pieces = append(t.Pieces, Piece{Offset: f.now.Offset, Bytes: len(f.got)})
			t.Sum(func(sum string) { t.Pieces[i].SHA256 = sum }, f.got)
		}
	})
	if f.derived && f.seq == 0 {
		f.asks = asksOf(f.got)
	}
	f.seq, f.pending = f.seq+1, false
	return nil
}

// asksOf are what a BL2 wants after the begin of the FIP: its first image, as it begins; the begin again; and all to
// the end of the last image. Without a FIP it wants nothing more.
func asksOf(begin []byte) []Ask {
	images, err := tableOf(begin[16:])
	if err != nil || len(images) == 0 {
		return nil
	}
	var end uint32
	for _, i := range images {
		end = max(end, i.offset+i.size)
	}
	base, rest := firstAsk.Offset, firstAsk.Length
	if end <= rest || end > maxPiece {
		return nil
	}
	first := images[0]
	return []Ask{{min(first.size, 0xc000), base + first.offset}, firstAsk, {end - rest, base + rest}}
}
