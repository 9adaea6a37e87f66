package sunxi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"snag/internal/lab"
	"snag/sim/qemu"
)

// trials makes a program that executes instructions with random registers and flags, and stores what these are
// afterwards. Of the instructions r0 to r6 are the registers, r7 is where they load and store. Everything is in an H3's
// SRAM.
const (
	trialCode   = 0x2000
	trialIn     = 0x8000
	trialOut    = 0xb000
	trialWindow = 0xe000
	trialRegs   = 9 // r0 to r7, and the status register
)

func trials(r *rand.Rand, instructions []uint32) (code, in []byte) {
	le := binary.LittleEndian
	word := func(v uint32) { code = le.AppendUint32(code, v) }
	word(0xe59f9000 | uint32(8+20*len(instructions)-4)) // ldr r9, [pc, #...], of the word behind the next two and the trials
	word(0xe59fa000 | uint32(8+20*len(instructions)-4)) // ldr r10
	for _, op := range instructions {
		word(0xe8b901ff) // ldm r9!, {r0-r8}
		word(0xe128f008) // msr cpsr_f, r8
		word(op)
		word(0xe10f8000) // mrs r8, cpsr
		word(0xe8aa01ff) // stm r10!, {r0-r8}
		for range 7 {
			v := r.Uint32()
			if r.IntN(3) == 0 { // amounts of shifts
				v = r.Uint32N(70)
			}
			in = le.AppendUint32(in, v)
		}
		in = le.AppendUint32(in, trialWindow+64)
		in = le.AppendUint32(in, r.Uint32())
	}
	word(0xe12fff1e) // bx lr
	word(trialIn)
	word(trialOut)
	return code, in
}

// instruction is a random one of those that the interpreter knows, with a condition, but for branches and system
// registers.
func instruction(r *rand.Rand) uint32 {
	reg := func(shift int) uint32 { return r.Uint32N(7) << shift }
	cond := r.Uint32N(15) << 28
	if r.IntN(2) == 0 {
		cond = 0xe0000000
	}
	bit := func(n int) uint32 { return r.Uint32N(2) << n }
	switch r.IntN(12) {
	case 0, 1, 2: // data processing: register by a number, by a register, number
		return cond | dataOp(r) | r.Uint32N(32)<<7 | r.Uint32N(4)<<5 | reg(0)
	case 3:
		return cond | dataOp(r) | reg(8) | 1<<4 | r.Uint32N(4)<<5 | reg(0)
	case 4:
		return cond | dataOp(r) | 1<<25 | r.Uint32N(0x1000)
	case 5: // MUL, MLA
		op := cond | bit(21) | bit(20) | reg(16) | reg(8) | 0x90 | reg(0)
		if op&(1<<21) != 0 {
			op |= reg(12)
		}
		return op
	case 6: // CLZ
		return cond | 0x016f0f10 | reg(12) | reg(0)
	case 7: // MOVW, MOVT
		return cond | 0x03000000 | bit(22) | r.Uint32N(16)<<16 | reg(12) | r.Uint32N(0x1000)
	case 8: // LDR, STR, LDRB, STRB
		op := cond | 0x04000000 | bit(24) | bit(23) | bit(22) | bit(20) | 7<<16 | reg(12) | r.Uint32N(16)*4
		if op&(1<<24) != 0 {
			op |= bit(21)
		}
		return op
	case 9: // LDRH, STRH, LDRSB, LDRSH
		op := cond | bit(24) | bit(23) | 1<<22 | bit(20) | 7<<16 | reg(12) | 0xb0 | r.Uint32N(8)*2
		if op&(1<<24) != 0 {
			op |= bit(21)
		}
		if op&(1<<20) != 0 {
			op = op&^0x60 | (1+r.Uint32N(3))<<5
		}
		return op
	default: // LDM, STM
		return cond | 0x08000000 | bit(24) | bit(23) | bit(21) | bit(20) | 7<<16 | 1 + r.Uint32N(0x7f)
	}
}

// dataOp is a code of data processing with its registers, and S where that means something else without.
func dataOp(r *rand.Rand) uint32 {
	op := r.Uint32N(16)<<21 | r.Uint32N(2)<<20
	switch op >> 21 {
	case 8, 9, 10, 11:
		return op | 1<<20 | r.Uint32N(7)<<16
	case 13, 15:
		return op | r.Uint32N(7)<<12
	}
	return op | r.Uint32N(7)<<16 | r.Uint32N(7)<<12
}

// TestInterpreter has QEMU's H3 and the interpreter execute the same random instructions.
func TestInterpreter(t *testing.T) {
	machine, err := qemu.StartAllwinner(t.Context(), "h3", qemu.Config{QEMU: lab.Command(t, "qemu-system-arm", "qemu-system-arm")})
	if err != nil {
		t.Fatal(err)
	}
	defer machine.Close()
	m, err := FindModel("h3")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(7, 7))
	for batch := range 20 {
		ops := make([]uint32, 200)
		for i := range ops {
			ops[i] = instruction(r)
		}
		code, in := trials(r, ops)
		window := make([]byte, 128)
		for i := range window {
			window[i] = byte(r.Uint32())
		}
		var out, after [2][]byte
		for i, x := range []Machine{machine, newSoC(&Config{Model: m}, t.Errorf)} {
			for addr, b := range map[uint32][]byte{trialCode: code, trialIn: in, trialWindow: window} {
				if err := x.WriteMemory(t.Context(), addr, b); err != nil {
					t.Fatal(err)
				}
			}
			if back, err := x.Call(t.Context(), trialCode); err != nil || !back {
				t.Fatalf("machine %d: back: %t, %v", i, back, err)
			}
			out[i], after[i] = make([]byte, len(in)), make([]byte, len(window))
			if err := x.ReadMemory(t.Context(), trialOut, out[i]); err != nil {
				t.Fatal(err)
			}
			if err := x.ReadMemory(t.Context(), trialWindow, after[i]); err != nil {
				t.Fatal(err)
			}
		}
		for i, op := range ops {
			const n = 4 * trialRegs
			if a, b := out[0][i*n:][:n], out[1][i*n:][:n]; !bytes.Equal(a, b) {
				t.Fatalf("batch %d: %08x with %s leads to\n%s, in QEMU to\n%s", batch, op, words(in[i*n:][:n]), words(b), words(a))
			}
		}
		if !bytes.Equal(after[0], after[1]) {
			t.Fatalf("batch %d: memory is\n% x, in QEMU\n% x", batch, after[1], after[0])
		}
	}
}

func words(b []byte) (s string) {
	for i := 0; i < len(b); i += 4 {
		s += fmt.Sprintf(" %08x", binary.LittleEndian.Uint32(b[i:]))
	}
	return s
}

// FuzzExecute has any code executed: it comes to an end, and to no other harm than the board's.
func FuzzExecute(f *testing.F) {
	for _, ops := range [][]uint32{
		{0xe12fff1e},
		{0xee110f10, 0xe58f0000, 0xe12fff1e},             // reads SCTLR
		{0xe10f0000, 0xe3c0101f, 0xe3811012, 0xe121f001}, // changes the mode
		{0xeafffffe},                                     // for ever
		{0xe8bd8010, 0xe92d4010},
	} {
		var b []byte
		for _, op := range ops {
			b = binary.LittleEndian.AppendUint32(b, op)
		}
		f.Add(b)
	}
	m, err := FindModel("a64")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		s := newSoC(&Config{Model: m, Fused: len(code)%2 == 0}, func(string, ...any) {})
		if err := s.WriteMemory(t.Context(), m.SPL+0x1000, code[:min(len(code), 4096)]); err != nil {
			t.Fatal(err)
		}
		s.steps = 1000
		s.Call(t.Context(), m.SPL+0x1000)
	})
}
