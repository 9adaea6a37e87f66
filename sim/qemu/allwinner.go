package qemu

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"
)

// Allwinner is a board with a SoC of Allwinner's, held in its boot ROM: a [Machine] whose ROM calls functions, which
// come back to it.
type Allwinner struct {
	*Machine
	board allwinner
}

// allwinner is one of QEMU's machines.
type allwinner struct {
	machine string
	sp      uint32 // the ROM's stack pointer
	// nop is where the OpenRISC core's reset vector has an instruction, 0: nowhere. QEMU has no memory there, and that
	// it reads 0 would say that the board is fused for secure boot (sunxi-tools, soc_info.h).
	nop uint32
}

var allwinners = map[string]allwinner{
	"h3":  {machine: "orangepi-pc", sp: 0x6f00, nop: 0x40004},
	"a10": {machine: "cubieboard", sp: 0x6f00},
	"r40": {machine: "bpim2u", sp: 0x6f00},
}

const (
	felReturn   = 0xffff0020 // where the ROM goes on after a call; QEMU has no ROM
	felDRAM     = 0x40000000
	felTime     = 30 * time.Second // until a call is back; SPL takes a tenth of a second on an idle computer
	openRISCNOP = 0x15000000
)

// StartAllwinner starts QEMU with the machine that has a SoC ("h3", "a10", "r40"). It ends with ctx or Close. A10 and
// R40 need QEMU 10 or newer: before, A10 has no memory controller, and R40 no machine.
func StartAllwinner(ctx context.Context, soc string, cfg Config) (*Allwinner, error) {
	board, ok := allwinners[soc]
	if !ok {
		return nil, fmt.Errorf("QEMU has no machine for Allwinner's %s, only for h3, a10 and r40", soc)
	}
	m, err := launch(ctx, cfg, board.machine, 0, felReturn)
	if err != nil {
		return nil, err
	}
	return &Allwinner{m, board}, nil
}

// ReadMemory is [Machine.ReadMemory], with the word at the board's nop.
func (a *Allwinner) ReadMemory(ctx context.Context, addr uint32, b []byte) error {
	if err := a.Machine.ReadMemory(ctx, addr, b); err != nil {
		return err
	}
	if nop := a.board.nop; nop != 0 {
		for i, c := range binary.LittleEndian.AppendUint32(nil, openRISCNOP) {
			if at := nop + uint32(i) - addr; at < uint32(len(b)) {
				b[at] = c
			}
		}
	}
	return nil
}

// Call has the processor execute A32 code as the ROM calls it, with interrupts off. It returns when that is back in the
// ROM, with the processor held; at once, with the processor running, if the entry is in DRAM: that is U-Boot. After an
// error the processor may still run.
func (a *Allwinner) Call(ctx context.Context, entry uint32) (back bool, err error) {
	r, err := a.execute(ctx, register{regSP, a.board.sp}, register{regLR, felReturn}, register{regPC, entry}, register{regCPSR, supervisor})
	if err != nil {
		return false, fmt.Errorf("call of %#x: %w", entry, err)
	}
	if entry >= felDRAM {
		return false, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, felTime, fmt.Errorf("not back in the ROM within %v", felTime))
	defer cancel()
	select {
	case <-r.held:
	case <-ctx.Done():
		return false, fmt.Errorf("call of %#x: %w", entry, context.Cause(ctx))
	}
	var at [2]uint32
	err = a.held(ctx, func() (err error) {
		for i, number := range []int{regPC, regSP} {
			if at[i], err = a.stub.readRegister(number); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && at != [2]uint32{felReturn, a.board.sp} {
		err = fmt.Errorf("call of %#x: the processor stopped at %#x with the stack pointer %#x, not at %#x with %#x", entry, at[0], at[1], uint32(felReturn), a.board.sp)
	}
	return err == nil, err
}
