package imx

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"snag/sim/virtual"
)

// streamMax bounds a stream, in bytes: the board keeps it.
const streamMax = 256 << 20

// sdps is a ROM that takes a stream of data reports (uuu, libuuu/sdps.cpp). Nothing is answered. The first image
// says how long it is; SPL takes over then, or asks this ROM for more.
func (s *session) sdps(ctx context.Context) error {
	for {
		t := stream{session: s}
		err := t.run(ctx)
		if !errors.Is(err, errConfigured) {
			return err
		}
	}
}

// stream is what the host pushes.
type stream struct {
	*session
	rest   []byte // of the last report, not asked for yet
	limit  int    // announced by the command block; 0: none was
	taken  int    // asked for, in this stage
	pieces [][]byte
}

func (t *stream) run(ctx context.Context) error {
	m := &t.b.cfg.Model
	if m.CBW {
		if err := t.block(ctx); err != nil {
			return err
		}
	}
	image, err := t.first(ctx)
	if err != nil {
		return err
	}
	if m.CBW && t.limit != len(image) {
		t.violation("the command block announced %d bytes, the image has %d", t.limit, len(image))
	}
	j := Jump{Kind: m.Header}
	if m.Header == "ivt" {
		v, _ := parseIVT(image)
		j.Addr, j.Found, j.Entry = v.self, v.self, v.entry
		if err := t.machine.WriteMemory(ctx, v.self, image); err != nil {
			return err
		}
		if err := t.machine.Jump(ctx, v.entry); err != nil {
			return err
		}
	}
	t.end(j)
	if t.b.cfg.SPL != ROMAPI {
		return nil
	}
	return t.second(ctx)
}

// end ends a Stage of the report.
func (t *stream) end(j Jump) {
	t.edit(func(s *Stage) {
		s.Jumps, s.Complete = append(s.Jumps, j), true
		s.Bytes = t.taken
		s.Sum(func(sum string) { s.Stream = sum }, t.pieces...)
	})
}

// block receives the command block (uuu, libuuu/sdps.cpp, _ST_HID_CBW), little-endian but for the last length:
//
//	off size
//	0   4    "BLTC"
//	4   4    tag
//	8   4    length
//	12  1    flags: 0, to the device
//	13  2    reserved
//	15  1    command: 2, download firmware
//	16  4    length, big-endian
//	20  11   reserved
func (t *stream) block(ctx context.Context) error {
	for {
		r, err := t.next(ctx)
		if err != nil {
			return err
		}
		if r.id != 1 {
			t.violation("report %d before the command block", r.id)
			continue
		}
		b := r.data
		if len(b) < 31 || !bytes.Equal(b[:4], []byte("BLTC")) || b[12] != 0 || b[15] != 2 {
			t.violation("no command block (BLTC, to the device, command 2) but % x", b[:min(len(b), 31)])
			continue
		}
		t.limit = int(binary.LittleEndian.Uint32(b[8:]))
		if other := int(binary.BigEndian.Uint32(b[16:])); other != t.limit {
			t.violation("command block with lengths %d and %d", t.limit, other)
		}
		t.log(command{name: "download", count: uint32(t.limit)}, "")
		return nil
	}
}

// first receives the first image.
func (t *stream) first(ctx context.Context) ([]byte, error) {
	var image []byte
	for {
		size, err := firstStage(t.b.cfg.Model.Header, image)
		switch {
		case err == nil && len(image) >= size:
			image, t.rest = image[:size], image[size:]
			t.taken = size
			t.pieces = [][]byte{image}
			return image, nil
		case err != nil && !errors.Is(err, errMore):
			t.violation("%v", err)
			return nil, fmt.Errorf("the stream's first image: %w", err)
		}
		more, err := t.data(ctx)
		if err != nil {
			return nil, err
		}
		image = append(image, more...)
	}
}

// data receives a data report.
func (t *stream) data(ctx context.Context) ([]byte, error) {
	size := t.b.cfg.Model.Data
	for {
		r, err := t.next(ctx)
		if err != nil {
			return nil, err
		}
		if err := virtual.Sleep(ctx, t.b.cfg.Report); err != nil {
			return nil, err
		}
		if r.id != 2 {
			t.violation("report %d in a stream", r.id)
			continue
		}
		if len(r.data) > size {
			t.violation("data report of %d bytes, expected %d", len(r.data), size)
			r.data = r.data[:size]
		}
		if len(r.data) < size {
			t.edit(func(s *Stage) { s.Short++ }) // Snagboot's last one is; that works
		}
		if t.bytes+len(r.data) > streamMax {
			return nil, fmt.Errorf("a stream of more than %d MiB", streamMax>>20)
		}
		t.received(len(r.data))
		return r.data, nil
	}
}

// take gives the next n bytes of the stream.
func (t *stream) take(ctx context.Context, n int) ([]byte, error) {
	for len(t.rest) < n {
		b, err := t.data(ctx)
		if err != nil {
			return nil, err
		}
		t.rest = append(t.rest, b...)
	}
	b := t.rest[:n:n]
	t.rest = t.rest[n:]
	t.taken += n
	t.pieces = append(t.pieces, b)
	return b, nil
}

// SPL's search in the stream (U-Boot, arch/arm/mach-imx/spl_imx_romapi.c).
const (
	romPage  = 1024
	romPages = 640
)

// second is SPL, which asks the ROM for U-Boot page by page until it sees where it begins, then for the rest, in
// whole pages.
func (t *stream) second(ctx context.Context) error {
	t.stage, t.bytes, t.taken = newStage(), 0, 0
	t.b.board.Begin(StageROMAPI, t.dev.Descriptors(), t.stage)
	t.pieces = nil
	if err := virtual.Sleep(ctx, t.b.cfg.StreamPause); err != nil {
		return err
	}
	fit := t.b.cfg.SPLFinds == FindFIT
	found := -1
	var all []byte
	for page := 0; found < 0; page++ {
		if page == romPages {
			t.violation("no U-Boot (%s) in the first %d KiB behind SPL", t.b.cfg.SPLFinds, romPages)
			return errors.New("SPL: can't find U-Boot in the stream")
		}
		b, err := t.take(ctx, romPage)
		if err != nil {
			return err
		}
		for i := 0; i < len(b) && found < 0; i += 4 {
			if fit && binary.BigEndian.Uint32(b[i:]) == fitMagic || !fit && isContainer(b[i:]) {
				found = len(all) + i
			}
		}
		all = append(all, b...)
	}
	for {
		measure := fitEnd
		if !fit {
			measure = func(b []byte) (int, error) {
				end, _, ok, err := container(b)
				if err == nil && !ok {
					err = errors.New("not a container")
				}
				return end, err
			}
		}
		end, err := measure(all[found:])
		if err != nil && !errors.Is(err, errMore) {
			t.violation("U-Boot at %#x behind SPL: %v", found, err)
			return fmt.Errorf("SPL: %w", err)
		}
		if err == nil && found+end <= len(all) {
			break
		}
		// SPL rounds up to the ROM's page size, which is not told; a flash.bin need not end with a page, and uuu
		// pushes it to its end only. So the last piece is what is missing.
		n := romPage
		if err == nil {
			n = min(n, found+end-len(all))
		}
		b, err := t.take(ctx, n)
		if err != nil {
			return err
		}
		all = append(all, b...)
	}
	kind := "container"
	if fit {
		kind = "fit"
	}
	t.end(Jump{Kind: kind, Found: uint32(found)})
	if t.b.cfg.NoMore {
		return nil
	}
	return t.drain(ctx)
}

// drainTime is how long the ROM goes on taking what the host has begun to send: padding, or the end of the
// last page.
const drainTime = 50 * time.Millisecond

// drain takes what comes directly behind the end, so that a host's last report is not cut off.
func (t *stream) drain(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	for {
		if _, err := t.dev.receive(short); err != nil {
			return ctx.Err()
		}
	}
}

// isContainer is SPL's test for a container header.
func isContainer(b []byte) bool {
	return len(b) >= 4 && b[3] == 0x87 && (b[0] == 0 || b[0] == 2) && (b[1] != 0 || b[2] != 0)
}
