package qemu

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
)

// startAllwinner starts a machine for a test.
func startAllwinner(t *testing.T, soc string) *Allwinner {
	t.Helper()
	m, err := StartAllwinner(t.Context(), soc, Config{QEMU: lab.Command(t, "qemu-system-arm", "qemu-system-arm")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// sunxi reads Debian's firmware for a board, as an SPL that believes to come from FEL and an image of U-Boot's.
func sunxi(t *testing.T, board string) (spl, uboot []byte) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(lab.Packages(t, "u-boot-sunxi:armhf")[0], "usr/lib/u-boot", board, "u-boot-sunxi-with-spl.bin"))
	if err != nil {
		t.Fatal(err)
	}
	copy(b[4:], "eGON.FEL")
	return b[:binary.LittleEndian.Uint32(b[16:])], b[0x8000:]
}

// TestAllwinner has Debian's SPL set up an H3 and come back, twice, with a power cycle in between, and starts its
// U-Boot.
func TestAllwinner(t *testing.T) {
	m := startAllwinner(t, "h3")
	spl, uboot := sunxi(t, "nanopi_neo_air")
	call := func(entry uint32, want bool) {
		t.Helper()
		if back, err := m.Call(t.Context(), entry); err != nil || back != want {
			t.Fatalf("call of %#x: back: %t, %v; it printed %q", entry, back, err, m.UART[0].Text())
		}
	}
	for range 2 {
		write(t, m.Machine, 0, spl)
		call(0, true)
		await(t, m.UART[0], "Trying to boot from FEL")
		if err := m.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	call(0, true)
	header := binary.BigEndian.Uint32(uboot[12:])
	write(t, m.Machine, 0x4a000000, uboot[64:64+header])
	call(0x4a000000, false)
	t.Log(await(t, m.UART[0], "Hit any key"))
	m.UART[0].Write([]byte(" "))
	await(t, m.UART[0], "\n=> ")
}

// TestAllwinnerHangs has an SPL that looks for U-Boot in storage, where there is none.
func TestAllwinnerHangs(t *testing.T) {
	m := startAllwinner(t, "h3")
	spl, _ := sunxi(t, "nanopi_neo_air")
	copy(spl[4:], "eGON.BT0")
	write(t, m.Machine, 0, spl)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if back, err := m.Call(ctx, 0); err == nil || back {
		t.Errorf("back: %t, %v", back, err)
	}
	if err := m.WriteMemory(t.Context(), 0x2000, []byte{1}); err == nil || !strings.Contains(err.Error(), "the processor runs") {
		t.Errorf("writing while it runs: %v", err)
	}
	if err := m.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, m.Machine, 0x2000, []byte{1, 2, 3, 4})
}
