package sunxi

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// settleIn puts something into the places where the ROM keeps its own.
func (s *session) settleIn(ctx context.Context) error {
	r := rand.New(rand.NewPCG(uint64(s.b.cfg.Model.SoC), 0))
	for _, a := range s.b.cfg.Model.kept {
		b := make([]byte, a.Size)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		s.kept = append(s.kept, b)
		if err := s.machine.WriteMemory(ctx, a.Addr, b); err != nil {
			return err
		}
	}
	return nil
}

// changed returns the first of the places where the ROM keeps its own that is not as it was. That of the stack below
// the stack pointer belongs to whatever the ROM calls.
func (s *session) changed(ctx context.Context, strict bool) (*Area, error) {
	m := &s.b.cfg.Model
	for i, a := range m.kept {
		b, want := make([]byte, a.Size), s.kept[i]
		if err := s.machine.ReadMemory(ctx, a.Addr, b); err != nil {
			return nil, err
		}
		if a.contains(m.sp) && !strict {
			b, want = b[m.sp-a.Addr:], want[m.sp-a.Addr:]
		}
		if !bytes.Equal(b, want) {
			return &a, nil
		}
	}
	return nil, nil
}

// intact says whether the ROM can go on.
func (s *session) intact(ctx context.Context) error {
	a, err := s.changed(ctx, false)
	if err == nil && a != nil {
		err = fmt.Errorf("what the ROM keeps at %#x to %#x was overwritten", a.Addr, a.Addr+a.Size)
	}
	if err != nil && ctx.Err() == nil {
		return &stuckError{err}
	}
	return err
}

// returned looks at what the ROM goes on with when a call has come back.
func (s *session) returned(ctx context.Context) error {
	if err := s.intact(ctx); err != nil {
		return err
	}
	spl, err := s.ran(ctx)
	if err != nil || spl == nil {
		return err
	}
	a, err := s.changed(ctx, true)
	if err != nil {
		return err
	}
	s.edit(func(t *Stage) {
		if spl.data != nil { // of the first call since SPL ran
			t.Sum(func(sum string) { spl.SHA256 = sum }, spl.data)
			spl.data = nil
		}
		t.SPL, t.Kept = spl, a == nil
	})
	return nil
}

// ran is an SPL that has come back, nil if there is none: what calls it says in its header that it did so.
func (s *session) ran(ctx context.Context) (*SPL, error) {
	if soc, ok := s.machine.(*SoC); ok {
		return soc.spl, nil
	}
	at := s.b.cfg.Model.SPL
	var h [20]byte
	if err := s.machine.ReadMemory(ctx, at, h[:]); err != nil || string(h[4:12]) != egon+fromFEL {
		return nil, err
	}
	return &SPL{Addr: at, Bytes: int(binary.LittleEndian.Uint32(h[16:]))}, nil
}

// left notes what the ROM was left for.
func (s *session) left(ctx context.Context, addr uint32) error {
	m, start := &s.b.cfg.Model, Start{Entry: addr}
	soc, interprets := s.machine.(*SoC)
	if interprets {
		start = *soc.start
	}
	written := false
	for _, sp := range s.spans {
		written = written || sp.start <= uint64(start.Entry) && uint64(start.Entry) < sp.end
	}
	if !written {
		return &stuckError{fmt.Errorf("nothing was written to the entry at %#x since SPL ran", start.Entry)}
	}
	s.edit(func(t *Stage) { t.Start, t.Complete = &start, true })
	if !interprets { // it runs, and nobody may look at its memory
		return nil
	}
	spans := s.spans
	for i, a := range m.sram {
		if i == 0 || !m.AArch64() { // TF-A is loaded to the others of an AArch64
			spans = cut(spans, a)
		}
	}
	var regions []Region
	for _, sp := range spans {
		b := make([]byte, sp.end-sp.start)
		if err := soc.ReadMemory(ctx, uint32(sp.start), b); err != nil {
			return err
		}
		regions = append(regions, Region{Addr: uint32(sp.start), Bytes: len(b), data: b})
	}
	s.edit(func(t *Stage) {
		t.Memory, t.MMU = append(t.Memory, regions...), soc.MMU()
		for i := range t.Memory {
			t.Sum(func(sum string) { t.Memory[i].SHA256 = sum }, t.Memory[i].data)
		}
		t.Script = soc.get(m.SPL + 24)
	})
	return nil
}
