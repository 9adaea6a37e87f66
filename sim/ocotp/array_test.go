package ocotp

import (
	"errors"
	"testing"
)

// must fails the test unless an access goes as it should.
func must(t *testing.T, a *Array, op Op, bank, word int, value, want uint32, wantErr error) {
	t.Helper()
	got, err := a.access(op, bank, word, value)
	if !errors.Is(err, wantErr) || err == nil && op != Prog && op != Override && got != want {
		t.Errorf("%s %d %d: %#x, %v; want %#x, %v", op, bank, word, got, err, want, wantErr)
	}
}

func TestArray(t *testing.T) {
	for _, name := range Models() {
		t.Run(name, func(t *testing.T) {
			a, err := New(name)
			if err != nil {
				t.Fatal(err)
			}
			mac := a.model.macs[1]
			b, w := mac.Bank, mac.Word
			register := a.model.base + a.model.data
			if a.model.whole {
				register += 0x10 * uint32(w)
			}
			shadow := a.model.base + 0x400 + a.model.shadow*uint32(b) + 0x10*uint32(w)
			check := func(address, want uint32) {
				t.Helper()
				if v, ok := a.Register(uint64(address)); !ok || v != want {
					t.Errorf("register %#x: %#x, want %#x", address, v, want)
				}
			}
			a.Power()
			must(t, a, Prog, b, w, 0x11, 0, nil)
			must(t, a, Read, b, w, 0, 0, nil) // not before a reset
			must(t, a, Sense, b, w, 0, 0x11, nil)
			check(register, 0x11)
			check(shadow, 0)
			must(t, a, Prog, b, w, 0x100, 0, nil)
			must(t, a, Sense, b, w, 0, 0x111, nil)
			must(t, a, Override, b, w, 0x7, 0, nil)
			must(t, a, Read, b, w, 0, 0x7, nil)
			check(shadow, 0x7)
			must(t, a, Sense, b, w, 0, 0x111, nil)
			a.Power()
			must(t, a, Read, b, w, 0, 0x111, nil)

			must(t, a, Prog, 0, 0, 1<<a.model.lock, 0, nil)
			must(t, a, Prog, b, w, 0x200, 0, nil) // the lock is loaded at a reset, too
			a.Power()
			must(t, a, Prog, b, w, 0x400, 0, errProtect)
			must(t, a, Override, b, w, 0, 0, nil)
			must(t, a, Prog, 0, 0, 2<<a.model.lock, 0, nil)
			a.Power()
			must(t, a, Override, b, w, 0, 0, errProtect)
			must(t, a, Sense, b, w, 0, 0x311, nil)

			must(t, a, Sense, a.model.banks, 0, 0, 0, errArgument)
			must(t, a, Prog, 0, a.model.words, 1, 0, errArgument)
			if got := a.Fuses(); got[mac] != 0x311 || len(got) != 2 || len(a.Burnt()) != 5 {
				t.Errorf("%#x, burnt %#x", got, a.Burnt())
			}
			if _, ok := a.Register(0x40000000); ok {
				t.Error("memory is no register")
			}
		})
	}
}
