package sunxi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"snag/socs"
	"snag/usb/fel"
)

// machine is a chip whose ROM waits for FEL.
type machine struct {
	*fel.Device
	chip *chip
}

// program is one of arm/, as words.
type program []uint32

// bytes is what is written to run it: itself and its parameters.
func (p program) bytes(params ...uint32) []byte {
	var b []byte
	for _, w := range append(p[:len(p):len(p)], params...) {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// run calls a program.
func (m *machine) run(ctx context.Context, p program, params ...uint32) error {
	if err := m.Write(ctx, m.chip.scratch, p.bytes(params...), nil); err != nil {
		return err
	}
	return m.Exec(ctx, m.chip.scratch)
}

// words reads memory.
func (m *machine) words(ctx context.Context, addr uint32, n int) ([]uint32, error) {
	b := make([]byte, 4*n)
	if err := m.Read(ctx, addr, b); err != nil {
		return nil, err
	}
	words := make([]uint32, n)
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return words, nil
}

// ask calls a program, and reads what it stores behind itself.
func (m *machine) ask(ctx context.Context, n int, p program, params ...uint32) ([]uint32, error) {
	if err := m.run(ctx, p, params...); err != nil {
		return nil, err
	}
	return m.words(ctx, m.chip.scratch+4*uint32(len(p)), n)
}

// Bits of SCTLR (ARM DDI 0406C, B4.1.130).
const (
	sctlrMMU    = 1 << 0
	sctlrBranch = 1 << 11
	sctlrICache = 1 << 12

	// Any ROM is taken to have set the bits of sctlrWant, if those of sctlrAny are left out: no data cache, low vectors
	// of this byte order, ARM state.
	sctlrAny  = sctlrMMU | 1<<6 | sctlrBranch | sctlrICache | 1<<13 | 1<<22 | 1<<23
	sctlrWant = 0x00050038
)

// dacrClient is all 16 domains' access being checked.
const dacrClient = 0x55555555

// table is a translation table: 4096 sections of 1 MiB, one to one (ARM DDI 0406C, B3.5.1).
type table struct {
	addr    uint32
	entries []uint32
}

const (
	tableEntries = 4096
	sectionOrder = 0xde2   // strongly ordered, accessible, domain 15
	sectionTEX   = 1 << 12 // normal, not cached
	sectionKind  = 7<<12 | 1<<3 | 1<<2
	sectionWB    = 1<<12 | 1<<3 | 1<<2 // normal, cached, written back
	dramFirst    = 0x400               // sections of DRAM, whichever of it there is
	dramLast     = 0xbff
	romSection   = 0xfff
)

// prepare brings the processor into the state that SPL is run in: secure, caches and MMU off. It returns the table to
// turn the MMU on with afterwards, nil if there is to be none.
func (m *machine) prepare(ctx context.Context) (*table, error) {
	c := m.chip
	if c.icache {
		if err := m.run(ctx, progICache); err != nil {
			return nil, err
		}
	}
	if c.fused != 0 {
		w, err := m.words(ctx, c.fused, 1)
		if err != nil {
			return nil, err
		}
		if w[0] == 0 {
			if err := m.run(ctx, progSMC); err != nil {
				return nil, err
			}
		}
	}
	if c.l2 {
		if err := m.run(ctx, progL2); err != nil {
			return nil, err
		}
	}
	s, err := m.ask(ctx, 4, progState)
	if err != nil {
		return nil, err
	}
	sctlr, dacr, ttbcr, ttbr := s[0], s[1], s[2], s[3]
	if sctlr&^sctlrAny != sctlrWant {
		return nil, stateError("SCTLR is %#08x, expected %#08x but for the bits %#08x", sctlr, sctlrWant, sctlrAny)
	}
	var t *table
	switch {
	case sctlr&sctlrMMU != 0:
		if dacr != dacrClient || ttbcr != 0 || ttbr%(4*tableEntries) != 0 {
			return nil, stateError("the MMU is on, with DACR %#08x, TTBCR %#x and TTBR0 %#08x, expected %#08x, 0 and a multiple of 16 KiB", dacr, ttbcr, ttbr, dacrClient)
		}
		t = &table{addr: ttbr}
		if t.entries, err = m.words(ctx, ttbr, tableEntries); err != nil {
			return nil, err
		}
		for i, e := range t.entries {
			if e&2 == 0 || e&(1<<18) != 0 || e>>20 != uint32(i) {
				return nil, stateError("entry %#x of the MMU's table is %#08x, expected a section of 1 MiB that is where it seems to be", i, e)
			}
		}
	case c.table != 0:
		t = &table{addr: c.table, entries: make([]uint32, tableEntries)}
		for i := range t.entries {
			t.entries[i] = uint32(i)<<20 | sectionOrder
		}
		t.entries[0] |= sectionTEX
		t.entries[romSection] |= sectionTEX
	}
	if sctlr&(sctlrMMU|sctlrBranch|sctlrICache) != 0 {
		return t, m.run(ctx, progMMUOff)
	}
	return t, nil
}

// stateError is a processor in a state that no ROM is known to leave it in.
func stateError(format string, args ...any) error {
	return &socs.BoardError{Stage: stageSPL, Err: fmt.Errorf("the processor's state: "+format, args...),
		Hint: "this is not as the boot ROM leaves it: something ran on the board before; unplug it and its power, and bring it into FEL mode again"}
}

// mapDRAM turns the MMU on, with the DRAM as memory that writes to may be gathered in: the ROM copies twice as fast.
func (m *machine) mapDRAM(ctx context.Context, t *table) error {
	for i := dramFirst; i <= dramLast; i++ {
		t.entries[i] = t.entries[i]&^sectionKind | sectionTEX
	}
	t.entries[romSection] = t.entries[romSection]&^sectionKind | sectionWB
	if err := m.Write(ctx, t.addr, program(t.entries).bytes(), nil); err != nil {
		return err
	}
	return m.run(ctx, progMMUOn, t.addr)
}

// The texts at byte 4 of SPL's header: how the thunk and SPL left it.
const (
	textRan    = "eGON.FEL"
	textBad    = "eGON.BAD"
	textCached = "eGON.???"
	textNever  = "eGON.BT0"
)

// runSPL stores SPL and has the thunk run it. gone is closed when the board leaves.
func (m *machine) runSPL(ctx context.Context, gone <-chan struct{}, spl []byte, progress func(int)) error {
	c, sent := m.chip, 0
	for _, p := range c.place(spl) {
		if err := m.Write(ctx, p.addr, p.data, func(n int) { progress(sent + n) }); err != nil {
			return err
		}
		sent += len(p.data)
	}
	if err := m.Write(ctx, c.thunk, progThunk.bytes(c.exchange()...), nil); err != nil {
		return err
	}
	progress(sent)
	const build = "check that SPL was built for this very board: it hangs when it sets up DRAM that is not there; watch its serial console"
	stuck := func(hint, format string, args ...any) error {
		return &socs.BoardError{Stage: stageSPL, Err: fmt.Errorf(format, args...), Hint: hint}
	}
	m.AnswerTime = splTime
	defer func() { m.AnswerTime = 0 }()
	text := make([]byte, len(textRan))
	err := m.Exec(ctx, c.thunk)
	if err == nil {
		if err := quiet(ctx, gone); err != nil {
			return err
		}
		err = m.Read(ctx, c.spl+4, text)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return stuck(build, "SPL did not return to FEL: %w", err)
	case err != nil:
		return err
	}
	switch string(text) {
	case textRan:
		return nil
	case textBad:
		return stuck("run snag again; try another cable, and a port without hubs in between", "SPL's checksum is wrong on the board: the transfer, or the SoC's memory, changed it")
	case textCached:
		return stuck("unplug the board and its power, and bring it into FEL mode again", "SPL was not run: the processor's caches are on")
	case textNever:
		return stuck("unplug the board and its power, and bring it into FEL mode again", "SPL was not run: the boot ROM did not call the program that does so")
	}
	return stuck(build, "SPL has returned to FEL, and its header is gone: expected %q, got %q", textRan, text)
}

// quiet leaves the bus alone while SPL begins.
func quiet(ctx context.Context, gone <-chan struct{}) error {
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-gone:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// exchange is what the thunk is told: where SPL is, and the areas to exchange.
func (c *chip) exchange() []uint32 {
	words := []uint32{c.spl}
	for _, s := range c.swaps {
		words = append(words, s.area, s.backup, s.size)
	}
	return append(words, 0, 0, 0)
}

// switchOver makes ready to start a 64-bit program: at the vector of a reset, to which the processor comes in AArch64.
// It returns what to call.
func (m *machine) switchOver(ctx context.Context, entry uint32) (uint32, error) {
	rvbar := m.chip.rvbar
	if m.chip.otherDie != 0 {
		die, err := m.ask(ctx, 1, progLoad, m.chip.otherDie)
		if err != nil {
			return 0, err
		}
		if die[0]&0xff != 0 {
			rvbar = m.chip.otherRVBAR
		}
	}
	return m.chip.scratch, m.Write(ctx, m.chip.scratch, progRMR.bytes(rvbar, entry), nil)
}
