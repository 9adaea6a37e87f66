package am335x

import (
	"math/rand/v2"
	"testing"
)

// TestSum compares the checksum with RFC 1071's definition, which adds word by word.
func TestSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
			if n%5 == 0 {
				b[i] = 0xff
			}
		}
		start := rng.Uint32N(1 << 17)
		want := start
		for i, x := range b {
			want += uint32(x) << (8 * (1 - i%2))
		}
		for want > 0xffff {
			want = want>>16 + want&0xffff
		}
		if got := sum(start, b); got != uint16(want) {
			t.Errorf("%d bytes: %#x, expected %#x", n, got, want)
		}
	}
	if got := sum(0, make([]byte, 20)); got != 0 {
		t.Errorf("of nothing but zeros: %#x", got)
	}
}
