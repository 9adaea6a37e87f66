package rockchip

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/usbdev"
)

// The check value of CRC-16/IBM-3740, and that it comes out as 0 with itself, and zeros, behind the data.
func TestCRC16(t *testing.T) {
	b := []byte("123456789")
	if got := crc16(b); got != 0x29b1 {
		t.Errorf("%#x, want 0x29b1", got)
	}
	if got := crc16(append(b, 0x29, 0xb1, 0, 0)); got != 0 {
		t.Errorf("with itself and zeros: %#x", got)
	}
}

// U-Boot's first four bytes of an ID block (0x0ff0aa55) are 3b 8c dc fc in every file for media.
func TestRC4(t *testing.T) {
	if got := rc4([]byte{0x55, 0xaa, 0xf0, 0x0f}); string(got) != "\x3b\x8c\xdc\xfc" {
		t.Errorf("% x", got)
	}
}

// FuzzROM sends the ROM any requests, of which the first byte of each is the length in 32 bytes: it judges them, and
// goes on or refuses.
func FuzzROM(f *testing.F) {
	f.Add(uint8(0), []byte{1, 2, 3})
	f.Add(uint8(3), append([]byte{128}, make([]byte, 4100)...))
	f.Fuzz(func(t *testing.T, n uint8, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			board, err := New(Config{Model: models()[int(n>>2)%len(models())], AnyCode: n&1 != 0})
			if err != nil {
				t.Fatal(err)
			}
			m := newMaskrom(board)
			board.board.Begin(StageROM, m.Descriptors(), m.report)
			for len(b) > 0 {
				size := min(int(b[0])*32, len(b)-1)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				k, err := m.Control(ctx, usbdev.Setup{Type: vendorOut, Request: download, Index: 0x471 + uint16(n>>1&1), Length: uint16(size)}, b[1:][:size])
				cancel()
				if err == nil && k != size {
					t.Errorf("%d of %d bytes", k, size)
				}
				b = b[1+size:]
			}
			if s := m.report.Sections; len(s) > 0 && !board.cfg.AnyCode && s[0].CRC && s[0].Bytes < 8 && board.Report().Outcome == "booted" {
				t.Errorf("it started %+v", s)
			}
			m.Close()
		})
	})
}
