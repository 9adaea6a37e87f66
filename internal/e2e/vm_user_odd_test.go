package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/am335x"
	"snag/sim/usbdev"
	"snag/sim/vhci"
	"snag/usb"
)

// mute is a network adapter that answers no request of its class, not even by refusing it.
type mute struct{ usbdev.Inert }

func (mute) Control(ctx context.Context, _ usbdev.Setup, _ []byte) (int, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// plugMute plugs one in.
func plugMute(t *testing.T, at usb.Port) {
	t.Helper()
	port, err := vhci.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	dev := usbdev.NewGadget(&usbdev.Descriptors{Speed: usbdev.HighSpeed, ID: am335x.ROMID, Product: "mute",
		Configs: []usbdev.Config{usbdev.RNDISConfig(1, 0x83, 0x82, 3, 512)}}, mute{})
	if err := port.Attach(t.Context(), dev); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Detach(); dev.Close() })
}

// TestWithUdevUserOdd has boards at which the kernel's way and snag's own might differ, and one that answers nothing.
func TestWithUdevUserOdd(t *testing.T) {
	lab.Inside(t)
	rulesOnly(t)
	before := leftovers(t)
	group := net.HardwareAddr{0x03, 0x18, 0x31, 0, 0, 1}
	t.Run("all", func(t *testing.T) {
		for n, way := range []string{"kernel", "user"} {
			t.Run("a group's address, "+way, func(t *testing.T) {
				t.Parallel()
				fw := generateSized(t, 70+uint64(n), 8<<10, 24<<10)
				port := hostPort(t, n+1)
				p := start(t, nil, "recover", "-s", "am335x", "-f", fw.config, "--usb-path", string(port), "--net", way, "--timeout", "1m")
				board, _ := plug(t, am335x.Config{ROMMAC: group, SPLMAC: group, SPLWindow: 30 * time.Second}, port)
				if code := p.exit(t, 2*time.Minute); code != 0 {
					t.Errorf("exit code %d\n%s", code, p)
				}
				fw.booted(t, board)
			})
		}
		t.Run("mute", func(t *testing.T) {
			t.Parallel()
			fw := generateSized(t, 72, 8<<10, 24<<10)
			port := hostPort(t, 3)
			plugMute(t, port)
			p := start(t, user, "recover", "-s", "am335x", "-f", fw.config, "--usb-path", string(port), "--net", "user", "--json")
			begun := time.Now()
			if code := p.exit(t, 40*time.Second); code != 6 {
				t.Errorf("exit code %d, want 6\n%s", code, p)
			}
			t.Logf("it ended after %s: %v", ms(time.Since(begun)), p.events(t))
			if last := p.events(t); !strings.Contains(fmt.Sprint(last[len(last)-1]["error"]), "did not come up") {
				t.Errorf("it ends with %v", last[len(last)-1])
			}
		})
		t.Run("mute, and interrupted", func(t *testing.T) {
			t.Parallel()
			fw := generateSized(t, 73, 8<<10, 24<<10)
			port := hostPort(t, 4)
			plugMute(t, port)
			p := start(t, user, "recover", "-s", "am335x", "-f", fw.config, "--usb-path", string(port), "--net", "user")
			soon(t, 30*time.Second, func() error { // it has it open
				files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.Process.Pid))
				for _, f := range files {
					if node, _ := os.Readlink(f); strings.HasPrefix(node, "/dev/bus/usb/") {
						return nil
					}
				}
				return fmt.Errorf("the device is not open")
			})
			begun := time.Now()
			signalled(syscall.SIGINT)(t, p)
			if code := p.exit(t, 30*time.Second); code != 130 {
				t.Errorf("exit code %d, want 130\n%s", code, p)
			}
			t.Logf("it ended %s after the signal", ms(time.Since(begun)))
		})
	})
	before.compare(t)
}
