package imx

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// hardware is a Machine whose registers are polled: nothing is told to it.
type hardware struct{ m Memory }

func (h *hardware) ReadMemory(ctx context.Context, addr uint32, b []byte) error {
	return h.m.ReadMemory(ctx, addr, b)
}

func (h *hardware) WriteMemory(ctx context.Context, addr uint32, b []byte) error {
	return h.m.WriteMemory(ctx, addr, b)
}

func (h *hardware) Jump(context.Context, uint32) error { return nil }

// list is a DCD of these commands.
func list(commands ...[]byte) []byte {
	b := []byte{0xd2, 0, 4, 0x40}
	for _, c := range commands {
		b = append(b, c...)
	}
	b[2] = byte(len(b))
	return b
}

func TestDCD(t *testing.T) {
	const reg = 0x20c0000
	addr := []byte{0x02, 0x0c, 0, 0}
	write := func(param byte, value ...byte) []byte {
		return append(append([]byte{0xcc, 0, 12, param}, addr...), value...)
	}
	check := func(param byte, rest ...byte) []byte {
		return append(append([]byte{0xcf, 0, byte(8 + len(rest)), param}, addr...), rest...)
	}
	for _, tc := range []struct {
		name string
		dcd  []byte
		want uint32 // of the register, 0xff at first
		fail word
	}{
		{"write", list(write(0x04, 1, 2, 3, 4)), 0x01020304, word{}},
		{"write with the set flag alone", list(write(0x14, 1, 2, 3, 4)), 0x01020304, word{}},
		{"write a byte", list(write(0x01, 0, 0, 1, 2)), 2, word{}},
		{"write two", list(write(0x02, 9, 9, 1, 2)), 0x0102, word{}},
		{"clear bits", list(write(0x0c, 0, 0, 0, 0x0f)), 0xf0, word{}},
		{"set bits", list(write(0x1c, 0, 0, 0x0f, 0)), 0xfff, word{}},
		{"nothing, and unlock", list([]byte{0xc0, 0, 4, 0}, []byte{0xb2, 0, 8, 0x1d, 0, 0, 0, 1}), 0xff, word{}},
		{"check all set", list(check(0x14, 0, 0, 0, 0xf0)), 0xff, word{}},
		{"check any set", list(check(0x1c, 0, 0, 0xf0, 0x01)), 0xff, word{}},
		{"check all clear", list(check(0x04, 0, 0, 0xf0, 0)), 0xff, word{}},
		{"check any clear", list(check(0x0c, 0, 0, 0xf0, 0x01)), 0xff, word{}},
		{"check that never holds", list(check(0x04, 0, 0, 0, 1)), 0xff, failCheck},
		{"check that does not hold in time", list(check(0x14, 0, 0, 1, 0, 0, 0, 0, 5)), 0xff, failCheck},
		{"check with a count of none", list(check(0x14, 0, 0, 1, 0, 0, 0, 0, 0)), 0xff, word{}},
		{"an unknown command", list([]byte{0xab, 0, 4, 4}), 0xff, failCommand},
		{"a command beyond the end", list([]byte{0xcc, 0, 99, 4}), 0xff, failCommand},
		{"half a pair", list([]byte{0xcc, 0, 8, 4, 0, 0, 0, 0}), 0xff, failCommand},
		{"another length", append(list(), 0), 0xff, failDCD},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var h hardware
				if err := writeRegister(t.Context(), &h, reg, 0xff, 4); err != nil {
					t.Fatal(err)
				}
				var d DCD
				begun := time.Now()
				status, err := runDCD(t.Context(), &h, tc.dcd, &d)
				if status != tc.fail || (err != nil) != (tc.fail != word{}) {
					t.Errorf("status %v, %v, expected %v", status, err, tc.fail)
				}
				if took := time.Since(begun); took > pollMax+time.Second {
					t.Errorf("it took %v", took)
				}
				got, err := readRegister(t.Context(), &h, reg, 4)
				if err != nil {
					t.Fatal(err)
				}
				if got != tc.want {
					t.Errorf("the register is %#x, expected %#x", got, tc.want)
				}
			})
		})
	}
}

// TestSettle shows that a memory without hardware does not keep a DCD waiting.
func TestSettle(t *testing.T) {
	var m Memory
	var d DCD
	if status, err := runDCD(t.Context(), &m, GenerateDCD(2, false), &d); err != nil || d.Checks != 1 {
		t.Errorf("%v %v %+v", status, err, d)
	}
	if v, err := readRegister(t.Context(), &m, 0x020c8000, 4); v != 2 || err != nil {
		t.Errorf("the register is %#x, %v", v, err)
	}
}
